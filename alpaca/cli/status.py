"""`status`: every stage of a sweep, what it does, why it waits, what it said when it failed."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from contextlib import nullcontext

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from alpaca.cli import view
from alpaca.cli.view import View
from alpaca.dispatch.slurm import records, states
from alpaca.dispatch.slurm.records import Index, Submission
from alpaca.dispatch.slurm.states import StageState

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


def run(given: argparse.Namespace) -> int:
    """Prints it once, or until everything has ended; status 1 when watched stages or their page failed."""
    out = _console()
    if given.watch and not given.json:
        return _watch(given, out)
    index = records.index(given.output_dir)
    found = view.views(index, given.output_dir, _chosen(given, index))
    if given.json:
        print(json.dumps([_plain(each) for each in found], indent=1))
    else:
        out.print(_shown(found, given))
    return 0


def _console() -> Console:
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=160)


def _shown(found: list[View], given: argparse.Namespace, most: int = MOST_ROWS) -> Group:
    return Group(*(part for each in found for part in _parts(each, most=None if given.all else most)))


def _parts(each: View, most: int | None) -> list[Table | str]:
    """most: rows that may be shown, None: all. Above that sums by kind, and rows for what runs and what failed."""
    full = most is None or len(each.stages) <= most
    rows = each.stages if full else [item for item in each.stages if item.state in _NOTABLE]
    shown = rows[:most]
    summed = [] if full else [_summed(each.stages)]
    table = [_table([*shown, *([each.page] if each.page else [])])]
    more = [f"[dim]and {len(rows) - len(shown)} more (--all shows them)[/]"] if len(rows) > len(shown) else []
    return [_head(each), *_notes(each), *summed, *table, *more, *_next(each), ""]


def _head(each: View) -> str:
    counts = ", ".join(f"{count} {name}" for name, count in each.counts.most_common() if name != states.DONE)
    told = f"{each.counts[states.DONE]}/{len(each.stages)} done" + (f", {counts}" if counts else "")
    when = each.submission.created[:19].replace("T", " ")
    cancelled = ", cancelled" if each.submission.cancelled and not each.complete else ""
    heard = each.asked and not each.queue.error
    asked = f"  (SLURM asked {states.age(each.queue):.0f} s ago)" if heard else ""
    return f"[bold]{escape(each.submission.name)}[/]  queued {when} UTC{cancelled}: {told}{asked}"


def _notes(each: View) -> list[str]:
    if not each.asked:
        return []
    notes = [f"[red]{escape(each.queue.error)}[/]"] if each.queue.error else []
    why = each.queue.unaccounted
    return notes + ([f"no accounting ({escape(why)}): ended jobs are known by what they left"] if why else [])


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
        state = f"[{COLOURS[each.state]}]{each.state}[/]"
        table.add_row(_name(each), state, each.job, _clock(each.seconds), escape(_what(each)))
    return table


def _name(each: StageState) -> str:
    return f"report {each.stage.label}" if each.stage.role == "report" else each.stage.label


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
    """What to do next."""
    submission, where = each.submission, view.where(each.submission.output)
    failed = [item.stage.label for item in each.stages if item.state in (states.FAILED, states.LOST)]
    ended = any(item.state in states.ENDED for item in each.stages)
    never = any(item.state == states.SKIPPED and item.job and "reap" in item.reason for item in each.stages)
    page, file = each.page, view.page_file(submission)
    lines = [f"why: python -m alpaca logs {failed[0]}{where}"] if failed else []
    lines += [f"some jobs can never start: python -m alpaca reap{where} removes them"] if never else []
    if ended:
        lines.append(f"queue again what is not done, as it was: python -m alpaca retry {submission.name}{where}")
        lines.append(f"with other settings: {submission.command}")
    if page and page.state in states.ENDED and not ended and not each.moving:
        lines.append(f"make the report: {submission.command}")
    if page and file.exists():
        older = "" if page.state == states.DONE else " (of an earlier moment)"
        lines.append(f"report: {view.short(file)}{older}")
    return [escape(line) for line in lines]


def _watch(given: argparse.Namespace, out: Console) -> int:
    """Until nothing moves. Without a terminal one line for each change."""
    told: dict[tuple[str, str], str] = {}
    live = Live(console=out, auto_refresh=False) if out.is_terminal else None
    # What finishes meanwhile stays in sight.
    names = _watched(given)
    with live or nullcontext():
        while True:
            found = _named(given, names)
            if live:
                live.update(_shown(found, given, _fitting(out, len(found))), refresh=True)
            else:
                _tell_changes(found, told, out)
            if not any(each.moving for each in found):
                break
            time.sleep(REDRAW_SECONDS)
    if not live:
        out.print(_shown(found, given))
    return 0 if all(each.complete for each in found) else 1


def _watched(given: argparse.Namespace) -> list[str]:
    """The sweep that was named, else those in which something moves; where nothing does, all that would be shown."""
    if given.sweep:
        return [given.sweep]
    index = records.index(given.output_dir)
    found = view.views(index, given.output_dir, _chosen(given, index))
    return [each.submission.name for each in found if each.moving] or [each.submission.name for each in found]


def _chosen(given: argparse.Namespace, index: Index) -> list[Submission]:
    return view.chosen(index, given.output_dir, given.sweep, every=given.all)


def _named(given: argparse.Namespace, names: list[str]) -> list[View]:
    index = records.index(given.output_dir)
    return view.views(index, given.output_dir, [records.chosen(index, name) for name in names])


def _fitting(out: Console, count: int) -> int:
    """Rows of each of so many sweeps for which the terminal is high enough."""
    return min(MOST_ROWS, max(5, out.height // count - 9))


_STILL = (states.WAITING, states.QUEUED)


def _tell_changes(found: list[View], told: dict[tuple[str, str], str], out: Console) -> None:
    """Nothing of what has only waited so far."""
    for each in found:
        for item in each.rows:
            place = (each.submission.name, item.stage.label)
            before = told.get(place, states.WAITING)
            if before != item.state and not (before in _STILL and item.state in _STILL):
                text = f"{item.state:<9} {_name(item)} {item.job} {_what(item)}"
                text = f"{each.submission.name}: {text}" if len(found) > 1 else text
                out.print(text.rstrip(), markup=False, soft_wrap=True)
            told[place] = item.state


def _plain(each: View) -> dict[str, object]:
    return {
        "name": each.submission.name,
        "created": each.submission.created,
        "page": each.page.state if each.page else "none",
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
