"""Two sets of answers to the same items: tests, each with the interval of the difference that it is about."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from alpaca.statistics.intervals import (
    LEVEL,
    Interval,
    change_interval,
    check_level,
    check_values,
    is_constant,
    t_interval,
    wilson,
)

_RESAMPLES = 4999
_FLIPS = 9999
# Numbers drawn at a time: 4 million indices are 32 MB.
_DRAWS_AT_A_TIME = 4_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedTest:
    """A two-sided p value, never without the interval of what was tested."""

    interval: Interval
    p_value: float
    method: str
    """"sign test", "McNemar, exact", "sign flips, exact" or "sign flips, sampled"."""


def sign_test(wins: int, losses: int, level: float = LEVEL) -> PairedTest:
    """The exact sign test of "a win is as likely as a loss", with Wilson's interval of the share of wins.

    Ties are left out. The two may disagree by a hair at the border, as the test is exact and the interval is not.
    Raises ValueError for negative counts or no untied pair.
    """
    interval = wilson(wins, wins + losses, level)
    p_value = float(scipy.stats.binomtest(wins, wins + losses).pvalue)
    return PairedTest(interval=interval, p_value=p_value, method="sign test")


def mcnemar(reference: ArrayLike, other: ArrayLike, level: float = LEVEL) -> PairedTest:
    """McNemar's exact test (Psychometrika 12, 1947) of two runs that were right or wrong on the same items.

    reference, other: (items,) of 0 and 1. The interval is that of rate(other) - rate(reference) by Newcombe's hybrid
    of Wilson's bounds (method 10, Statistics in Medicine 17, 1998); the p value decides where they disagree at the
    border. It speaks of these two runs alone, not of another seed. Raises ValueError for unequal lengths, no item or
    other values.
    """
    # statsmodels takes a second to load, and a dry run has no use for it.
    from statsmodels.stats.contingency_tables import mcnemar as test

    before, after = (np.asarray(values, dtype=float) for values in (reference, other))
    if before.ndim != 1 or before.shape != after.shape or not before.size:
        raise ValueError(f"shapes {before.shape} and {after.shape}: expected two equal ones, (items,)")
    if not np.isin([before, after], [0.0, 1.0]).all():
        raise ValueError("McNemar's test is for values of 0 and 1; sign_flip_test takes any number")
    check_level(level)
    table = [[int(np.sum((before == row) & (after == column))) for column in (1, 0)] for row in (1, 0)]
    interval = _newcombe(table, level)
    return PairedTest(interval=interval, p_value=float(test(table, exact=True).pvalue), method="McNemar, exact")


def sign_flip_test(differences: ArrayLike, *, over: str, seed: int = 0, level: float = LEVEL) -> PairedTest:
    """The permutation test of paired values (Fisher, The Design of Experiments, 1935): all flips up to 13 units.

    differences: (seeds, items), other minus reference. over="seeds" flips whole runs, speaks of new seeds on these
    items, and cannot fall below p = 2^(1 - seeds): never significant at 5 % with fewer than six. over="items" flips
    each item's mean, and speaks of new items for these runs. With more than 13 units, 9,999 sampled flips. The
    interval is Student's t over seeds or `change_interval` over items. Raises ValueError for another `over` or fewer
    than two units.
    """
    if over not in ("seeds", "items"):
        raise ValueError(f"over is {over!r}: expected 'seeds' or 'items'")
    values = _matrix(differences).mean(axis=1 if over == "seeds" else 0)
    check_values(values.tolist(), least=2)
    exact, changes = 2 ** len(values) <= _FLIPS, values.tolist()
    p_value = _all_flips(values) if exact else _sampled_flips(values, np.random.default_rng(seed))
    interval = t_interval(changes, level) if over == "seeds" else change_interval(changes, seed, level)
    method = f"sign flips, {'exact' if exact else 'sampled'}"
    return PairedTest(interval=interval, p_value=p_value, method=method)


def _all_flips(values: NDArray[np.float64]) -> float:
    return float(scipy.stats.permutation_test((values,), _mean, permutation_type="samples", n_resamples=_FLIPS).pvalue)


def _sampled_flips(values: NDArray[np.float64], rng: np.random.Generator) -> float:
    """Two-sided; the data as they are count as one of the flips (Phipson & Smyth 2010).

    scipy's permutation_test draws flip by flip, fifty times slower: a page has dozens of these.
    """
    observed = abs(float(values.sum()))
    least = observed - 1e-9 * float(np.abs(values).sum())  # sums of the same terms in another order are equal
    extreme, at_a_time = 0, max(1, _DRAWS_AT_A_TIME // len(values))
    for start in range(0, _FLIPS, at_a_time):
        signs = 2.0 * rng.integers(0, 2, size=(min(at_a_time, _FLIPS - start), len(values)), dtype=np.int8) - 1.0
        extreme += int(np.sum(np.abs(signs @ values) >= least))
    return (1 + extreme) / (1 + _FLIPS)


def paired_test(reference: ArrayLike, other: ArrayLike) -> PairedTest:
    """The test over items that fits: McNemar's for one run of each side that was right or wrong, else sign flips.

    reference, other: (seeds, items), paired. Raises ValueError for unequal shapes or fewer than two items.
    """
    before, after = _matrix(reference), _matrix(other)
    if before.shape != after.shape:
        raise ValueError(f"shapes {before.shape} and {after.shape}: expected two equal ones, (seeds, items)")
    if len(before) == 1 and np.isin([before, after], [0.0, 1.0]).all():
        return mcnemar(before[0], after[0])
    return sign_flip_test(after - before, over="items")


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's corrected p values (Scandinavian Journal of Statistics 6, 1979), in the order given: family-wise error.

    statsmodels' multipletests gives the same and collects garbage in each call, 0.3 s in a large process. Raises
    ValueError for a p value outside 0 to 1.
    """
    odd = [p_value for p_value in p_values if not 0.0 <= p_value <= 1.0]
    if odd:
        raise ValueError(f"not p values: {odd[:3]}")
    order = np.argsort(p_values)
    steps = np.asarray(p_values, dtype=float)[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return tuple(corrected.tolist())


def nested_bootstrap(differences: ArrayLike, seed: int = 0, level: float = LEVEL) -> Interval:
    """BCa bootstrap of a mean over items nested in seeds: seeds are drawn, and in each drawn seed its items.

    differences: (seeds, items). 4,999 resamples; the acceleration is the jackknife's over seeds, over items where
    there is one seed. It is no interval for few seeds: a 95 % interval of three that differ by 0.10 covers 76 %, and
    where seeds do not differ it covers 97 to 98 %, as it counts the noise of single answers twice
    (benchmarks/results). `compare` does better; this one serves many seeds or scores with long tails. Raises
    ValueError for no values or one that is not finite.
    """
    values = _matrix(differences)
    check_values(values.ravel().tolist(), least=1)
    check_level(level)
    estimate, n = float(values.mean()), len(values) if len(values) > 1 else values.size
    if is_constant(values.ravel().tolist()):
        return Interval(estimate=estimate, low=estimate, high=estimate, n=n, method="constant", level=level)
    low, high = bca_bounds(_nested_means(values, seed), values, level)
    return Interval(estimate=estimate, low=low, high=high, n=n, method="nested bootstrap", level=level)


def bca_bounds(resampled: NDArray[np.float64], values: NDArray[np.float64], level: float) -> tuple[float, float]:
    """Efron's bias-corrected and accelerated bounds (JASA 82, 1987) of the mean of `values` (seeds, items).

    resampled: (resamples,) means. Percentile bounds where the correction does not exist.
    """
    tails = np.array([0.5 - level / 2, 0.5 + level / 2])
    # Ties count half: means of right-or-wrong items often equal the estimate.
    share = np.mean(resampled < values.mean()) + np.mean(resampled == values.mean()) / 2
    if 0.0 < share < 1.0:
        bias = scipy.special.ndtri(share)
        reach = bias + scipy.special.ndtri(tails)
        tails = scipy.special.ndtr(bias + reach / (1 - _acceleration(values) * reach))
    low, high = np.quantile(resampled, tails)
    return float(low), float(high)


def _nested_means(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    seeds, items = values.shape
    at_a_time = max(1, _DRAWS_AT_A_TIME // values.size)
    means = []
    for start in range(0, _RESAMPLES, at_a_time):
        size = min(at_a_time, _RESAMPLES - start)
        rows = rng.integers(seeds, size=(size, seeds, 1))
        means.append(values[rows, rng.integers(items, size=(size, seeds, items))].mean(axis=(1, 2)))
    return np.concatenate(means)


def _acceleration(values: NDArray[np.float64]) -> float:
    units = values.mean(axis=1) if len(values) > 1 else values[0]
    # The jackknife's deviations of a mean are the units' own, divided by n - 1, which cancels.
    deviations = units - units.mean()
    scale = 6 * float(np.sum(deviations**2)) ** 1.5
    return float(np.sum(deviations**3)) / scale if scale > 0 else 0.0


def _newcombe(table: Sequence[Sequence[int]], level: float) -> Interval:
    (both, lost), (won, neither) = table
    n = both + lost + won + neither
    before, after = wilson(both + lost, n, level), wilson(both + won, n, level)
    margins = (both + lost) * (won + neither) * (both + won) * (lost + neither)
    phi = (both * neither - lost * won) / math.sqrt(margins) if margins else 0.0
    below = _joined(after.estimate - after.low, before.high - before.estimate, phi)
    above = _joined(after.high - after.estimate, before.estimate - before.low, phi)
    change = (won - lost) / n
    return Interval(estimate=change, low=change - below, high=change + above, n=n, method="Newcombe", level=level)


def _joined(one: float, other: float, phi: float) -> float:
    """The reach of a difference of two correlated rates."""
    return math.sqrt(max(0.0, one**2 - 2 * phi * one * other + other**2))


def _matrix(differences: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(differences, dtype=float)
    if values.ndim != 2:
        raise ValueError(f"shape {values.shape}: expected (seeds, items)")
    return values


def _mean(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    return np.asarray(values.mean(axis=axis))
