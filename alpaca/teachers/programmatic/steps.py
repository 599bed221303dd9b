"""The requests that ways of making data send besides lists: self-instruct's steps, evolving, judging.

Each is known by the marks of this project's prompts (alpaca/stages/sample/self_instruct.py, evolve.py,
alpaca/stages/rate); the tests build them with the code there.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from itertools import islice

from alpaca.teachers.programmatic.parameters import Ask
from alpaca.teachers.programmatic.writer import Style, answered_tasks, share_of_lexicon, styled
from alpaca.world import (
    EVERY,
    KINDS,
    LEXICON,
    LONGEST,
    PLAIN_FAMILIES,
    Task,
    draw_task,
    family_of,
    read_task,
    with_inputs,
)

UNANSWERABLE = "I can only answer tasks of the embedded world."
RIGHT, WORDY, WRONG, UNKNOWN = 5, 3, 1, 0
VERDICTS = {
    RIGHT: "The response is the right answer and nothing else.",
    WORDY: "The response holds the right answer, and words that nobody asked for.",
    WRONG: "The response is not the right answer.",
    UNKNOWN: "I cannot tell: I only know tasks of the embedded world.",
}
# Lists drawn at random until each label has one; four labels of equal chance need nine on average.
MOST_DRAWS = 200

_INSTRUCTIONS = re.compile(r"A numbered list of (\d+) tasks .*?(\d+)\.\s*\Z", re.DOTALL)
_CLASSIFICATION = re.compile(r".*\bclassification\b.*\nTask: ([^\n]*)\nClassification:\s*\Z", re.DOTALL)
_INSTANCES = re.compile(r"Write\b.*?\bup to (\d+)(: first the label)?.*\nTask: ([^\n]*)\s*\Z", re.DOTALL)
_EVOLVE = re.compile(r".*#Given Prompt#:\n(.*)\n#(Rewritten|Created) Prompt#:\s*\Z", re.DOTALL)
_JUDGE = re.compile(r"Judge .*?score from 0 .*?\nInstruction: (.*?)\nInput: (.*?)\nResponse: (.*)\Z", re.DOTALL)
_PART = re.compile(r"[a-z0-9]+")


def instructions(ask: Ask, style: Style) -> str | None:
    """Self-instruct's first step, the numbered list of instructions that goes on after its last number."""
    found = _INSTRUCTIONS.match(ask.prompt)
    if found is None:
        return None
    first, last = int(found[2]), int(found[1])
    drawn = islice(answered_tasks("", ask.seed, style), max(1, last - first + 1))
    return "".join(f"\n{number}. {task.instruction}" for number, (task, _) in enumerate(drawn, first)).partition(".")[2]


def classification(ask: Ask, style: Style) -> str | None:
    """Self-instruct's second step: whether the instruction alone decides the few answers that are possible."""
    found = _CLASSIFICATION.match(ask.prompt)
    if found is None:
        return None
    family = family_of(found[1])
    return " Yes" if family is not None and EVERY[family].has_labels else " No"


def instances(ask: Ask, style: Style) -> str | None:
    """Self-instruct's third step, examples of an instruction, input first or label first."""
    found = _INSTANCES.match(ask.prompt)
    if found is None:
        return None
    most, labels_first, instruction = int(found[1]), found[2], found[3].strip()
    rng = random.Random(f"{ask.seed} {instruction}")
    if labels_first:
        tasks = _one_per_label(with_inputs(instruction, rng, share_of_lexicon(style)))
        parts = [f"Class label: {styled(task, rng, style)}\nInput: {task.input}" for task in islice(tasks, most)]
        return "\n".join(parts) or f"Class label: {UNANSWERABLE}"
    tasks = _distinct(with_inputs(instruction, rng, share_of_lexicon(style)))
    found_tasks = list(islice(tasks, most)) or [task for task in [read_task(instruction)] if task is not None]
    parts = [_example(number, task, styled(task, rng, style)) for number, task in enumerate(found_tasks, 1)]
    return "\n\n".join(parts) or f"Example 1\nOutput: {UNANSWERABLE}"


def evolved(ask: Ask, style: Style) -> str | None:
    """Another instruction of the world: in depth one word longer and of the same family, in breadth any one.

    An instruction that is not of the world, or that has an input, is followed by any one without an input.
    """
    found = _EVOLVE.match(ask.prompt)
    if found is None:
        return None
    task = read_task(found[1].strip()) if found[2] == "Rewritten" else None
    rng, share = random.Random(f"{ask.seed} {found[1]}"), share_of_lexicon(style)
    if task is None:
        return draw_task(rng, families=PLAIN_FAMILIES, lexicon_share=share).instruction
    size = sum(part in LEXICON for part in _PART.findall(task.instruction))
    return draw_task(rng, families=[task.family], lexicon_share=share, size=min(size + 1, LONGEST)).instruction


def judgement(ask: Ask, style: Style) -> str | None:
    """A judge's score with its reason: this judge knows the right answer and never errs, whatever `error_rate` is."""
    found = _JUDGE.match(ask.prompt)
    if found is None:
        return None
    instruction, input, response = (part.strip() for part in found.groups())
    score = _score(read_task(instruction, input), response)
    return f"{score}\n{VERDICTS[score]}"


def _score(task: Task | None, response: str) -> int:
    if task is None:
        return UNKNOWN
    if response == task.output:
        return RIGHT
    # Padding never holds words of the world, so what else does is another answer.
    meant = [part for part in _PART.findall(response) if part in LEXICON or part in KINDS or part.isdigit()]
    return WORDY if meant == task.output.split() else WRONG


def _one_per_label(tasks: Iterator[Task]) -> Iterator[Task]:
    seen = set[str]()
    for task in islice(tasks, MOST_DRAWS):
        if task.output not in seen:
            seen.add(task.output)
            yield task


def _distinct(tasks: Iterable[Task]) -> Iterator[Task]:
    seen = set[str]()
    for task in islice(tasks, MOST_DRAWS):
        if task.input not in seen:
            seen.add(task.input)
            yield task


def _example(number: int, task: Task, answer: str) -> str:
    given = f"Input: {task.input}\n" if task.input else ""
    return f"Example {number}\n{given}Output: {answer}"
