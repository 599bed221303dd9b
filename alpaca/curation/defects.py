"""Flaws that an example can have, counted for the data card; which of them are dropped is the filters' business."""

from __future__ import annotations

import re
from collections.abc import Sequence

from alpaca.curation.filters import (
    DEFAULT_LANGUAGE,
    FLAWS,
    OTHER_LANGUAGE,
    Filter,
    TaskText,
    count_each,
    filters_named,
)
from alpaca.curation.language import LANGUAGES

_BARE_TWENTY = re.compile(r"(?:^|\s)20$")


def url_in_input(task: TaskText) -> bool:
    """The input holds "http" somewhere (266 of the released examples)."""
    return "http" in task.input


def ends_in_20(task: TaskText) -> bool:
    """The output ends in a bare "20" (48), as one does that was cut at the recipe's stop string "20."."""
    return _BARE_TWENTY.search(task.output.rstrip()) is not None


# Too many sound examples have these for them to be filters.
SIGNS: tuple[Filter, ...] = (
    Filter(name="url_in_input", drops=url_in_input),
    Filter(name="ends_in_20", drops=ends_in_20),
)


def count(
    source: Sequence[TaskText], kept: Sequence[TaskText], language: str = DEFAULT_LANGUAGE
) -> tuple[dict[str, int], dict[str, int]]:
    """How many examples have each flaw (`FLAWS` and `SIGNS`), each by itself: in the source, and in what is kept of it.

    language: ISO 639-1 code of what is no flaw; what is in another one is not counted where nobody can tell it from
    others. The kept examples have instructions of the source.
    """
    if language not in LANGUAGES:
        every: tuple[Filter, ...] = (*(each for each in FLAWS if each.name != OTHER_LANGUAGE), *SIGNS)
        return count_each(source, every), count_each(kept, every)
    flaws = filters_named([each.name for each in FLAWS], language=language)
    # To tell the language costs more than all the other flaws together, so each instruction is looked at once.
    slow = next(each for each in flaws if each.name == OTHER_LANGUAGE)
    foreign = {task.instruction for task in source if slow.drops(task)}
    known = Filter(name=OTHER_LANGUAGE, drops=lambda task: task.instruction in foreign)
    every = (*(known if each is slow else each for each in flaws), *SIGNS)
    return count_each(source, every), count_each(kept, every)
