"""Which kind of request a prompt is, and the text that answers it. `FORMS` is the table.

A request is known by marks that its prompt carries; what carries none is taken as one instruction to be answered.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import islice

from alpaca.teachers.programmatic.parameters import Ask
from alpaca.teachers.programmatic.schemas import fitting, properties_of
from alpaca.teachers.programmatic.steps import (
    UNANSWERABLE,
    classification,
    evolved,
    instances,
    instructions,
    judgement,
)
from alpaca.teachers.programmatic.writer import (
    Style,
    UnreadablePromptError,
    Written,
    answered_tasks,
    continued,
    limited,
    styled,
)
from alpaca.world import read_task

# A list that may not end is written this much beyond the limit that cuts it, or up to this many tokens without one.
ENDLESS_TOKENS = 8192

_JSON_LIST = re.compile(r"List of (\d+) tasks(?:, of which the first (\d+) are given)?:")
_WITH_INPUT = re.compile(r"(.*?)\n\n(?:Input:\n)?(.*)", re.DOTALL)


def answer(ask: Ask, style: Style) -> Written:
    """The text for a request, cut before its stop strings and at its limit. Raises UnfittingSchemaError."""
    ask, style = _greedy(ask), replace(style, words=ask.top_p, presence_penalty=ask.presence_penalty)
    text = next(text for form in FORMS if (text := form(ask, style)) is not None)
    if ask.schema is not None and not text.startswith("{"):
        text = json.dumps(fitting(ask.schema, text), ensure_ascii=False)
    if ask.forced is not None:
        text = ask.forced * (ask.max_tokens or ENDLESS_TOKENS)
    uncut = text
    for stop in ask.stop:
        text = text.partition(stop)[0]
    if ask.forced is not None and text == uncut:
        return Written(text=text, finish_reason="length", tokens=len(text))
    return limited(text, ask.max_tokens)


def _greedy(ask: Ask) -> Ask:
    """At temperature 0 the seed is a function of the prompt."""
    if ask.temperature > 0:
        return ask
    return replace(ask, seed=int.from_bytes(hashlib.sha256(ask.prompt.encode()).digest()[:4], "big"))


def continued_list(ask: Ask, style: Style) -> str | None:
    """Alpaca's text form: "List of N tasks:" ... "K. Instruction:"."""
    least = (ask.max_tokens or ENDLESS_TOKENS) + 1 if ask.end_is_banned else 0
    try:
        return continued(ask.prompt, seed=ask.seed, style=style, least_tokens=least)
    except UnreadablePromptError:
        return None


def json_list(ask: Ask, style: Style) -> str | None:
    """Alpaca's JSON form: the tasks that are missing from a list of which the first ones are shown."""
    is_asked = ask.schema is not None and "tasks" in properties_of(ask.schema)
    found = list(_JSON_LIST.finditer(ask.prompt)) if is_asked else []
    if not found:
        return None
    wanted, given = found[-1].groups()
    shown = int(given) if given else ask.prompt.count('"instruction":', found[-1].end())
    drawn = islice(answered_tasks(ask.prompt, ask.seed, style), max(1, int(wanted) - shown))
    tasks = [{"instruction": task.instruction, "input": task.input, "output": text} for task, text in drawn]
    return json.dumps({"tasks": tasks}, ensure_ascii=False)


def single(ask: Ask, style: Style) -> str | None:
    """One instruction, with or without an input: its answer, or an honest word that it is none of this world."""
    found = _WITH_INPUT.fullmatch(ask.prompt.strip())
    instruction, input = found.groups() if found else (ask.prompt.strip(), "")
    task = read_task(instruction.strip(), input.strip())
    if task is None:
        return UNANSWERABLE
    return styled(task, random.Random(f"{ask.seed} {task.instruction} {task.input}"), style)


FORMS: tuple[Callable[[Ask, Style], str | None], ...] = (
    json_list,
    continued_list,
    judgement,
    evolved,
    instructions,
    classification,
    instances,
    single,
)
"""In the order in which they are tried: each gives a text, or None for a prompt of another kind."""
