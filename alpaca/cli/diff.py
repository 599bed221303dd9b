"""`diff`: what two results have not in common."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from alpaca.cli import logs, terminal
from alpaca.dispatch import display
from alpaca.errors import UserError

if TYPE_CHECKING:
    from alpaca.report.diff.page import Page


def run(given: argparse.Namespace) -> int:
    """0 where both are equal, 1 where they differ, like diff(1)."""
    # scipy and matplotlib take a second to import; the other commands do not need them.
    from alpaca.report.diff import compare, page, sides

    found = compare.compare(
        *(sides.read_side(*place(given.output_dir, name, given.command)) for name in (given.first, given.second))
    )
    made = page.page(found, patches=given.code)
    if given.html:
        _write(given.html, made)
    if given.json:
        print(json.dumps(compare.as_json(found), indent=1, ensure_ascii=False, default=str))
    elif not given.html:
        terminal.show(made, display.console())
    return 0 if found.is_equal else 1


def place(output: Path, name: str, command: str) -> tuple[Path, str]:
    """Output folder and label of an artifact: a folder of any output folder, else what `logs` understands."""
    path = Path(name).expanduser()
    if (path / "stage.json").is_file():
        path = path.resolve()
        return path.parents[1], "/".join(path.parts[-2:])
    if "/" in name and path.exists() and not path.resolve().is_relative_to(output):
        raise UserError(
            what="no stage.json: not the folder of a stage or a page", where=name, remedy="give outputs/STAGE/NAME-KEY"
        )
    return output, logs.find(output, name, command)


def _write(path: Path, made: Page) -> None:
    from alpaca.report import html
    from alpaca.report.diff import drawn

    if not path.parent.is_dir():
        raise UserError(what="no such folder", where=f"--html {path}", remedy="make it, or choose another file")
    html.write(path, drawn.render(made))
    print(f"written: {path}")
