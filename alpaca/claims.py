"""Who works on a folder: numbered claim files, created with O_EXCL, kept alive by a heartbeat.

The highest number holds the folder. A dead owner is succeeded by creating the next number, which only one process can
do; an owner that was frozen for so long that it lost the folder sees the higher number and must not publish.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from alpaca.errors import ArtifactError

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 120.0
RESTARTED_SECONDS = 20.0
"""Silence after which an earlier start of the same job counts as dead: SLURM ended it before it started this one, but a
node that lost only its network goes on, and beats."""
POLL_SECONDS = 0.2


class Claim:
    """A held folder. `check` raises when another process took over; `release` lets the next one in at once."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder, self.number = folder, number
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="claim-heartbeat")
        self._thread.start()

    @property
    def path(self) -> Path:
        return _path(self.folder, self.number)

    def check(self) -> None:
        """Raises ArtifactError when a later claim exists: this process was taken for dead."""
        latest = _latest(self.folder)
        if latest != self.number:
            taken = f"by claim {latest}" if latest else "and finished by another process"
            raise ArtifactError(
                what=f"claim {self.number} was taken over {taken}",
                where=str(self.folder),
                remedy=f"this process gave no sign of life for {STALE_SECONDS:.0f} s; the other one carries on",
            )

    def release(self) -> None:
        """Marks the claim as given up; the folder stays resumable."""
        self._stop.set()
        self._thread.join()
        if not self.path.exists():  # taken over, and the folder finished since then
            return
        with suppress(OSError):  # on a full disk the dead process itself is the sign that the folder is free
            _write_owner(self.path, {**owner(), "released": True})

    def remove(self) -> None:
        """Deletes all claims of a folder that is finished: its marker now says everything."""
        self._stop.set()
        self._thread.join()
        for path in self.folder.glob("claim-*"):
            path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            with suppress(OSError):  # a missed beat on a busy file system is made good by the next
                os.utime(self.path)


def acquire(folder: Path, *, finished: Callable[[], bool], on_wait: Callable[[dict[str, Any]], None]) -> Claim | None:
    """The claim on `folder`, waiting while a living process holds it; None when that process finished the work.

    on_wait is called once with the owner that is waited for.
    """
    told = False
    while not finished():
        number = _latest(folder)
        if number == 0 or _is_free(_path(folder, number)):
            claim = _create(folder, number + 1)
            if claim and not finished():
                return claim
            if claim:  # it was finished between the look at the claim and the taking of it
                claim.remove()
                return None
            continue
        if not told:
            on_wait(_read_owner(_path(folder, number)))
            told = True
        time.sleep(POLL_SECONDS)
    return None


def holder(folder: Path) -> dict[str, Any] | None:
    """The living owner of an unfinished folder, or None."""
    number = _latest(folder)
    if number == 0 or _is_free(_path(folder, number)):
        return None
    return _read_owner(_path(folder, number))


def owner() -> dict[str, Any]:
    """This process: host, process id and its start time, so that a reused id is not taken for it, and its SLURM job."""
    here = {"host": socket.gethostname(), "boot": _boot_id(), "pid": os.getpid(), "start": _start_time(os.getpid())}
    return {**here, **_job()}


def _job() -> dict[str, Any]:
    """SLURM's name of the job that this process belongs to, and how often it was started again."""
    if "SLURM_JOB_ID" not in os.environ:
        return {}
    element = f"{os.environ.get('SLURM_ARRAY_JOB_ID', '')}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}"
    restart = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    return {"job": os.environ["SLURM_JOB_ID"], "element": element, "restart": restart}


def _earlier_start(claimed: dict[str, Any]) -> bool:
    """Whether the owner is the same job as this one, before SLURM started it again."""
    mine = _job()
    return bool(mine) and claimed.get("job") == mine["job"] and int(claimed.get("restart", 0)) < mine["restart"]


def _create(folder: Path, number: int) -> Claim | None:
    path = _path(folder, number)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return None
    with os.fdopen(descriptor, "w") as file:
        json.dump(owner(), file)
    return Claim(folder, number)


def _is_free(path: Path) -> bool:
    """Whether the claim was given up, or its owner is dead here, or silent for too long elsewhere."""
    try:
        claimed = _read_owner(path)
        age = _server_time(path.parent) - path.stat().st_mtime
    except FileNotFoundError:
        return True
    if claimed.get("released"):
        return True
    if not claimed:  # created but not yet written, unless it stays so
        return age > HEARTBEAT_SECONDS
    if claimed["host"] == socket.gethostname() and claimed["boot"] == _boot_id():
        return _start_time(int(claimed["pid"])) != str(claimed["start"])
    return age > (RESTARTED_SECONDS if _earlier_start(claimed) else STALE_SECONDS)


def _server_time(folder: Path) -> float:
    """The file server's clock, so that the skew of this machine's clock does not count as age."""
    probe = folder / f".clock-{os.getpid()}"
    try:
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink(missing_ok=True)
    except OSError:  # a folder that may only be looked at
        return time.time()
    return now


def _path(folder: Path, number: int) -> Path:
    return folder / f"claim-{number:06d}"


def _latest(folder: Path) -> int:
    return max((int(path.name[6:]) for path in folder.glob("claim-*") if path.name[6:].isdigit()), default=0)


def _read_owner(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text() or "{}")
    except (FileNotFoundError, json.JSONDecodeError):  # removed by its owner, or not yet written
        return {}
    return found if isinstance(found, dict) else {}


def _write_owner(path: Path, value: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)


def _boot_id() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""


def _start_time(pid: int) -> str:
    """Start time of a living process in clock ticks since boot; empty when it is dead or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return _start_time_portable(pid)
    return "" if fields[0] in "ZX" else fields[19]


def _start_time_portable(pid: int) -> str:
    """Where there is no /proc (macOS): only whether the process lives."""
    if Path("/proc/self").exists():
        return ""
    with suppress(OSError):
        os.kill(pid, 0)
        return "alive"
    return ""
