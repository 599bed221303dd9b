"""`gc`: what an output folder could do without, and its deletion after a question."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from alpaca.cli import terminal
from alpaca.cli.queue import agreed, tell
from alpaca.dispatch import display, garbage
from alpaca.dispatch.garbage import Found, Waste
from alpaca.dispatch.slurm import records, submit

_MOST_ROWS = 60


def run(given: argparse.Namespace) -> int:
    """0, or 1 where the answer was no, or something could not be deleted."""
    out = display.console()
    found = garbage.look(given.output_dir, paid=given.paid)
    for line in _told(found):
        out.print(line, markup=False)
    if not found.wastes:
        out.print("nothing to delete")
        return 0
    _show(found.wastes, out)
    if not given.yes and not sys.stdin.isatty():
        out.print("nothing was deleted: there is no terminal to ask at; --yes deletes without asking")
        return 0
    if not given.yes and not agreed(f"delete these {len(found.wastes)}, {human(_sum(found.wastes))}? [y/N] "):
        out.print("nothing was deleted")
        return 1
    return _delete(given.output_dir, found.wastes, paid=given.paid, out=out)


def _delete(output: Path, wastes: list[Waste], *, paid: bool, out: Console) -> int:
    with _alone(output):
        done, kept = garbage.delete(output, wastes, paid=paid)
    out.print(f"{len(done)} deleted, {human(_sum(done))} freed")
    for waste in kept:
        out.print(f"kept, since it is needed again: {waste.label}", markup=False)
    return 1 if kept else 0


def _alone(output: Path) -> AbstractContextManager[Any]:
    """Nothing is queued meanwhile, where anything ever was."""
    return submit.alone(output, tell) if (output / records.FOLDER).is_dir() else nullcontext()


def _told(found: Found) -> Iterator[str]:
    """What is left alone, and why."""
    if found.busy:
        yield f"stages and code are left alone, since a launch may need them: {found.busy}"
    if found.protected:
        yield f"{found.protected} stage(s) belong to what is queued or running and are left alone"
    if found.paid:
        yield (
            f"{len(found.paid)} stage(s) ({human(_sum(found.paid))}) hold teacher answers that were paid for, or could "
            "have been: they are left alone; --paid offers them too"
        )


def _show(wastes: list[Waste], out: Console) -> None:
    """The largest first, and the sum of each reason."""
    ordered = sorted(wastes, key=lambda waste: (-waste.size, waste.label))
    rows = [[waste.label, waste.why, human(waste.size), waste.note] for waste in ordered[:_MOST_ROWS]]
    out.print(terminal.table(["what", "why", "frees", ""], rows, right=frozenset({2})))
    if len(wastes) > _MOST_ROWS:
        out.print(f"and {len(wastes) - _MOST_ROWS} smaller ones")
    for why in dict.fromkeys(waste.why for waste in ordered):
        some = [waste for waste in wastes if waste.why == why]
        out.print(f"{why}: {len(some)}, {human(_sum(some))}", markup=False)
    out.print(f"together {len(wastes)}, {human(_sum(wastes))} ({_sum(wastes):,} bytes)")


def _sum(wastes: Iterable[Waste]) -> int:
    return sum(waste.size for waste in wastes)


def human(size: int) -> str:
    """ "3.2 MiB"."""
    number = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"
