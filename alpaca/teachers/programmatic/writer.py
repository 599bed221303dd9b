"""Continues Alpaca's numbered list of tasks with tasks of the embedded world."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from alpaca.world import FAMILIES, Task, draw_task, wrong_answer

# No tokenizer is behind this teacher: a token is counted as 1 / 1.3 of a whitespace-separated word, as in English BPE.
TOKENS_PER_WORD = 1.3
PADDINGS = (
    "Certainly: {answer}",
    "Of course, here you are: {answer}",
    "{answer} - I hope that this helps.",
    "Gladly. The answer is {answer} and I am happy to explain it.",
)

_WANTED = re.compile(r"List of (\d+) tasks:")
_NEXT = re.compile(r"(\d+)\. Instruction:\s*\Z")
_WORD = re.compile(r"\S+\s*")


class UnreadablePromptError(ValueError):
    """The prompt is no list of tasks to be continued."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Style:
    """The knobs of the teacher, each a share from 0 to 1 (see `Programmatic`)."""

    error_rate: float = 0.0
    verbosity: float = 0.0
    diversity: float = 1.0


@dataclass(kw_only=True, slots=True, frozen=True)
class Written:
    """A text and why it ends: "stop", or "length" where the limit cut it."""

    text: str
    finish_reason: str
    tokens: int


def write(prompt: str, *, seed: int | None, style: Style, max_tokens: int | None = None) -> Written:
    """The continuation of a prompt that ends in "{k}. Instruction:", up to the N of its "List of N tasks:".

    seed: equal seeds give equal texts; None draws a new one. Raises UnreadablePromptError.
    """
    first, last = _numbers(prompt)
    # One task too few is no list: a prompt whose list is full already gets one more task rather than nothing.
    numbers = range(first, max(first, last) + 1)
    return _limited("\n###\n".join(_blocks(numbers, seed, style)).partition(". Instruction:")[2], max_tokens)


def count_tokens(text: str) -> int:
    """An estimate: whitespace-separated words times 1.3, rounded up."""
    return math.ceil(len(text.split()) * TOKENS_PER_WORD)


def _numbers(prompt: str) -> tuple[int, int]:
    wanted, following = _WANTED.findall(prompt), _NEXT.search(prompt)
    if not wanted or following is None:
        raise UnreadablePromptError(
            "this teacher only continues lists of tasks: the prompt must hold "
            '"List of N tasks:" and end in "K. Instruction:"'
        )
    return int(following[1]), int(wanted[-1])


def _blocks(numbers: range, seed: int | None, style: Style) -> Iterator[str]:
    tasks = random.Random(seed)
    families = FAMILIES[: max(1, round(style.diversity * len(FAMILIES)))]
    for number in numbers:
        task = draw_task(tasks, families=families, lexicon_share=style.diversity)
        answer = _answer(task, random.Random(tasks.getrandbits(64)), style)
        yield (
            f"{number}. Instruction: {task.instruction}\n"
            f"{number}. Input:\n{task.input or '<noinput>'}\n"
            f"{number}. Output:\n{answer}"
        )


def _answer(task: Task, rng: random.Random, style: Style) -> str:
    """A generator of its own per task, and both draws always made: so a knob changes answers and never tasks."""
    is_wrong, is_padded = rng.random() < style.error_rate, rng.random() < style.verbosity
    padding = rng.choice(PADDINGS) if is_padded else "{answer}"
    return padding.format(answer=wrong_answer(task, rng) if is_wrong else task.output)


def _limited(text: str, max_tokens: int | None) -> Written:
    tokens = count_tokens(text)
    if max_tokens is None or tokens <= max_tokens:
        return Written(text=text, finish_reason="stop", tokens=tokens)
    words = _WORD.findall(text)[: math.floor(max_tokens / TOKENS_PER_WORD)]
    # The pattern drops the leading blank of the whole text.
    cut = text[: len(text) - len(text.lstrip())] + "".join(words)
    return Written(text=cut, finish_reason="length", tokens=count_tokens(cut))
