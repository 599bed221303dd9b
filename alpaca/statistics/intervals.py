"""Intervals for means and rates, by scipy.

Student t where the unit is a training run (few, roughly normal), Wilson where it is a right-or-wrong item, the BCa
bootstrap where an item's score is any number.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

# `scipy.stats` loads at its first use: that takes 0.7 s, and a dry run needs `scipy.special` alone.
import scipy

LEVEL = 0.95
_RESAMPLES = 4999
# Resamples held in memory at a time: 500 x 5,000 items x 8 bytes = 20 MB.
_RESAMPLES_AT_A_TIME = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """An estimate with its two-sided confidence interval; `n` counts the independent units behind it."""

    estimate: float
    low: float
    high: float
    n: int
    method: str
    """"Student t", "Welch t", "crossed t" (runs x items), "Wilson", "Newcombe", "bootstrap", "nested bootstrap", "sign"
    or "constant" (all values equal: no width to estimate)."""
    level: float = LEVEL

    def within(self, least: float, most: float) -> Interval:
        """The same interval cut at the ends of the scale; a t interval of a rate can reach beyond 0 or 1."""
        return replace(self, low=max(self.low, least), high=min(self.high, most))

    def excludes(self, value: float) -> bool:
        """Whether `value` lies strictly outside."""
        return not self.low <= value <= self.high


def t_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Student's t interval of the mean (Student, Biometrika 6, 1908): mean +- t(n - 1) * sd / sqrt(n).

    values: independent and roughly normal, such as one score per seed. Raises ValueError for fewer than two values.
    """
    check_values(values, least=2)
    check_level(level)
    n, mean = len(values), float(np.mean(values))
    error = float(scipy.stats.sem(values))
    if is_constant(values):
        return Interval(estimate=mean, low=mean, high=mean, n=n, method="constant", level=level)
    half = float(scipy.stats.t.ppf(0.5 + level / 2, n - 1)) * error
    return Interval(estimate=mean, low=mean - half, high=mean + half, n=n, method="Student t", level=level)


def welch_interval(reference: Sequence[float], other: Sequence[float], level: float = LEVEL) -> Interval:
    """Welch's t interval of mean(other) - mean(reference) (Welch, Biometrika 34, 1947): unpaired, unequal spreads.

    `n` counts the values of both. Two samples without any spread give the method "constant". Raises ValueError for
    fewer than two values in either.
    """
    check_values(reference, least=2)
    check_values(other, least=2)
    check_level(level)
    n, change = len(reference) + len(other), float(np.mean(other) - np.mean(reference))
    if is_constant(reference) and is_constant(other):
        return Interval(estimate=change, low=change, high=change, n=n, method="constant", level=level)
    bounds = scipy.stats.ttest_ind(other, reference, equal_var=False).confidence_interval(level)
    return Interval(estimate=change, low=float(bounds.low), high=float(bounds.high), n=n, method="Welch t", level=level)


def wilson(successes: int, n: int, level: float = LEVEL) -> Interval:
    """Wilson's score interval of a rate (Wilson, JASA 22, 1927); has width even at 0 and n successes.

    Raises ValueError unless 0 <= successes <= n and n >= 1.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}: expected 0 <= successes <= n and n >= 1")
    check_level(level)
    bounds = scipy.stats.binomtest(successes, n).proportion_ci(confidence_level=level, method="wilson")
    return Interval(
        estimate=successes / n, low=float(bounds.low), high=float(bounds.high), n=n, method="Wilson", level=level
    )


def bootstrap_mean(values: Sequence[float], seed: int = 0, level: float = LEVEL) -> Interval:
    """BCa bootstrap interval of the mean (Efron, JASA 82, 1987), 4,999 resamples drawn from `seed`.

    Equal values and seed give equal bounds. Values without any spread give an interval of no width and the method
    "constant". Raises ValueError for no values or one that is not finite.
    """
    check_values(values, least=1)
    check_level(level)
    mean = float(np.mean(values))
    if is_constant(values):
        return Interval(estimate=mean, low=mean, high=mean, n=len(values), method="constant", level=level)
    low, high = _bootstrap_bounds(values, seed, level, "BCa")
    if not (math.isfinite(low) and math.isfinite(high)):
        # BCa has no bias correction when nearly all the values are equal; the percentile bounds always exist.
        low, high = _bootstrap_bounds(values, seed, level, "percentile")
    return Interval(estimate=mean, low=low, high=high, n=len(values), method="bootstrap", level=level)


def change_interval(changes: Sequence[float], seed: int = 0, level: float = LEVEL) -> Interval:
    """The interval of a mean change of paired items: the bootstrap, or the sign test where all change equally.

    Resampling n equal changes c finds no spread, however few they are. The exact sign test does: the share q of items
    that change this way is at least (a / 2)^(1 / n) (Clopper & Pearson, Biometrika 26, 1934; a = 1 - level), and were
    all the others to change by -c the mean would be c (2 q - 1). The bound passes 0 where the two-sided sign test
    rejects, 2^(1 - n) < a. No change at all keeps the method "constant". Raises ValueError as `bootstrap_mean`.
    """
    interval = bootstrap_mean(changes, seed, level)
    if interval.method != "constant" or interval.estimate == 0.0:
        return interval
    share = float(((1.0 - level) / 2) ** (1 / interval.n))
    far = interval.estimate * (2 * share - 1)
    return replace(interval, low=min(far, interval.estimate), high=max(far, interval.estimate), method="sign")


def can_be_conclusive(items: int, level: float = LEVEL) -> bool:
    """Whether so many items, all changing the same way, would reject "no change" by the two-sided exact sign test."""
    return bool(2.0 ** (1 - items) < 1.0 - level)


def mean_interval(values: Sequence[float], seed: int = 0, level: float = LEVEL) -> Interval:
    """The interval over items: Wilson where every value is 0 or 1, the bootstrap otherwise."""
    check_values(values, least=1)
    if is_binary(values):
        return wilson(round(sum(values)), len(values), level)
    return bootstrap_mean(values, seed, level)


def is_binary(values: Sequence[float]) -> bool:
    """Whether every value is 0 or 1."""
    return all(value in (0.0, 1.0) for value in values)


def simultaneous_level(comparisons: int, level: float = LEVEL) -> float:
    """The level of each of several intervals that hold together with probability >= `level` (Bonferroni)."""
    if comparisons < 1:
        raise ValueError(f"{comparisons} comparisons: expected at least 1")
    return 1.0 - (1.0 - level) / comparisons


def _bootstrap_bounds(values: Sequence[float], seed: int, level: float, method: str) -> tuple[float, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
        result = scipy.stats.bootstrap(
            (np.asarray(values, dtype=float),),
            np.mean,
            n_resamples=_RESAMPLES,
            method=method,
            batch=_RESAMPLES_AT_A_TIME,
            confidence_level=level,
            rng=np.random.default_rng(seed),
        )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def is_constant(values: Sequence[float]) -> bool:
    """Whether all values are equal."""
    return len(set(values)) == 1


def check_values(values: Sequence[float], *, least: int) -> None:
    """Raises ValueError for fewer values than `least` or one that is not finite."""
    if len(values) < least:
        raise ValueError(f"{len(values)} values: an interval needs at least {least}")
    odd = [value for value in values if not math.isfinite(value)]
    if odd:
        raise ValueError(f"not finite: {odd[:3]}")


def check_level(level: float) -> None:
    """Raises ValueError unless `level` lies between 0 and 1."""
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is {level}: expected a number between 0 and 1")
