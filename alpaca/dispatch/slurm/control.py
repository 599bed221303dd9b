"""Taking jobs back: cancel a submission, remove what can never start."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from alpaca import artifacts
from alpaca.dispatch.slurm import queue, records, states
from alpaca.dispatch.slurm.queue import Job, Queue
from alpaca.dispatch.slurm.records import Index, Submission
from alpaca.errors import UserError

AT_ONCE = 500  # arguments of one scancel


@dataclass(kw_only=True, slots=True)
class Cancelled:
    """What became of the jobs of a submission. kept: stages that another submission waits for."""

    jobs: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)


def cancel(index: Index, submission: Submission) -> Cancelled:
    """Cancels the jobs of all submissions of this name, but for stages that a submission of another name needs.

    The caller holds the queue (`submit.alone`). UserError, with nothing marked, where SLURM does not answer.
    """
    output = submission.output
    mine = [item for item in index.submissions if item.name == submission.name]
    seen = look(index, output)
    _refuse_unheard(seen)
    needed = _needed(index, submission.name, output)
    found = Cancelled()
    for array in index.arrays:
        for number, labels in array.units.items():
            job = seen.jobs.get(f"{array.job}_{number}")
            if job is None or not job.live or array.submission not in {item.folder for item in mine}:
                continue
            shared = sorted(needed & set(labels))
            found.kept += shared
            found.jobs += [] if shared else [job.id]
    for item in mine:
        (item.folder / "cancelled").touch()
    _scancel(found.jobs)
    queue.forget(output)
    return found


def _refuse_unheard(seen: Queue) -> None:
    """Where SLURM does not answer, no job would be found and all would seem well."""
    if seen.error:
        raise UserError(what=seen.error, where="cluster", remedy="nothing was cancelled; try again when SLURM answers")


def _needed(index: Index, name: str, output: Path) -> set[str]:
    """Unfinished stages of other submissions that nobody cancelled."""
    others = [item for item in index.submissions if item.name != name and not item.cancelled]
    return {
        stage.label
        for item in others
        if _waiting(item, output)
        for stage in item.stages
        if not artifacts.is_finished(output / stage.label)
    }


def _waiting(submission: Submission, output: Path) -> bool:
    """Whether a submission still has a job of its own or of others to wait for: its page is not made."""
    folder = submission.report.get("folder")
    return not folder or not all(artifacts.is_finished(output / stage.label) for stage in submission.stages)


def reap(index: Index, output: Path, *, fresh: bool = True) -> list[Job]:
    """Cancels the jobs that can never start, since a parent failed or was cancelled; returns them."""
    seen = look(index, output, fresh=fresh)
    _refuse_unheard(seen)
    doomed = [job for job in seen.jobs.values() if job.never]
    _scancel([job.id for job in doomed])
    if doomed:
        queue.forget(output)
    return doomed


def discard_doomed(index: Index, seen: Queue, labels: Collection[str]) -> None:
    """Cancels live jobs of stages that are about to be queued again, since their parents are gone."""
    elements = [index.latest[label] for label in labels if label in index.latest]
    jobs = {element.job for element in elements if element.job in seen.jobs and seen.jobs[element.job].live}
    _scancel(sorted(job for job in jobs if job))


def look(index: Index, output: Path, *, fresh: bool = True) -> Queue:
    """What SLURM says of every array that has something left to do."""
    open_arrays = [
        array
        for array in index.arrays
        if not all(artifacts.is_finished(output / label) for labels in array.units.values() for label in labels)
    ]
    seen = queue.look(output, [array.name for array in open_arrays], fresh=fresh, history=False)
    states.adopt(open_arrays, seen)
    return seen


def descendants(submission: Submission, label: str) -> list[str]:
    """Labels of all stages that need this one, in order."""
    found = {label}
    for stage in submission.stages:
        if found & set(stage.parents):
            found.add(stage.label)
    return [stage.label for stage in submission.stages if stage.label in found - {label}]


def reap_after(array_file: Path, label: str) -> list[str]:
    """Cancels the jobs of the descendants of a failed stage, where SLURM does not do it itself; returns their names.

    For the worker of that stage: best effort, whoever else needs them queues them again.
    """
    submission = records.load(array_file.parents[1])
    if submission.cluster.kill_on_invalid_dep:
        return []
    index = records.index(submission.output)
    elements = [index.latest[name] for name in descendants(submission, label) if name in index.latest]
    jobs = sorted({element.job for element in elements if element.job})
    _scancel(jobs)
    return jobs


def _scancel(jobs: Iterable[str]) -> None:
    """Jobs that ended meanwhile are no error."""
    listed = list(jobs)
    for start in range(0, len(listed), AT_ONCE):
        queue.call(["scancel", "--quiet", *listed[start : start + AT_ONCE]])
