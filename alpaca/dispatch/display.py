"""What the user sees: the plan as a table, a live bar per running stage, one line per finished stage."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from alpaca.artifacts import read_json
from alpaca.dispatch import forecast
from alpaca.dispatch.prepare import Session
from alpaca.errors import AlpacaError

MOST_ROWS = 80
REFRESH_SECONDS = 0.3
LOG_SECONDS = 20.0
"""Between two lines of progress where there is no terminal."""


def console() -> Console:
    """The terminal; plain text of a fixed width where there is none, so that logs keep whole lines."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=160)


def plan_table(session: Session, states: dict[str, str]) -> Table:
    """Stage, folder with key, state, number of runs that share it, cost; summed by stage when the plan is long.

    states: key -> state.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, side in (
        ("stage", "left"),
        ("folder", "left"),
        ("state", "left"),
        ("runs", "right"),
        ("what it will cost", "left"),
    ):
        table.add_column(name, justify="right" if side == "right" else "left", overflow="fold")
    rows = [
        (node.stage, session.label(key).partition("/")[2], states[key], _shared(session, key), key)
        for key, node in session.plan.nodes.items()
    ]
    for stage, folder, status, shared, key in rows if len(rows) <= MOST_ROWS else []:
        done = status == "cached"
        threads = session.run.cluster.threads
        text = "nothing" if done else forecast.cost(session.plan.nodes[key], session.plan, session.earlier, threads)
        table.add_row(
            stage, folder, f"[green]{status}[/]" if done else f"[yellow]{status}[/]", str(shared), escape(text)
        )
    if len(rows) > MOST_ROWS:
        _summed(table, rows)
    return table


def _shared(session: Session, key: str) -> int:
    return sum(1 for run in session.plan.runs if key in run.values())


def _summed(table: Table, rows: list[tuple[str, str, str, int, str]]) -> None:
    for stage in dict.fromkeys(row[0] for row in rows):
        states = [row[2] for row in rows if row[0] == stage]
        text = ", ".join(f"{states.count(name)} {name}" for name in dict.fromkeys(states))
        table.add_row(stage, f"{len(states)} folders", text, str(sum(row[3] for row in rows if row[0] == stage)), "")


class Display:
    """Progress of one launch. Use as a context manager; without a terminal only the lines are printed."""

    def __init__(self, out: Console, total: int) -> None:
        self._out, self._total, self._count = out, total, 0
        self._bars: dict[str, tuple[TaskID, Path]] = {}
        self._refreshed = 0.0 if out.is_terminal else time.monotonic()
        self._progress = Progress(
            TextColumn("{task.fields[label]}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}"),
            console=out,
            transient=True,
            disable=not out.is_terminal,
        )

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def started(self, label: str, folder: Path) -> None:
        """A stage begins."""
        self._bars[label] = (self._progress.add_task("", label=label, text="", total=1), folder)

    def finished(self, label: str, seconds: float, text: str) -> None:
        """A stage is done; text: its last log line."""
        self._count += 1
        self._remove(label)
        self._line(f"[green]done[/]    {label}  {seconds:.1f} s  [dim]{escape(text)}[/]")

    def failed(self, label: str, seconds: float, text: str) -> None:
        """A stage failed; text: what it said."""
        self._count += 1
        self._remove(label)
        self._line(f"[red]failed[/]  {label}  {seconds:.1f} s  [dim]{escape(text.splitlines()[0])}[/]")

    def skipped(self, label: str) -> None:
        """A stage cannot start because a parent failed."""
        self._count += 1
        self._line(f"[yellow]skipped[/] {label}: a stage before it failed")

    def refresh(self) -> None:
        """Reads the running stages' progress files: a few times a second on a terminal, now and then for a log."""
        pause = REFRESH_SECONDS if self._out.is_terminal else LOG_SECONDS
        if time.monotonic() - self._refreshed < pause:
            return
        self._refreshed = time.monotonic()
        for label, (bar, folder) in self._bars.items():
            found = _progress_of(folder)
            if found and self._out.is_terminal:
                self._progress.update(bar, completed=found["done"], total=found["total"], text=str(found["text"]))
            elif found:
                share = 100 * found["done"] / max(1, found["total"])
                self._out.print(f"running {label}: {share:.0f} %, {found['text']}", markup=False, soft_wrap=True)

    def _remove(self, label: str) -> None:
        bar, _ = self._bars.pop(label)
        self._progress.remove_task(bar)

    def _line(self, text: str) -> None:
        self._out.print(
            f"[{self._count:>{len(str(self._total))}}/{self._total}] ".replace("[", r"\[") + text, soft_wrap=True
        )


def _progress_of(folder: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = read_json(folder / "progress.json")
    except (OSError, AlpacaError):
        return None
    return found
