"""Controlled damage: a data set that is wrong in a known way and to a known degree, for ablations of data quality.

Whether an example is to be damaged depends on its id, the kind, the seed and the share, and on nothing else: the hash
of the first three is below the share. So size and share are separate factors. At one share an example that is in the
sets of two sizes is meant in both or in neither; what is meant at a share of 0.1 is meant at 0.3; and the kinds fall
independently of each other. The share is met in expectation: of n examples share * n are meant, give or take
sqrt(n * share * (1 - share)).

An example that is meant is damaged wherever its kind can do anything to it, and each function says where it cannot.
Kinds are done one after another, so a later one can undo an earlier one where outputs are alike.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from alpaca.curation.selection import hash_fraction, hash_order

_WORD = re.compile(r"\S+")


@dataclass(kw_only=True, slots=True, frozen=True)
class Selected:
    """The data set that is damaged: ids and outputs in the order in which selection chose them.

    pool: the outputs by id of everything that selection could choose from, undamaged; it holds all of `ids`.
    """

    ids: Sequence[str]
    outputs: Sequence[str]
    pool: Mapping[str, str]


@dataclass(kw_only=True, slots=True, frozen=True)
class Damaged:
    """Outputs after one kind of damage: `changed` are the indices, ascending, whose output is another one now."""

    outputs: list[str]
    changed: list[int]


def label_noise(data: Selected, share: float, seed: int) -> Damaged:
    """The share of outputs, each replaced by that of another example of the pool, selected or not.

    A random permutation of the pool says whose, so neither size nor share changes what an example gets. An equal output
    is passed over for the next one, so a damaged example keeps its own only where the whole pool has no other.
    """
    meant = _meant("label_noise", data.ids, share, seed)
    result = list(data.outputs)
    if meant:
        ids, outputs = list(data.pool), list(data.pool.values())
        circle = hash_order([f"label_noise gives:{id}" for id in ids], seed)
        next_other = _next_other([outputs[index] for index in circle])
        takes = hash_order([f"label_noise takes:{id}" for id in ids], seed)
        place_of = {ids[index]: place for place, index in enumerate(takes)}
        for index in meant:
            place = place_of[data.ids[index]]
            equal = outputs[circle[place]] == data.outputs[index]
            result[index] = outputs[circle[next_other[place] if equal else place]]
    return _damaged(data.outputs, result)


def shuffled_outputs(data: Selected, share: float, seed: int) -> Damaged:
    """The share of outputs, exchanged among each other within the selected set: none is lost and none comes twice.

    Two that follow each other in the order of selection change over, unless they are equal: then one waits for the next
    other output. A smaller size is the beginning of a larger one, so it has the same pairs, except at its end: what
    waits there joins the last pairs. With different outputs that is one example at most, so up to three examples get
    something else at another size, and all stay damaged. The pairs change with the share.

    As many as possible get another output, all unless one text is more than half of those that are meant (as can be
    with "yes" and "no"; or one example is meant alone). Then its surplus stays, that with the largest hashes: what is
    damaged at one share stays damaged at a larger, but an example can be damaged at one size and left at another.
    """
    result = list(data.outputs)
    meant = _meant("shuffled_outputs", data.ids, share, seed)
    left = _surplus(meant, data, seed)
    for circle in _circles([index for index in meant if index not in left], data.outputs):
        for index, giver in zip(circle, [*circle[1:], *circle[:1]], strict=True):
            result[index] = data.outputs[giver]
    return _damaged(data.outputs, result)


def truncated_outputs(data: Selected, share: float, seed: int) -> Damaged:
    """The share of outputs, cut to the first half of their words, rounded down.

    White space between the words stays as it is. An output of a single word keeps it.
    """
    result = list(data.outputs)
    for index in _meant("truncated_outputs", data.ids, share, seed):
        result[index] = _first_half(data.outputs[index])
    return _damaged(data.outputs, result)


KINDS: dict[str, Callable[[Selected, float, int], Damaged]] = {
    "label_noise": label_noise,
    "shuffled_outputs": shuffled_outputs,
    "truncated_outputs": truncated_outputs,
}
"""By the name of the key in `data`, in the order in which they are done."""


def _meant(kind: str, ids: Sequence[str], share: float, seed: int) -> list[int]:
    return [index for index, id in enumerate(ids) if hash_fraction(f"{kind}:{id}", seed) < share]


def _next_other(circle: Sequence[str]) -> list[int]:
    """For each place of a circle of texts the next with another text; all the same place where all are equal."""
    size = len(circle)
    found = list(range(size))
    # Twice round: the first time the last places do not know yet how the circle begins.
    for place in range(2 * size - 1, -1, -1):
        here, after = place % size, (place + 1) % size
        found[here] = found[after] if circle[after] == circle[here] else after
    return found


def _surplus(meant: Sequence[int], data: Selected, seed: int) -> frozenset[int]:
    """Those that no other output is left for: of the commonest text as many as exceed all others together."""
    counts = Counter(data.outputs[index] for index in meant)
    for text, count in counts.most_common(1):
        same = [index for index in meant if data.outputs[index] == text]
        same.sort(key=lambda index: hash_fraction(f"shuffled_outputs:{data.ids[index]}", seed))
        return frozenset(same[len(meant) - count :])
    return frozenset()


def _circles(members: Sequence[int], outputs: Sequence[str]) -> list[list[int]]:
    """Pairs, and circles of three where that leaves one over, in which all neighbours have different outputs.

    Expects that no output is more than half of the members.
    """
    pairs, waiting = list[list[int]](), deque[int]()  # those that wait are all equal
    for index in members:
        if waiting and outputs[waiting[0]] != outputs[index]:
            pairs.append([waiting.popleft(), index])
        else:
            waiting.append(index)
    done: list[list[int]] = []
    while waiting and pairs:
        pair = pairs.pop()
        if outputs[waiting[0]] in (outputs[pair[0]], outputs[pair[1]]):
            done.append(pair)
        elif len(waiting) == 1:
            done.append([*pair, waiting.pop()])
        else:
            done += [[one, waiting.popleft()] for one in pair]
    return [*pairs, *done]


def _first_half(text: str) -> str:
    ends = [word.end() for word in _WORD.finditer(text)]
    return text[: ends[len(ends) // 2 - 1]] if len(ends) > 1 else text


def _damaged(before: Sequence[str], after: list[str]) -> Damaged:
    changed = [index for index, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    return Damaged(outputs=after, changed=changed)
