"""Which processes belong to a cluster of tests/slurm, and how they are ended.

A pid counts only while its process is alive, is the program that is expected and has the cluster's SLURM_CONF in the
environment it was started with: a pid that the kernel gave to somebody else is never signalled.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
# Tells the daemons of one node, and what they start, from those of another; slurmd hands on to slurmstepd what is
# called SLURM_... alone.
NODE = "SLURM_ALPACA_NODE"


def until(condition: Callable[[], object], seconds: float, pause: float = 0.05) -> bool:
    """Whether the condition came true within so many seconds; asked at least once."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
    return True


def environment_of(pid: int) -> dict[str, str]:
    """The environment a process was started with; empty when it is gone or another user's."""
    try:
        words = (PROC / str(pid) / "environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return {}
    return dict(word.split("=", 1) for word in words if "=" in word)


def _status(pid: int) -> tuple[str, str, int]:
    """Name, state and parent; ("", "X", 0) when it is gone."""
    try:
        head, _, tail = (PROC / str(pid) / "stat").read_text().rpartition(")")
    except OSError:
        return "", "X", 0
    state, parent = tail.split()[:2]
    return head.partition("(")[2], state, int(parent)


def name_of(pid: int) -> str:
    return _status(pid)[0]


def gone(pid: int) -> bool:
    """Ended; a zombie that its parent has not fetched yet has ended too."""
    return _status(pid)[1] in "XZ"


def pid_in(file: Path, name: str, conf: Path) -> int | None:
    """The live process behind a pid file, if it is this program of this cluster."""
    try:
        pid = int(file.read_text())
    except (OSError, ValueError):
        return None
    ours = not gone(pid) and name_of(pid) == name and environment_of(pid).get("SLURM_CONF") == str(conf)
    return pid if ours else None


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())


def belonging(conf: Path, names: Collection[str]) -> list[int]:
    """Daemons of this cluster, found without their pid files."""
    return [
        pid
        for pid in _pids()
        if name_of(pid) in names and not gone(pid) and environment_of(pid).get("SLURM_CONF") == str(conf)
    ]


def of_jobs(conf: Path, nodes: Collection[str]) -> list[int]:
    """Processes of this cluster's jobs on some nodes: slurmstepd, all below it, and what has left its parent.

    Every slurmstepd comes first: one that outlived its job's processes would report the job as failed.
    """
    found = set()
    for pid in _pids():
        around = environment_of(pid)
        if around.get("SLURM_CONF") != str(conf):
            continue
        step = name_of(pid) == "slurmstepd" and around.get(NODE) in nodes
        if step or ("SLURM_JOB_ID" in around and around.get("SLURMD_NODENAME") in nodes):
            found.add(pid)
    alive = [pid for pid in _with_descendants(found) if not gone(pid)]
    return sorted(alive, key=lambda pid: name_of(pid) != "slurmstepd")


def _with_descendants(roots: Iterable[int]) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid in _pids():
        children.setdefault(_status(pid)[2], []).append(pid)
    found, waiting = [], list(roots)
    while waiting:
        pid = waiting.pop()
        if pid > 1 and pid != os.getpid() and pid not in found:
            found.append(pid)
            waiting += children.get(pid, [])
    return found


def end(pid: int, patience: float = 15) -> bool:
    """SIGTERM, after `patience` seconds SIGKILL; whether it has ended (pid files go earlier)."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    if until(lambda: gone(pid), patience):
        return True
    kill([pid])
    return until(lambda: gone(pid), 5)


def kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_all(find: Callable[[], list[int]], seconds: float = 5) -> bool:
    """Kills what `find` finds until it finds nothing: a process that is being killed may have started another."""

    def none_left() -> bool:
        found = find()
        kill(found)
        return not found

    return until(none_left, seconds)
