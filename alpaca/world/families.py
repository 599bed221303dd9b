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
    """`phrases` hold {words} and, where one is asked for, {kind}; `sizes` are the possible numbers of words.

    listing: draws an input for given words, in families whose tasks have one. has_labels: the answer is one of few that
    the instruction alone decides, so that self-instruct calls the task a classification.
    """

    phrases: tuple[str, ...]
    sizes: tuple[int, ...]
    answer: Callable[[Material], str]
    gather: Callable[[random.Random, int, float], Material] = _any_words
    listing: Listing | None = None
    has_labels: bool = False


Listing = Callable[[random.Random, tuple[str, ...], float], tuple[str, ...]]
"""Draws the words of the input for the words of an instruction."""


def _one_and_others(rng: random.Random, words: tuple[str, ...], share: float) -> tuple[str, ...]:
    """A list as long as the words, that holds exactly one of them."""
    return _shuffled(rng, [rng.choice(words), *_others(rng, words, len(words) - 1, share)])


def _all_but_one(rng: random.Random, words: tuple[str, ...], share: float) -> tuple[str, ...]:
    """A list as long as the words, that holds all of them but one."""
    return _shuffled(rng, [*rng.sample(words, len(words) - 1), *_others(rng, words, 1, share)])


def _some(rng: random.Random, words: tuple[str, ...], share: float) -> tuple[str, ...]:
    """A list longer by one than the words, that holds any number of them from none to all."""
    both = rng.randint(0, len(words))
    return _shuffled(rng, [*rng.sample(words, both), *_others(rng, words, len(words) + 1 - both, share)])


def _all_and_others(rng: random.Random, words: tuple[str, ...], share: float) -> tuple[str, ...]:
    """A list that holds all the words, in another order and with two others between them."""
    return _shuffled(rng, [*words, *_others(rng, words, 2, share)])


def _others(rng: random.Random, words: tuple[str, ...], count: int, share: float) -> list[str]:
    return rng.sample([word for word in vocabulary(share) if word not in words], count)


def _shuffled(rng: random.Random, words: list[str]) -> tuple[str, ...]:
    return tuple(rng.sample(words, len(words)))


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
    # The one default family with an input, so that both of Alpaca's prompt templates are exercised.
    "match": Family(
        phrases=("Which of {words}?", "Match one of {words}.", "Is it {words}?", "Look for {words}."),
        sizes=(3, 4),
        answer=_listed_word,
        gather=_one_listed,
        listing=_one_and_others,
        has_labels=True,
    ),
}
FAMILIES: tuple[str, ...] = tuple(TABLE)
"""The families that are drawn where nothing else is said, and evaluated."""

WITH_LIST: dict[str, Family] = {
    "missing": Family(
        phrases=("Which lacks: {words}?", "Absent among {words}?", "Spot the missing: {words}", "Not there: {words}?"),
        sizes=(3, 4),
        answer=lambda material: next(word for word in material.words if word not in material.listed),
        listing=_all_but_one,
        has_labels=True,
    ),
    "tally": Family(
        phrases=("Tally: {words}", "Hits of {words}?", "Score {words} here.", "Matches for {words}?"),
        sizes=(3, 4),
        answer=lambda material: str(sum(word in material.listed for word in material.words)),
        listing=_some,
        has_labels=True,
    ),
    "arrange": Family(
        phrases=("Arrange: {words}", "Line up {words}.", "Follow it for {words}.", "Rank {words} likewise."),
        sizes=(3, 4),
        answer=lambda material: " ".join(word for word in material.listed if word in material.words),
        listing=_all_and_others,
    ),
}
"""Families with an input that are drawn only where a share of tasks with input is asked for.

The default draws stay as they were: their data-size curve was measured without these.
"""

EVERY: dict[str, Family] = {**TABLE, **WITH_LIST}
INPUT_FAMILIES: tuple[str, ...] = tuple(name for name, family in EVERY.items() if family.listing)
PLAIN_FAMILIES: tuple[str, ...] = tuple(name for name, family in EVERY.items() if not family.listing)


def phrases() -> tuple[str, ...]:
    """Every template of the default families, with {words} and {kind} left open."""
    return tuple(phrase for family in TABLE.values() for phrase in family.phrases)
