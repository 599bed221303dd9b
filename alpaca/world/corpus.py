"""Plain text of the embedded world: what the tiny base model is pretrained on. No instruction occurs in it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from alpaca.world.families import phrases
from alpaca.world.lexicon import KINDS, LEXICON, kind_of, vocabulary
from alpaca.world.tasks import draw_task

# How often each word is repeated for the tokenizer: enough for byte-pair merges to make every word one token.
_REPETITIONS = 50
_TOKENIZER_TASKS = 2000


def corpus_lines(seed: int) -> Iterator[str]:
    """Endless lines of plain text; a pure function of the seed."""
    rng = random.Random(f"corpus {seed}")
    writers, weights = zip(*_WRITERS, strict=True)
    while True:
        yield rng.choices(writers, weights)[0](rng)


def tokenizer_lines() -> Iterator[str]:
    """The finite text that the tokenizer is trained on: every word of the world often enough to become one token."""
    rng = random.Random("tokenizer")
    lines = corpus_lines(0)
    for _ in range(_TOKENIZER_TASKS):
        yield next(lines)
        task = draw_task(rng)
        yield f"{task.instruction} {task.input} {task.output}"
    templates = [phrase.replace("{words}", "").replace("{kind}", "") for phrase in phrases()]
    for text in (*LEXICON, *KINDS, *templates):
        yield from [text] * _REPETITIONS


def _words(rng: random.Random, smallest: int = 3, largest: int = 5) -> list[str]:
    return rng.sample(vocabulary(), rng.randint(smallest, largest))


def _framed(words: Sequence[str], rng: random.Random) -> str:
    """The words inside a few ordinary ones, so that a list is not always where a line begins."""
    before, after = rng.choices(_FILLERS, k=rng.randint(0, 3)), rng.choices(_FILLERS, k=rng.randint(0, 1))
    return " ".join([*before, *words, *after])


def _paragraph(rng: random.Random) -> str:
    """One list and several of its relations: most of the text then follows from what stands before it.

    Lines of one relation each taught the same model far less in the same time: half of their words are pure chance.
    """
    words = _words(rng)
    relations = rng.sample(_RELATIONS, rng.randint(2, 4))
    return " ".join([_framed(words, rng), *(f"{mark} {' '.join(relate(words))}" for mark, relate in relations)])


def _shared(rng: random.Random) -> str:
    """Two lists and the word that both hold."""
    words = _words(rng, 5, 7)
    shared = rng.choice(words[:3])
    others = [*words[3:], shared]
    rng.shuffle(others)
    return f"{_framed(words[:3], rng)} & {_framed(others, rng)} = {shared}"


_FILLERS = ("the", "of", "these", "and", "now", "one", "in", "there", "was", "for", ":", ",", "?")
# A mark of its own says which relation of the list follows.
_RELATIONS: tuple[tuple[str, Callable[[list[str]], Sequence[str]]], ...] = (
    (";", lambda words: words),
    ("/", lambda words: words[::-1]),
    ("<", sorted),
    (">", lambda words: words[1:]),
    ("(", lambda words: words[:1]),
    (")", lambda words: words[-1:]),
    ("~", lambda words: [kind_of(word) for word in words]),
)
_WRITERS: tuple[tuple[Callable[[random.Random], str], float], ...] = ((_paragraph, 0.85), (_shared, 0.15))
