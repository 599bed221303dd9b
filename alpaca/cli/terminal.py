"""Blocks of a document in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text as Words

from alpaca.report import blocks
from alpaca.report.diff.page import Arms, Curves, Page, Part, Patch, sparks

_INDENT = "  "


def show(page: Page, out: Console) -> None:
    """The page from top to bottom; tables fold their texts into the width that there is."""
    out.print(Words(page.lead, style="bold"))
    for section in page.sections:
        out.print(f"\n[bold cyan]{escape(section.title)}[/]")
        for item in section.parts:
            _show(item, out)
    if page.fine:
        out.print(f"\n[dim]{escape(page.fine)}[/]")


def _show(item: Part, out: Console) -> None:
    if isinstance(item, blocks.Text):
        out.print(Words(item.text, style="dim" if item.kind == "fine" else ""))
    elif isinstance(item, blocks.Facts):
        out.print(table(["", ""], [[name, text(cell)] for name, cell in item.rows], titled=False))
    elif isinstance(item, blocks.Table):
        out.print(table(item.head, [[text(cell) for cell in row] for row in item.rows], right=item.right))
    elif isinstance(item, Arms):
        _arms(item, out)
    elif isinstance(item, Curves):
        out.print(
            *(Words(f"{_INDENT}{name}  {line}") for name, line in zip("AB", sparks(item.loss), strict=True)), sep="\n"
        )
    elif isinstance(item, Patch):
        out.print(Syntax(item.text, "diff", background_color="default", word_wrap=True))


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset(), titled: bool = True
) -> Table:
    """A plain table; long texts are folded."""
    made = Table(box=None, pad_edge=False, header_style="dim", show_header=titled)
    for at, name in enumerate(head):
        made.add_column(name, overflow="fold", justify="right" if at in right else "left")
    for row in rows:
        made.add_row(*(escape(cell) for cell in row))
    return made


def text(cell: blocks.Cell) -> str:
    """What a cell says, without where it leads."""
    return cell if isinstance(cell, str) else cell.text


def _arms(item: Arms, out: Console) -> None:
    out.print(Words(f"{_INDENT}{item.title}"), Words(f"  {item.note}", style="dim") if item.note else "", sep="")
    for label, said in item.arms:
        out.print(Words(f"{_INDENT}{_INDENT}{label}: ", style="cyan"), Words(said or "(empty)"), sep="")
