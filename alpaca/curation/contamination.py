"""Which examples are too close to an item of an evaluation set: by ROUGE-L, by words in a row, or equal.

ROUGE-L compares what is asked: the instruction with an item's instruction, or instruction and input with both of the
item. Either alone counts, since a set may keep in one field what the other has in two. It is the measure and the index
of de-duplication, exact in the same way.

Words in a row look at everything: instruction, input and output, against the item's instruction, input and reference.
An item of fewer words must occur as a whole; of fewer than `LEAST_WORDS` it is not looked for, since "dog" would hit
every example with that word. Words are runs of letters and digits of any script, so case and punctuation do not matter.

ROUGE-L knows ASCII letters and digits alone, and some scripts put no space between words. So an example is a hit, too,
where its instruction and input are those of an item, case and white space aside, whichever method was asked for.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from alpaca.curation.dedup import RougeIndex
from alpaca.curation.filters import TaskText
from alpaca.curation.rouge import tokenize
from alpaca.records import EvalItem, Example

EXACT, LCS, NGRAM = "exact", "lcs", "ngram"
LEAST_WORDS = 5
"""Words of an item below which it is not looked for as a whole."""

_WORDS = re.compile(r"\w+")


@dataclass(kw_only=True, slots=True, frozen=True)
class Hit:
    """An example that is too close to an item of an evaluation.

    score: ROUGE-L F for the method "lcs", the words in a row that were looked for in "ngram", 1 in "exact". The item is
    the first of its set that is too close, not the closest.
    """

    example: str
    item: str
    evaluation: str
    method: str
    score: float


@dataclass(kw_only=True, slots=True)
class Found:
    """What was found of one evaluation: its number of items, and the hits of each method that was asked for.

    unsearchable: items that have too few words for every one of these, so that only what equals them is found.
    """

    items: int
    unsearchable: int = 0
    hits: dict[str, list[Hit]] = field(default_factory=dict)

    def examples(self, *methods: str) -> set[str]:
        """The ids that any of these methods hit; of all methods where none is given."""
        return {hit.example for method in methods or self.hits for hit in self.hits.get(method, [])}


def find(
    examples: Sequence[Example],
    evaluations: dict[str, list[EvalItem]],
    *,
    lcs: float | None,
    ngram: int | None,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Found]:
    """What each evaluation has in common with the examples, in the order of the evaluations.

    lcs: hit by a ROUGE-L F above this; ngram: hit by so many words in a row; None leaves a method out. Equal ones are
    always looked for. Every method looks at every example, so overlaps can be counted. tell: called with the
    evaluations done and their number.
    """
    methods = _methods(lcs, ngram)
    found: dict[str, Found] = {}
    for number, (name, items) in enumerate(evaluations.items()):
        tell(number, len(evaluations))
        one = Found(items=len(items), unsearchable=sum(not _searchable(item, lcs, ngram) for item in items))
        for method, matcher in methods.items():
            one.hits[method] = list(_hits(examples, items, matcher(items), (name, method)))
        found[name] = one
    return found


# An example -> the number of the item that it is too close to, and the score; None where there is none.
_Match = Callable[[TaskText], tuple[int, float] | None]


def _hits(
    examples: Sequence[Example], items: Sequence[EvalItem], match: _Match, name: tuple[str, str]
) -> Iterator[Hit]:
    evaluation, method = name
    for example in examples:
        if (found := match(example)) is not None:
            number, score = found
            item = items[number].id
            yield Hit(example=example.id, item=item, evaluation=evaluation, method=method, score=score)


def _methods(lcs: float | None, ngram: int | None) -> dict[str, Callable[[Sequence[EvalItem]], _Match]]:
    methods: dict[str, Callable[[Sequence[EvalItem]], _Match]] = {EXACT: _by_equality}
    if lcs is not None:
        methods[LCS] = lambda items: _by_lcs(items, lcs)
    if ngram is not None:
        methods[NGRAM] = lambda items: _by_ngram(items, ngram)
    return methods


def _searchable(item: EvalItem, lcs: float | None, ngram: int | None) -> bool:
    by_lcs = lcs is not None and bool(tokenize(f"{item.instruction} {item.input}"))
    return by_lcs or (ngram is not None and len(_item_words(item)) >= min(ngram, LEAST_WORDS))


def _by_equality(items: Sequence[EvalItem]) -> _Match:
    numbers: dict[str, int] = {}
    for number, item in enumerate(items):
        numbers.setdefault(_asked(item.instruction, item.input), number)
    numbers.pop("", None)

    def match(task: TaskText) -> tuple[int, float] | None:
        number = numbers.get(_asked(task.instruction, task.input))
        return None if number is None else (number, 1.0)

    return match


def _asked(instruction: str, input: str) -> str:
    return " ".join(_folded(f"{instruction} {input}").split())


def _folded(text: str) -> str:
    """Compatibility forms are one (full-width letters, ligatures), and so is case, in every script."""
    return unicodedata.normalize("NFKC", text).casefold()


def _words(*texts: str) -> list[str]:
    text = _folded(" ".join(texts))
    # Vowel signs of Hindi or Thai are marks, at which the pattern would break a word.
    return _WORDS.findall(text if text.isascii() else "".join(char for char in text if not _is_mark(char)))


def _is_mark(char: str) -> bool:
    return unicodedata.category(char).startswith("M")


def _item_words(item: EvalItem) -> list[str]:
    return _words(item.instruction, item.input, item.reference)


def _by_lcs(items: Sequence[EvalItem], threshold: float) -> _Match:
    alone, both = RougeIndex(threshold), RougeIndex(threshold)
    for item in items:
        alone.add(item.instruction)
        both.add(f"{item.instruction} {item.input}")

    def match(task: TaskText) -> tuple[int, float] | None:
        found = alone.nearest_above(task.instruction)
        # Without any input the second comparison would repeat the first, except with items that have one.
        found = found or both.nearest_above(f"{task.instruction} {task.input}")
        return None if found is None else (found.index, found.score)

    return match


def _by_ngram(items: Sequence[EvalItem], size: int) -> _Match:
    """Looks for the items' runs of `size` words, by length, since a shorter item is one run as a whole."""
    forbidden: dict[int, dict[tuple[str, ...], int]] = {}
    for number, item in enumerate(items):
        words = _item_words(item)
        for run in _runs(words, min(size, max(len(words), LEAST_WORDS))):
            forbidden.setdefault(len(run), {}).setdefault(run, number)
    # Almost no word begins a forbidden run, so most places of a text cost one look-up.
    beginnings = {length: {run[0] for run in runs} for length, runs in forbidden.items()}

    def match(task: TaskText) -> tuple[int, float] | None:
        words = _words(task.instruction, task.input, task.output)
        for length, runs in forbidden.items():
            starts = beginnings[length]
            for place, word in enumerate(words):
                if word in starts and (number := runs.get(tuple(words[place : place + length]))) is not None:
                    return number, float(length)
        return None

    return match


def _runs(words: Sequence[str], size: int) -> Iterator[tuple[str, ...]]:
    """All runs of so many words, none of a shorter text."""
    return (tuple(words[place : place + size]) for place in range(len(words) - size + 1))
