"""The tasks of the embedded world: verifiable instructions with their data inlined, and the right answers, computed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from alpaca.errors import UserError
from alpaca.world.families import EVERY, FAMILIES, Material
from alpaca.world.lexicon import KINDS, vocabulary

# One task in sixteen is kept for evaluation: thousands of possible items in every family.
_RESERVED_CLASSES = 16
# The smallest families (three words each) have 4 * 120 * 119 * 118 / 16 = 421,000 reserved instructions. Drawing at
# random gets slow as they run out, so a quarter of them is the most.
MOST_HELD_OUT = 1_000_000
# The smallest share of the lexicon holds 24 words of other kinds than the one that is asked for.
LONGEST = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One instruction with its right answer; `input` is empty except in families that need a second list."""

    instruction: str
    input: str
    output: str
    family: str


def draw_task(
    rng: random.Random,
    *,
    families: Sequence[str] = FAMILIES,
    lexicon_share: float = 1.0,
    size: int | None = None,
) -> Task:
    """One training task, drawn uniformly over `families`; never one that is reserved for evaluation.

    lexicon_share: the part of the lexicon that tasks may use, in (0, 1]; a smaller share is contained in a larger one.
    size: number of words of the instruction, at most `LONGEST`; None: one of the family's. Raises UserError for an
    unknown family, no family, a share outside (0, 1] or a size beyond what is possible.
    """
    _check(families, lexicon_share, size)
    family = rng.choice(families)
    while True:
        material = _gather(family, rng, lexicon_share, size)
        if not is_reserved(family, material.words):
            return _task(family, material, rng)


def held_out(count: int, seed: int = 0) -> list[Task]:
    """`count` distinct evaluation tasks, balanced over families; no training draw can produce one of them.

    A smaller count under the same seed gives a prefix of a larger one. Raises UserError beyond `MOST_HELD_OUT`.
    """
    if count > MOST_HELD_OUT:
        raise UserError(
            what=f"{count:,} held-out tasks wanted, the embedded world gives at most {MOST_HELD_OUT:,}",
            where="eval.*.size",
            remedy=f"at most {MOST_HELD_OUT}",
        )
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
        sizes = [str(size) for size in EVERY[task.family].sizes]
        return rng.choice([size for size in sizes if size != task.output])
    parts = task.output.split(" ")
    wrong = _spoiled_kinds(parts, rng) if parts[0] in KINDS else _spoiled_words(parts, task, rng)
    return " ".join(wrong)


def _spoiled_kinds(kinds: Sequence[str], rng: random.Random) -> Sequence[str]:
    spoiled = rng.randrange(len(kinds))
    other = rng.choice([kind for kind in KINDS if kind != kinds[spoiled]])
    return [*kinds[:spoiled], other, *kinds[spoiled + 1 :]]


def _spoiled_words(words: Sequence[str], task: Task, rng: random.Random) -> Sequence[str]:
    """Another word of the task for a one-word answer; two neighbours changed over in a longer one."""
    if len(words) == 1:
        given = _content(task)
        return [rng.choice([word for word in vocabulary() if word in given and word != words[0]])]
    place = rng.randrange(len(words) - 1)
    return [*words[:place], words[place + 1], words[place], *words[place + 2 :]]


def _content(task: Task) -> frozenset[str]:
    text = f"{task.instruction} {task.input}"
    return frozenset("".join(letter if letter.isalnum() else " " for letter in text).split())


def _task(family: str, material: Material, rng: random.Random) -> Task:
    phrase = rng.choice(EVERY[family].phrases)
    return Task(
        instruction=phrase.format(words=" ".join(material.words), kind=material.kind),
        input=" ".join(material.listed),
        output=EVERY[family].answer(material),
        family=family,
    )


def _gather(family: str, rng: random.Random, share: float, size: int | None = None) -> Material:
    recipe = EVERY[family]
    material = recipe.gather(rng, size or rng.choice(recipe.sizes), share)
    if recipe.listing is None or material.listed:
        return material
    return replace(material, listed=recipe.listing(rng, material.words, share))


def _check(families: Sequence[str], share: float, size: int | None) -> None:
    known = ", ".join(EVERY)
    unknown = [family for family in families if family not in EVERY]
    if unknown or not families:
        what = f"unknown task families {unknown}" if unknown else f"no task family: {families!r}"
        raise UserError(what=what, where="families", remedy=f"known: {known}")
    if not 0.0 < share <= 1.0:
        raise UserError(what=f"lexicon_share is {share}", where="lexicon_share", remedy="a number above 0, at most 1")
    if size is not None and not 1 <= size <= LONGEST:
        raise UserError(what=f"a task of {size} words", where="size", remedy=f"1 to {LONGEST}")
