"""Which examples of a pool a run of a given size uses: an order of the pool, of which it takes the first.

Each order is fixed by the seed and the pool, never by the size, so under one seed the examples of a smaller size are
among those of every larger size: two points of a size sweep differ by addition only. Random is the control that every
other way must beat ("Chasing Random", arXiv 2410.15225); the others follow it where they cannot decide.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from alpaca.curation.novelty import NeighbourPool
from alpaca.errors import UserError
from alpaca.records import given
from alpaca.records.reading import Problems

_ROUNDING = 1e-9  # 100 * 0.29 is 28.999999999999996, which must not lose the 29th


def hash_order(ids: Sequence[str], seed: int) -> list[int]:
    """The indices into `ids`, ordered by sha256 of "{seed}:{id}"; equal ids stay in their given order."""
    digests = [_digest(id, seed) for id in ids]
    return sorted(range(len(digests)), key=digests.__getitem__)


def hash_fraction(id: str, seed: int) -> float:
    """A number in [0, 1) for the id alone, whatever else there is: the first 53 bits of the digest of `hash_order`."""
    return (int.from_bytes(_digest(id, seed)[:8], "big") >> 11) / 2**53


def _digest(id: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{id}".encode()).digest()


def by_value(values: Sequence[float], ids: Sequence[str], seed: int) -> list[int]:
    """The indices into `values` and `ids`, largest value first; equal values in hash order."""
    return sorted(hash_order(ids, seed), key=lambda index: -values[index])


def by_length(texts: Sequence[str], ids: Sequence[str], seed: int, *, longest: bool) -> list[int]:
    """The indices into `texts` and `ids` by number of words, longest or shortest first; equal ones in hash order."""
    sign = 1 if longest else -1
    return by_value([sign * len(text.split()) for text in texts], ids, seed)


def farthest_first(
    texts: Sequence[str],
    ids: Sequence[str],
    seed: int,
    count: int,
    tell: Callable[[int], None] = lambda done: None,
) -> list[int]:
    """The first `count` indices of the farthest-first traversal under the distance 1 - ROUGE-L F (Gonzalez 1985).

    It starts with the first of the hash order; each next text is the one whose nearest text among those taken is
    farthest, ties in hash order. Exact and greedy: `count` comparisons of one text with all, 2.4 ms each for the 52,002
    released instructions. tell: called with the number taken so far.
    """
    order = hash_order(ids, seed)
    pool = NeighbourPool(texts[index] for index in order)
    # Places are those of the hash order, so that the first of equal ones is the one wanted.
    nearest = np.zeros(len(order))
    taken: list[int] = []
    while len(taken) < min(count, len(order)):
        place = int(nearest.argmin())
        taken.append(order[place])
        np.maximum(nearest, pool.scores([texts[order[place]]])[0], out=nearest)
        # Above every F: what is taken does not come again, and a text without tokens has F = 0 even with itself.
        nearest[place] = 2.0
        tell(len(taken))
    return taken


def with_share(order: Sequence[int], holds: Sequence[bool], share: float) -> list[int]:
    """The order with this share of indices that hold something in its first ones, however many are taken.

    Those that hold it, and those that do not, keep their order among each other; it ends where one kind runs out.
    """
    kinds = {kind: iter([index for index in order if holds[index] == kind]) for kind in (True, False)}
    found: list[int] = []
    for place in range(len(order)):
        is_due = math.floor((place + 1) * share + _ROUNDING) > math.floor(place * share + _ROUNDING)
        index = next(kinds[is_due], None)
        if index is None:
            break
        found.append(index)
    return found


def take(order: Sequence[int], size: int, *, where: str = "data.size") -> list[int]:
    """The first `size` of an order. Raises UserError when there are fewer; `where` is the key shown."""
    if size < 1:
        raise UserError(what=f"cannot select {size:,} examples", where=where, remedy="choose a size of at least 1")
    if size > len(order):
        raise UserError(
            what=f"{size:,} examples wanted, {len(order):,} are there after filters, de-duplication and selection",
            where=where,
            remedy=f"choose at most {len(order):,}, make the pool larger, or relax a filter or the threshold",
        )
    return list(order[:size])


def positions(path: Path, size: int) -> list[int]:
    """The positions in a JSON list, in its order, each from 0 to below `size` (that of the pool) and none twice.

    Raises UserError that lists up to 20 problems.
    """
    found, problems = given.indices(path), Problems()
    for place, index in enumerate(found):
        if index >= size:
            problems.add(f"entry {place} is {index:,}, but the pool has {size:,} examples, counted from 0")
    problems.raise_if_any(f"{given.INDICES_KEY}={path}", "give positions in the pool of this data_gen")
    return found
