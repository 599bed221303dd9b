"""Which tasks are dropped for what they say: Alpaca's five released filters, and two repairs of the released data.

`FILTERS` is the table of all filters; a new one is a predicate and a line there. The released filters look at the
instruction alone (stanford_alpaca, generate_instruction.py; the first 13 keywords come from self-instruct).
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from alpaca.errors import UserError

MIN_WORDS = 4
MAX_WORDS = 150
SELF_INSTRUCT_KEYWORDS = (
    "image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps",
    "draw", "plot", "go to",
)  # fmt: skip
ALPACA_KEYWORDS = ("video", "audio", "music", "flowchart", "diagram")
KEYWORDS = SELF_INSTRUCT_KEYWORDS + ALPACA_KEYWORDS

_KEYWORD = re.compile(rf"\b(?:{'|'.join(KEYWORDS)})\b", re.IGNORECASE)
_PUNCTUATION = tuple(string.punctuation)
# Whole fields only. A bare "NA" is left alone: it is also sodium and North America.
_NO_INPUT = re.compile(r"no ?input(?: (?:required|needed|necessary|provided|given))?|none|n/a")
_WRAPPING = re.compile(r"^[\W_]+|[\W_]+$")


class TaskText(Protocol):
    """What a filter looks at; an Example, a SeedTask and a ParsedTask all are one."""

    @property
    def instruction(self) -> str: ...
    @property
    def input(self) -> str: ...
    @property
    def output(self) -> str: ...


@dataclass(kw_only=True, slots=True, frozen=True)
class Filter:
    """A named reason to drop a task: `drops(task)` is true where the task must go."""

    name: str
    drops: Callable[[TaskText], bool]


def bad_length(task: TaskText) -> bool:
    """The instruction has fewer than 4 or more than 150 words (separated by white space)."""
    return not MIN_WORDS <= len(task.instruction.split()) <= MAX_WORDS


def unsuitable_keyword(task: TaskText) -> bool:
    """The instruction names, as a whole word in any case, something that a text model cannot see or make."""
    return _KEYWORD.search(task.instruction) is not None


def write_a_program(task: TaskText) -> bool:
    """The instruction starts with exactly "Write a program", which the teacher liked to put before other tasks."""
    return task.instruction.startswith("Write a program")


def starts_with_punctuation(task: TaskText) -> bool:
    """The first character of the instruction is ASCII punctuation."""
    return task.instruction.startswith(_PUNCTUATION)


def starts_outside_ascii(task: TaskText) -> bool:
    """The first character of the instruction is no ASCII character, taken as a sign of another language."""
    return not task.instruction[:1].isascii()


def empty_output(task: TaskText) -> bool:
    """The output is empty or blank, as it is in 28 released examples."""
    return not task.output.strip()


RELEASED: tuple[Filter, ...] = (
    Filter(name="length", drops=bad_length),
    Filter(name="keywords", drops=unsuitable_keyword),
    Filter(name="write_a_program", drops=write_a_program),
    Filter(name="punctuation", drops=starts_with_punctuation),
    Filter(name="non_ascii", drops=starts_outside_ascii),
)
EMPTY_OUTPUT = Filter(name="empty_output", drops=empty_output)
FILTERS: tuple[Filter, ...] = (
    *RELEASED,
    EMPTY_OUTPUT,
)


def filters_named(names: Iterable[str], *, where: str = "data.filters") -> tuple[Filter, ...]:
    """The filters of these names, each once, in the given order.

    Raises UserError that lists the known names for unknown ones; `where` is the configuration key shown there.
    """
    known, wanted = {each.name: each for each in FILTERS}, list(dict.fromkeys(names))
    if unknown := [name for name in wanted if name not in known]:
        raise UserError(
            what=f"unknown filter {', '.join(map(repr, unknown))}",
            where=where,
            remedy=f"known filters: {', '.join(known)}",
        )
    return tuple(known[name] for name in wanted)


def dropped_by(task: TaskText, filters: Sequence[Filter] = RELEASED) -> str | None:
    """The name of the first filter that drops the task, None if all let it pass."""
    return next((each.name for each in filters if each.drops(task)), None)


def count_drops(tasks: Iterable[TaskText], filters: Sequence[Filter] = RELEASED) -> dict[str, int]:
    """How many tasks each filter drops, in the order of `filters`; a task counts only for the first that drops it."""
    counts = {each.name: 0 for each in filters}
    for task in tasks:
        if name := dropped_by(task, filters):
            counts[name] += 1
    return counts


def normalise_no_input(input: str) -> str:
    """ "" for an input that only says that there is none, otherwise the input unchanged.

    Matched as the whole field, in any case, without surrounding punctuation and brackets: "no input" or "noinput"
    (alone or with required, needed, necessary, provided, given), "none" and "n/a". The released file has 671 such
    fields, since the released parser knows "<noinput>" alone.
    """
    words = " ".join(_WRAPPING.sub("", input).lower().split())
    return "" if _NO_INPUT.fullmatch(words) else input
