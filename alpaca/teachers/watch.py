"""Whether asking on is worth its price: answers that are looked at as soon as their turn comes."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from alpaca.config import AskedDataGen
from alpaca.errors import UserError
from alpaca.teachers.asking import Listed, Planned, Verdict

QUOTED = 200  # characters of an answer that an error message shows
FORM_REMEDY = (
    "the teacher does not keep to the asked form: use a stronger model, or look at raw.jsonl in the stage's folder; "
    "all answers are kept"
)


class Watched(Listed):
    """Fixed requests whose answers `look` gets, with their places in the list, in that order.

    An error that it raises ends the stage; all answers that came are kept.
    """

    def __init__(
        self, requests: list[Planned], look: Callable[[int, dict[str, Any]], None], *, whole: bool = True
    ) -> None:
        super().__init__(requests, whole=whole)
        self._look = look

    def judge(self, planned: Planned, row: dict[str, Any]) -> Verdict:
        verdict = super().judge(planned, row)
        self._look(len(self.rows) - 1, row)
        return verdict


class Yield:
    """What the answers of one kind have brought, over all phases of a stage and in the order of the requests.

    answers, things: what they are called in an error ("rewritings", "usable examples").
    """

    def __init__(self, rules: AskedDataGen, answers: str, things: str) -> None:
        self._rules, self._names = rules, (answers, things)
        self._recent: deque[int] = deque(maxlen=rules.stall_requests)
        self._answers = self._brought = 0
        self._last_text = ""

    def add(self, brought: int, text: str) -> None:
        """Counts one answer and what it brought."""
        self._answers += 1
        self._brought += brought
        self._recent.append(brought)
        self._last_text = text.strip() or self._last_text

    @property
    def mean(self) -> float:
        """Things per answer; 1 before there is an answer."""
        return self._brought / self._answers if self._answers else 1.0

    def check(self, kept: int, dropped: Counter[str]) -> None:
        """Raises UserError where the first answers brought nothing, or the last ones next to nothing.

        kept: examples so far, dropped: what was left out; both for the message.
        """
        rules, last = self._rules, sum(self._recent)
        answers, things = self._names
        counts = ", ".join(f"{name} {count:,}" for name, count in dropped.items() if count)
        if not self._brought and self._answers >= rules.nonsense_requests:
            raise UserError(
                what=f"the first {self._answers:,} {answers} brought no {things} ({counts}); "
                f"the last answer is {quoted(self._last_text)}",
                where="teacher",
                remedy=FORM_REMEDY,
            )
        if len(self._recent) == rules.stall_requests and last < rules.stall_keep_rate * len(self._recent):
            fewer = f", or data_gen.num_examples={kept} or less, which takes over these answers" if kept else ""
            raise UserError(
                what=f"the last {len(self._recent):,} {answers} brought {last:,} {things} ({counts} in all; "
                f"data_gen.stall_keep_rate={rules.stall_keep_rate:g}); {kept:,} examples are kept so far",
                where="data_gen.num_examples",
                remedy=f"a stronger or more diverse teacher{fewer}",
            )


def quoted(text: str) -> str:
    """The beginning of an answer on one line; "" is what a refused or unanswered request left."""
    return repr(" ".join(text.split())[:QUOTED])
