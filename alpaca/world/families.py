"""The families of tasks: phrasings, what each task is made of, and the function that computes its right answer.

Alpaca's ROUGE-L rule (F > 0.7 against any kept instruction) decides the shape of an instruction. Two instructions with
the same t template words and c content words, s of them shared in order, have F = (t + s) / (t + c); so the template
must stay short (t <= 3) and the content long (c >= 3): then one shared word never makes a duplicate.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from alpaca.world.lexicon import KINDS, kind_of, vocabulary, words_of_kind, words_of_other_kinds


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """What a task is made of: the words of the instruction, the kind asked for, the words of the input."""

    words: tuple[str, ...]
    kind: str = ""
    listed: tuple[str, ...] = ()


def _any_words(rng: random.Random, size: int, share: float) -> Material:
    return Material(words=tuple(rng.sample(vocabulary(share), size)))


def _one_of_a_kind(rng: random.Random, size: int, share: float) -> Material:
    """Words of which exactly one is of the kind asked for."""
    kind = rng.choice(KINDS)
    words = [rng.choice(words_of_kind(kind, share)), *rng.sample(words_of_other_kinds(kind, share), size - 1)]
    rng.shuffle(words)
    return Material(words=tuple(words), kind=kind)


def _one_listed(rng: random.Random, size: int, share: float) -> Material:
    """Words of which exactly one is also in the list that the input gives."""
    drawn = rng.sample(vocabulary(share), 2 * size - 1)
    words, listed = drawn[:size], [*drawn[size:], rng.choice(drawn[:size])]
    rng.shuffle(listed)
    return Material(words=tuple(words), listed=tuple(listed))


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """`phrases` hold {words} and, where one is asked for, {kind}; `sizes` are the possible numbers of words."""

    phrases: tuple[str, ...]
    sizes: tuple[int, ...]
    answer: Callable[[Material], str]
    gather: Callable[[random.Random, int, float], Material] = _any_words


def _listed_word(material: Material) -> str:
    return next(word for word in material.words if word in material.listed)


def _word_of_kind(material: Material) -> str:
    return next(word for word in material.words if kind_of(word) == material.kind)


TABLE: dict[str, Family] = {
    "copy": Family(
        phrases=("Repeat: {words}", "Copy {words} exactly.", "Write {words} again.", "Say {words} once more."),
        sizes=(3, 4, 5),
        answer=lambda material: " ".join(material.words),
    ),
    "reverse": Family(
        phrases=("Reverse: {words}", "Write {words} backwards.", "Turn around: {words}", "What is {words} backwards?"),
        sizes=(3, 4),
        answer=lambda material: " ".join(reversed(material.words)),
    ),
    "first": Family(
        phrases=("First of {words}?", "Which word starts {words}?", "Name the first: {words}", "What opens {words}?"),
        sizes=(3, 4, 5),
        answer=lambda material: material.words[0],
    ),
    "last": Family(
        phrases=("Last of {words}?", "Which word ends {words}?", "Name the last: {words}", "What closes {words}?"),
        sizes=(3, 4, 5),
        answer=lambda material: material.words[-1],
    ),
    "rest": Family(
        phrases=("Skip one: {words}", "Remove the first: {words}", "What follows in {words}?", "Behead {words}."),
        sizes=(3, 4),
        answer=lambda material: " ".join(material.words[1:]),
    ),
    "sort": Family(
        phrases=("Sort: {words}", "Alphabetise {words}.", "Put {words} in order.", "What is {words} sorted?"),
        sizes=(3,),
        answer=lambda material: " ".join(sorted(material.words)),
    ),
    "count": Family(
        phrases=("Count: {words}", "How many: {words}?", "How long is {words}?", "Number of words: {words}"),
        sizes=(3, 4, 5, 6),
        answer=lambda material: str(len(material.words)),
    ),
    "classify": Family(
        phrases=("Classify: {words}", "What are {words}?", "Kinds of {words}?", "Name each kind: {words}"),
        sizes=(3,),
        answer=lambda material: " ".join(kind_of(word) for word in material.words),
    ),
    "pick": Family(
        phrases=(
            "Which {kind}: {words}?",
            "Find the {kind}: {words}",
            "Pick a {kind}: {words}",
            "Only {kind}: {words}",
        ),
        sizes=(3, 4),
        answer=_word_of_kind,
        gather=_one_of_a_kind,
    ),
    # The one family with an input, so that both of Alpaca's prompt templates are exercised.
    "match": Family(
        phrases=("Which of {words}?", "Match one of {words}.", "Is it {words}?", "Look for {words}."),
        sizes=(3, 4),
        answer=_listed_word,
        gather=_one_listed,
    ),
}
FAMILIES: tuple[str, ...] = tuple(TABLE)


def phrases() -> tuple[str, ...]:
    """Every template, with {words} and {kind} left open."""
    return tuple(phrase for family in TABLE.values() for phrase in family.phrases)
