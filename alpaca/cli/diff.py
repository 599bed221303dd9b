"""`diff`: what two results have not in common."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from alpaca.cli import terminal
from alpaca.cli.place import place
from alpaca.dispatch import display
from alpaca.errors import UserError
from alpaca.report import html
from alpaca.report.diff import compare, page, sides


def run(given: argparse.Namespace) -> int:
    """0 where both are equal, 1 where they differ, like diff(1)."""
    if given.html:
        _refuse_no_file(given.html)
    places = [place(given.output_dir, name, given.command) for name in (given.first, given.second)]
    found = compare.compare(*(sides.read_side(output, label) for output, label in places))
    made = page.page(found, patches=given.code)
    if given.html:
        _write(given.html, made)
    if given.json:
        print(json.dumps(compare.as_json(found), indent=1, ensure_ascii=False, default=str))
    elif given.html:
        print(f"{made.lead}\nwritten: {given.html}")
    else:
        terminal.show(made, display.console())
    return 0 if found.is_equal else 1


def _refuse_no_file(path: Path) -> None:
    if path.is_dir():
        raise UserError(what="a folder", where=f"--html {path}", remedy=f"name a file, as {path / 'diff.html'}")
    if not path.parent.is_dir():
        raise UserError(what="no such folder", where=f"--html {path}", remedy="make it, or choose another file")


def _write(path: Path, made: page.Page) -> None:
    from alpaca.report.diff import drawn  # matplotlib takes a second to import

    html.write(path, drawn.render(made))
