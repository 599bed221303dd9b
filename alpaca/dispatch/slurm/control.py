"""Taking jobs back: cancel a submission, remove what can never start."""

from __future__ import annotations

import getpass
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from alpaca import artifacts
from alpaca.dispatch.slurm import queue, records, states
from alpaca.dispatch.slurm.queue import Job, Queue
from alpaca.dispatch.slurm.records import Index, Queued, Submission
from alpaca.errors import UserError

AT_ONCE = 500  # arguments of one scancel


@dataclass(kw_only=True, slots=True)
class Cancelled:
    """What became of the jobs of a submission."""

    jobs: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    """Stages that another submission waits for."""
    others: list[Job] = field(default_factory=list)
    """Of other users, who alone can cancel them."""


def cancel(index: Index, submission: Submission) -> Cancelled:
    """Cancels the jobs of all submissions of this name, but for stages that a submission of another name needs.

    The caller holds the queue (`submit.alone`). UserError, with nothing marked, where SLURM does not answer.
    """
    output = submission.output
    named = {item.folder for item in index.submissions if item.name == submission.name}
    seen = observe(index, output)
    needed, found = _needed(index, submission.name, seen), Cancelled()
    taken: dict[Path, list[str]] = {}
    for array in index.arrays:
        for job, labels in _live_units(array, seen) if array.submission in named else ():
            shared = sorted(needed & set(labels))
            found.kept += shared
            if not shared and _is_mine(job):
                taken.setdefault(array.submission, []).append(job.id)
            found.others += [] if shared or _is_mine(job) else [job]
    try:
        for folder, jobs in taken.items():
            records.write_cancelled(folder, jobs)
            _scancel(jobs)
            found.jobs += jobs
        if not taken:
            with suppress(OSError):  # somebody else's
                records.write_cancelled(submission.folder, [])
    finally:
        queue.forget(output)
    return found


def _is_mine(job: Job) -> bool:
    """Whether this user may cancel it; a cluster may hide whose it is."""
    me = getpass.getuser()
    return job.user in ("", me) or me == "root"


def observe(index: Index, output: Path) -> Queue:
    """What SLURM says now; UserError where it does not answer: no job would be found and all would seem well."""
    seen = states.observe(index, output, fresh=True, history=False)
    if seen.error:
        raise UserError(what=seen.error, where="cluster", remedy=f"{seen.remedy}; nothing was cancelled")
    return seen


def _live_units(array: Queued, seen: Queue) -> Iterator[tuple[Job, list[str]]]:
    """The jobs of an array that wait or run, each with its stages."""
    for number, labels in array.units.items():
        job = seen.jobs.get(f"{array.job}_{number}")
        if job is not None and job.live:
            yield job, labels


def _needed(index: Index, name: str, seen: Queue) -> set[str]:
    """Unfinished stages of other submissions that have a job (at least a page behind others) or never had one."""
    alive = {array.submission for array in index.arrays if any(True for _ in _live_units(array, seen))}
    jobless = {item.folder for item in index.submissions if not item.page and not item.cancelled}
    jobless -= {array.submission for array in index.arrays}
    others = [item for item in index.submissions if item.name != name and item.folder in alive | jobless]
    return {
        stage.label
        for item in others
        for stage in item.stages
        if not artifacts.is_finished(item.output / stage.label)
    }


def reap(index: Index, output: Path) -> tuple[list[Job], list[Job]]:
    """Cancels the jobs that can never start, since a parent failed or was cancelled.

    Returns those that were cancelled, and those that only their own user can cancel.
    """
    seen = observe(index, output)
    doomed = [job for job in seen.jobs.values() if job.never]
    mine = [job for job in doomed if _is_mine(job)]
    _scancel([job.id for job in mine])
    if mine:
        queue.forget(output)
    return mine, [job for job in doomed if job not in mine]


def discard_doomed(index: Index, seen: Queue, labels: Collection[str]) -> None:
    """Cancels live jobs of stages that are about to be queued again, since their parents are gone."""
    elements = [index.latest[label] for label in labels if label in index.latest]
    jobs = {element.job for element in elements if element.job in seen.jobs and seen.jobs[element.job].live}
    with suppress(UserError):  # of another user: it refuses by itself, should it ever start
        _scancel(sorted(job for job in jobs if job))


def descendants(submission: Submission, label: str) -> list[str]:
    """Labels of all stages that need this one, in order."""
    found = {label}
    for stage in submission.stages:
        if found & set(stage.parents):
            found.add(stage.label)
    return [stage.label for stage in submission.stages if stage.label in found - {label}]


def reap_after(array_file: Path, label: str, own: str) -> list[str]:
    """Cancels the jobs of the descendants of a failed stage, where SLURM does not do it itself; returns their names.

    For the worker of that stage, whose own job ends by itself: best effort, whoever else needs them queues them again.
    """
    index = records.index(array_file.parents[3])
    names = {name for item in index.submissions for name in descendants(item, label)}
    elements = [index.latest[name] for name in sorted(names) if name in index.latest]
    kills = {item.folder: item.cluster.kill_on_invalid_dep for item in index.submissions}
    left = {element.job for element in elements if element.job and not kills[element.array.submission]}
    jobs = sorted(left - {own})
    _scancel(jobs)
    return jobs


def _scancel(jobs: Iterable[str]) -> None:
    """Jobs that ended meanwhile are no error."""
    listed, refused = list(jobs), list[UserError]()
    for start in range(0, len(listed), AT_ONCE):
        try:
            queue.call(["scancel", "--quiet", *listed[start : start + AT_ONCE]])
        except UserError as error:  # the other batches are cancelled all the same
            refused.append(error)
    if refused:
        raise refused[0]
