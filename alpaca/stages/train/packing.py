"""Packing: which examples share a forward pass, and in which order they lie in it. Plain integers, no tensors.

Two plans are made here. `bins` puts the examples of a global batch into passes of a fixed token budget, the same number
for every rank. `lay_out` orders one pass: the beginnings that examples share (Alpaca's template) once at the head, then
what follows them, examples of equal length side by side, so that one call attends to all of them.

The shared beginning is exact because attention is causal: the tokens of a template see nothing of what follows, so
their keys and values are the same for every example. PrefixGrouper (arXiv 2506.05433) does this for the responses to
one prompt; here the prompt's fixed part is shared by all examples.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile

from alpaca.stages.train.tokens import Row

LEAST_SHARED = 8
"""Tokens: a shorter beginning costs more in extra attention than it saves."""


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring segments of one length that see the same shared beginning."""

    count: int
    length: int
    prefix: int | None
    """Index of the shared beginning in `Layout.prefixes`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """What a packed sequence is made of, from its first token on: the shared beginnings, then the runs."""

    prefixes: tuple[int, ...]
    """Lengths of the shared beginnings."""
    runs: tuple[Run, ...]

    @property
    def tokens(self) -> int:
        return sum(self.prefixes) + sum(run.count * run.length for run in self.runs)

    @property
    def longest(self) -> int:
        """The largest distance that attention spans, in tokens."""
        return max([*self.prefixes, *(run.length + self.before(run) for run in self.runs)])

    def before(self, run: Run) -> int:
        """Tokens of the beginning that a run's segments see."""
        return 0 if run.prefix is None else self.prefixes[run.prefix]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pack:
    """One packed pass: its layout, and its rows in the order in which their segments lie."""

    layout: Layout
    shared: tuple[tuple[int, ...], ...]
    """Token ids of the shared beginnings."""
    rows: tuple[Row, ...]


def beginnings(rows: Sequence[Row], candidates: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """The token sequences with which most rows begin, at most one for each candidate, longest first.

    candidates: ids of the text before the instruction, of each template. A tokenizer may merge the last of them with
    what follows, so each is cut where that saves most tokens over all rows.
    """
    found = []
    for candidate in candidates:
        lengths = Counter(_common(row.ids, candidate) for row in rows)
        most = max(lengths, key=lambda cut: cut * sum(count for length, count in lengths.items() if length >= cut))
        if most >= LEAST_SHARED:
            found.append(tuple(candidate[:most]))
    return tuple(sorted(set(found), key=lambda ids: (-len(ids), ids)))


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the common beginning of two sequences."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))


def beginning_of(row: Row, shared: Sequence[tuple[int, ...]]) -> int | None:
    """Index of the first of the shared beginnings that a row has; None where it has none.

    A beginning bears no loss, and neither does the first token after it, which another row's tail would predict.
    """
    for index, ids in enumerate(shared):
        if row.masked > len(ids) and tuple(row.ids[: len(ids)]) == ids:
            return index
    return None


def bins(
    rows: Sequence[Row], budget: int, shared: Sequence[tuple[int, ...]], rank: int, world_size: int
) -> list[list[Row]]:
    """This rank's passes of a global batch, each of at most `budget` tokens (a longer row has a pass of its own).

    Every rank gets the same number, since each pass synchronises them; the load is spread evenly. Where the rows do not
    suffice, a pass computes a row without loss.
    """
    capacity = max(1, budget - sum(len(ids) for ids in shared))
    sizes = [_size(row, shared) for row in rows]
    fitted = best_fit(sizes, capacity)
    count = math.ceil(len(fitted) / world_size) * world_size
    spread = evenly(sizes, count) if count > 1 else fitted
    if max((sum(sizes[index] for index in each) for each in spread), default=0) <= capacity:
        fitted = spread
    passes = [[rows[index] for index in each] for each in fitted if each]
    passes += [[rows[0].silent()]] * (-len(passes) % world_size)
    return passes[rank::world_size]


def _size(row: Row, shared: Sequence[tuple[int, ...]]) -> int:
    index = beginning_of(row, shared)
    return len(row.ids) - (0 if index is None else len(shared[index]))


def best_fit(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Best-fit decreasing: each item, longest first, into the open bin that it fills most; indices by bin."""
    filled, rooms = list[list[int]](), list[tuple[int, int]]()  # rooms: (free tokens, bin), ascending
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        place = bisect.bisect_left(rooms, (sizes[index], 0))
        if place < len(rooms):
            room, number = rooms.pop(place)
        else:
            room, number = max(capacity, sizes[index]), len(filled)
            filled.append([])
        filled[number].append(index)
        bisect.insort(rooms, (room - sizes[index], number))
    return filled


def evenly(sizes: Sequence[int], count: int) -> list[list[int]]:
    """Each item, longest first, to the bin that holds least (Graham's rule for equal loads); indices by bin."""
    filled, loads = [list[int]() for _ in range(count)], [(0, number) for number in range(count)]
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        load, number = loads.pop(0)
        filled[number].append(index)
        bisect.insort(loads, (load + sizes[index], number))
    return filled


def lay_out(rows: Sequence[Row], shared: Sequence[tuple[int, ...]]) -> Pack:
    """Orders the rows of one pass; beginnings that fewer than two of them have are not shared."""
    counts = Counter(beginning_of(row, shared) for row in rows)
    used = tuple(ids for index, ids in enumerate(shared) if counts[index] > 1)
    placed = sorted(((beginning_of(row, used), row) for row in rows), key=lambda pair: _place(pair[0], pair[1], used))
    lengths = [(index, len(row.ids) - (0 if index is None else len(used[index]))) for index, row in placed]
    runs = tuple(Run(len(list(group)), length, index) for (index, length), group in groupby(lengths))
    layout = Layout(prefixes=tuple(len(ids) for ids in used), runs=runs)
    return Pack(layout=layout, shared=used, rows=tuple(row for _, row in placed))


def _place(index: int | None, row: Row, used: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    return (len(used), len(row.ids)) if index is None else (index, len(row.ids))
