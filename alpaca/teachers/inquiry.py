"""One phase under way: which request comes next, what its answer brought, when there is enough or no hope."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import asdict
from typing import Any

from alpaca.config import AskedDataGen
from alpaca.errors import ArtifactError, TeacherError, UserError
from alpaca.teachers.base import Request, RetryableError, Usage
from alpaca.teachers.phases import Phase, Planned, Verdict
from alpaca.teachers.projection import Projection
from alpaca.teachers.queue import Answer
from alpaca.teachers.raw import REFUSED, RawRecords
from alpaca.teachers.spending import Spending

RECENT = 20  # requests from which the yield of the next ones is estimated
QUOTED = 200  # characters of an answer that an error message shows
ENOUGH = 20
"""Answers after which a refused request is put down as such: before, the configuration may be at fault."""
SPARE, MOST_REFUSED = 2, 0.05
"""Refused requests that are borne: so many, and this share of all."""


class Inquiry:
    """A `Source` of requests for the queue, which takes its answers back, records them and has them judged."""

    def __init__(
        self,
        phase: Phase,
        raw: RawRecords,
        adoptable: dict[str, dict[str, Any]],
        spending: Spending,
        rules: AskedDataGen | None,
    ) -> None:
        self.phase, self.kept, self.kept_here = phase, 0, 0
        self.judged = self.asked = self._candidates = 0
        self._raw, self._adoptable, self._spending, self._rules = raw, adoptable, spending, rules
        self._next = 0  # the first request not yet looked at: neither sent nor found answered
        self._out: dict[str, int] = {}  # id -> number, of what is out
        self._ahead: set[int] = set()  # answered here and not judged
        self._plans: dict[int, Planned] = {}  # what was looked at and is not judged
        self._put_back: list[Request] = []  # failed, and no room below the bound for another try
        self._refused: dict[int, str] = {}  # why, by number; not put down yet
        self._verdicts: deque[Verdict] = deque(maxlen=max(RECENT, rules.stall_requests if rules else 0))
        self._last_text = ""
        self._projection, self._used_before = Projection(), spending.used

    @property
    def outstanding(self) -> int:
        """Requests that are out."""
        return len(self._out)

    def wants_more(self) -> bool:
        """True until the phase has what it wants, or the teacher repeats itself or answers nonsense."""
        return self.kept < self.phase.target and not self._is_stalled() and not self._is_nonsense()

    def next_request(self) -> Request | None:
        """The next request without an answer, unless those that are out should suffice or a bound is reached."""
        if self._put_back:
            return self._next_put_back()
        while self._next - self.judged < self._needed() and (planned := self._plan(self._next)) is not None:
            if self._row(planned) is None and self._next not in self._refused:
                if not self._spending.allows(planned.request):
                    return None
                self._out[planned.request.id] = self._next
                self._spending.reserve(planned.request)
                self._next += 1
                return planned.request
            self._next += 1
        return None

    def take(self, answer: Answer) -> None:
        """Records an answer and judges all whose turn has come."""
        number = self._out.pop(answer.request.id)
        row = _raw_row(self._plans[number], answer)
        self._raw.append(row)
        self._spending.release(answer.request)
        self._spending.add(row, answer.request)
        self.asked += 1
        self._ahead.add(number)
        if self._refused and self._raw.answered >= ENOUGH:
            self._put_down()
        kept = self.kept
        self.judge_answers()
        self.kept_here += self.kept - kept

    def failed(self, request: Request, fault: RetryableError) -> bool:
        """Records what a failed try costs; whether the bound leaves room for another now. See `Source`."""
        usage = self._spending.bill(request, fault)
        if usage is None:
            return True
        row = _failed_row(request, fault, usage)
        self._raw.append_failed(row)
        self._spending.add(row)
        if self._spending.allows(request):
            return True
        self._spending.release(request)
        self._put_back.append(request)
        return False

    def gave_up(self, request: Request, reason: str) -> bool:
        """Goes on without a request that the teacher does not take, as long as such ones are few. See `Source`.

        It is put down for good only after enough others were answered, or at the end: until then a wrong parameter
        might be the reason, and what a mended configuration would get must not be lost.
        """
        refused = self._raw.refused + len(self._refused) + 1
        most = SPARE + MOST_REFUSED * (self._raw.answered + refused)
        if self.phase.must_answer or refused > most:
            return False
        self._refused[self._out.pop(request.id)] = reason
        self._spending.release(request)
        if self._raw.answered >= ENOUGH:
            self._put_down()
            self.judge_answers()
        return True

    def settle(self) -> bool:
        """At the end of the asking: puts the refused requests down if others were answered; whether it did."""
        if not self._refused or not self._raw.answered:
            return False
        self._put_down()
        self.judge_answers()
        return True

    def judge_answers(self) -> None:
        """Judges the answers that follow those judged already, up to the first that is missing."""
        while self.wants_more() and (planned := self._plan(self.judged)) is not None:
            row = self._row(planned)
            if row is None:
                return
            verdict = self.phase.judge(planned, row)
            self._verdicts.append(verdict)
            del self._plans[self.judged]
            self._ahead.discard(self.judged)
            self.judged += 1
            self._next = max(self._next, self.judged)
            self._candidates += verdict.candidates
            self._projection.add(verdict.kept, verdict.duplicates)
            self.kept += verdict.kept
            self._last_text = row["text"]

    def status(self, seconds: float) -> str:
        """The live line: what is out, how fast, what is spent, what it will come to."""
        spent = self._spending
        rate = (spent.used - self._used_before) / seconds
        parts = [f"{self.kept:,} / {self.phase.target:,} kept", spent.told()]
        tokens, remaining = self.projected_tokens(), self._remaining()
        if tokens is not None:
            usd = f", ${spent.usd * tokens / spent.used:,.4f}" if spent.usd else ""
            parts.append(f"of about {tokens:,.0f}{usd}")
        if remaining is not None and self.asked:
            parts.append(f"{_clock(remaining * seconds / self.asked)} left")
        parts += [f"{self.outstanding} in flight", f"{rate:,.0f} tokens/s"]
        return ", ".join(parts)

    def projected_tokens(self) -> float | None:
        """What the stage will have used in the end; None where this phase is not all of it, or nothing is known yet."""
        remaining = self._remaining()
        if not self.phase.whole or remaining is None or not self.asked:
            return None
        return self._spending.used + remaining * (self._spending.used - self._used_before) / self.asked

    def raise_unless_full(self) -> None:
        """UserError that says why the phase is not full and what to do; nothing if it is."""
        if self.kept >= self.phase.target:
            return
        if self._refused:
            number, reason = min(self._refused.items())
            raise TeacherError(
                what=f"the teacher does not take {self._plans[number].request.id}: {reason}",
                where="teacher",
                remedy="nothing was answered beside it, so the reason may be a parameter: see the words of the server",
            )
        if self._is_nonsense():
            raise self._nonsense_error()
        if self._is_stalled():
            raise self._stall_error()
        following = self._put_back[0] if self._put_back else self._following()
        raise self._spending.reached(following, f"{self.kept:,} of {self.phase.target:,} are kept so far")

    def _put_down(self) -> None:
        for number, reason in sorted(self._refused.items()):
            self._raw.append(_refused_row(self._plans[number], reason))
        self._refused.clear()

    def _following(self) -> Request:
        planned = self._plan(self._next)
        if planned is None:
            raise UserError(
                what=f"nothing is left to ask for, {self.kept:,} of {self.phase.target:,} are kept",
                where="data_gen",
                remedy="ask for fewer examples",
            )
        return planned.request

    def _remaining(self) -> float | None:
        """Requests still to be answered (see `Projection`); None where that is not known or endless."""
        total = self._projection.total(self.phase.target)
        if total is None or not math.isfinite(total):
            return None
        return max(0.0, total - self.judged - len(self._ahead))

    def _next_put_back(self) -> Request | None:
        """Those that were put back come first: nothing behind them can be judged without them."""
        if not self._spending.allows(self._put_back[0]):
            return None
        self._spending.reserve(self._put_back[0])
        return self._put_back.pop(0)

    def _needed(self) -> int:
        """How many requests from the first unjudged one on should fill the phase, at the yield of the last ones."""
        recent = list(self._verdicts)[-RECENT:]
        rate = sum(verdict.kept for verdict in recent) / len(recent) if recent else self.phase.first_yield
        return math.ceil((self.phase.target - self.kept) / max(rate, 1.0)) + len(self._refused)

    def _plan(self, index: int) -> Planned | None:
        if index not in self._plans:
            planned = self.phase.planned(index)
            if planned is None:
                return None
            self._plans[index] = planned
        return self._plans[index]

    def _row(self, planned: Planned) -> dict[str, Any] | None:
        """The answer to a request, taken over from another folder where there is one."""
        id, digest = planned.request.id, planned.digest
        row = self._raw.rows.get(id)
        if row is not None and row["request_sha256"] != digest:
            raise ArtifactError(
                what=f"{id} was asked with another text (sha256 {row['request_sha256'][:12]}, now {digest[:12]})",
                where=str(self._raw.path),
                remedy="the seed tasks, the prompt or the request plan changed: move this folder away and run again",
            )
        adopted = self._adoptable.get(digest)
        if row is None and adopted is not None:
            row = {**adopted, "id": id, "adopted": True}
            self._raw.append(row)
        return row

    def _is_nonsense(self) -> bool:
        rules = self._rules
        return rules is not None and self.judged >= rules.nonsense_requests and not self._candidates

    def _is_stalled(self) -> bool:
        if self._rules is None or len(self._verdicts) < self._rules.stall_requests:
            return False
        candidates, kept = self._window()
        return kept < self._rules.stall_keep_rate * max(1, candidates)

    def _window(self) -> tuple[int, int]:
        """Candidates and kept tasks of the last `stall_requests` requests."""
        last = list(self._verdicts)[-(self._rules.stall_requests if self._rules else RECENT) :]
        return sum(verdict.candidates for verdict in last), sum(verdict.kept for verdict in last)

    def _nonsense_error(self) -> UserError:
        text = " ".join(self._last_text.split())
        return UserError(
            what=f"not one task could be read in the teacher's first {self.judged} answers; the last one is "
            f"{text[:QUOTED]!r}",
            where="teacher",
            remedy="the teacher does not keep to the asked form: use a stronger model or another form "
            "(data_gen.form), or look at raw.jsonl in the stage's folder; all answers are kept",
        )

    def _stall_error(self) -> UserError:
        candidates, kept = self._window()
        rules = self._rules
        rate, last = (rules.stall_keep_rate, rules.stall_requests) if rules else (0.0, 0)
        return UserError(
            what=f"the teacher repeats itself: its last {last} requests brought {candidates:,} tasks "
            f"of which {kept:,} were kept (data_gen.stall_keep_rate={rate:g}); "
            f"{self.kept:,} of {self.phase.target:,} examples are kept so far",
            where="data_gen.num_examples",
            remedy="more seed tasks (data_gen.seeds), a more diverse teacher (another model, a higher temperature, "
            f"teacher.diversity), or data_gen.num_examples={self.kept} or less, which takes over these answers",
        )


def _clock(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _raw_row(planned: Planned, answer: Answer) -> dict[str, Any]:
    completion = answer.completion
    return {
        "id": planned.request.id,
        "request_sha256": planned.digest,
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "model": completion.model,
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
        "cached_tokens": completion.cached_tokens,
        "reasoning_tokens": completion.reasoning_tokens,
        "usage_estimated": completion.usage_estimated,
        "service_tier": completion.service_tier,
        "server_request_id": completion.server_request_id,
        "system_fingerprint": completion.system_fingerprint,
        "attempts": answer.attempts,
        "seconds": round(answer.seconds, 4),
    }


def _refused_row(planned: Planned, reason: str) -> dict[str, Any]:
    return {
        "id": planned.request.id,
        "request_sha256": planned.digest,
        "text": "",
        "finish_reason": REFUSED,
        "model": "",
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "attempts": 1,
        "reason": reason,
    }


def _failed_row(request: Request, fault: RetryableError, usage: Usage) -> dict[str, Any]:
    return {
        "id": request.id,
        "reason": fault.reason,
        **asdict(usage),
        "usage_estimated": fault.usage is None,
    }
