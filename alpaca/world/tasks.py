"""The tasks of the embedded world: verifiable instructions with their data inlined, and the right answers, computed.

Alpaca's ROUGE-L rule (F > 0.7 against any kept instruction) decides the shape of an instruction. Two instructions with
the same t template words and c content words of which s are shared in order have F = (t + s) / (t + c), so the template
must stay short (t <= 3) and the content long (c >= 3): then one shared word never makes a duplicate.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from alpaca.errors import UserError
from alpaca.world.lexicon import KINDS, LEXICON, kind_of, vocabulary, words_of_kind, words_of_other_kinds

# One task in sixteen is kept for evaluation: enough for thousands of held-out items per family.
_RESERVED_CLASSES = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One instruction with its right answer; `input` is empty except in families that need a second list."""

    instruction: str
    input: str
    output: str
    family: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Material:
    """What a task is made of: the words of the instruction, the kind asked for, the words of the input."""

    words: tuple[str, ...]
    kind: str = ""
    listed: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Family:
    """`phrases` hold {words} and, where one is asked for, {kind}; `sizes` are the possible numbers of words."""

    phrases: tuple[str, ...]
    sizes: tuple[int, ...]
    answer: Callable[[_Material], str]
    gather: Callable[[random.Random, int, float], _Material]


def draw_task(rng: random.Random, *, families: Sequence[str] = (), lexicon_share: float = 1.0) -> Task:
    """One training task, drawn uniformly over `families` (default: all); never one that is reserved for evaluation.

    lexicon_share: the part of the lexicon that tasks may use, in (0, 1]. Raises UserError for an unknown family or share.
    """
    _check(families, lexicon_share)
    family = rng.choice(families or FAMILIES)
    while True:
        material = _gather(family, rng, lexicon_share)
        if not is_reserved(family, material.words):
            return _task(family, material, rng)


def held_out(count: int, seed: int = 0) -> list[Task]:
    """`count` distinct evaluation tasks, balanced over families; no training draw can produce one of them."""
    rng = random.Random(f"held-out {seed}")
    tasks: dict[str, Task] = {}
    while len(tasks) < count:
        family = FAMILIES[len(tasks) % len(FAMILIES)]
        material = _gather(family, rng, 1.0)
        if is_reserved(family, material.words):
            task = _task(family, material, rng)
            tasks.setdefault(task.instruction, task)
    return list(tasks.values())


def is_reserved(family: str, words: Sequence[str]) -> bool:
    """Whether these words in this family, in any phrasing, belong to the evaluation set: 1 of 16 by sha256."""
    digest = hashlib.sha256(" ".join((family, *words)).encode()).digest()
    return digest[0] % _RESERVED_CLASSES == 0


def wrong_answer(task: Task, rng: random.Random) -> str:
    """A plausible wrong answer of the same form as the right one; never equal to `task.output`."""
    if task.output.isdigit():
        return rng.choice([str(number) for number in _SIZES if str(number) != task.output])
    parts = task.output.split(" ")
    wrong = list(_spoiled_kinds(parts, rng) if parts[0] in KINDS else _spoiled_words(parts, task, rng))
    return " ".join(wrong)


def _spoiled_kinds(kinds: Sequence[str], rng: random.Random) -> Sequence[str]:
    spoiled = rng.randrange(len(kinds))
    other = rng.choice([kind for kind in KINDS if kind != kinds[spoiled]])
    return [*kinds[:spoiled], other, *kinds[spoiled + 1 :]]


def _spoiled_words(words: Sequence[str], task: Task, rng: random.Random) -> Sequence[str]:
    """Another word of the task for a one-word answer; two neighbours changed over in a longer one."""
    if len(words) == 1:
        given = [word for word in vocabulary() if word in _content(task)]
        return [rng.choice([word for word in given if word != words[0]])]
    place = rng.randrange(len(words) - 1)
    return [*words[:place], words[place + 1], words[place], *words[place + 2 :]]


def _content(task: Task) -> frozenset[str]:
    text = f"{task.instruction} {task.input}"
    return frozenset("".join(letter if letter.isalnum() else " " for letter in text).split())


def _task(family: str, material: _Material, rng: random.Random) -> Task:
    phrase = rng.choice(_FAMILIES[family].phrases)
    return Task(
        instruction=phrase.format(words=" ".join(material.words), kind=material.kind),
        input=" ".join(material.listed),
        output=_FAMILIES[family].answer(material),
        family=family,
    )


def _gather(family: str, rng: random.Random, share: float) -> _Material:
    recipe = _FAMILIES[family]
    return recipe.gather(rng, rng.choice(recipe.sizes), share)


def _any_words(rng: random.Random, size: int, share: float) -> _Material:
    return _Material(words=tuple(rng.sample(vocabulary(share), size)))


def _one_of_a_kind(rng: random.Random, size: int, share: float) -> _Material:
    """Words of which exactly one is of the kind asked for."""
    kind = rng.choice(KINDS)
    words = [rng.choice(words_of_kind(kind, share)), *rng.sample(words_of_other_kinds(kind, share), size - 1)]
    rng.shuffle(words)
    return _Material(words=tuple(words), kind=kind)


def _one_listed(rng: random.Random, size: int, share: float) -> _Material:
    """Words of which exactly one is also in the list that the input gives."""
    drawn = rng.sample(vocabulary(share), 2 * size - 1)
    words, listed = drawn[:size], [*drawn[size:], rng.choice(drawn[:size])]
    rng.shuffle(listed)
    return _Material(words=tuple(words), listed=tuple(listed))


def _listed_word(material: _Material) -> str:
    return next(word for word in material.words if word in material.listed)


def _word_of_kind(material: _Material) -> str:
    return next(word for word in material.words if kind_of(word) == material.kind)


_FAMILIES: dict[str, _Family] = {
    "copy": _Family(
        phrases=("Repeat: {words}", "Copy {words} exactly.", "Write {words} again.", "Say {words} once more."),
        sizes=(3, 4, 5),
        answer=lambda material: " ".join(material.words),
        gather=_any_words,
    ),
    "reverse": _Family(
        phrases=("Reverse: {words}", "Write {words} backwards.", "Turn around: {words}", "What is {words} backwards?"),
        sizes=(3, 4),
        answer=lambda material: " ".join(reversed(material.words)),
        gather=_any_words,
    ),
    "first": _Family(
        phrases=("First of {words}?", "Which word starts {words}?", "Name the first: {words}", "What opens {words}?"),
        sizes=(3, 4, 5),
        answer=lambda material: material.words[0],
        gather=_any_words,
    ),
    "last": _Family(
        phrases=("Last of {words}?", "Which word ends {words}?", "Name the last: {words}", "What closes {words}?"),
        sizes=(3, 4, 5),
        answer=lambda material: material.words[-1],
        gather=_any_words,
    ),
    "rest": _Family(
        phrases=("Skip one: {words}", "Remove the first: {words}", "What follows in {words}?", "Behead {words}."),
        sizes=(3, 4),
        answer=lambda material: " ".join(material.words[1:]),
        gather=_any_words,
    ),
    "sort": _Family(
        phrases=("Sort: {words}", "Alphabetise {words}.", "Put {words} in order.", "What is {words} sorted?"),
        sizes=(3,),
        answer=lambda material: " ".join(sorted(material.words)),
        gather=_any_words,
    ),
    "count": _Family(
        phrases=("Count: {words}", "How many: {words}?", "How long is {words}?", "Number of words: {words}"),
        sizes=(3, 4, 5, 6),
        answer=lambda material: str(len(material.words)),
        gather=_any_words,
    ),
    "classify": _Family(
        phrases=("Classify: {words}", "What are {words}?", "Kinds of {words}?", "Name each kind: {words}"),
        sizes=(3,),
        answer=lambda material: " ".join(kind_of(word) for word in material.words),
        gather=_any_words,
    ),
    "pick": _Family(
        phrases=("Which {kind}: {words}?", "Find the {kind}: {words}", "Pick a {kind}: {words}", "Only {kind}: {words}"),
        sizes=(3, 4),
        answer=_word_of_kind,
        gather=_one_of_a_kind,
    ),
    "match": _Family(
        phrases=("Which of {words}?", "Match one of {words}.", "Is it {words}?", "Look for {words}."),
        sizes=(3, 4),
        answer=_listed_word,
        gather=_one_listed,
    ),
}
FAMILIES: tuple[str, ...] = tuple(_FAMILIES)
_SIZES = (3, 4, 5, 6)


def _check(families: Sequence[str], share: float) -> None:
    unknown = sorted(set(families) - set(_FAMILIES))
    if unknown:
        raise UserError(what=f"unknown task families {unknown}", where="families", remedy=f"known: {', '.join(FAMILIES)}")
    if not 0.0 < share <= 1.0:
        raise UserError(what=f"lexicon_share is {share}", where="lexicon_share", remedy="a number above 0, at most 1")


def phrases() -> Iterator[str]:
    """Every template, with {words} and {kind} left open."""
    for family in _FAMILIES.values():
        yield from family.phrases
