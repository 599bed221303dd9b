"""A power law through the means of several sizes, y = a + b x^-c, with its intervals and how far it may be carried on.

The three numbers are found by least squares over a fixed grid of exponents, where a and b are linear (variable
projection: Golub & Pereyra, SIAM Journal on Numerical Analysis 10, 1973), so that equal scores give equal bytes. Their
intervals are percentiles of refits to means that are redrawn: runs by Student's t with one spread for all sizes, items
by their covariance between sizes, as every size answers the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alpaca.statistics.intervals import LEVEL, Interval

Array = NDArray[np.float64]
EXPONENTS: Array = np.geomspace(0.02, 4.0, 241)
"""Below, a power law is a logarithm; above, a step after the first size."""
LEAST_SIZES = 3
"""As many as the law has numbers; only one more tests its form."""
_DRAWS = 1000
_EXACT = 0.005
"""The grid of exponents meets three means to about this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Foretold:
    """The largest size as the law of the smaller ones foretells it, and what was measured there."""

    size: float
    interval: Interval
    measured: float
    holds: bool
    """Whether 0 lies in the interval of foretold minus measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Missed:
    """A size at which the law is not what was measured."""

    size: float
    law: float
    measured: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PowerLaw:
    """The law with its redrawn copies. `limit`: where it ends, a; `exponent`: c, None where nothing determines it."""

    sizes: tuple[float, ...]
    limit: Interval
    exponent: Interval | None
    scale: tuple[float, float]
    """The ends that no mean passes."""
    over_seeds: bool
    """Whether the intervals cover the spread of runs."""
    foretold: Foretold | None
    """None with too few sizes to fit without the largest."""
    missed: tuple[Missed, ...]
    """Sizes whose mean lies off the law by more than chance: it does not describe them."""
    fits: Array
    """(1 + draws, 3): a, b and c, the fit to what was measured first."""

    def at(self, size: float) -> Interval:
        """The mean that the law gives for a size."""
        return _interval(np.clip(_values(self.fits, size, self.sizes[0]), *self.scale))

    @property
    def reach(self) -> float:
        """The largest size that it may be read at: one tested step beyond the largest, else the largest itself.

        Tested: it misses no size, and that of the smaller ones foretold the largest. The step is as long as that one.
        """
        if self.missed or self.foretold is None or not self.foretold.holds:
            return self.sizes[-1]
        return self.sizes[-1] ** 2 / self.sizes[-2]


def power_law(
    scores: Mapping[float, ArrayLike], *, least: float = -math.inf, most: float = math.inf, seed: int = 0
) -> PowerLaw:
    """Fits the law to size -> scores (runs, items), the same items at every size.

    least, most: the ends of the scale, which neither the law nor its limit passes. Raises ValueError for fewer than
    three sizes, one that is not positive, or unequal items.
    """
    sizes = tuple(sorted(scores))
    values = [np.asarray(scores[size], dtype=float) for size in sizes]
    if len(sizes) < LEAST_SIZES or sizes[0] <= 0:
        raise ValueError(f"sizes {sizes}: expected at least {LEAST_SIZES}, all above 0")
    if len({one.shape[1] for one in values}) > 1 or values[0].shape[1] < 2:
        raise ValueError(f"items {[one.shape[1] for one in values]}: expected the same ones, at least two")
    means, over_seeds = _redrawn(values, np.random.default_rng(seed))
    fits = _fitted(np.array(sizes), means, least, most)
    return PowerLaw(
        sizes=sizes,
        limit=_interval(fits[:, 0]),
        exponent=_exponent(fits[:, 2]),
        scale=(least, most),
        over_seeds=over_seeds,
        foretold=_foretold(sizes, means, least, most) if len(sizes) > LEAST_SIZES else None,
        missed=_missed(sizes, means, fits),
        fits=fits,
    )


def _redrawn(values: Sequence[Array], rng: np.random.Generator) -> tuple[Array, bool]:
    """(1 + draws, sizes): the means as measured, then as they might have been; whether runs vary in them."""
    runs = np.array([len(one) for one in values])
    means = np.array([one.mean() for one in values])
    items = np.cov(np.array([one.mean(axis=0) for one in values])) / values[0].shape[1]
    freedom = int((runs - 1).sum())
    drawn = np.zeros((_DRAWS, len(values)))
    if freedom:
        spread = sum(float(one.mean(axis=1).var(ddof=1)) * (len(one) - 1) for one in values if len(one) > 1) / freedom
        scale = np.sqrt(freedom / rng.chisquare(freedom, (_DRAWS, 1)))
        drawn += scale * rng.standard_normal(drawn.shape) * np.sqrt(spread / runs)
        items = items - np.diag(_noise(values))
    drawn += rng.standard_normal(drawn.shape) @ _root(items)
    return np.vstack([means, means + drawn]), freedom > 0


def _noise(values: Sequence[Array]) -> Array:
    """What single answers bring to each mean: runs and items both contain it, and it is to count once."""
    square, freedom = 0.0, 0
    for one in values:
        rest = one - one.mean(axis=1, keepdims=True) - one.mean(axis=0) + one.mean()
        square += float((rest**2).sum())
        freedom += (len(one) - 1) * (one.shape[1] - 1)
    return np.array([square / freedom / one.size for one in values])


def _root(covariance: Array) -> Array:
    """A matrix whose square is the covariance; directions of less than no variance, left by the noise, have none."""
    sizes, directions = np.linalg.eigh(covariance)
    return np.asarray((directions * np.sqrt(np.clip(sizes, 0.0, None))).T)


def _fitted(sizes: Array, means: Array, least: float, most: float) -> Array:
    """(draws, 3): the best a, b and c for each row of means, every size counting alike."""
    found = [_linear((sizes / sizes[0]) ** -exponent, means, least, most) for exponent in EXPONENTS]
    errors = np.array([error for _, _, error in found])
    best = errors.argmin(axis=0)
    rows = np.arange(len(means))
    limits, gains = (np.array([one[at] for one in found])[best, rows] for at in (0, 1))
    return np.column_stack([limits, gains, EXPONENTS[best]])


def _linear(shape: Array, means: Array, least: float, most: float) -> tuple[Array, Array, Array]:
    """a, b and the squared error of means = a + b shape, a held within the scale."""
    apart = shape - shape.mean()
    gain = means @ apart / (apart @ apart)
    limit = np.clip(means.mean(axis=1) - gain * shape.mean(), least, most)
    gain = (means - limit[:, None]) @ shape / (shape @ shape)
    return limit, gain, ((means - limit[:, None] - gain[:, None] * shape) ** 2).sum(axis=1)


def _values(fits: Array, size: float, first: float) -> Array:
    return np.asarray(fits[:, 0] + fits[:, 1] * (size / first) ** -fits[:, 2])


def _interval(values: Array) -> Interval:
    """The first value with the percentiles of the others, which are its redrawn copies."""
    low, high = np.quantile(values[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    estimate = float(values[0])
    return Interval(
        estimate=estimate,
        low=min(float(low), estimate),
        high=max(float(high), estimate),
        n=len(values) - 1,
        method="redrawn means",
    )


def _exponent(values: Array) -> Interval | None:
    found = _interval(values)
    ends = (float(EXPONENTS[0]), float(EXPONENTS[-1]))
    return None if found.low <= ends[0] or found.high >= ends[1] else found


def _missed(sizes: Sequence[float], means: Array, fits: Array) -> tuple[Missed, ...]:
    """Where law minus mean, over the redrawn means, is not 0 with the confidence of `LEVEL` over all sizes together."""
    tail = (1 - LEVEL) / 2 / len(sizes)
    found = []
    for place, size in enumerate(sizes):
        off = _values(fits, size, sizes[0]) - means[:, place]
        low, high = np.quantile(off[1:], [tail, 1 - tail])
        if (low > _EXACT or high < -_EXACT) and abs(off[0]) > _EXACT:
            found.append(Missed(size=size, law=float(means[0, place] + off[0]), measured=float(means[0, place])))
    return tuple(found)


def _foretold(sizes: Sequence[float], means: Array, least: float, most: float) -> Foretold:
    fits = _fitted(np.array(sizes[:-1]), means[:, :-1], least, most)
    there = _values(fits, sizes[-1], sizes[0])
    return Foretold(
        size=sizes[-1],
        interval=_interval(there),
        measured=float(means[0, -1]),
        holds=not _interval(there - means[:, -1]).excludes(0.0),
    )
