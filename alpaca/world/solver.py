"""Reads a task back from its text and computes its answer: the inverse of `draw_task`."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from functools import cache

from alpaca.world.families import EVERY, INPUT_FAMILIES, Material
from alpaca.world.lexicon import KINDS, LEXICON, kind_of
from alpaca.world.tasks import Task

NO_INPUT = "<noinput>"
PUNCTUATION = ".,:?!"


def solve(instruction: str, input: str = "") -> str | None:
    """The right answer, None for what is no well-posed task of this world."""
    task = read_task(instruction, input)
    return None if task is None else task.output


def read_task(instruction: str, input: str = "") -> Task | None:
    """The task that a text states, in any phrase of any family and with any number of words; None if it states none.

    Well-posed means that it has one answer: exactly one word of the kind asked for, exactly one listed, and so on.
    """
    read = _frame(instruction)
    if read is None:
        return None
    frame, words, kind = read
    family = _families_by_frame().get(frame)
    listed = () if input.strip() in ("", NO_INPUT) else tuple(input.split())
    if family is None or not _fits(family, Material(words=words, kind=kind, listed=listed)):
        return None
    material = Material(words=words, kind=kind, listed=listed)
    output = EVERY[family].answer(material)
    return Task(instruction=instruction, input=" ".join(listed), output=output, family=family)


def with_inputs(instruction: str, rng: random.Random, lexicon_share: float = 1.0) -> Iterator[Task]:
    """Endless tasks of an instruction that asks for a list, each with another list; none for any other instruction."""
    read = _frame(instruction)
    family = _families_by_frame().get(read[0]) if read else None
    listing = EVERY[family].listing if family else None
    if read is None or listing is None:
        return
    while True:
        task = read_task(instruction, " ".join(listing(rng, read[1], lexicon_share)))
        if task is None:  # words that stand twice in it
            return
        yield task


def family_of(instruction: str) -> str | None:
    """The family whose phrase an instruction has, whatever its input; None for no instruction of this world."""
    read = _frame(instruction)
    return _families_by_frame().get(read[0]) if read else None


def _frame(instruction: str) -> tuple[str, tuple[str, ...], str] | None:
    """The phrase with {words} and {kind} left open, and what stands there; None where no words do."""
    words: list[str] = []
    kind, parts = "", list[str]()
    for part in instruction.split():
        core = part.rstrip(PUNCTUATION)
        if core in _lexicon():
            if words and parts[-1] != "{words}":  # a second run of words, or punctuation between two
                return None
            parts[len(parts) - bool(words) :] = [part.replace(core, "{words}")]
            words.append(core)
        elif core in KINDS:
            kind = core
            parts.append(part.replace(core, "{kind}"))
        else:
            parts.append(part)
    return (" ".join(parts), tuple(words), kind) if words else None


def _fits(family: str, material: Material) -> bool:
    """Whether the material poses this family's question, with one answer."""
    if bool(material.listed) != (family in INPUT_FAMILIES) or not set(material.listed) <= _lexicon():
        return False
    if len(set(material.words)) < len(material.words) or len(set(material.listed)) < len(material.listed):
        return False
    condition = _CONDITIONS.get(family)
    return condition is None or condition(material)


def _kind_is_unique(material: Material) -> bool:
    return sum(kind_of(word) == material.kind for word in material.words) == 1


def _listed_count(material: Material) -> int:
    return sum(word in material.listed for word in material.words)


_CONDITIONS: Mapping[str, Callable[[Material], bool]] = {
    "pick": _kind_is_unique,
    "match": lambda material: _listed_count(material) == 1,
    "missing": lambda material: _listed_count(material) == len(material.words) - 1,
    "arrange": lambda material: _listed_count(material) == len(material.words),
}


@cache
def _lexicon() -> frozenset[str]:
    return frozenset(LEXICON)


@cache
def _families_by_frame() -> dict[str, str]:
    return {phrase: name for name, family in EVERY.items() for phrase in family.phrases}
