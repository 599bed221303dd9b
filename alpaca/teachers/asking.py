"""How a stage asks its teacher: phase by phase, each answer once, in an order that no accident changes.

A phase is a list of requests in which each is a function of its number and of what earlier answers brought. Answers
come in any order, are recorded as they arrive (raw.jsonl) and judged in the order of the requests. So what a stage
makes of them depends neither on the number in flight nor on faults or crashes, and a second start asks only for what
is missing.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from alpaca.artifacts import read_json, write_json
from alpaca.config import AskedDataGen, Spend, Teacher
from alpaca.errors import ArtifactError, UserError
from alpaca.teachers import KINDS, open_teacher
from alpaca.teachers.base import Request, RetryableError, Session, TeacherClient, Usage
from alpaca.teachers.digest import request_digest, sent
from alpaca.teachers.prices import price_of
from alpaca.teachers.projection import Projection
from alpaca.teachers.queue import Answer, Policy, ask
from alpaca.teachers.raw import RAW, SYNC_SECONDS, RawRecords, adoptable
from alpaca.teachers.spending import Spending, totals

if TYPE_CHECKING:
    from alpaca.artifacts import Context

TEACHER = "teacher.json"
NO_PROBE = {"requests": 0, "prompt_tokens": 0, "completion_tokens": 0}
RECENT = 20  # requests from which the yield of the next ones is estimated
ID_DIGITS = 6
UNANSWERED = "unanswered"
MOST_MISSED = 0.05
"""Share of a list's requests that may stay unanswered."""
EARLY = 50  # requests after which the projection is kept for the record
QUOTED = 200  # characters of an answer that an error message shows

Made = TypeVar("Made")
Opened = Callable[[Any, Session], AbstractAsyncContextManager[TeacherClient]]


@dataclass(kw_only=True, frozen=True)
class Planned:
    """A request and what the stage knows of it and the teacher does not (`about`: seeds shown, numbers of tasks).

    Not slotted because record and digest are kept after their first use.
    """

    request: Request
    about: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def record(self) -> dict[str, Any]:
        """What a stage writes down of a request; a schema is the form's, which `about` names."""
        return {**self.about, **{name: value for name, value in sent(self.request).items() if name != "schema"}}

    def knobs(self) -> dict[str, Any]:
        """What was sent besides the text."""
        return {name: value for name, value in self.record.items() if name not in (*self.about, "messages")}

    @cached_property
    def digest(self) -> str:
        """sha256 of all that was sent; equal digests make answers exchangeable between runs of one teacher."""
        return request_digest(self.request)


@dataclass(kw_only=True, slots=True, frozen=True)
class Verdict:
    """What one answer brought: tasks that could be read, tasks that were kept, and tasks too much like kept ones."""

    candidates: int
    kept: int
    duplicates: int = 0


class Phase(Protocol):
    """Requests in order and what becomes of their answers."""

    @property
    def target(self) -> int:
        """How many kept tasks end the phase."""
        ...

    @property
    def first_yield(self) -> float:
        """Kept tasks to expect of a request before any answer is there."""
        ...

    def planned(self, index: int) -> Planned | None:
        """Request number `index` from 0; None beyond the last, or as long as earlier answers decide what it is."""
        ...

    def judge(self, planned: Planned, row: dict[str, Any]) -> Verdict:
        """Takes the answer (its row of raw.jsonl); called once per request, in their order."""
        ...

    def may_miss(self, answered: int, missed: int) -> bool:
        """Whether one more request may stay unanswered, after so many answered and so many missed ones."""
        ...


class Listed:
    """A phase of fixed requests, all of which are asked; `rows` holds the answers in the order of the requests.

    A text that a server refuses or never answers must not end a run of thousands: its row has an empty text and
    `UNANSWERED` as its finish reason, as long as such rows are few. must_answer: none may be missing.
    """

    first_yield = 1.0

    def __init__(self, requests: list[Planned], *, must_answer: bool = False) -> None:
        self.requests, self.rows = requests, list[dict[str, Any]]()
        self._must_answer = must_answer

    @property
    def target(self) -> int:
        return len(self.requests)

    def planned(self, index: int) -> Planned | None:
        return self.requests[index] if index < len(self.requests) else None

    def judge(self, planned: Planned, row: dict[str, Any]) -> Verdict:
        self.rows.append(row)
        return Verdict(candidates=1, kept=1)

    def may_miss(self, answered: int, missed: int) -> bool:
        return not self._must_answer and missed < MOST_MISSED * (answered + missed + 1)


def request_id(stem: str, index: int) -> str:
    """The id of request number `index`; ids of one stem sort in the order of their numbers."""
    return f"{stem}_{index:0{ID_DIGITS}d}"


def at_desk(
    teacher: Teacher,
    spend: Spend,
    context: Context,
    flow: Callable[[Desk], Awaitable[Made]],
    opened: Opened | None = None,
) -> Made:
    """Runs a flow of phases; whatever ends it, its answers are on disk and its cost is in `context.cost`.

    opened: how the teacher is opened, where it is none of `KINDS`; it is then not looked at before the first request.
    """
    desk = Desk(teacher, spend, context, opened)
    try:
        return asyncio.run(_at_desk(desk, flow))
    finally:
        context.cost.update(desk.cost())
        desk.raw.close()


async def _at_desk(desk: Desk, flow: Callable[[Desk], Awaitable[Made]]) -> Made:
    async with desk.exits:
        return await flow(desk)


class Desk:
    """The raw records, the spending and one open teacher, shared by all phases of a stage.

    The teacher is opened when the first answer is missing: a stage that has all its answers needs none.
    """

    def __init__(self, teacher: Teacher, spend: Spend, context: Context, opened: Opened | None = None) -> None:
        self.teacher, self.context, self.exits = teacher, context, AsyncExitStack()
        self._open = opened or open_teacher
        self._is_probed = opened is None and KINDS[teacher.kind].probed if teacher.kind in KINDS else False
        price = price_of(teacher, spend.prices)
        self.raw = RawRecords(context.folder / RAW)
        self.adoptable = adoptable(context.folder)
        place = context.folder / TEACHER
        self._probe: list[dict[str, Any]] = [read_json(place)["probe"]] if place.exists() else []
        self.spending = Spending(spend, price, [*self.raw.paid(), *self.raw.failed, *self._probe])
        self._client: TeacherClient | None = None

    async def fill(self, phase: Phase, rules: AskedDataGen | None = None) -> None:
        """Asks until the phase has what it wants.

        rules: when a teacher that repeats itself or answers nonsense is given up; None for a list of fixed requests.
        Raises UserError when that happens or a bound of `spend` is reached, TeacherError when there is no answer.
        """
        inquiry = Inquiry(phase, self, rules)
        inquiry.judge_answers()
        if inquiry.wants_more():
            await self._ask(inquiry)
        inquiry.raise_unless_full()

    def cost(self) -> dict[str, float]:
        """What this folder's answers cost, those of earlier starts included; adopted ones were paid for elsewhere.

        The tokens include failed tries; where their bill is unknown, the most that they can have cost.
        """
        paid = self.raw.paid()
        found: dict[str, float] = {
            "requests": len(paid),
            "retries": sum(row["attempts"] - 1 for row in paid),
            "failed_paid_tries": len(self.raw.failed),
            **totals([*paid, *self.raw.failed, *self._probe]),
            "adopted_requests": len(self.raw.rows) - len(paid),
        }
        if self.spending.price is not None:
            found["usd"] = round(self.spending.usd, 6)
        return found

    async def _ask(self, inquiry: Inquiry) -> None:
        client = await self._opened(inquiry)
        keeper = asyncio.create_task(self._sync_regularly())
        policy = Policy.of(self.teacher)
        began, used = time.monotonic(), self.spending.used
        try:
            async with aclosing(ask(client, inquiry, policy, self.context.log)) as answers:
                async for answer in answers:
                    self.context.check()
                    inquiry.take(answer)
                    seconds = time.monotonic() - began
                    self.context.progress(inquiry.kept, inquiry.phase.target, inquiry.status(seconds, used))
                    self.context.cost["kept_per_second"] = inquiry.kept_here / seconds
                    self._remember_projection(inquiry)
        finally:
            keeper.cancel()

    async def _opened(self, inquiry: Inquiry) -> TeacherClient:
        """The client; before its first request the teacher is looked at, and what it can do written down."""
        if self._client is None:
            session = Session(work=self.context.work, say=self.context.log)
            self._client = await self.exits.enter_async_context(self._open(self.teacher, session))
            await self._look_at(self._client, inquiry)
        return self._client

    async def _look_at(self, client: TeacherClient, inquiry: Inquiry) -> None:
        place, first = self.context.folder / TEACHER, inquiry.phase.planned(0)
        if place.exists() or first is None:
            return
        row: dict[str, Any] = {"kind": self.teacher.kind, "price": None, "probe": NO_PROBE}
        if self.spending.price is not None:
            row["price"] = asdict(self.spending.price)
        if self._is_probed and self.teacher.preflight:
            from alpaca.teachers.preflight import preflight

            # Batches answer within a day; the same server's other endpoint says at once what it honours.
            found = await preflight(getattr(client, "online", client), first.request)
            row |= found.as_row()
        else:
            row |= {"requested": first.knobs(), "honoured": None}
        write_json(place, row)
        for warning in _warnings(row):
            self.context.log(warning)
        self._probe = [row["probe"]]
        self.spending.add(row["probe"])

    def _remember_projection(self, inquiry: Inquiry) -> None:
        """What was projected early stands beside the final cost, so that everybody can see how good it was."""
        total = inquiry.projected() or math.inf
        if inquiry.judged >= EARLY and "projected_tokens" not in self.context.cost and math.isfinite(total):
            self.context.cost["projected_tokens"] = round(self.spending.used * total / inquiry.judged)

    async def _sync_regularly(self) -> None:
        # Appending syncs too, but only when there is another answer to append.
        while True:
            await asyncio.sleep(SYNC_SECONDS)
            self.raw.sync()


class Inquiry:
    """A `Source` of requests for the queue, which takes its answers back, records them and has them judged."""

    def __init__(self, phase: Phase, desk: Desk, rules: AskedDataGen | None) -> None:
        self.phase, self.outstanding, self.kept, self.kept_here = phase, 0, 0, 0
        self._raw, self._adoptable, self._spending = desk.raw, desk.adoptable, desk.spending
        self._rules = rules
        self.judged = self.judged_here = self._candidates = 0
        self._next = 0  # the first request not yet looked at: neither sent nor found answered
        self._waiting: dict[str, int] = {}  # id -> number, of what is out
        self._plans: dict[int, Planned] = {}  # what was looked at and is not judged
        self._put_back: list[Request] = []  # failed, and no room below the bound for another try
        self._verdicts: deque[Verdict] = deque(maxlen=max(RECENT, rules.stall_requests if rules else 0))
        self._last_text = ""
        self._missed = 0
        self._projection = Projection()

    def wants_more(self) -> bool:
        """True until the phase has what it wants, or the teacher repeats itself or answers nonsense."""
        return self.kept < self.phase.target and not self._is_stalled() and not self._is_nonsense()

    def next_request(self) -> Request | None:
        """The next request without an answer, unless those that are out should suffice or a bound is reached."""
        if self._put_back:
            return self._next_put_back()
        while self._next - self.judged < self._needed() and (planned := self._plan(self._next)) is not None:
            if self._row(planned) is None:
                if not self._spending.allows(planned.request, self.outstanding):
                    return None
                self.outstanding += 1
                self._waiting[planned.request.id] = self._next
                self._next += 1
                return planned.request
            self._next += 1
        return None

    def take(self, answer: Answer) -> None:
        """Records an answer and judges all whose turn has come."""
        planned = self._plans[self._waiting.pop(answer.request.id)]
        row = _raw_row(planned, answer)
        self._raw.append(row)
        self.outstanding -= 1
        self._spending.add(row)
        kept, judged = self.kept, self.judged
        self.judge_answers()
        self.kept_here += self.kept - kept
        self.judged_here += self.judged - judged

    def failed(self, request: Request, fault: RetryableError) -> bool:
        """Records what a failed try costs; whether the bound leaves room for another now. See `Source`."""
        usage = self._spending.bill(request, fault)
        if usage is None:
            return True
        row = _failed_row(request, fault, usage)
        self._raw.append_failed(row)
        self._spending.add(row)
        if self._spending.allows(request, self.outstanding - 1):
            return True
        self.outstanding -= 1
        self._put_back.append(request)
        return False

    def gave_up(self, request: Request, reason: str) -> bool:
        """Puts down an unanswered request as such where the phase may miss it. See `Source`."""
        planned = self._plans[self._waiting[request.id]]
        if not self.phase.may_miss(self.judged_here, self._missed):
            return False
        del self._waiting[request.id]
        self._missed += 1
        self._raw.append(_unanswered_row(planned, reason))
        self.outstanding -= 1
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
            self.judged += 1
            self._next = max(self._next, self.judged)
            self._candidates += verdict.candidates
            self._projection.add(verdict.kept, verdict.duplicates)
            self.kept += verdict.kept
            self._last_text = row["text"]

    def status(self, seconds: float, used_before: int) -> str:
        """The live line: what is out, how fast, what is spent, what it will come to."""
        rate = (self._spending.used - used_before) / seconds
        parts = [f"{self.outstanding} in flight", f"{rate:,.0f} tokens/s", self._spending.told()]
        total = self.projected()
        if total is not None and math.isfinite(total):
            spent, times = self._spending, total / self.judged
            usd = f", ${spent.usd * times:,.4f}" if spent.usd else ""
            parts.append(f"of about {spent.used * times:,.0f}{usd}")
            if self.judged_here:
                parts.append(f"{_clock((total - self.judged) * seconds / self.judged_here)} left")
        return ", ".join(parts)

    def projected(self) -> float | None:
        """How many requests the phase takes in all (see `Projection`); None before anything was kept."""
        return self._projection.total(self.phase.target)

    def raise_unless_full(self) -> None:
        """UserError that says why the phase is not full and what to do; nothing if it is."""
        if self.kept >= self.phase.target:
            return
        if self._is_nonsense():
            raise self._nonsense_error()
        if self._is_stalled():
            raise self._stall_error()
        following = self._put_back[0] if self._put_back else self._following()
        raise self._spending.reached(following, f"{self.kept:,} of {self.phase.target:,} are kept so far")

    def _following(self) -> Request:
        planned = self._plan(self._next)
        if planned is None:
            raise UserError(
                what=f"nothing is left to ask for, {self.kept:,} of {self.phase.target:,} are kept",
                where="data_gen",
                remedy="ask for fewer examples",
            )
        return planned.request

    def _next_put_back(self) -> Request | None:
        """Those that were put back come first: nothing behind them can be judged without them."""
        if not self._spending.allows(self._put_back[0], self.outstanding):
            return None
        self.outstanding += 1
        return self._put_back.pop(0)

    def _needed(self) -> int:
        """How many requests from the first unjudged one on should fill the phase, at the yield of the last ones."""
        return math.ceil((self.phase.target - self.kept) / max(self._recent_yield(), 1.0))

    def _recent_yield(self) -> float:
        recent = list(self._verdicts)[-RECENT:]
        return sum(verdict.kept for verdict in recent) / len(recent) if recent else self.phase.first_yield

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
        adopted = self._adoptable.get(id)
        if row is None and adopted is not None and adopted.get("request_sha256") == digest:
            row = {**adopted, "adopted": True}
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


def _warnings(teacher: dict[str, Any]) -> Iterator[str]:
    """What a user should know of teacher.json before it is paid for."""
    ignored = [name for name, outcome in (teacher.get("honoured") or {}).items() if outcome == "ignored"]
    if ignored:
        yield f"note: the teacher ignores {', '.join(ignored)}; requested and honoured values stand in {TEACHER}"
    if teacher.get("shutdown_date"):
        yield f"note: {teacher.get('model') or 'the model'} is shut down on {teacher['shutdown_date']}"


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


def _unanswered_row(planned: Planned, reason: str) -> dict[str, Any]:
    return {
        "id": planned.request.id,
        "request_sha256": planned.digest,
        "text": "",
        "finish_reason": UNANSWERED,
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
