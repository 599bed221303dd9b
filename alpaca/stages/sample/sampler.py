"""The state of the sampling loop: what to ask next, what the answers brought, when to stop.

Answers are judged in the order of the requests, whatever the order of their arrival. The data set is the smallest
prefix of the request plan that keeps `num_examples` tasks, so neither concurrency nor faults nor a crash change it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from alpaca.curation.parsing import continuation
from alpaca.errors import ArtifactError, UserError
from alpaca.stages.sample.judge import Judge, Verdict
from alpaca.stages.sample.plan import PlannedRequest, RequestPlan, request_number
from alpaca.stages.sample.raw import RawRecords
from alpaca.teachers.base import Request, RetryableError, Usage
from alpaca.teachers.queue import Answer

PAYLOAD_FIELDS = ("finish_reason", "model", "prompt_tokens", "completion_tokens")
RECENT = 20  # requests from which the yield of the next ones is estimated
CHARACTERS_PER_TOKEN = 4


class Spending:
    """Tokens used up so far against `spend.max_tokens` (None: no bound); rows: what is already paid for.

    Every request that is out is reckoned with the most that it can take, and so is a failed try whose bill is unknown
    (no answer in time, a broken one). So the bound holds, and towards it fewer and fewer requests are in flight until
    the last one leaves no room for another. Two things it cannot know: what was in flight when a process was killed,
    and how many tokens a prompt has before the first answer (characters / 4).
    """

    def __init__(self, bound: int | None, rows: Iterable[dict[str, Any]]) -> None:
        self.bound, self.used, self._longest_prompt = bound, 0, 0
        for row in rows:
            self.add(row)

    def add(self, row: dict[str, Any]) -> None:
        """Counts an answer or a failed try."""
        self.used += row["prompt_tokens"] + row["completion_tokens"]
        self._longest_prompt = max(self._longest_prompt, row["prompt_tokens"])

    def bill(self, request: Request, fault: RetryableError) -> Usage | None:
        """What a failed try costs: as the server says, the most possible if it may have cost something, else None."""
        if fault.usage is not None or not fault.may_be_billed:
            return fault.usage
        return Usage(prompt_tokens=self.most(request) - request.max_tokens, completion_tokens=request.max_tokens)

    def allows(self, request: Request, outstanding: int) -> bool:
        """Whether this request and those that are still out can only end within the bound."""
        return self.bound is None or self.used + self.most(request) * (outstanding + 1) <= self.bound

    def most(self, request: Request) -> int:
        """Tokens that one request can take; its prompt is as long as the longest so far, or by characters if longer."""
        prompt = math.ceil(sum(len(message.content) for message in request.messages) / CHARACTERS_PER_TOKEN)
        return max(prompt, self._longest_prompt) + request.max_tokens


class Sampler:
    """A `Source` of requests for the queue, which takes its answers back."""

    def __init__(
        self, plan: RequestPlan, raw: RawRecords, adoptable: dict[str, dict[str, Any]], spending: Spending
    ) -> None:
        self.target, self.outstanding, self.spending = plan.options.num_examples, 0, spending
        self.judge = Judge(task.instruction for task in plan.seed_tasks)
        self._plan, self._raw, self._adoptable = plan, raw, adoptable
        self._next = 0  # the first request not yet looked at: neither sent nor found answered
        self._put_back: list[Request] = []  # failed, and no room below the bound for another try
        self._verdicts: deque[Verdict] = deque(maxlen=max(RECENT, plan.options.stall_requests))

    def wants_more(self) -> bool:
        """True until the pool is full or the teacher repeats itself."""
        return self.judge.kept < self.target and not self._is_stalled()

    def next_request(self) -> Request | None:
        """The next request without an answer, unless those that are out should suffice or the bound is reached."""
        if self._put_back:
            return self._next_put_back()
        while self._next - self.judge.requests < self._needed():
            planned = self._plan[self._next]
            if self._row(planned) is None:
                if not self.spending.allows(planned.request, self.outstanding):
                    return None
                self.outstanding += 1
                self._next += 1
                return planned.request
            self._next += 1
        return None

    def take(self, answer: Answer) -> None:
        """Records an answer and judges all whose turn has come."""
        row = _raw_row(self._plan[request_number(answer.request.id)], answer)
        self._raw.append(row)
        self.outstanding -= 1
        self.spending.add(row)
        self.judge_answers()

    def failed(self, request: Request, fault: RetryableError) -> bool:
        """Records what a failed try costs; whether the bound leaves room for another now. See `Source`."""
        usage = self.spending.bill(request, fault)
        if usage is None:
            return True
        row = _failed_row(request, fault, usage)
        self._raw.append_failed(row)
        self.spending.add(row)
        if self.spending.allows(request, self.outstanding - 1):
            return True
        self.outstanding -= 1
        self._put_back.append(request)
        return False

    def judge_answers(self) -> None:
        """Judges the answers that follow those judged already, up to the first that is missing."""
        while self.wants_more():
            planned = self._plan[self.judge.requests]
            row = self._row(planned)
            if row is None:
                return
            text = continuation(row["text"], planned.first_number)
            self._verdicts.append(self.judge.judge(
                text, row["finish_reason"], first_number=planned.first_number, last_number=planned.last_number
            ))  # fmt: skip

    def responses(self) -> Iterator[dict[str, Any]]:
        """The rows of responses.jsonl: the judged requests in order, without what depends on this execution."""
        for index in range(self.judge.requests):
            planned = self._plan[index]
            row = self._raw.rows[planned.request.id]
            text = continuation(row["text"], planned.first_number)
            fields = {name: row[name] for name in PAYLOAD_FIELDS}
            yield {"id": planned.request.id, "request": planned.record, "text": text, **fields}

    def raise_unless_full(self) -> None:
        """UserError that says why the pool is not full and what to do; nothing if it is."""
        if self.judge.kept >= self.target:
            return
        raise self._stall_error() if self._is_stalled() else self._spend_error()

    def _next_put_back(self) -> Request | None:
        """Those that were put back come first: nothing behind them can be judged without them."""
        if not self.spending.allows(self._put_back[0], self.outstanding):
            return None
        self.outstanding += 1
        return self._put_back.pop(0)

    def _needed(self) -> int:
        """How many requests from the first unjudged one on should fill the pool, at the yield of the last ones."""
        recent = list(self._verdicts)[-RECENT:]
        asked = self._plan.options.tasks_per_request - self._plan.options.seeds_per_prompt
        rate = sum(verdict.kept for verdict in recent) / len(recent) if recent else asked
        return math.ceil((self.target - self.judge.kept) / max(rate, 1.0))

    def _row(self, planned: PlannedRequest) -> dict[str, Any] | None:
        """The answer to a request, taken over from another folder where there is one."""
        id, digest = planned.request.id, planned.digest
        row = self._raw.rows.get(id)
        if row is not None and row["request_sha256"] != digest:
            raise ArtifactError(
                what=f"{id} was asked with another text (sha256 {row['request_sha256'][:12]}, now {digest[:12]})",
                where=str(self._raw.path),
                remedy="the seed tasks, the prompt or the request plan changed: move this folder away and run again",
            )
        adopted = self._adoptable.get(id)
        if row is None and adopted is not None and adopted.get("request_sha256") == digest:
            row = {**adopted, "adopted": True}
            self._raw.append(row)
        return row

    def _is_stalled(self) -> bool:
        options = self._plan.options
        if len(self._verdicts) < options.stall_requests:
            return False
        candidates, kept = self._window()
        return kept < options.stall_keep_rate * max(1, candidates)

    def _window(self) -> tuple[int, int]:
        """Candidates and kept tasks of the last `stall_requests` requests."""
        last = list(self._verdicts)[-self._plan.options.stall_requests :]
        return sum(verdict.candidates for verdict in last), sum(verdict.kept for verdict in last)

    def _stall_error(self) -> UserError:
        candidates, kept = self._window()
        options = self._plan.options
        return UserError(
            what=f"the teacher repeats itself: its last {options.stall_requests} requests brought {candidates:,} tasks "
            f"of which {kept:,} were kept (data_gen.stall_keep_rate={options.stall_keep_rate:g}); "
            f"{self.judge.kept:,} of {self.target:,} examples are kept so far",
            where="data_gen.num_examples",
            remedy="more seed tasks (data_gen.seeds), a more diverse teacher (another model, a higher temperature, "
            f"teacher.diversity), or data_gen.num_examples={self.judge.kept} or less, which takes over these answers",
        )

    def _spend_error(self) -> UserError:
        following = self._put_back[0] if self._put_back else self._plan[self._next].request
        most = self.spending.most(following)
        return UserError(
            what=f"the bound of {self.spending.bound:,} tokens is reached: {self.spending.used:,} are used, the next "
            f"request can take {most:,}; "
            f"{self.judge.kept:,} of {self.target:,} examples are kept so far",
            where="spend.max_tokens",
            remedy="everything is kept: run again with a higher bound to go on, or for fewer data_gen.num_examples",
        )


def _raw_row(planned: PlannedRequest, answer: Answer) -> dict[str, Any]:
    completion = answer.completion
    return {
        "id": planned.request.id,
        "request_sha256": planned.digest,
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "model": completion.model,
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
        "usage_estimated": completion.usage_estimated,
        "server_request_id": completion.server_request_id,
        "system_fingerprint": completion.system_fingerprint,
        "attempts": answer.attempts,
        "seconds": round(answer.seconds, 4),
    }


def _failed_row(request: Request, fault: RetryableError, usage: Usage) -> dict[str, Any]:
    return {
        "id": request.id,
        "reason": fault.reason,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "usage_estimated": fault.usage is None,
    }
