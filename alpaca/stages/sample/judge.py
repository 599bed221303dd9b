"""Which tasks of the answers count towards the pool: Alpaca's released rules, applied in the order of the requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from alpaca.curation.dedup import ALPACA_THRESHOLD, RougeIndex
from alpaca.curation.filters import RELEASED, dropped_by
from alpaca.curation.parsing import parse_completion

SURPLUS, DUPLICATE = "beyond_list", "duplicate"


@dataclass(kw_only=True, slots=True, frozen=True)
class Verdict:
    """What one answer brought: tasks that could be read, and tasks that were kept."""

    candidates: int
    kept: int


class Judge:
    """The released filters and the de-duplication index (ROUGE-L F > 0.7), which knows the seed tasks from the start.

    The numbers of answers judged, of tasks read and of tasks kept can be looked at any time.
    """

    def __init__(self, seed_instructions: Iterable[str]) -> None:
        self._index = RougeIndex(ALPACA_THRESHOLD)
        for instruction in seed_instructions:
            self._index.add(instruction)
        self._dropped: Counter[str] = Counter()
        self.requests = self.candidates = self.kept = 0

    def judge(self, text: str, finish_reason: str, *, first_number: int, last_number: int) -> Verdict:
        """Reads one answer and counts its tasks; those numbered beyond the list that was asked for do not count."""
        parsed = parse_completion(text, first_number=first_number, finish_reason=finish_reason)
        reasons = [SURPLUS if task.number > last_number else dropped_by(task) or self._seen(task.instruction)
                   for task in parsed.tasks]  # fmt: skip
        self._dropped.update(reason for reason in reasons if reason)
        self._dropped.update(malformed=parsed.malformed, cut=parsed.cut)
        verdict = Verdict(candidates=len(reasons), kept=reasons.count(None))
        self.requests += 1
        self.candidates += verdict.candidates
        self.kept += verdict.kept
        return verdict

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

    def _seen(self, instruction: str) -> str | None:
        return DUPLICATE if self._index.offer(instruction) is not None else None
