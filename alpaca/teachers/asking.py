"""How a stage asks its teacher: phase by phase, each answer once, in an order that no accident changes.

A phase is a list of requests in which each is a function of its number and of what earlier answers brought. Answers
come in any order, are recorded as they arrive (raw.jsonl) and judged in the order of the requests. So what a stage
makes of them depends neither on the number in flight nor on faults or crashes, and a second start asks only for what
is missing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from alpaca.artifacts import read_json, write_json
from alpaca.config import AskedDataGen, Spend, Teacher
from alpaca.teachers import KINDS, open_teacher
from alpaca.teachers.base import RefusedRequestError, Session, TeacherClient
from alpaca.teachers.inquiry import Inquiry
from alpaca.teachers.phases import Listed, Phase, Planned, Verdict, request_id
from alpaca.teachers.prices import price_of
from alpaca.teachers.queue import Policy, ask
from alpaca.teachers.raw import RAW, REFUSED, SYNC_SECONDS, RawRecords, adoptable
from alpaca.teachers.spending import Spending, totals

if TYPE_CHECKING:
    from alpaca.artifacts import Context

__all__ = ["REFUSED", "Desk", "Listed", "Phase", "Planned", "Verdict", "at_desk", "request_id"]

TEACHER = "teacher.json"
NO_PROBE = {"requests": 0, "prompt_tokens": 0, "completion_tokens": 0}
PROBE_TOKENS = 2_000
"""The most that looking at a teacher takes, for each kind of request."""
EARLY = 50  # requests after which the projection is kept for the record

Made = TypeVar("Made")
Opened = Callable[[Any, Session], AbstractAsyncContextManager[TeacherClient]]


def at_desk(
    teacher: Teacher,
    spend: Spend,
    context: Context,
    flow: Callable[[Desk], Awaitable[Made]],
    *,
    opened: Opened | None = None,
    later: Sequence[Planned] = (),
) -> Made:
    """Runs a flow of phases; whatever ends it, its answers are on disk and its cost is in `context.cost`.

    opened: how the teacher is opened, where it is none of `KINDS`; it is then not looked at before the first request.
    later: requests with the parameters of later phases, looked at together with the first, before anything is paid.
    """
    desk = Desk(teacher, spend, context, opened, later)
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

    def __init__(
        self,
        teacher: Teacher,
        spend: Spend,
        context: Context,
        opened: Opened | None = None,
        later: Sequence[Planned] = (),
    ) -> None:
        self.teacher, self.context, self.exits = teacher, context, AsyncExitStack()
        self._open, self._later = opened or open_teacher, later
        is_known = opened is None and teacher.kind in KINDS
        self._is_probed = is_known and KINDS[teacher.kind].probed and teacher.preflight
        price, tier = price_of(teacher, spend.prices), getattr(teacher, "service_tier", None)
        self.raw = RawRecords(context.folder / RAW)
        self.adoptable = adoptable(context.folder)
        place = context.folder / TEACHER
        self._probe: list[dict[str, Any]] = [read_json(place)["probe"]] if place.exists() else []
        self.spending = Spending(spend, price, [*self.raw.paid(), *self.raw.failed, *self._probe], tier)
        self._client: TeacherClient | None = None

    async def fill(self, phase: Phase, rules: AskedDataGen | None = None) -> None:
        """Asks until the phase has what it wants.

        rules: when a teacher that repeats itself or answers nonsense is given up; None for a list of fixed requests.
        Raises UserError when that happens or a bound of `spend` is reached, TeacherError when there is no answer.
        """
        inquiry = Inquiry(phase, self.raw, self.adoptable, self.spending, rules)
        inquiry.judge_answers()
        while inquiry.wants_more():
            await self._ask(inquiry)
            if not inquiry.settle():
                break
        inquiry.raise_unless_full()

    def cost(self) -> dict[str, float]:
        """What this folder's answers cost, those of earlier starts included; adopted ones were paid for elsewhere.

        The tokens include failed tries and the look at the teacher; where a bill is unknown, the most that it can be.
        """
        paid = self.raw.paid()
        found: dict[str, float] = {
            "requests": len(paid),
            "retries": sum(row["attempts"] - 1 for row in paid),
            "failed_paid_tries": len(self.raw.failed),
            **totals([*paid, *self.raw.failed, *self._probe]),
            "adopted_requests": len(self.raw.rows) - len(paid),
        }
        if self.raw.refused:
            found["refused_requests"] = self.raw.refused
        if self.spending.usd is not None:
            found["usd"] = round(self.spending.usd, 6)
        return found

    async def _ask(self, inquiry: Inquiry) -> None:
        client = await self._opened(inquiry)
        keeper = asyncio.create_task(self._sync_regularly())
        policy, began = Policy.of(self.teacher), time.monotonic()
        try:
            async with aclosing(ask(client, inquiry, policy, self.context.log)) as answers:
                async for answer in answers:
                    self.context.check()
                    inquiry.take(answer)
                    seconds = time.monotonic() - began
                    self.context.progress(inquiry.kept, inquiry.phase.target, inquiry.status(seconds))
                    self.context.cost["kept_per_second"] = inquiry.kept_here / seconds
                    self._remember_projection(inquiry)
        except RefusedRequestError as error:
            raise _with_own_keys(error, inquiry.phase.planned(0)) from error
        finally:
            keeper.cancel()

    async def _opened(self, inquiry: Inquiry) -> TeacherClient:
        """The client; before its first request the teacher is looked at, and what it can do written down."""
        if self._client is None:
            session = Session(work=self.context.work, say=self.context.log)
            self._client = await self.exits.enter_async_context(self._open(self.teacher, session))
            first = inquiry.phase.planned(0)
            if first is not None and not (self.context.folder / TEACHER).exists():
                await self._look_at(self._client, first)
        return self._client

    async def _look_at(self, client: TeacherClient, first: Planned) -> None:
        row: dict[str, Any] = {"kind": self.teacher.kind, "price": None, "probe": NO_PROBE}
        if self.spending.price is not None:
            row["price"] = asdict(self.spending.price)
        found = await self._probed(client, first)
        row |= found or {"requested": first.knobs(), "honoured": None}
        write_json(self.context.folder / TEACHER, row)
        for warning in _warnings(row):
            self.context.log(warning)
        self._probe = [row["probe"]]
        self.spending.add(row["probe"])

    async def _probed(self, client: TeacherClient, first: Planned) -> dict[str, Any] | None:
        """What the preflight found for the first request and those of later phases; None where there is none."""
        wanted = _distinct([first, *self._later])
        if not self._is_probed:
            return None
        if not self.spending.leaves_room(PROBE_TOKENS * len(wanted)):
            self.context.log("note: the bounds of `spend` leave no room for finding out what the teacher honours")
            return None
        from alpaca.teachers.preflight import preflight

        # Batches answer within a day; the same server's other endpoint says at once what it honours.
        rows, policy, online = [], Policy.of(self.teacher), getattr(client, "online", client)
        for planned in wanted:
            try:
                found = await preflight(online, planned.request, policy=policy, note=self.context.log)
            except RefusedRequestError as error:
                raise _with_own_keys(error, planned) from error
            rows.append(found.as_row())
        probe = {name: sum(row["probe"].get(name, 0) for row in rows) for name in rows[0]["probe"]}
        # The look went to the endpoint that answers at once, whatever the teacher's own tier is.
        merged = {**rows[0], "probe": {**probe, "online": True}}
        return {**merged, "later": [_without_probe(row) for row in rows[1:]]} if rows[1:] else merged

    def _remember_projection(self, inquiry: Inquiry) -> None:
        """What was projected early stands beside the final cost, so that everybody can see how good it was."""
        tokens = inquiry.projected_tokens()
        if inquiry.asked >= EARLY and "projected_tokens" not in self.context.cost and tokens is not None:
            self.context.cost["projected_tokens"] = round(tokens)

    async def _sync_regularly(self) -> None:
        # Appending syncs too, but only when there is another answer to append.
        while True:
            await asyncio.sleep(SYNC_SECONDS)
            self.raw.sync()


def _distinct(requests: Sequence[Planned]) -> list[Planned]:
    """The first request of each set of parameters; a seed is no parameter here."""
    found: dict[str, Planned] = {}
    for planned in requests:
        knobs = {name: value for name, value in planned.knobs().items() if name not in ("seed", "max_tokens")}
        found.setdefault(repr(sorted(knobs.items())), planned)
    return list(found.values())


def _without_probe(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("requested", "honoured")}


def _with_own_keys(error: RefusedRequestError, planned: Planned | None) -> RefusedRequestError:
    """The error with the configuration key that the parameter comes from; planned: any request of the phase."""
    from alpaca.teachers.chat import KNOBS

    for name, key in planned.keys.items() if planned is not None else ():
        if error.where == KNOBS.get(name):
            remedy = (error.remedy or "").replace(error.where, key)
            return RefusedRequestError(what=error.what, where=key, remedy=remedy)
    return error


def _warnings(teacher: dict[str, Any]) -> Iterator[str]:
    """What a user should know of teacher.json before it is paid for."""
    looks = [teacher, *teacher.get("later", [])]
    ignored = {name for look in looks for name, outcome in (look.get("honoured") or {}).items() if outcome == "ignored"}
    if ignored:
        names = ", ".join(sorted(ignored))
        yield f"note: the teacher ignores {names}; requested and honoured values stand in {TEACHER}"
    if teacher.get("shutdown_date"):
        yield f"note: {teacher.get('model') or 'the model'} is shut down on {teacher['shutdown_date']}"
