"""Rate: the teacher as judge of every example of a pool, from 0 to 5, as in AlpaGasus (Chen et al., arXiv 2307.08701).

python -m alpaca.jobs outputs/rate/NAME-KEY
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from alpaca.config import RateConfig
from alpaca.errors import UserError
from alpaca.records import Example, write_jsonl
from alpaca.stages.pool import read_pool
from alpaca.stages.verdicts import RATINGS
from alpaca.teachers.asking import Desk, Planned, at_desk, request_id
from alpaca.teachers.base import Message, Request
from alpaca.teachers.phases import SEED_BITS, rng_of
from alpaca.teachers.watch import FORM_REMEDY, Watched, quoted

if TYPE_CHECKING:
    from alpaca.artifacts import Context

HIGHEST = 5.0
ANSWER_TOKENS = 256
KEYS = {"temperature": "data.judge_temperature", "top_p": "teacher.model", "max_tokens": "teacher.model"}
"""Where the parameters come from; top_p and max_tokens are the same for every configuration."""
FIRST = 50
"""The stage is given up where so many first ratings hold no score."""
PROMPT = """Judge how well the response carries out the instruction on the given input. What counts is whether it is \
correct and complete, whether it does what was asked, and nothing else.

Write on the first line a score from 0 (useless) to 5 (could not be better), as a number alone; halves are allowed. \
Then give your reason in one or two sentences.

Instruction: {instruction}
Input: {input}
Response: {output}
"""
NONE = "<noinput>"
_MARKS = re.compile(r"[\s*_`#]+")
_BARE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(?: ?(?:/|out of) ?5(?:\.0)?)?", re.IGNORECASE)
_NAMED = re.compile(rf"(?:score|rating) ?[:=]? ?{_BARE.pattern}\.?", re.IGNORECASE)


def run(config: RateConfig, context: Context) -> None:
    """Writes ratings.jsonl: id, score (null where the answer has none) and the judge's text, one row per example."""
    examples = read_pool(context.parents["pool"]).examples
    phase = Ratings([_planned(config, index, example) for index, example in enumerate(examples)])

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


class Ratings(Watched):
    """The judge's answers; raises UserError where none of the first ones holds a score."""

    def __init__(self, requests: list[Planned]) -> None:
        super().__init__(requests, self._look)
        self._is_read = False

    def _look(self, place: int, row: dict[str, Any]) -> None:
        self._is_read = self._is_read or score_of(row["text"]) is not None
        if not self._is_read and place + 1 == min(FIRST, len(self.requests)):
            raise UserError(
                what=f"none of the judge's first {place + 1:,} answers holds a score that can be read; "
                f"the last one is {quoted(row['text'])}",
                where="teacher",
                remedy=FORM_REMEDY,
            )


def score_of(text: str) -> float | None:
    """The score of a judge's answer, from 0 to 5: a first line that is nothing else, or else the one line "Score: x".

    "4.5", "**Score:** 4/5" and "4 out of 5" are read. None where there is no such line or where two differ: a number
    in a sentence may be anything, and a wrong score is worse than none.
    """
    lines = [line for each in text.splitlines() if (line := _MARKS.sub(" ", each).strip())]
    if not lines:
        return None
    first = _BARE.fullmatch(lines[0]) or _NAMED.fullmatch(lines[0])
    found = [first] if first else [match for line in lines if (match := _NAMED.fullmatch(line))]
    scores = {float(match[1]) for match in found}
    return scores.pop() if len(scores) == 1 and max(scores) <= HIGHEST else None


def _planned(config: RateConfig, index: int, example: Example) -> Planned:
    text = PROMPT.format(instruction=example.instruction, input=example.input or NONE, output=example.output)
    id = request_id("rating", index)
    request = Request(
        id=id,
        messages=(Message(role="user", content=text),),
        temperature=config.temperature,
        top_p=1.0,
        max_tokens=ANSWER_TOKENS,
        # At temperature 0 nothing is drawn.
        seed=rng_of(0, id).getrandbits(SEED_BITS) if config.temperature else None,
    )
    return Planned(request=request, keys=KEYS)
