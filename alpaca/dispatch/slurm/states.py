"""In which state every stage of a submission is: from its marker first, then from SLURM, then from what it left."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpaca import artifacts, claims
from alpaca.dispatch.slurm.graph import Stage
from alpaca.dispatch.slurm.queue import Job, Queue, look
from alpaca.dispatch.slurm.records import Element, Index, Queued, Submission, write_job
from alpaca.errors import AlpacaError, PreemptedError

DONE, RUNNING, QUEUED, WAITING = "done", "running", "queued", "waiting"
FAILED, SKIPPED, CANCELLED, LOST, NOT_QUEUED = "failed", "skipped", "cancelled", "lost", "not queued"
UNKNOWN = "unknown"
"""Queued once, not finished, and SLURM cannot be asked."""
ENDED = (FAILED, SKIPPED, CANCELLED, LOST, NOT_QUEUED)
"""States that nothing will change unless somebody queues the stage again."""

HINTS = {
    "PartitionConfig": "no node of the partition has what was asked for (nodes, cpus, memory_gib, gpus)",
    "PartitionNodeLimit": "more nodes than the partition gives (nodes)",
    "PartitionTimeLimit": "longer than the partition allows (minutes)",
    "BadConstraints": "no node has these features (constraint)",
}
"""Reasons of SLURM that no waiting ends: unless a site enforces limits at once, sbatch takes such jobs."""


@dataclass(kw_only=True, slots=True)
class StageState:
    """One stage as `status` shows it. reason: why it waits, or what it said when it failed."""

    stage: Stage
    state: str
    job: str = ""
    reason: str = ""
    seconds: float | None = None
    progress: dict[str, Any] | None = None
    """done, total, text; while it runs."""


def observe(index: Index, output: Path, *, fresh: bool = False, history: bool = True) -> Queue:
    """What SLURM says of all that is not done in this folder; arrays whose number was not recorded are found by name.

    Always of the whole folder: answers about a part would push each other out of the cache, and every command would
    ask SLURM anew.
    """
    queue = look(output, wanted(index, output), fresh=fresh, history=history)
    adopt(index.arrays, queue)
    return queue


def wanted(index: Index, output: Path) -> dict[str, set[int]]:
    """Arrays with something left to do -> their elements that are the latest of a stage that is not done.

    An earlier element of a stage that was queued again may still have a job, so its array is asked for too.
    """
    pages = {item.page: item for item in index.submissions if item.page}
    labels = {label for array in index.arrays for unit in array.units.values() for label in unit}
    done = {label for label in labels if _is_done(output, label, pages.get(label))}
    found: dict[str, set[int]] = {}
    for array in index.arrays:
        for number, unit in array.units.items():
            left = [label for label in unit if label not in done]
            if left:
                latest = any(index.latest[label].array is array for label in left)
                found.setdefault(array.name, set()).update({number} if latest else ())
    return found


def _is_done(output: Path, label: str, page_of: Submission | None) -> bool:
    return is_complete(page_of) if page_of else artifacts.is_finished(output / label)


def is_complete(submission: Submission) -> bool:
    """Whether every stage is done and the page shows them all."""
    stages = all(artifacts.is_finished(submission.output / stage.label) for stage in submission.stages)
    return stages and (not submission.page or page_stands(submission))


def page_stands(submission: Submission) -> bool:
    """Whether the page shows every stage that is done: after a retry the earlier one is there first."""
    folder = submission.output / submission.page
    with suppress(OSError, AlpacaError, KeyError):
        found = artifacts.read_json(folder / "stage.json")
        if not artifacts.finished_as(folder, found["key"]):  # none yet, or the one that is there is being made anew
            return False
        shown = set(found["parents"])
        labels = submission.report.get("labels", [])
        return shown >= {label for label in labels if artifacts.is_finished(submission.output / label)}
    return False


def adopt(arrays: Iterable[Queued], queue: Queue) -> list[Queued]:
    """Records the number of arrays that SLURM knows by name, after a crash between sbatch and its record."""
    adopted = []
    for array in arrays:
        number = queue.named(array.name) if array.job is None else None
        if number:
            with suppress(OSError):  # somebody else's folder
                write_job(array, number)
            array.job = number
            adopted.append(array)
    return adopted


def live(index: Index, queue: Queue, stages: Iterable[Stage], output: Path) -> dict[str, Element]:
    """Stages that are queued or running and will be done, in the order given: parents stand before their children.

    One whose parent is neither finished nor live is doomed and not among them.
    """
    found: dict[str, Element] = {}
    for stage in stages:
        element = index.latest.get(stage.label)
        job = queue.jobs.get(element.job) if element and element.job else None
        if element is None or job is None or not job.live or job.never or artifacts.is_finished(output / stage.label):
            continue
        if element.is_cancelled:  # it is being ended
            continue
        if all(parent in found or artifacts.is_finished(output / parent) for parent in stage.parents):
            found[stage.label] = element
    return found


def states(submission: Submission, index: Index, queue: Queue) -> list[StageState]:
    """The state of every stage, in the order of the submission: parents stand before their children."""
    found: dict[str, StageState] = {}
    for stage in submission.stages:
        found[stage.label] = _state(submission.output, stage, index.latest.get(stage.label), queue, found)
    return list(found.values())


def _state(
    output: Path, stage: Stage, element: Element | None, queue: Queue, before: dict[str, StageState]
) -> StageState:
    folder = output / stage.label
    if artifacts.is_finished(folder):
        return StageState(stage=stage, state=DONE, seconds=_took(folder))
    job = queue.jobs.get(element.job) if element and element.job else None
    if job is not None and job.live and element is not None:
        return _alive(stage, folder, element, job, output)
    owner = claims.holder(folder) if folder.exists() else None
    if owner and not (job and owner.get("element") == job.id):  # SLURM has ended it, however fresh its claim is
        where = f"process {owner.get('pid')} on {owner.get('host')}"
        return StageState(stage=stage, state=RUNNING, reason=where, progress=_progress(folder))
    return _ended(stage, folder, element, job, before, queue)


def _alive(stage: Stage, folder: Path, element: Element, job: Job, output: Path) -> StageState:
    name = element.job or ""
    if element.is_cancelled:
        return StageState(stage=stage, state=CANCELLED, job=name, reason="it is being ended")
    if job.never:
        return StageState(stage=stage, state=SKIPPED, job=name, reason="a stage before it failed (reap removes it)")
    if job.state == "PENDING":
        waits = job.reason in ("Dependency", "None") and not all(_done(output, parent) for parent in stage.parents)
        if waits:
            first = next(parent for parent in stage.parents if not _done(output, parent))
            return StageState(stage=stage, state=WAITING, job=name, reason=f"after {first}")
        hint = HINTS.get(job.reason)
        reason = f"{job.reason}: {hint}; cancel it, correct that and launch again" if hint else job.reason
        return StageState(stage=stage, state=QUEUED, job=name, reason=reason)
    ahead = element.array.units[element.index][: element.position]
    if not all(_done(output, label) for label in ahead):
        return StageState(stage=stage, state=WAITING, job=name, reason="runs next in the same job")
    progress = _progress(folder)
    word = "" if job.state == "RUNNING" else job.state.lower()
    return StageState(stage=stage, state=RUNNING, job=name, reason=word, seconds=job.seconds, progress=progress)


def _ended(
    stage: Stage, folder: Path, element: Element | None, job: Job | None, before: dict[str, StageState], queue: Queue
) -> StageState:
    """A stage that is neither finished nor on its way."""
    name = (element.job if element else "") or ""
    stopped = artifacts.stopped(folder)
    if job is not None and job.state == "CANCELLED" and stopped.get("status") == PreemptedError.exit_status:
        return StageState(stage=stage, state=CANCELLED, job=name, seconds=job.seconds)  # scancel by hand
    if stopped and (element is None or stopped.get("job") in ("", None, name)):
        return StageState(stage=stage, state=FAILED, job=name, reason=str(stopped.get("error", "")))
    if element is None:
        return StageState(stage=stage, state=NOT_QUEUED)
    lost = [parent for parent in stage.parents if parent in before and before[parent].state in ENDED]
    if lost and (job is None or job.state in ("CANCELLED", "PENDING", "FAILED")):
        return StageState(stage=stage, state=SKIPPED, job=name, reason=f"{lost[0]} is not done")
    if job is not None and job.state == "CANCELLED":
        return StageState(stage=stage, state=CANCELLED, job=name, seconds=job.seconds)
    if job is not None:
        return StageState(stage=stage, state=FAILED, job=name, reason=_verdict(job), seconds=job.seconds)
    if element.is_cancelled:
        return StageState(stage=stage, state=CANCELLED, job=name)
    if queue.error:
        return StageState(stage=stage, state=UNKNOWN, job=name, reason="SLURM cannot be asked")
    return StageState(stage=stage, state=LOST, job=name, reason="ended without a word; see its log")


def _verdict(job: Job) -> str:
    words = {
        "TIMEOUT": "it met its time limit (minutes) before it could save itself",
        "OUT_OF_MEMORY": "it needed more memory than asked for (memory_gib)",
        "NODE_FAIL": "its node failed",
        "PREEMPTED": "preempted, and not queued again",
        "COMPLETED": "SLURM says it completed, but it left no success marker: was its folder removed?",
    }
    return f"{job.state}: {words.get(job.state, 'see its log')}"


def _progress(folder: Path) -> dict[str, Any] | None:
    with suppress(OSError, AlpacaError):
        found = artifacts.read_json(folder / "progress.json")
        return found if isinstance(found, dict) else None
    return None


def _took(folder: Path) -> float | None:
    with suppress(OSError, AlpacaError, KeyError):
        return float(artifacts.read_json(folder / "provenance.json")["seconds"])
    return None


def _done(output: Path, label: str) -> bool:
    return artifacts.is_finished(output / label)


def age(queue: Queue) -> float:
    """Seconds since SLURM was asked."""
    return max(0.0, time.time() - queue.asked)
