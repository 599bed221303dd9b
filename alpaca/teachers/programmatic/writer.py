"""Writes lists of tasks of the embedded world, and counts and cuts texts as a model with tokens would."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from alpaca.world import FAMILIES, INPUT_FAMILIES, PLAIN_FAMILIES, Task, draw_task, wrong_answer

# No tokenizer is behind this teacher: a token is counted as 1 / 1.3 of a whitespace-separated word, as in English BPE.
TOKENS_PER_WORD = 1.3
PADDINGS = (
    "Certainly: {answer}",
    "Of course, here you are: {answer}",
    "{answer} - I hope that this helps.",
    "Gladly. The answer is {answer} and I am happy to explain it.",
)
MOST_REDRAWS = 8
LEAST_SHARE = 0.01
TAIL = 64  # characters of a prompt in which its last heading is looked for

_WANTED = re.compile(r"List of (\d+) tasks:")
_NEXT = re.compile(r"(\d+)\. Instruction:\s*\Z")
_INPUT_SHARE = re.compile(r"About (\d+) ?% of the tasks have an input\.")
_WORD = re.compile(r"\S+\s*")
_WORDS = re.compile(r"\w+")


class UnreadablePromptError(ValueError):
    """The prompt is no list of tasks to be continued."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Style:
    """The knobs of the teacher, each a share from 0 to 1 (see `Programmatic`), and a request's wishes.

    words: share of the lexicon beyond that of `diversity` (top_p). presence_penalty: OpenAI's, from 0 to 2.
    """

    error_rate: float = 0.0
    verbosity: float = 0.0
    diversity: float = 1.0
    words: float = 1.0
    presence_penalty: float = 0.0


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
    return limited(continued(prompt, seed=seed, style=style), max_tokens)


def continued(prompt: str, *, seed: int | None, style: Style, least_tokens: int = 0) -> str:
    """As `write`, without a limit. least_tokens: the list goes on beyond its end until the text has so many.

    Of what the prompt may wish, "About P % of the tasks have an input." is honoured. "Write in LANGUAGE." and "Every
    task is about: TOPIC." are not: the world has one language and no topics.
    """
    first, last = _numbers(prompt)
    # One task too few is no list: a prompt whose list is full already gets one more task rather than nothing.
    last, tokens, blocks = max(first, last), 0.0, []
    for number, (task, answer) in enumerate(answered_tasks(prompt, seed, style), first):
        blocks.append(_block(number, task, answer))
        tokens += count_tokens(blocks[-1]) if least_tokens else 0
        if number >= last and tokens >= least_tokens:
            break
    return "\n###\n".join(blocks).partition(". Instruction:")[2]


def answered_tasks(prompt: str, seed: int | None, style: Style) -> Iterator[tuple[Task, str]]:
    """Endless tasks with their answers, which are right but for `error_rate`, and as wordy as `verbosity` says."""
    rng, found, used = random.Random(seed), _INPUT_SHARE.search(prompt), set[str]()
    while True:
        task = _fresh_task(rng, style, None if found is None else int(found[1]) / 100, used)
        seed_of_answer = rng.getrandbits(64)
        # Seeding a generator costs as much as drawing the task, and a plain answer draws nothing from it.
        is_plain = not style.error_rate and not style.verbosity
        yield task, task.output if is_plain else styled(task, random.Random(seed_of_answer), style)


def styled(task: Task, rng: random.Random, style: Style) -> str:
    """The answer to a task. Both draws are always made, so that a knob changes answers and never tasks."""
    is_wrong, is_padded = rng.random() < style.error_rate, rng.random() < style.verbosity
    padding = rng.choice(PADDINGS) if is_padded else "{answer}"
    return padding.format(answer=wrong_answer(task, rng) if is_wrong else task.output)


def share_of_lexicon(style: Style) -> float:
    """What `diversity` and top_p leave of the lexicon."""
    return max(LEAST_SHARE, style.diversity * style.words)


def count_tokens(text: str) -> int:
    """An estimate: whitespace-separated words times 1.3, rounded up."""
    return math.ceil(len(text.split()) * TOKENS_PER_WORD)


def limited(text: str, max_tokens: int | None) -> Written:
    """The text, cut after so many tokens."""
    tokens = count_tokens(text)
    if max_tokens is None or tokens <= max_tokens:
        return Written(text=text, finish_reason="stop", tokens=tokens)
    words = _WORD.findall(text)[: math.floor(max_tokens / TOKENS_PER_WORD)]
    # The pattern drops the leading blank of the whole text.
    cut = text[: len(text) - len(text.lstrip())] + "".join(words)
    return Written(text=cut, finish_reason="length", tokens=count_tokens(cut))


def _numbers(prompt: str) -> tuple[int, int]:
    wanted, following = _WANTED.findall(prompt), _NEXT.search(prompt[-TAIL:])
    if not wanted or following is None:
        raise UnreadablePromptError(
            "this teacher only continues lists of tasks: the prompt must hold "
            '"List of N tasks:" and end in "K. Instruction:"'
        )
    return int(following[1]), int(wanted[-1])


def _block(number: int, task: Task, answer: str) -> str:
    return (
        f"{number}. Instruction: {task.instruction}\n"
        f"{number}. Input:\n{task.input or '<noinput>'}\n"
        f"{number}. Output:\n{answer}"
    )


def _fresh_task(rng: random.Random, style: Style, input_share: float | None, used: set[str]) -> Task:
    """A task that says again what was said before only as often as the presence penalty lets it.

    The penalty p is subtracted from a word's logit, so a word that was used is e^-p times as likely.
    """
    families, share = _families(rng, style, input_share), share_of_lexicon(style)
    task = draw_task(rng, families=families, lexicon_share=share)
    if style.presence_penalty:
        for _ in range(MOST_REDRAWS):
            if used.isdisjoint(_WORDS.findall(task.instruction)) or rng.random() < math.exp(-style.presence_penalty):
                break
            task = draw_task(rng, families=families, lexicon_share=share)
        used.update(_WORDS.findall(task.instruction))
    return task


def _families(rng: random.Random, style: Style, input_share: float | None) -> tuple[str, ...]:
    families = FAMILIES
    if input_share is not None:
        families = INPUT_FAMILIES if rng.random() < input_share else PLAIN_FAMILIES
    return families[: max(1, round(style.diversity * len(families)))]
