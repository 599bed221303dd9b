"""Several arms against a baseline, each run by several seeds on the same items: effects, corrected and consistent.

The difference of two arms varies by its runs (another seed gives another model) and by its items (another set would
favour another arm), and the two are crossed, as every run answers every item. Its squared error is estimated from the
two-way analysis of variance, runs + items - noise: the spread of run means, the spread of the items' mean
differences, less the noise of single answers that both contain (Cornfield & Tukey, Annals of Mathematical Statistics
27, 1956). Radiology compares readers on cases so (Dorfman, Berbaum & Metz, Investigative Radiology 27, 1992). The
interval is Student's t with Satterthwaite's degrees of freedom, which the few runs dominate.

Which spreads of runs are pooled: shares have less room to vary near 0 and 1, as a binomial's variance m (1 - m) says,
so that a level at the floor would pass for one whose seeds agree and make the others look surer than they are (18 %
false alarms at three seeds with two of four levels there). Levels are pooled where their m (1 - m) is within a factor
of 1.5 (`ALIKE`), each in proportion to it, as a quasi-binomial model has it (Wedderburn, Biometrika 61, 1974); two
levels that are further apart have a spread each, joined by Welch's way.

Why not something else (coverage of 95 % intervals in nine cells, benchmarks/results): this one covers 94.4 to 95.5 %.
Student's t over seeds takes the items as fixed and misses that arms differ in which items they get right: 90.3 % with
ten seeds that hardly differ. The bootstrap over items nested in seeds covers 76 % with three seeds that do differ,
for which there are ten distinct draws, and 97 to 98 % where seeds do not, as it counts the noise of single answers
twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from alpaca.statistics.intervals import Interval, change_interval
from alpaca.statistics.paired import holm
from alpaca.statistics.power import ALPHA, POWER, Design, Error, check_rates, detectable

Matrix = NDArray[np.float64]
# Relative: scores are means of thousands of terms of 2e-16, and spreads are at least of one item in millions.
_ROUNDING = 1e-12
ALIKE = 1.5
"""How far the variances m (1 - m) of two levels' means may lie apart for their seeds to count as equally spread."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """One arm minus the baseline, in the unit of the score."""

    arm: str
    interval: Interval
    """The simultaneous interval: it excludes 0 exactly where the effect is significant.

    Bonferroni's, so that all hold together with probability 1 - alpha; only where Holm's later steps find what
    Bonferroni's correction does not, the interval has the level of the step that found it.
    """
    pointwise: Interval
    """The interval of this comparison by itself, at 1 - alpha: no correction."""
    p_value: float
    corrected_p: float
    """Holm's, over all arms."""
    significant: bool
    """corrected_p < alpha."""
    detectable: float
    """The smallest true difference that this comparison would find with `power`, by the spread seen here."""
    over_seeds: bool
    """Whether the interval speaks of new seeds and new items, or of new items for these very runs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """All arms against the baseline; `effects` in the order of the scores."""

    baseline: str
    effects: tuple[Effect, ...]
    items: int
    seeds: dict[str, int]
    """Runs of each arm."""
    run_sd: dict[str, float | None]
    """Standard deviation of each arm's run means; None for one run. Look at it before trusting a pooled spread."""
    alpha: float
    power: float
    paired: bool
    pooled: bool


@dataclass(frozen=True, kw_only=True)
class _Arm:
    """Scores (seeds, items) of an arm, or of a difference of two arms with paired seeds."""

    values: Matrix

    @property
    def seeds(self) -> int:
        return len(self.values)

    @cached_property
    def run_means(self) -> Matrix:
        return np.asarray(self.values.mean(axis=1))

    @cached_property
    def item_means(self) -> Matrix:
        return np.asarray(self.values.mean(axis=0))

    @cached_property
    def run_variance(self) -> float:
        return float(self.run_means.var(ddof=1))

    @cached_property
    def room(self) -> float:
        """m (1 - m) of the mean."""
        mean = float(self.values.mean())
        return mean * (1 - mean)

    def is_like(self, other: _Arm) -> bool:
        """Whether the seeds of both may be taken to vary equally, where scores are shares."""
        small, large = sorted((self.room, other.room))
        return large <= ALIKE * small

    @cached_property
    def noise(self) -> float:
        """Mean square of what neither run nor item explains; needs two runs."""
        rest = self.values - self.run_means[:, None] - self.item_means + self.values.mean()
        return float(np.sum(rest**2)) / self.noise_df

    @property
    def noise_df(self) -> int:
        return (self.seeds - 1) * (len(self.item_means) - 1)


@dataclass(frozen=True, kw_only=True)
class _Sweep:
    arms: dict[str, _Arm]
    baseline: _Arm
    paired: bool
    pooled: bool

    def error(self, arm: _Arm) -> Error:
        """Of arm minus baseline; without the runs' part where their spread is unknown."""
        changes = arm.item_means - self.baseline.item_means
        items, items_df = float(changes.var(ddof=1)) / len(changes), len(changes) - 1
        runs, freedom = self.runs(arm)
        if freedom == 0:
            return Error(runs=0, runs_df=1, items=items, items_df=items_df, noise=0, noise_df=1)
        noise, noise_df = self._noise(arm)
        if runs <= _ROUNDING * noise:
            # Run means of right-or-wrong items coincide by chance, and any difference would be significant then.
            runs, freedom = noise, noise_df
        return Error(runs=runs, runs_df=freedom, items=items, items_df=items_df, noise=noise, noise_df=noise_df)

    def runs(self, arm: _Arm) -> tuple[float, float]:
        """Squared error from the spread of run means, and its degrees of freedom (0: unknown)."""
        pair = (self.baseline, arm)
        if self.paired:
            group = tuple(self.arms.values()) if self.pooled else pair
            freedom = (len(group) - 1) * (arm.seeds - 1)
            return (2 / arm.seeds * _block_square(group) / freedom if freedom else 0.0), freedom
        if self.pooled:
            return self._pooled(pair)
        return _welch(pair) if all(one.seeds > 1 for one in pair) else (0.0, 0)

    def _pooled(self, pair: tuple[_Arm, _Arm]) -> tuple[float, float]:
        """One spread for both where they are alike, else one each; of a single run without its like, that of all."""
        if self._are_alike(*pair):
            spread, freedom = self._spread(self._like(*pair))
            return (sum(spread * self._room(one) / one.seeds for one in pair) if freedom else 0.0), freedom
        everywhere = self._spread(self.arms.values())
        own = [self._spread(self._like(one)) for one in pair]
        known = zip(pair, (each if each[1] else everywhere for each in own), strict=True)
        return _satterthwaite(
            [(spread * self._room(one) / one.seeds, freedom) for one, (spread, freedom) in known if freedom]
        )

    def _spread(self, arms: Iterable[_Arm]) -> tuple[float, int]:
        """Variance of run means by the room that they have, pooled, and its degrees of freedom."""
        repeated = [one for one in arms if one.seeds > 1]
        freedom = sum(one.seeds - 1 for one in repeated)
        squares = [one.run_variance * (one.seeds - 1) / self._room(one) for one in repeated if one.run_variance]
        return (sum(squares) / freedom if freedom else 0.0), freedom

    def _room(self, arm: _Arm) -> float:
        return arm.room if self._shares else 1.0

    def _are_alike(self, one: _Arm, other: _Arm) -> bool:
        """Whether the seeds of both may be taken to vary equally."""
        return not self._shares or one.is_like(other)

    def _like(self, *wanted: _Arm) -> list[_Arm]:
        return [one for one in self.arms.values() if all(self._are_alike(one, each) for each in wanted)]

    @cached_property
    def _shares(self) -> bool:
        return _are_shares(self.arms.values())

    def _noise(self, arm: _Arm) -> tuple[float, float]:
        if self.paired:
            change = _Arm(values=arm.values - self.baseline.values)
            return change.noise / change.values.size, change.noise_df
        repeated = [one for one in self.arms.values() if one.seeds > 1]
        total = 0.0
        for one in (self.baseline, arm):
            # An arm of a single run borrows the noise of the others, as it borrows their spread.
            square = one.noise if one.seeds > 1 else float(np.mean([other.noise for other in repeated]))
            total += square / one.values.size
        return total, sum(one.noise_df for one in (self.baseline, arm)) or repeated[0].noise_df


def compare(
    scores: Mapping[str, ArrayLike],
    baseline: str,
    *,
    paired: bool = False,
    pooled: bool = True,
    alpha: float = ALPHA,
    power: float = POWER,
) -> Comparison:
    """The effect of each arm against the baseline, with the family-wise error of all of them held at alpha.

    scores: arm -> (seeds, items), the same items in the same order in every arm; the number of seeds may differ.
    paired: run k of every arm shares what its seed draws; worth its degrees of freedom only where that makes runs
    rise and fall together. pooled: one spread of seeds for all arms that are alike (see above), as in Dunnett (JASA
    50, 1955). With three seeds an arm's own spread has two to four degrees of freedom, and nothing but huge effects
    are found; the price is the assumption that seeds vary about equally in such arms, which `run_sd` shows.
    pooled=False is Welch's way, or one t per pair.

    The intervals speak of new seeds and of new items drawn like these; for exactly these items they are too wide.
    Where no spread of seeds can be had (one run each), they speak of new items for these very runs. Raises ValueError
    for arms with other items, fewer than two arms or items, paired arms with unequal seeds, or scores that are not
    finite.
    """
    check_rates(alpha, power)
    _check(scores, baseline, paired)
    arms = {name: _Arm(values=np.asarray(values, dtype=float)) for name, values in scores.items()}
    sweep = _Sweep(arms=arms, baseline=arms[baseline], paired=paired, pooled=pooled)
    differences = [_Difference(name=name, sweep=sweep) for name in arms if name != baseline]
    corrected = holm([one.p_value for one in differences])
    return Comparison(
        baseline=baseline,
        effects=tuple(
            _effect(one, p_value, comparisons=len(differences), alpha=alpha, power=power)
            for one, p_value in zip(differences, corrected, strict=True)
        ),
        items=sweep.baseline.values.shape[1],
        seeds={name: arm.seeds for name, arm in arms.items()},
        run_sd={name: math.sqrt(arm.run_variance) if arm.seeds > 1 else None for name, arm in arms.items()},
        alpha=alpha,
        power=power,
        paired=paired,
        pooled=pooled,
    )


def estimated_design(scores: Mapping[str, ArrayLike], baseline: str, *, paired: bool = False) -> Design:
    """The design of a finished sweep with its spreads estimated, for `needed` and `detectable_effect`; pooled.

    Averages over the arms that are like the baseline (`compare`), over all where none is; parts that come out negative
    count as none. Where arms have unequal numbers of seeds, the smallest is the design's. Raises ValueError as
    `compare`, and for an arm with a single run, whose seeds' spread is unknown.
    """
    _check(scores, baseline, paired)
    arms = {name: _Arm(values=np.asarray(values, dtype=float)) for name, values in scores.items()}
    single = [name for name, arm in arms.items() if arm.seeds == 1]
    if single:
        raise ValueError(f"a single run of {', '.join(single)}: the spread over seeds needs two")
    sweep = _Sweep(arms=arms, baseline=arms[baseline], paired=paired, pooled=True)
    items = sweep.baseline.values.shape[1]
    if _are_shares(arms.values()):
        alike = {name: arm for name, arm in arms.items() if arm.is_like(sweep.baseline)}
        arms = alike if len(alike) > 1 else arms
    errors = [sweep.error(arm) for name, arm in arms.items() if name != baseline]
    variance = _average(arm.values.var(axis=1, ddof=1).mean() for arm in arms.values())
    if variance == 0:
        raise ValueError("every item has the same score: such a sweep says nothing about spreads")
    noise = _average(arm.noise for arm in arms.values())
    between = _average(max(error.items - error.noise, 0.0) * items / 2 for error in errors)
    same = max(-1.0, 1 - noise / variance)
    seeds = _average(arm.run_variance for arm in arms.values()) - noise / items
    return Design(
        items=items,
        seeds=min(arm.seeds for arm in arms.values()),
        seed_sd=math.sqrt(max(seeds, 0.0)),
        item_sd=math.sqrt(variance),
        same_arm=same,
        across_arms=max(-1.0, same - between / variance),
        comparisons=len(scores) - 1,
        paired=paired,
        seed_correlation=_seed_correlation(tuple(arms.values()), seeds, noise / items) if paired else 0.0,
    )


@dataclass(frozen=True, kw_only=True)
class _Difference:
    """An arm minus the baseline, as it is tested."""

    name: str
    sweep: _Sweep

    @property
    def arm(self) -> _Arm:
        return self.sweep.arms[self.name]

    @cached_property
    def changes(self) -> Matrix:
        """(items,) mean differences."""
        return np.asarray(self.arm.item_means - self.sweep.baseline.item_means)

    @cached_property
    def error(self) -> Error:
        return self.sweep.error(self.arm)

    @property
    def estimate(self) -> float:
        return float(self.changes.mean())

    @cached_property
    def p_value(self) -> float:
        if self._is_constant:
            # The sign test of the items, as `change_interval` inverts it.
            return 2.0 ** (1 - len(self.changes)) if self.estimate else 1.0
        return 2 * float(scipy.special.stdtr(self.error.df, -abs(self.estimate) / math.sqrt(self.error.variance)))

    def interval(self, level: float) -> Interval:
        if self._is_constant:
            return change_interval([self.estimate] * len(self.changes), level=level)
        half = math.sqrt(self.error.variance) * float(scipy.special.stdtrit(self.error.df, 0.5 + level / 2))
        low, high = self.estimate - half, self.estimate + half
        method = "crossed t" if self.over_seeds else "Student t"
        return Interval(estimate=self.estimate, low=low, high=high, n=self._units, method=method, level=level)

    @property
    def _is_constant(self) -> bool:
        """Whether every item changes equally in every run, but for rounding."""
        largest = max(float(np.abs(one.values).max()) for one in (self.arm, self.sweep.baseline))
        return self.error.variance <= (_ROUNDING * largest) ** 2

    @property
    def over_seeds(self) -> bool:
        return self.sweep.runs(self.arm)[1] > 0

    @property
    def _units(self) -> int:
        if not self.over_seeds:
            return len(self.changes)
        return self.arm.seeds if self.sweep.paired else self.arm.seeds + self.sweep.baseline.seeds


def _effect(difference: _Difference, corrected: float, *, comparisons: int, alpha: float, power: float) -> Effect:
    level = 1 - _tested_at(difference.p_value, corrected, comparisons, alpha)
    return Effect(
        arm=difference.name,
        interval=difference.interval(level),
        pointwise=difference.interval(1 - alpha),
        p_value=difference.p_value,
        corrected_p=corrected,
        significant=corrected < alpha,
        detectable=detectable(difference.error, comparisons=comparisons, alpha=alpha, power=power),
        over_seeds=difference.over_seeds,
    )


def _tested_at(p_value: float, corrected: float, comparisons: int, alpha: float) -> float:
    """The error rate of the interval that agrees with Holm's decision."""
    bonferroni = alpha / comparisons
    # What Holm leaves undecided, Bonferroni does too; what only Holm finds was held against alpha * p / corrected.
    return alpha * p_value / corrected if corrected < alpha and p_value >= bonferroni else bonferroni


def _are_shares(arms: Iterable[_Arm]) -> bool:
    """Whether every score lies between 0 and 1; the spread of others knows no bounds."""
    return all(bool(arm.values.min() >= 0 and arm.values.max() <= 1) for arm in arms)


def _welch(pair: tuple[_Arm, _Arm]) -> tuple[float, float]:
    return _satterthwaite([(one.run_variance / one.seeds, one.seeds - 1) for one in pair])


def _satterthwaite(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The sum of independent squared errors, and its degrees of freedom (Biometrics Bulletin 2, 1946)."""
    total = sum(size for size, _ in parts)
    if total == 0:
        return 0.0, float(sum(freedom for _, freedom in parts))
    return total, total**2 / sum(size**2 / freedom for size, freedom in parts)


def _block_square(arms: tuple[_Arm, ...]) -> float:
    """Sum of squares of run means that neither arm nor seed explains."""
    means = np.stack([arm.run_means for arm in arms])
    rest = means - means.mean(axis=0) - means.mean(axis=1, keepdims=True) + means.mean()
    return float(np.sum(rest**2))


def _seed_correlation(arms: tuple[_Arm, ...], seeds: float, noise: float) -> float:
    """Of what varies by seed, the share that arms have in common; `noise` is a run mean's."""
    if seeds <= 0:
        return 0.0
    apart = _block_square(arms) / ((len(arms) - 1) * (arms[0].seeds - 1)) - noise
    return min(1.0, max(-1.0, 1 - apart / seeds))


def _average(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _check(scores: Mapping[str, ArrayLike], baseline: str, paired: bool) -> None:
    shapes = {name: np.shape(values) for name, values in scores.items()}
    if baseline not in shapes or len(shapes) < 2:
        raise ValueError(f"baseline {baseline!r} among {', '.join(shapes) or 'no arms'}: expected it and another arm")
    if any(len(shape) != 2 or shape[0] < 1 for shape in shapes.values()):
        raise ValueError(f"shapes {shapes}: expected (seeds, items) in every arm")
    if len({shape[1] for shape in shapes.values()}) > 1 or shapes[baseline][1] < 2:
        raise ValueError(f"shapes {shapes}: expected the same items in every arm, two at least")
    if paired and len({shape[0] for shape in shapes.values()}) > 1:
        raise ValueError(f"shapes {shapes}: paired arms have equally many seeds")
    odd = [name for name, values in scores.items() if not np.isfinite(np.asarray(values, dtype=float)).all()]
    if odd:
        raise ValueError(f"scores that are not finite in: {', '.join(odd)}")
