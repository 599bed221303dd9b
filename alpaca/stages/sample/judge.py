"""Which tasks of the answers count towards the pool: Alpaca's released rules, applied in the order of the requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from alpaca.curation.dedup import ALPACA_THRESHOLD, RougeIndex
from alpaca.curation.filters import RELEASED, dropped_by
from alpaca.curation.parsing import ParsedTask, parse_tasks

SURPLUS, DUPLICATE = "beyond_list", "duplicate"


class Novelty:
    """The released filters and de-duplication (ROUGE-L F > 0.7), which knows the seed tasks from the start."""

    def __init__(self, seed_instructions: Iterable[str]) -> None:
        self._index = RougeIndex(ALPACA_THRESHOLD)
        for instruction in seed_instructions:
            self._index.add(instruction)

    def reason(self, task: ParsedTask) -> str | None:
        """Why the task is dropped; None, and from now on known, where it is kept."""
        return dropped_by(task) or (DUPLICATE if self._index.offer(task.instruction) is not None else None)


class Judge:
    """Reads answers and counts their tasks up to a number wanted.

    The numbers of answers judged, of tasks read and of tasks kept can be looked at any time. last_number: that of the
    task that filled the pool, in the last answer; None before.
    """

    def __init__(self, seed_instructions: Iterable[str], form: str, wanted: int) -> None:
        self._novelty, self._form, self._wanted = Novelty(seed_instructions), form, wanted
        self._dropped: Counter[str] = Counter()
        self.requests = self.candidates = self.kept = 0
        self.last_number: int | None = None

    def judge(
        self, text: str, finish_reason: str, first_number: int, last_number: int
    ) -> tuple[int, list[ParsedTask]]:
        """The number of tasks in an answer, and those kept; `duplicates` grows by those too much like kept ones.

        Tasks numbered beyond the list that was asked for, or read after the pool was full, are no candidates.
        """
        parsed = parse_tasks(text, form=self._form, first_number=first_number, finish_reason=finish_reason)
        kept: list[ParsedTask] = []
        candidates = 0
        for task in parsed.tasks:
            if self.kept + len(kept) == self._wanted:
                self._dropped[SURPLUS] += 1
                continue
            reason = SURPLUS if task.number > last_number else self._novelty.reason(task)
            candidates += 1
            if reason is None:
                kept.append(task)
                self.last_number = task.number
            else:
                self._dropped[reason] += 1
        self._dropped.update(malformed=parsed.malformed, cut=parsed.cut)
        self.requests += 1
        self.candidates += candidates
        self.kept += len(kept)
        if self.kept < self._wanted:
            self.last_number = None
        return candidates, kept

    @property
    def duplicates(self) -> int:
        """Tasks dropped so far because of others."""
        return self._dropped[DUPLICATE]

    def summary(self) -> dict[str, Any]:
        """pool.json; `dropped` counts a task for the first rule that drops it, malformed and cut are no candidates."""
        names = ("malformed", "cut", SURPLUS, *(each.name for each in RELEASED), DUPLICATE)
        return {
            "requests": self.requests,
            "candidates": self.candidates,
            "kept": self.kept,
            "kept_share": self.kept / max(1, self.candidates),
            "dropped": {name: self._dropped[name] for name in names},
        }
