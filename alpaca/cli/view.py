"""What a sweep looks like at one moment: its stages, its page, and what SLURM was asked for that."""

from __future__ import annotations

import dataclasses
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from alpaca import artifacts
from alpaca.dispatch.slurm import records, states
from alpaca.dispatch.slurm.graph import Stage
from alpaca.dispatch.slurm.queue import Queue
from alpaca.dispatch.slurm.records import Index, Submission
from alpaca.dispatch.slurm.states import StageState
from alpaca.errors import UserError


@dataclass(kw_only=True, slots=True)
class View:
    """One sweep at one moment. page: the state of its report, None where it has none."""

    submission: Submission
    stages: list[StageState]
    page: StageState | None
    queue: Queue
    asked: bool
    """Whether anything was left to ask SLURM about."""

    @property
    def rows(self) -> list[StageState]:
        return [*self.stages, *([self.page] if self.page else [])]

    @property
    def counts(self) -> Counter[str]:
        return Counter(each.state for each in self.stages)

    @property
    def moving(self) -> bool:
        """Whether anything may still change by itself."""
        return any(each.state not in (states.DONE, *states.ENDED) for each in self.rows)

    @property
    def complete(self) -> bool:
        return all(each.state == states.DONE for each in self.rows)


def chosen(index: Index, output: Path, name: str | None, *, every: bool) -> list[Submission]:
    """The sweep of that name; without one all that have something left and the last finished one, newest first.

    every: all finished ones too. UserError where there is none.
    """
    if name:
        return [records.chosen(index, name)]
    latest = {item.name: item for item in index.submissions}
    if not latest:
        raise UserError(
            what="nothing was queued in this folder yet",
            where=str(output),
            remedy="python launch.py ... cluster=slurm, or name the launch's output_dir with --output-dir",
        )
    newest = sorted(latest.values(), key=lambda item: item.created, reverse=True)
    finished = {item.name: states.is_complete(item) for item in newest}
    done = [item for item in newest if finished[item.name]]
    return [item for item in newest if not finished[item.name]] + (done if every else done[:1])


def views(index: Index, output: Path, submissions: list[Submission]) -> list[View]:
    """These sweeps now, by one question to SLURM."""
    seen = states.observe(index, output)
    return [_view(index, item, seen) for item in submissions]


def page_file(submission: Submission) -> Path:
    return submission.output / submission.page / "report.html"


def where(output: Path) -> str:
    """The option that a command given next needs, or nothing."""
    return "" if output == Path.cwd() / "outputs" else f" --output-dir {shlex.quote(short(output))}"


def short(path: Path) -> str:
    """From the current folder on, where it is below."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _view(index: Index, submission: Submission, seen: Queue) -> View:
    found = states.states(submission, index, seen)
    page = _page(index, submission, seen) if submission.page else None
    asked = any(each.state != states.DONE for each in (*found, *([page] if page else [])))
    return View(submission=submission, stages=found, page=page, queue=seen, asked=asked)


def _page(index: Index, submission: Submission, seen: Queue) -> StageState:
    """The page as if it were a stage after all others; an old one does not count while it is to be made anew."""
    label, output = submission.page, submission.output
    stage = Stage(label=label, role="report", parents=tuple(each.label for each in submission.stages))
    if states.is_complete(submission):
        return StageState(stage=stage, state=states.DONE)
    if not artifacts.is_finished(output / label):
        return states.states(dataclasses.replace(submission, stages=[stage]), index, seen)[0]
    element = index.latest.get(label)
    job = seen.jobs.get(element.job) if element and element.job else None
    if job and job.live:
        waits = states.WAITING if job.reason == "Dependency" else states.QUEUED
        state = waits if job.state == "PENDING" else states.RUNNING
        return StageState(stage=stage, state=state, job=job.id, reason="to be made anew")
    if states.page_stands(submission):
        return StageState(stage=stage, state=states.DONE)
    state = states.UNKNOWN if seen.error else states.NOT_QUEUED
    return StageState(stage=stage, state=state, reason="the one that is there is older than its stages")
