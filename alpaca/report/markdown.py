"""A document as Markdown (CommonMark with tables), fit to be the README of a data set on a hub.

Texts of a data set are anybody's: in prose and tables every character that could be markup is escaped, and examples
stand in fences longer than any run of backticks in them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from alpaca.report.blocks import (
    Block,
    Cell,
    Code,
    Document,
    Facts,
    Figure,
    Link,
    Questions,
    Sample,
    Samples,
    Table,
    Text,
)

# An underscore inside a word is no emphasis.
_MARKUP = re.compile(r"[\\`*{}\[\]<>|~$#]|(?<![^\W_])_|_(?![^\W_])")
_ADDRESS = re.compile(r"(?i)\b((?:https?|ftp|mailto)(?=:)|www(?=\.))")
_LINE_START = re.compile(r"^([-+]|\d+[.)])(?=\s|-|$)")
_BACKTICKS = re.compile(r"`+")


def written(document: Document) -> str:
    """The whole text, with a YAML head where the document has metadata."""
    parts = [*_head(document), f"# {escaped(document.title)}", paragraph(document.lead)]
    parts += [f"> **Note:** {escaped(caveat)}" for caveat in document.caveats]
    for section in document.sections:
        parts.append(f"## {escaped(section.title)}")
        for block in section.blocks:
            parts += _block(block)
    return "\n\n".join(parts) + "\n"


def paragraph(text: str) -> str:
    """The text as a line of its own, escaped; what it begins with makes no list."""
    return _LINE_START.sub(lambda found: f"{found[1][:-1]}\\{found[1][-1]}", escaped(text))


def escaped(text: str) -> str:
    """The text on one line with nothing left that a renderer would take for markup, HTML or an address."""
    flat = " ".join(text.split())
    return _ADDRESS.sub(r"\1\\", _MARKUP.sub(r"\\\g<0>", flat.replace("&", "&amp;")))


def fenced(text: str) -> str:
    """The text as it is, in a fence that it cannot close."""
    longest = max((len(run) for run in _BACKTICKS.findall(text)), default=0)
    fence = "`" * max(3, longest + 1)
    # A form feed or a lone carriage return would end a line for some renderers and not for others.
    body = re.sub(r"\r\n?|\f|\v|\u2028|\u2029", "\n", text)
    return f"{fence}text\n{body}\n{fence}"


def code(text: str) -> str:
    """The text on one line as code, in which nothing is escaped; its fence is longer than any run of backticks."""
    flat = " ".join(text.split())
    fence = "`" * (max((len(run) for run in _BACKTICKS.findall(flat)), default=0) + 1)
    pad = " " if flat.startswith("`") or flat.endswith("`") else ""
    return f"{fence}{pad}{flat}{pad}{fence}" if flat else ""


def _head(document: Document) -> list[str]:
    if not document.metadata:
        return []
    lines: list[str] = []
    for key, value in document.metadata.items():
        # JSON strings are YAML strings, whatever they hold.
        lines += [f"{key}: {json.dumps(value)}"] if isinstance(value, str) else [f"{key}:", *_listed(value)]
    return ["\n".join(["---", *lines, "---"])]


def _listed(values: Sequence[str]) -> Iterator[str]:
    return (f"- {json.dumps(value)}" for value in values)


def _block(block: Block) -> list[str]:
    match block:
        case Text():
            return [f"> **Note:** {escaped(block.text)}" if block.kind == "caveat" else paragraph(block.text)]
        case Facts():
            return [_table(("", ""), block.rows, frozenset())]
        case Table():
            return [_table(block.head, block.rows, block.right)]
        case Figure():
            return []
        case Samples():
            return [part for number, item in enumerate(block.items, 1) for part in _sample(number, item)]
        case Questions():
            return [f"### {escaped(block.title)}", *(_answered(*row) for row in block.rows)]


def _answered(question: str, answer: str | Sequence[str | Code]) -> str:
    parts = [answer] if isinstance(answer, str) else answer
    return f"**{escaped(question)}** {''.join(_inline(part) for part in parts)}"


def _inline(part: str | Code) -> str:
    """A part of a sentence, with the blanks at its ends."""
    if isinstance(part, Code):
        return code(part.text)
    before, after = part[: len(part) - len(part.lstrip())], part[len(part.rstrip()) :]
    return f"{' ' if before else ''}{escaped(part)}{' ' if after else ''}"


def _sample(number: int, item: Sample) -> list[str]:
    parts = [f"### {number}. {escaped(item.origin)}", "Instruction", fenced(item.instruction)]
    if item.input:
        parts += ["Input", fenced(item.input)]
    return [*parts, "Output", fenced(item.output)]


def _table(head: Sequence[str], rows: Sequence[Sequence[Cell]], right: frozenset[int]) -> str:
    rule = ["---:" if column in right else "---" for column in range(len(head))]
    lines = [[escaped(name) for name in head], rule, *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: Cell) -> str:
    """Links are written as their text: the page's neighbours are not the README's."""
    if isinstance(cell, Code):
        # A table ends its cells before it looks for code.
        return code(cell.text).replace("|", "\\|")
    return escaped(cell.text if isinstance(cell, Link) else cell)
