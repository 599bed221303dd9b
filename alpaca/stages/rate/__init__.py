"""Rate: the teacher as judge of every example of a pool, from 0 to 5, as in AlpaGasus (Chen et al., arXiv 2307.08701).

python -m alpaca.jobs outputs/rate/NAME-KEY
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from alpaca.config import RateConfig
from alpaca.records import Example, write_jsonl
from alpaca.stages.curate.candidates import read_pool
from alpaca.teachers.asking import Desk, Listed, Planned, at_desk, request_id
from alpaca.teachers.base import Message, Request

if TYPE_CHECKING:
    from alpaca.artifacts import Context

RATINGS = "ratings.jsonl"
HIGHEST = 5.0
ANSWER_TOKENS = 256
PROMPT = """Judge how well the response carries out the instruction on the given input. What counts is whether it is \
correct and complete, whether it does what was asked, and nothing else.

Write on the first line a score from 0 (useless) to 5 (could not be better), as a number alone; halves are allowed. \
Then give your reason in one or two sentences.

Instruction: {instruction}
Input: {input}
Response: {output}
"""
NONE = "<noinput>"
_SCORE = re.compile(r"\A\W*(?:score\W*)?(\d+(?:\.\d+)?)(?:\s*/\s*5\b)?", re.IGNORECASE)


def run(config: RateConfig, context: Context) -> None:
    """Writes ratings.jsonl: id, score (null where the answer has none) and the judge's text, one row per example."""
    examples = read_pool(context.parents["pool"]).examples
    phase = Listed([_planned(index, example) for index, example in enumerate(examples)])

    async def flow(desk: Desk) -> None:
        await desk.fill(phase)

    at_desk(config.teacher, config.spend, context, flow)
    rows = [
        {"id": example.id, "score": score_of(row["text"]), "text": row["text"]}
        for example, row in zip(examples, phase.rows, strict=True)
    ]
    write_jsonl(context.folder / RATINGS, rows)
    unread = sum(row["score"] is None for row in rows)
    context.log(f"{len(rows):,} examples rated" + (f", {unread:,} without a readable score" if unread else ""))


def score_of(text: str) -> float | None:
    """The number that a judge's answer starts with ("4.5", "Score: 4/5"); None where there is none from 0 to 5."""
    found = _SCORE.match(text)
    score = float(found[1]) if found else None
    return score if score is not None and score <= HIGHEST else None


def _planned(index: int, example: Example) -> Planned:
    text = PROMPT.format(instruction=example.instruction, input=example.input or NONE, output=example.output)
    request = Request(
        id=request_id("rating", index),
        messages=(Message(role="user", content=text),),
        temperature=0.0,
        top_p=1.0,
        max_tokens=ANSWER_TOKENS,
    )
    return Planned(request=request)
