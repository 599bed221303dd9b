"""Moderate: what a moderation model says of every example of a pool.

python -m alpaca.jobs outputs/moderate/NAME-KEY
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from alpaca.config import ModerateConfig, Spend
from alpaca.records import Example, write_jsonl
from alpaca.stages.pool import read_pool
from alpaca.stages.verdicts import MODERATION
from alpaca.teachers.asking import Desk, Listed, Planned, at_desk, request_id
from alpaca.teachers.base import Message, Request
from alpaca.teachers.moderation import MODERATORS

if TYPE_CHECKING:
    from alpaca.artifacts import Context


def run(config: ModerateConfig, context: Context) -> None:
    """Writes moderation.jsonl: id, flagged and the flagged categories, one row per example in the order of the pool."""
    examples = read_pool(context.parents["pool"]).examples
    requests = [_planned(index, example) for index, example in enumerate(examples)]
    phase = Listed(requests, must_answer=True)  # an example that nobody looked at is not harmless

    async def flow(desk: Desk) -> None:
        await desk.fill(phase)

    moderator = MODERATORS[config.kind]
    at_desk(moderator.options(config), Spend(), context, flow, opened=moderator.opened)
    rows = [{"id": example.id, **json.loads(row["text"])} for example, row in zip(examples, phase.rows, strict=True)]
    write_jsonl(context.folder / MODERATION, rows)
    context.log(f"{len(rows):,} examples looked at, {sum(row['flagged'] for row in rows):,} flagged")


def _planned(index: int, example: Example) -> Planned:
    text = "\n\n".join(part for part in (example.instruction, example.input, example.output) if part)
    request = Request(
        id=request_id("moderation", index),
        messages=(Message(role="user", content=text),),
        temperature=0.0,
        top_p=1.0,
        max_tokens=1,
    )
    return Planned(request=request)
