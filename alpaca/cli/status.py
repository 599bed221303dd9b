"""`status`: every stage of a sweep, what it does, why it waits, what it said when it failed."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from alpaca import artifacts
from alpaca.dispatch.slurm import records, states
from alpaca.dispatch.slurm.queue import Queue
from alpaca.dispatch.slurm.records import Index, Submission
from alpaca.dispatch.slurm.states import StageState
from alpaca.errors import UserError

MOST_ROWS = 60
REDRAW_SECONDS = 2.0
COLOURS = {
    states.DONE: "green",
    states.RUNNING: "cyan",
    states.QUEUED: "yellow",
    states.WAITING: "dim",
    states.FAILED: "red",
    states.LOST: "red",
    states.UNKNOWN: "yellow",
    states.SKIPPED: "magenta",
    states.CANCELLED: "magenta",
    states.NOT_QUEUED: "dim",
}


@dataclass(kw_only=True, slots=True)
class View:
    """One sweep at one moment."""

    submission: Submission
    stages: list[StageState]
    page: str
    """State of the page: done, waiting, running or gone."""
    queue: Queue

    @property
    def counts(self) -> Counter[str]:
        return Counter(each.state for each in self.stages)

    @property
    def moving(self) -> bool:
        """Whether anything may still change by itself."""
        return any(each.state not in (states.DONE, *states.ENDED) for each in self.stages) or self.page in (
            states.WAITING,
            states.RUNNING,
        )

    @property
    def complete(self) -> bool:
        return all(each.state == states.DONE for each in self.stages)


def run(given: argparse.Namespace) -> int:
    """Prints it once, or until everything has ended; status 1 when watched stages failed."""
    out = _console()
    if given.json:
        print(json.dumps([_plain(view) for view in views(given)], indent=1))
        return 0
    if not given.watch:
        out.print(_shown(views(given), given))
        return 0
    return _watch(given, out)


def _console() -> Console:
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=160)


def views(given: argparse.Namespace) -> list[View]:
    """The sweeps asked for, newest first."""
    index = records.index(given.output_dir)
    if given.sweep:
        return [view(index, records.chosen(index, given.sweep))]
    latest = {item.name: item for item in index.submissions}
    if not latest:
        raise UserError(
            what="nothing was queued in this folder yet",
            where=str(given.output_dir),
            remedy="python launch.py ... cluster=slurm, or name the launch's output_dir with --output-dir",
        )
    newest = sorted(latest.values(), key=lambda item: item.created, reverse=True)
    left = [item for item in newest if not _finished(item)]
    done = [item for item in newest if _finished(item)]
    return [view(index, item) for item in (*left, *(done if given.all else done[:1]))]


def _finished(submission: Submission) -> bool:
    output, folder = submission.output, str(submission.report.get("folder", ""))
    stages = all(artifacts.is_finished(output / stage.label) for stage in submission.stages)
    return stages and artifacts.is_finished(output / folder)


def view(index: Index, submission: Submission) -> View:
    """One sweep now."""
    queue = states.observe(index, submission)
    found = states.states(submission, index, queue)
    return View(submission=submission, stages=found, page=_page(index, submission, queue), queue=queue)


def _page(index: Index, submission: Submission, queue: Queue) -> str:
    folder = str(submission.report.get("folder", ""))
    element = index.latest.get(folder)
    job = queue.jobs.get(element.job) if element and element.job else None
    if job is not None and job.live and not job.never:
        return states.WAITING if job.state == "PENDING" else states.RUNNING
    return states.DONE if artifacts.is_finished(submission.output / folder) else "none"


def _shown(found: list[View], given: argparse.Namespace) -> Group:
    return Group(*(part for each in found for part in _parts(each, given)))


def _parts(each: View, given: argparse.Namespace) -> list[Table | str]:
    counts = ", ".join(f"{count} {name}" for name, count in each.counts.most_common())
    asked = f"SLURM asked {states.age(each.queue):.0f} s ago"
    notes = [f"[red]{escape(each.queue.error)}[/]"] if each.queue.error else []
    notes += ["no accounting here: ended jobs are known by what they left"] if not each.queue.accounting else []
    cancelled = ", cancelled" if each.submission.cancelled and not each.complete else ""
    head = f"[bold]{escape(each.submission.name)}[/]  queued {each.submission.created[:19]} UTC{cancelled}: {counts}"
    full = given.all or len(each.stages) <= MOST_ROWS
    rows = each.stages if full else [item for item in each.stages if item.state in _NOTABLE]
    table = [_table(rows)] if rows else []
    summed = [] if full else [_summed(each.stages)]
    return [f"{head}  ({asked})", *notes, *summed, *table, *_next(each), ""]


_NOTABLE = (states.RUNNING, states.FAILED, states.LOST)


def _summed(stages: list[StageState]) -> Table:
    table = _columns("stage", "states")
    for kind in dict.fromkeys(each.stage.kind for each in stages):
        counts = Counter(each.state for each in stages if each.stage.kind == kind)
        table.add_row(kind, ", ".join(f"{count} [{COLOURS[name]}]{name}[/]" for name, count in counts.most_common()))
    return table


def _columns(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def _table(stages: list[StageState]) -> Table:
    table = _columns("stage", "state", "job", "time", "what")
    for each in stages:
        colour = COLOURS[each.state]
        state = f"[{colour}]{each.state}[/]"
        table.add_row(each.stage.label, state, each.job, _clock(each.seconds), escape(_what(each)))
    return table


def _what(each: StageState) -> str:
    """Progress while it runs, else the first line of the reason."""
    if each.state == states.RUNNING and each.progress:
        share = 100 * each.progress["done"] / max(1, each.progress["total"])
        return f"{share:.0f} %, {each.progress['text']}" + (f" ({each.reason})" if each.reason else "")
    return (each.reason.splitlines() or [""])[0]


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return ""
    whole = int(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def _next(each: View) -> list[str]:
    name, counts = each.submission.name, each.counts
    page = each.submission.output / str(each.submission.report.get("folder", "")) / "report.html"
    failed = [item.stage.label for item in each.stages if item.state in (states.FAILED, states.LOST)]
    never = any(item.state == states.SKIPPED and item.job and "reap" in item.reason for item in each.stages)
    lines = [f"why: python -m alpaca logs {failed[0]}"] if failed else []
    if never:
        lines.append("some jobs can never start: python -m alpaca reap removes them")
    if any(counts[state] for state in states.ENDED) and not each.submission.cancelled:
        lines.append(f"queue again what is not done: python -m alpaca retry {name}")
    if page.exists():
        lines.append(f"report: {_short(page)}")
    if each.page in (states.WAITING, states.RUNNING):
        lines.append(f"the report's job is {each.page}")
    return [escape(line) for line in lines]


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _watch(given: argparse.Namespace, out: Console) -> int:
    """Until nothing moves. Without a terminal one line for each change."""
    told: dict[str, str] = {}
    live = Live(console=out, auto_refresh=False) if out.is_terminal else None
    with live or _Nothing():
        while True:
            found = views(given)
            if live:
                live.update(_shown(found, given), refresh=True)
            else:
                _tell_changes(found, told, out)
            if not any(each.moving for each in found):
                break
            time.sleep(REDRAW_SECONDS)
    if not live:
        out.print(_shown(found, given))
    return 0 if all(each.complete for each in found) else 1


class _Nothing:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def _tell_changes(found: list[View], told: dict[str, str], out: Console) -> None:
    for each in found:
        for item in each.stages:
            if told.get(item.stage.label) != item.state and item.state not in (states.WAITING, states.QUEUED):
                out.print(f"{item.state:<9} {item.stage.label} {item.job} {_what(item)}", markup=False, soft_wrap=True)
            told[item.stage.label] = item.state


def _plain(each: View) -> dict[str, object]:
    return {
        "name": each.submission.name,
        "created": each.submission.created,
        "page": each.page,
        "error": each.queue.error,
        "stages": [
            {
                "stage": item.stage.label,
                "state": item.state,
                "job": item.job,
                "seconds": item.seconds,
                "progress": item.progress,
                "reason": item.reason,
            }
            for item in each.stages
        ],
    }
