"""Flaws that an example can have, counted for the data card; which of them are dropped is the filters' business."""

from __future__ import annotations

import re
from collections.abc import Sequence

from alpaca.curation.filters import DEFAULT_LANGUAGE, FLAWS, Filter, TaskText, count_each, filters_named

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


def count(examples: Sequence[TaskText], language: str = DEFAULT_LANGUAGE) -> dict[str, int]:
    """How many examples have each flaw (`FLAWS` and `SIGNS`), each by itself: one example can have several.

    language: ISO 639-1 code of what is no flaw.
    """
    return count_each(examples, (*filters_named([each.name for each in FLAWS], language=language), *SIGNS))
