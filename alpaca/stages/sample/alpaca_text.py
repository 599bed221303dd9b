"""Alpaca's loop: ask the teacher for lists of tasks until enough of them pass the released rules."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING

from alpaca.artifacts import write_json
from alpaca.config import AlpacaDataGen, SampleConfig, Teacher
from alpaca.errors import UserError
from alpaca.records import write_jsonl
from alpaca.stages.sample.plan import RequestPlan
from alpaca.stages.sample.raw import RAW, SYNC_SECONDS, RawRecords, adoptable
from alpaca.stages.sample.sampler import Sampler, Spending
from alpaca.teachers import open_teacher
from alpaca.teachers.base import Session
from alpaca.teachers.queue import Policy, ask

if TYPE_CHECKING:
    from alpaca.artifacts import Context

RESPONSES, POOL = "responses.jsonl", "pool.json"


def run_alpaca(config: SampleConfig, context: Context) -> None:
    """Fills raw.jsonl, then writes responses.jsonl and pool.json.

    Raises UserError when the teacher repeats itself or the token bound is reached, TeacherError when it cannot answer;
    all answers stay in raw.jsonl and the next start goes on from them.
    """
    options, teacher = config.data_gen, config.teacher
    if not isinstance(options, AlpacaDataGen) or teacher is None:
        raise UserError(
            what="data_gen=alpaca needs a teacher", where="teacher", remedy="for example teacher=programmatic"
        )
    plan = RequestPlan(options)
    raw = RawRecords(context.folder / RAW)
    try:
        spending = Spending(config.spend.max_tokens, [*raw.paid(), *raw.failed])
        sampler = Sampler(plan, raw, adoptable(context.folder), spending)
        sampler.judge_answers()
        if sampler.wants_more():
            asyncio.run(_sample(sampler, raw, teacher, context))
        sampler.raise_unless_full()
        write_jsonl(context.folder / RESPONSES, sampler.responses())
        # Curation de-duplicates against the seeds too and reads nothing but this folder.
        seeds = [task.instruction for task in plan.seed_tasks]
        write_json(context.folder / POOL, {**sampler.judge.summary(), "seed_instructions": seeds})
        judge = sampler.judge
        context.log(f"{judge.kept:,} of {judge.candidates:,} tasks kept, from {judge.requests:,} requests")
    finally:
        context.cost.update(_cost(raw))
        raw.close()


async def _sample(sampler: Sampler, raw: RawRecords, teacher: Teacher, context: Context) -> None:
    kept_before, began = sampler.judge.kept, time.monotonic()
    keeper = asyncio.create_task(_sync_regularly(raw))
    try:
        async with (
            open_teacher(teacher, Session(work=context.work, say=context.log)) as client,
            aclosing(ask(client, sampler, Policy.of(teacher), context.log)) as answers,
        ):
            async for answer in answers:
                context.check()
                sampler.take(answer)
                rate = (sampler.judge.kept - kept_before) / (time.monotonic() - began)
                context.progress(sampler.judge.kept, sampler.target, _status(sampler, rate))
                context.cost["kept_per_second"] = rate
    finally:
        keeper.cancel()


async def _sync_regularly(raw: RawRecords) -> None:
    # Appending syncs too, but only when there is another answer to append.
    while True:
        await asyncio.sleep(SYNC_SECONDS)
        raw.sync()


def _status(sampler: Sampler, rate: float) -> str:
    return f"{sampler.outstanding} in flight, {rate:.0f} tasks/s, {sampler.spending.used:,} tokens"


def _cost(raw: RawRecords) -> dict[str, float]:
    """What this folder's answers cost, those of earlier starts included; adopted ones were paid for elsewhere.

    The tokens include failed tries; where their bill is unknown, the most that they can have cost.
    """
    paid = raw.paid()
    billed = [*paid, *raw.failed]
    return {
        "requests": len(paid),
        "retries": sum(row["attempts"] - 1 for row in paid),
        "failed_paid_tries": len(raw.failed),
        "prompt_tokens": sum(row["prompt_tokens"] for row in billed),
        "completion_tokens": sum(row["completion_tokens"] for row in billed),
        "adopted_requests": len(raw.rows) - len(paid),
    }
