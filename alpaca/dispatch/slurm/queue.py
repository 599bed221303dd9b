"""What SLURM knows of our jobs: one squeue for all of them, one sacct for those that squeue has forgotten.

Both are asked at most once in PAUSE_SECONDS for an output folder, whatever the number of jobs and of commands; only
what decides about new jobs (`fresh`) asks anew.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from alpaca.artifacts import read_json, write_json
from alpaca.dispatch.slurm.records import FOLDER
from alpaca.errors import AlpacaError, UserError

PAUSE_SECONDS = 10.0
PATIENCE_SECONDS = 60.0
LONGEST = 100_000
"""Characters of one argument: the system refuses 128 KiB."""
LIVE = {
    "PENDING",
    "RUNNING",
    "SUSPENDED",
    "COMPLETING",
    "CONFIGURING",
    "REQUEUED",
    "REQUEUE_HOLD",
    "RESIZING",
    "SIGNALING",
    "STAGE_OUT",
    "STOPPED",
    "SPECIAL_EXIT",
    "RESV_DEL_HOLD",
    "REQUEUE_FED",
}
NEVER = "DependencyNeverSatisfied"


@dataclass(kw_only=True, slots=True)
class Job:
    """One array element. id: "123_4"; state: SLURM's word; seconds: how long it has run."""

    id: str
    name: str
    state: str
    reason: str = ""
    seconds: float | None = None
    user: str = ""

    @property
    def live(self) -> bool:
        return self.state in LIVE

    @property
    def never(self) -> bool:
        """Pending for ever, since a parent failed."""
        return self.state == "PENDING" and self.reason == NEVER


@dataclass(kw_only=True, slots=True)
class Queue:
    """What was heard, and when. error: why squeue did not answer, with the way out; unaccounted: why sacct did not."""

    asked: float
    jobs: dict[str, Job] = field(default_factory=dict)
    error: str = ""
    remedy: str = ""
    unaccounted: str = ""

    def named(self, name: str) -> str | None:
        """The number of the array of that name."""
        return next((job.id.partition("_")[0] for job in self.jobs.values() if job.name == name), None)


Wanted = Mapping[str, Collection[int]]
"""Name of an array -> the elements of which something should be known."""
_heard: dict[Path, dict[str, Any]] = {}
"""The last answers of this process, for folders of somebody else where they cannot be left."""


def look(output: Path, wanted: Wanted, *, fresh: bool = False, history: bool = True) -> Queue:
    """What SLURM says of these arrays; no call at all where nothing is wanted.

    history: ask sacct for those elements that squeue has forgotten.
    """
    path = output / FOLDER / ".seen.json"
    if not wanted:
        return Queue(asked=time.time())
    known = None if fresh else _cached(path, wanted, history)
    if known is not None:
        return known
    queue = _ask_squeue(wanted)
    ended = _forgotten(queue, wanted)
    if history and ended and not queue.error:
        _ask_sacct(queue, {name: wanted[name] for name in ended})
    _heard[path] = {**asdict(queue), "names": sorted(wanted), "history": history}
    with suppress(OSError):  # a folder that may only be looked at
        write_json(path, _heard[path])
    return queue


def forget(output: Path) -> None:
    """After something was queued or cancelled: the next look asks SLURM."""
    path = output / FOLDER / ".seen.json"
    _heard.pop(path, None)
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _cached(path: Path, names: Collection[str], history: bool) -> Queue | None:
    for read in (lambda: read_json(path), lambda: _heard[path]):
        with suppress(OSError, AlpacaError, KeyError, TypeError):
            found = read()
            recent = 0 <= time.time() - found["asked"] < PAUSE_SECONDS
            if recent and (found["history"] or not history) and set(names) <= set(found["names"]):
                jobs = {name: Job(**job) for name, job in found["jobs"].items()}
                told = {name: found[name] for name in ("asked", "error", "remedy", "unaccounted")}
                return Queue(jobs=jobs, **told)
    return None


def _forgotten(queue: Queue, wanted: Wanted) -> set[str]:
    """Arrays of which squeue did not name every wanted element: it forgets each some minutes after its end."""
    known = {(job.name, job.id.rpartition("_")[2]) for job in queue.jobs.values()}
    return {name for name, indices in wanted.items() if any((name, str(index)) not in known for index in indices)}


def _chosen(names: Collection[str]) -> list[str]:
    """The option that asks for these alone; nothing where it would be longer than the system bears."""
    option = f"--name={','.join(sorted(names))}"
    return [option] if len(option) <= LONGEST else []


def _ask_squeue(wanted: Wanted) -> Queue:
    queue = Queue(asked=time.time())
    form = "%F|%K|%T|%r|%M|%j|%u"
    try:
        lines = call(["squeue", "--all", "--noheader", "--array", "--states=all", f"--format={form}", *_chosen(wanted)])
    except UserError as error:
        queue.error, queue.remedy = error.what, error.remedy
        return queue
    told = [
        Job(id=f"{number}_{element}", name=name, state=state, reason=reason, seconds=seconds(used), user=user)
        for number, element, state, reason, used, name, user in _rows(lines, 7)
    ]
    _take(queue, told, wanted)
    return queue


def _take(queue: Queue, told: Sequence[Job], wanted: Wanted) -> None:
    """Adds those that somebody asked for and nobody told of yet.

    An array that was cancelled before it was split up is one row, "7_[1-3%8]" or "7_N/A", and stands for those of its
    elements that have no row of their own.
    """
    known = [job for job in told if job.name in wanted]
    single = {job.id: job for job in known if job.id.rpartition("_")[2].isdecimal()}
    queue.jobs = {**single, **queue.jobs}
    for job in known:
        if job.id not in single:
            number, _, text = job.id.partition("_")
            for index in _indices(text, wanted[job.name]):
                queue.jobs.setdefault(f"{number}_{index}", replace(job, id=f"{number}_{index}"))


def _indices(text: str, wanted: Collection[int]) -> list[int]:
    """Those of "[1-3,7%8]" that are wanted; all of them where no range is told."""
    ranges = re.findall(r"(\d+)(?:-(\d+))?", text.partition("%")[0])
    if not ranges:
        return sorted(wanted)
    inside = [range(int(low), int(high or low) + 1) for low, high in ranges]
    return sorted(index for index in wanted if any(index in each for each in inside))


def _ask_sacct(queue: Queue, wanted: Wanted) -> None:
    """Adds the jobs that ended too long ago for squeue; a site without accounting is no error."""
    form = "JobID,JobName,State,Elapsed,User"
    words = ["sacct", "--noheader", "--parsable2", "--allocations", "--allusers", f"--format={form}"]
    try:
        lines = call([*words, "--starttime=now-30days", *_chosen(wanted)])
    except UserError as error:
        queue.unaccounted = error.what
        return
    told = [
        Job(id=ident, name=name, state=state.partition(" ")[0], seconds=seconds(used), user=user)  # "CANCELLED by 0"
        for ident, name, state, used, user in _rows(lines, 5)
    ]
    _take(queue, told, wanted)


def _rows(lines: str, columns: int) -> Iterator[list[str]]:
    for line in lines.splitlines():
        parts = [part.strip() for part in line.split("|")]
        if len(parts) == columns:
            yield parts


def call(words: list[str]) -> str:
    """Output of a command of SLURM; UserError with its own words when it fails or is not there."""
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS, env=_plain()
        )
    except FileNotFoundError as error:
        raise UserError(
            what=f"there is no {words[0]} on this machine",
            where="cluster",
            remedy="run this where SLURM's commands are, or choose cluster=local",
        ) from error
    except OSError as error:
        raise UserError(
            what=f"{words[0]} cannot be started: {error}", where="cluster", remedy="see what the machine lacks"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise UserError(
            what=f"{words[0]} gave no answer in {PATIENCE_SECONDS:.0f} s",
            where="cluster",
            remedy="the controller may be down or overloaded: try again later",
        ) from error
    if done.returncode:
        told = (done.stderr or done.stdout).strip() or f"ended with status {done.returncode}"
        raise UserError(what=f"{words[0]}: {told}", where="cluster", remedy="see what SLURM says; then try again")
    return done.stdout


def _plain() -> dict[str, str]:
    """The environment without the settings that would change the columns of squeue and sacct."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("SQUEUE_", "SACCT_"))}


def seconds(text: str) -> float | None:
    """"1-02:03:04", "02:03:04" or "03:04" in seconds; None for anything else."""
    total = 0.0
    days, _, clock = text.rpartition("-")
    try:
        for part in clock.split(":"):
            total = 60 * total + float(part)
        return 86400 * float(days or 0) + total
    except ValueError:
        return None


def setting(name: str) -> str | None:
    """A value of slurm.conf as the controller tells it (`scontrol show config`), or None."""
    for line in call(["scontrol", "show", "config"]).splitlines():
        key, _, value = line.partition("=")
        if key.strip() == name:
            return value.strip()
    return None
