"""Controlled damage: a data set that is wrong in a known way and to a known degree, for ablations of data quality.

Which examples are damaged is the beginning of a hash order of their ids, one order for each kind and seed: what is
damaged at a share of 0.1 is among what is damaged at 0.3, and the kinds fall independently of each other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from alpaca.curation.selection import hash_order

_WORD = re.compile(r"\S+")


@dataclass(kw_only=True, slots=True, frozen=True)
class Damaged:
    """Outputs after one kind of damage: `changed` are the indices, ascending, whose output is another one now."""

    outputs: list[str]
    changed: list[int]


def label_noise(outputs: Sequence[str], ids: Sequence[str], share: float, seed: int) -> Damaged:
    """The share of outputs, rounded to whole examples, each replaced by another example's.

    A random permutation says whose, the same at every share. An equal output is passed over for the next one, so a
    damaged example keeps its own only where all outputs are equal.
    """
    circle = hash_order([f"label_noise gives:{id}" for id in ids], seed)
    next_other = _next_other([outputs[index] for index in circle])
    takes = hash_order([f"label_noise takes:{id}" for id in ids], seed)
    place_of = {index: place for place, index in enumerate(takes)}
    result = list(outputs)
    for index in _chosen("label_noise", ids, share, seed):
        place = place_of[index]
        equal = outputs[circle[place]] == outputs[index]
        result[index] = outputs[circle[next_other[place] if equal else place]]
    return _damaged(outputs, result)


def shuffled_outputs(outputs: Sequence[str], ids: Sequence[str], share: float, seed: int) -> Damaged:
    """The share of outputs, rounded to whole examples, exchanged in one circle: none is lost and none comes twice.

    Every one of them gets another's, which can be an equal text. One alone has nobody to exchange with and stays.
    """
    chosen = _chosen("shuffled_outputs", ids, share, seed)
    result = list(outputs)
    for index, giver in zip(chosen, [*chosen[1:], *chosen[:1]], strict=True):
        result[index] = outputs[giver]
    return _damaged(outputs, result)


def truncated_outputs(outputs: Sequence[str], ids: Sequence[str], share: float, seed: int) -> Damaged:
    """The share of outputs, rounded to whole examples, cut to the first half of their words, rounded down.

    White space between the words stays as it is. An output of a single word keeps it.
    """
    result = list(outputs)
    for index in _chosen("truncated_outputs", ids, share, seed):
        result[index] = _first_half(outputs[index])
    return _damaged(outputs, result)


KINDS: dict[str, Callable[[Sequence[str], Sequence[str], float, int], Damaged]] = {
    "label_noise": label_noise,
    "shuffled_outputs": shuffled_outputs,
    "truncated_outputs": truncated_outputs,
}
"""By the name of the key in `data`, in the order in which they are done."""


def _chosen(kind: str, ids: Sequence[str], share: float, seed: int) -> list[int]:
    return hash_order([f"{kind}:{id}" for id in ids], seed)[: round(share * len(ids))]


def _next_other(circle: Sequence[str]) -> list[int]:
    """For each place of a circle of texts the next with another text; all the same place where all are equal."""
    size = len(circle)
    found = list(range(size))
    # Twice round: the first time the last places do not know yet how the circle begins.
    for place in range(2 * size - 1, -1, -1):
        here, after = place % size, (place + 1) % size
        found[here] = found[after] if circle[after] == circle[here] else after
    return found


def _first_half(text: str) -> str:
    ends = [word.end() for word in _WORD.finditer(text)]
    return text[: ends[len(ends) // 2 - 1]] if len(ends) > 1 else text


def _damaged(before: Sequence[str], after: list[str]) -> Damaged:
    changed = [index for index, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    return Damaged(outputs=after, changed=changed)
