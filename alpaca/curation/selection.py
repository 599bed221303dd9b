"""Which examples of a pool a run of a given size uses: a random order fixed by the ids, of which it takes the first.

The order depends on nothing but the seed and each id, so under one seed the examples of a smaller size are among those
of every larger size: two points of a size sweep differ by addition only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from alpaca.errors import UserError


def hash_order(ids: Sequence[str], seed: int) -> list[int]:
    """The indices into `ids`, ordered by sha256 of "{seed}:{id}"; equal ids stay in their given order."""
    digests = [hashlib.sha256(f"{seed}:{id}".encode()).digest() for id in ids]
    return sorted(range(len(digests)), key=digests.__getitem__)


def select(ids: Sequence[str], size: int, seed: int, *, where: str = "data.size") -> list[int]:
    """The first `size` indices of the hash order. Raises UserError when there are fewer; `where` is the key shown."""
    if size < 1:
        raise UserError(what=f"cannot select {size:,} examples", where=where, remedy="choose a size of at least 1")
    if size > len(ids):
        raise UserError(
            what=f"{size:,} examples wanted, {len(ids):,} are there after filters and de-duplication",
            where=where,
            remedy=f"choose at most {len(ids):,}, make the pool larger, or relax a filter or the threshold",
        )
    return hash_order(ids, seed)[:size]
