"""Claim: the comparison of a sweep's arms is as often wrong, and finds as much, as it says.

    python benchmarks/calibration.py [--quick] [--arm-sd SD] [--own-spread] [--paired CORRELATION]
                                     [--uneven FACTOR] [--low ACCURACY] [--shared CORRELATION]

Cells are {3, 5, 10} seeds x seed sd {0, 0.03, 0.10}. Each simulates 1,000 sweeps without any effect and 1,000 with
one planted effect of the size that the design states as detectable: a baseline and four arms, 400 items right or
wrong, all through `alpaca.statistics.compare`. The keys are the worst cell's: false_positive_rate (family-wise,
nothing planted), power_at_mde (the planted effect is significant and of the right sign) and coverage (pointwise 95 %
intervals of all four comparisons in both kinds of sweep). Lists have all nine cells, seeds outermost. joint_coverages
is the share of sweeps whose four simultaneous intervals all hold; others_* are coverages of the planted effect by
ways that were not chosen: Student's t over seeds, and the bootstrap over items nested in seeds (percentile and BCa).

Whether an answer is right follows a probit model: difficulties of items are shared by all arms and seeds (sd 1), each
arm has its own deviations by item (`--arm-sd`, 0.3 unless given), and the accuracy of a run over the population of
items varies by the cell's seed sd, exactly, on the scale of accuracy. The truth is that of the populations of seeds
and items.

`--own-spread` estimates the seeds' spread for each pair of arms instead of pooling it. `--paired R` pairs runs by
seed and lets the accuracies of one seed correlate by R. `--uneven F` gives the first arm beside the baseline F times
the others' seed sd, against the assumption of pooling (the stated effect then assumes equal spreads). `--low A` puts
the last two arms at accuracy A with a spread of their own, in proportion to A (1 - A), in both kinds of sweep: false
alarms are then those of the other two. `--shared R` correlates the accuracies of one seed by R over the arms and
compares them unpaired, as pages do. `--quick` is a smoke run of 20 sweeps a cell.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from alpaca.statistics import LEVEL, POWER, Comparison, Design, compare, detectable_effect, t_interval
from alpaca.statistics.paired import bca_bounds

ITEMS = 400
ARMS = 4
SEEDS = (3, 5, 10)
SEED_SDS = (0.0, 0.03, 0.10)
DIFFICULTY_SD = 1.0
MIDDLE = 0.5
LOW = 3
"""The first of the arms that `--low` moves; the baseline is arm 0."""
KEYS = (
    "false_positive_rates",
    "powers",
    "coverages",
    "joint_coverages",
    "others_t_over_seeds",
    "others_nested_percentile",
    "others_nested_bca",
    "detectable_effects",
)
Matrix = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class World:
    """Where scores come from, and how they are compared."""

    seeds: int
    seed_sd: float
    arm_sd: float
    pooled: bool
    seed_correlation: float | None
    """None where runs are not paired by seed."""
    uneven: float
    low: float | None
    shared: float

    @property
    def latent_variance(self) -> float:
        return float(1 + DIFFICULTY_SD**2 + self.arm_sd**2)

    def scores(self, accuracies: Matrix, rng: np.random.Generator) -> Matrix:
        """(arms, seeds, items) of 0 and 1 for arms of such accuracies over the population of items and seeds."""
        sds = np.full(len(accuracies), self.seed_sd)
        sds[1] *= self.uneven
        if self.low is not None:
            sds[LOW:] *= self.low * (1 - self.low) / MIDDLE**2
        common = self.seed_correlation or self.shared
        luck = math.sqrt(common) * rng.standard_normal(self.seeds) + math.sqrt(1 - common) * rng.standard_normal(
            (len(accuracies), self.seeds)
        )
        runs = accuracies[:, None] + sds[:, None] * luck
        # Stretched by the latent spread, the items' mean of the probabilities is the run's accuracy, exactly.
        thresholds = scipy.special.ndtri(np.clip(runs, 0.002, 0.998)) * math.sqrt(self.latent_variance)
        by_item = DIFFICULTY_SD * rng.standard_normal(ITEMS) + self.arm_sd * rng.standard_normal((len(runs), ITEMS))
        chances = scipy.special.ndtr(thresholds[:, :, None] + by_item[:, None, :])
        return np.asarray(rng.random(chances.shape) < chances, dtype=float)

    def design(self, effect: float) -> Design:
        """What a planner who knows the world would enter, for arms at MIDDLE -+ effect / 2."""
        low, high = MIDDLE - effect / 2, MIDDLE + effect / 2
        shared = DIFFICULTY_SD**2 / self.latent_variance
        same = shared + self.arm_sd**2 / self.latent_variance
        variance = low * high
        return Design(
            items=ITEMS,
            seeds=self.seeds,
            seed_sd=self.seed_sd,
            item_sd=math.sqrt(variance),
            same_arm=(_both_right(low, low, same) - low * low) / variance,
            across_arms=(_both_right(low, high, shared) - low * high) / variance,
            comparisons=ARMS,
            pooled=self.pooled,
            paired=self.seed_correlation is not None,
            seed_correlation=self.seed_correlation or 0.0,
        )

    def detectable(self) -> float:
        """The stated effect; the items' spread depends on where the arms lie, so a few rounds settle it."""
        effect = 0.0
        for _ in range(6):
            effect = detectable_effect(self.design(effect))
        return effect


def _both_right(one: float, other: float, correlation: float) -> float:
    bounds = scipy.special.ndtri([one, other])
    return float(scipy.stats.multivariate_normal(cov=[[1, correlation], [correlation, 1]]).cdf(bounds))


def cell(world: World, sweeps: int, resamples: int, seed: int) -> dict[str, float]:
    """The rates of one cell, named as the lists of the result."""
    rng = np.random.default_rng(seed)
    effect = world.detectable()
    flat, planted = np.full(ARMS + 1, MIDDLE), np.full(ARMS + 1, MIDDLE - effect / 2)
    planted[1] += effect
    if world.low is not None:
        flat[LOW:] = planted[LOW:] = world.low
    counts: Counter[str] = Counter()
    for _ in range(sweeps):
        null = compared(world, world.scores(flat, rng))
        scores = world.scores(planted, rng)
        found = compared(world, scores)
        equal = null.effects if world.low is None else null.effects[: LOW - 1]
        counts["false_positive_rates"] += any(one.significant for one in equal)
        counts["powers"] += found.effects[0].significant and found.effects[0].interval.estimate > 0
        for comparison, truth in ((null, flat), (found, planted)):
            pointwise, joint = held(comparison, truth[1:] - truth[0])
            counts["coverages"] += pointwise
            counts["joint_coverages"] += joint
        counts.update(by_other_ways(scores[1] - scores[0], effect, resamples, rng))
    trials = {"coverages": 2 * ARMS * sweeps, "joint_coverages": 2 * sweeps}
    rates = {key: count / trials.get(key, sweeps) for key, count in counts.items()}
    return {**rates, "detectable_effects": effect}


def compared(world: World, scores: Matrix) -> Comparison:
    arms = {str(arm): values for arm, values in enumerate(scores)}
    return compare(arms, "0", pooled=world.pooled, paired=world.seed_correlation is not None)


def held(comparison: Comparison, truths: Matrix) -> tuple[int, bool]:
    """How many pointwise intervals hold the truth, and whether all simultaneous ones do."""
    pairs = list(zip(comparison.effects, truths.tolist(), strict=True))
    pointwise = sum(not one.pointwise.excludes(true) for one, true in pairs)
    return pointwise, all(not one.interval.excludes(true) for one, true in pairs)


def by_other_ways(differences: Matrix, truth: float, resamples: int, rng: np.random.Generator) -> dict[str, int]:
    """1 where the intervals that were not chosen hold the truth, else 0; differences: (seeds, items)."""
    means = nested_means(differences, resamples, rng)
    low, high = np.quantile(means, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    bca_low, bca_high = bca_bounds(means, differences, LEVEL)
    return {
        "others_t_over_seeds": int(not t_interval(differences.mean(axis=1).tolist(), LEVEL).excludes(truth)),
        "others_nested_percentile": int(low <= truth <= high),
        "others_nested_bca": int(bca_low <= truth <= bca_high),
    }


def nested_means(differences: Matrix, resamples: int, rng: np.random.Generator) -> Matrix:
    """What `nested_bootstrap` draws, by counts of -1, 0 and 1: a hundred times quicker than item by item."""
    seeds, items = differences.shape
    shares = np.stack([(differences == value).mean(axis=1) for value in (-1, 0, 1)], axis=1)
    counts = rng.multinomial(items, shares[rng.integers(seeds, size=(resamples, seeds))])
    return np.asarray((counts[:, :, 2] - counts[:, :, 0]).mean(axis=1) / items)


def result_of(worlds: list[World], rates: list[dict[str, float]]) -> dict[str, object]:
    lists = {key: [round(one.get(key, 0.0), 4) for one in rates] for key in KEYS}
    return {
        "false_positive_rate": max(lists["false_positive_rates"]),
        "power_at_mde": max(lists["powers"], key=lambda power: abs(power - POWER)),
        "coverage": max(lists["coverages"], key=lambda coverage: abs(coverage - LEVEL)),
        "seeds": [world.seeds for world in worlds],
        "seed_sds": [world.seed_sd for world in worlds],
        **lists,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--arm-sd", type=float, default=0.3, metavar="SD")
    parser.add_argument("--own-spread", action="store_true")
    parser.add_argument("--paired", type=float, metavar="R")
    parser.add_argument("--uneven", type=float, default=1.0, metavar="F")
    parser.add_argument("--low", type=float, metavar="A")
    parser.add_argument("--shared", type=float, default=0.0, metavar="R")
    given = parser.parse_args()
    sweeps, resamples = (20, 99) if given.quick else (1000, 999)
    base = World(
        seeds=SEEDS[0],
        seed_sd=SEED_SDS[0],
        arm_sd=given.arm_sd,
        pooled=not given.own_spread,
        seed_correlation=given.paired,
        uneven=given.uneven,
        low=given.low,
        shared=given.shared,
    )
    worlds = [replace(base, seeds=seeds, seed_sd=sd) for seeds in SEEDS for sd in SEED_SDS]
    rates = []
    for number, world in enumerate(worlds):
        began = time.perf_counter()
        rates.append(cell(world, sweeps, resamples, seed=number))
        took = time.perf_counter() - began
        print(f"{world.seeds} seeds, sd {world.seed_sd}: {rates[-1]}, {took:.1f} s", file=sys.stderr, flush=True)
    print(json.dumps(result_of(worlds, rates)))


if __name__ == "__main__":
    main()
