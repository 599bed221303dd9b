"""What a design can detect, before anything runs: the noncentral t with the degrees of freedom that the seeds leave.

By scipy.special alone, which loads in 0.2 s: a dry run prints these numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import scipy

ALPHA = 0.05
POWER = 0.8
MOST_SEEDS = 10_000
MOST_ITEMS = 100_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Error:
    """The squared standard error of a difference of two arms, in the parts that are estimated apart.

    Sizes are in the squared unit of the score, each with its degrees of freedom. `items` is the variance of the
    items' mean differences divided by their number; it contains the noise of single answers, which `runs` contains as
    well, and which is taken off once: `noise`.
    """

    runs: float
    runs_df: float
    items: float
    items_df: float
    noise: float
    noise_df: float

    @property
    def variance(self) -> float:
        """Not below what the runs alone give: an estimate of the items' own share may come out negative."""
        return self.runs + max(self.items - self.noise, 0.0)

    @property
    def df(self) -> float:
        """Satterthwaite's (Biometrics Bulletin 2, 1946), or the runs' where items bring nothing of their own.

        Not below that of any part, as for a sum: taking the noise off can leave next to nothing, and no degrees of
        freedom.
        """
        if self.items <= self.noise:
            return self.runs_df
        parts = ((self.runs, self.runs_df), (self.items, self.items_df), (self.noise, self.noise_df))
        known = [(size, df) for size, df in parts if size > 0]
        least = min(df for _, df in known)
        return max(least, self.variance**2 / sum(size**2 / df for size, df in known))


@dataclass(frozen=True, kw_only=True, slots=True)
class Design:
    """A sweep whose arms are each compared with one baseline, and how much its scores vary.

    Spreads are in the unit of the score (for exact match a share: 0.03 is three points). Raises ValueError for what
    no design has.
    """

    items: int
    """Items, the same in every arm and seed; at least two."""
    seeds: int
    """Runs of each arm. With one, the runs' spread is unknown, and every statement is about these very runs."""
    seed_sd: float
    """Standard deviation over seeds of an arm's true accuracy, apart from the noise of a finite set of items."""
    item_sd: float = 0.5
    """Standard deviation of single scores within a run: sqrt(p (1 - p)) for right or wrong, at most 0.5."""
    same_arm: float
    """Correlation of two runs' scores of one item, where the runs differ in their seed only."""
    across_arms: float
    """The same for runs of two arms, at most `same_arm`; less where arms differ in which items they get right."""
    comparisons: int = 1
    """Arms beside the baseline, which the correction counts."""
    paired: bool = False
    """Whether the analysis pairs runs of equal seed; pays only where `seed_correlation` is well above 0."""
    seed_correlation: float = 0.0
    """Correlation of the true accuracies of two arms' runs of one seed; used only where runs are paired."""
    pooled: bool = True
    """Whether all arms share one estimate of the seeds' spread.

    Without that, unpaired runs are given 2 (seeds - 1) degrees of freedom, the most that Welch's test has: with three
    seeds it finds the stated effect in 62 to 64 % of sweeps instead of 80 % (benchmarks/results), with ten in 79 to
    82 %.
    """

    def __post_init__(self) -> None:
        if self.items < 2 or self.seeds < 1 or self.comparisons < 1:
            raise ValueError(
                f"{self.items} items, {self.seeds} seeds, {self.comparisons} comparisons: expected at least 2, 1 and 1"
            )
        if self.seed_sd < 0 or self.item_sd <= 0:
            raise ValueError(f"seed_sd {self.seed_sd}, item_sd {self.item_sd}: expected at least 0, and above 0")
        if not -1 <= self.across_arms <= self.same_arm <= 1:
            raise ValueError(
                f"across_arms {self.across_arms}, same_arm {self.same_arm}: expected -1 <= across_arms <= same_arm <= 1"
            )
        if not -1 <= self.seed_correlation <= 1:
            raise ValueError(f"seed_correlation {self.seed_correlation}: expected -1 to 1")

    @property
    def error(self) -> Error:
        """The error that the analysis of `compare` will have to estimate."""
        noise = 2 * self.item_sd**2 * (1 - self.same_arm) / (self.seeds * self.items)
        interaction = 2 * self.item_sd**2 * (self.same_arm - self.across_arms) / self.items
        if self.seeds == 1:
            return Error(runs=0, runs_df=1, items=interaction + noise, items_df=self.items - 1, noise=0, noise_df=1)
        common = self.seed_correlation if self.paired else 0.0
        return Error(
            runs=2 * self.seed_sd**2 * (1 - common) / self.seeds + noise,
            runs_df=runs_df(self.seeds, self.comparisons, paired=self.paired, pooled=self.pooled),
            items=interaction + noise,
            items_df=self.items - 1,
            noise=noise,
            noise_df=(1 if self.paired else 2) * (self.seeds - 1) * (self.items - 1),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Needed:
    """What would detect an effect; None where no number of that kind alone would."""

    seeds: int | None
    """Seeds in all, with the design's items."""
    items: int | None
    """Items in all, with the design's seeds."""


def runs_df(seeds: int, comparisons: int, *, paired: bool, pooled: bool) -> float:
    """Degrees of freedom of the seeds' spread with equally many seeds in every arm."""
    if paired:
        return float((comparisons if pooled else 1) * (seeds - 1))
    return float((comparisons + 1 if pooled else 2) * (seeds - 1))


def detectable_effect(design: Design, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """The smallest true difference from the baseline that is found with probability `power`, in the unit of the score.

    "Found" is significant in the right direction after the correction, whose first step is alpha / comparisons; were
    other arms to differ as well, Holm's later steps would find somewhat more. Raises ValueError unless 0 < alpha <
    power < 1.
    """
    return detectable(design.error, comparisons=design.comparisons, alpha=alpha, power=power)


def detectable(error: Error, *, comparisons: int, alpha: float, power: float) -> float:
    """The same for a given error."""
    check_rates(alpha, power)
    if error.variance == 0:
        return 0.0
    critical = scipy.special.stdtrit(error.df, 1 - alpha / comparisons / 2)
    return math.sqrt(error.variance) * float(scipy.special.nctdtrinc(error.df, 1 - power, critical))


def needed(design: Design, effect: float, *, alpha: float = ALPHA, power: float = POWER) -> Needed:
    """How many seeds, or how many items, would make `effect` (its sign does not matter) detectable.

    The number suffices and one less does not. Searches to 10,000 seeds and 100 million items. Raises ValueError for
    an effect of 0.
    """
    if effect == 0 or not math.isfinite(effect):
        raise ValueError(f"effect {effect}: expected a number that is not 0")

    def suffices(changed: Design) -> bool:
        return detectable_effect(changed, alpha=alpha, power=power) <= abs(effect)

    # One seed is another question (these very runs), so it is no answer to how many seeds.
    return Needed(
        seeds=_least(lambda count: suffices(replace(design, seeds=count)), 2, MOST_SEEDS),
        items=_least(lambda count: suffices(replace(design, items=count)), 2, MOST_ITEMS),
    )


def untied_pairs(share: float, *, alpha: float = ALPHA, power: float = POWER) -> int:
    """Untied pairs that a two-sided sign test needs where one side truly wins `share` of them.

    By the normal approximation, n = ((z(1 - alpha / 2) / 2 + z(power) sqrt(share (1 - share))) / (share - 1/2))^2, as
    in statsmodels' normal_sample_size_one_tail. Raises ValueError unless 0 < share < 1 and share is not 1/2.
    """
    if not 0.0 < share < 1.0 or share == 0.5:
        raise ValueError(f"share {share}: expected a number between 0 and 1 other than 0.5")
    check_rates(alpha, power)
    reach = scipy.special.ndtri(1 - alpha / 2) * 0.5 + scipy.special.ndtri(power) * math.sqrt(share * (1 - share))
    return math.ceil(float(reach / (share - 0.5)) ** 2)


def _least(suffices: Callable[[int], bool], first: int, most: int) -> int | None:
    """A count that suffices while one less does not, by doubling and halving; None up to `most`."""
    high = first
    while not suffices(high):
        if high >= most:
            return None
        high = min(2 * high, most)
    low = max(first - 1, high // 2)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high


def check_rates(alpha: float, power: float) -> None:
    """Raises ValueError unless 0 < alpha < power < 1."""
    if not 0.0 < alpha < power < 1.0:
        raise ValueError(f"alpha {alpha}, power {power}: expected 0 < alpha < power < 1")
