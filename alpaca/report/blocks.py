"""What a document is made of, before it is HTML or Markdown: both are written from the same blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """A text that leads to a file; `target` is relative to the page, "" where the file is missing."""

    text: str
    target: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Code:
    """A text to be typed as it stands, on one line."""

    text: str


Cell = str | Link | Code


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """A paragraph; `kind`: "plain", "fine" (small print) or "caveat"."""

    text: str
    kind: str = "plain"


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Labels with their texts."""

    rows: Sequence[tuple[str, Cell]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table. `label` names it for screen readers; `right`: the columns of numbers.

    shares: a bar per row, 0 to 1, headed `of`; only HTML has them, as a number beside each says the same.
    folded: HTML shows it only when opened, because a figure above says the same.
    """

    label: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    right: frozenset[int] = frozenset()
    shares: Sequence[float] | None = None
    of: str = "share"
    folded: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A drawing with its caption; Markdown has the caption's table instead, so each needs one beside it."""

    svg: Markup
    caption: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """An example in full; `origin` says where it comes from."""

    instruction: str
    input: str
    output: str
    origin: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """Examples one below the other."""

    items: Sequence[Sample]


@dataclass(frozen=True, kw_only=True, slots=True)
class Questions:
    """Questions of a datasheet with their answers, each a text or its parts, under one heading."""

    title: str
    rows: Sequence[tuple[str, str | Sequence[str | Code]]]


Block = Text | Facts | Table | Figure | Samples | Questions


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A heading and what stands under it; sections without a block are left out."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A page. `lead`: what it says in one sentence; `metadata`: for Markdown's YAML head."""

    title: str
    lead: str
    sections: Sequence[Section]
    caveats: Sequence[str] = ()
    metadata: dict[str, str | list[str]] = field(default_factory=dict)
