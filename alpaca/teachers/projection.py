"""How many requests a pool will take, told early: the yield falls as the pool fills, and first answers say how fast.

A candidate that passes the filters is new unless it collides with one of the k kept ones. With a chance q of a
collision per pair it is new with probability exp(-q k), so that going from a to b kept ones takes the integral of
exp(q k), (exp(q b) - exp(q a)) / q candidates. q is estimated by the duplicates seen over the pairs looked at. Where a
teacher's tasks are of several kinds, some exhausted before others, the true curve is flatter: the guess is then high.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LARGEST_EXPONENT = 700.0  # of exp in double precision


@dataclass(kw_only=True, slots=True)
class Projection:
    """Sums over the answers judged so far."""

    requests: int = 0
    kept: int = 0
    duplicates: int = 0
    pairs: float = 0.0
    """Candidates that passed the filters, each times the number kept before it."""

    def add(self, kept: int, duplicates: int) -> None:
        """Counts one answer: candidates kept, and candidates dropped as duplicates of kept ones."""
        self.pairs += (kept + duplicates) * (self.kept + kept / 2)
        self.requests += 1
        self.kept += kept
        self.duplicates += duplicates

    def total(self, target: int) -> float | None:
        """Requests in all until `target` are kept; None while nothing was kept, inf where it would never be."""
        if not self.kept:
            return None
        if self.kept >= target:
            return float(self.requests)
        novel_candidates = (self.kept + self.duplicates) / self.requests
        return self.requests + self._candidates(target) / novel_candidates

    def _candidates(self, target: int) -> float:
        rate = self.duplicates / self.pairs if self.pairs else 0.0
        if rate * target < 1e-9:
            return float(target - self.kept)
        if rate * target > LARGEST_EXPONENT:
            return math.inf
        return (math.exp(rate * target) - math.exp(rate * self.kept)) / rate
