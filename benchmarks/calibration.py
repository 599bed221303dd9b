"""Claim: what a sweep's comparison says about its own errors is so, in every cell of {3, 5, 10 seeds} x {seed sd 0, 0.03, 0.10}.

    python benchmarks/calibration.py [--quick] [--arm-sd 0.3] [--own-spread] [--uneven 1]

Each cell simulates 1,000 sweeps without any effect and 1,000 with one planted effect of the size that the design states as
detectable: a baseline and four arms, 400 items right or wrong, all through `alpaca.statistics.compare`. The keys are the
worst cell's: false_positive_rate (family-wise, nothing planted), power_at_mde (the planted effect found, that is significant
and of the right sign) and coverage (pointwise 95 % intervals, all four comparisons of both kinds of sweep). Lists have all
nine cells, seeds outermost: joint_coverages is the share of sweeps all of whose four simultaneous intervals hold,
and others_* are coverages of the planted effect by ways not chosen (Student's t over seeds; items nested in seeds,
percentile and BCa).

Whether an answer is right follows a probit model: difficulties of items are shared by all arms and seeds (sd 1), each arm
has its own deviations by item (`--arm-sd`), and each run's accuracy over the population of items varies by the cell's
seed sd, exactly, on the scale of accuracy. `--own-spread` estimates the seeds' spread for each pair of arms instead of
pooling it; `--uneven F` gives the first arm beside the baseline F times the others' seed sd, against the assumption of
pooling (its power then says nothing, as the stated effect assumes equal spreads). `--quick` is a smoke run of 20 sweeps.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from alpaca.statistics import Comparison, Design, compare, detectable_effect, t_interval
from alpaca.statistics.paired import bca_bounds

ITEMS = 400
ARMS = 4
SEEDS = (3, 5, 10)
SEED_SDS = (0.0, 0.03, 0.10)
DIFFICULTY_SD = 1.0
MIDDLE = 0.5
LEVEL = 0.95
Matrix = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class World:
    """Where scores come from, and how they are compared."""

    seeds: int
    seed_sd: float
    arm_sd: float
    pooled: bool
    uneven: float

    @property
    def latent_variance(self) -> float:
        return 1 + DIFFICULTY_SD**2 + self.arm_sd**2

    def scores(self, accuracies: Matrix, rng: np.random.Generator) -> Matrix:
        """(arms, seeds, items) of 0 and 1 for arms of such accuracies over the population of items and seeds."""
        sds = np.full(len(accuracies), self.seed_sd)
        sds[1] *= self.uneven
        runs = accuracies[:, None] + sds[:, None] * rng.standard_normal((len(accuracies), self.seeds))
        # Stretched by the latent spread, the items' mean of the probabilities is the run's accuracy, exactly.
        thresholds = scipy.special.ndtri(np.clip(runs, 0.002, 0.998)) * math.sqrt(self.latent_variance)
        by_item = DIFFICULTY_SD * rng.standard_normal(ITEMS) + self.arm_sd * rng.standard_normal((len(runs), ITEMS))
        chances = scipy.special.ndtr(thresholds[:, :, None] + by_item[:, None, :])
        return (rng.random(chances.shape) < chances).astype(float)

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
        )

    def detectable(self) -> float:
        """The stated effect; the items' spread depends on where the arms lie, so a few rounds settle it."""
        effect = 0.0
        for _ in range(6):
            effect = detectable_effect(self.design(effect))
        return effect


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Counts of one cell."""

    sweeps: int
    any_found: int
    planted_found: int
    covered: int
    all_covered: int
    others: dict[str, int]


def _both_right(one: float, other: float, correlation: float) -> float:
    bounds = scipy.special.ndtri([one, other])
    return float(scipy.stats.multivariate_normal(cov=[[1, correlation], [correlation, 1]]).cdf(bounds))


def tally(world: World, sweeps: int, resamples: int, seed: int) -> Tally:
    rng = np.random.default_rng(seed)
    effect = world.detectable()
    flat = np.full(ARMS + 1, MIDDLE)
    planted = np.full(ARMS + 1, MIDDLE - effect / 2)
    planted[1] += effect
    any_found = planted_found = covered = all_covered = 0
    others: dict[str, int] = {}
    for _ in range(sweeps):
        null = compared(world, world.scores(flat, rng))
        any_found += any(one.significant for one in null.effects)
        scores = world.scores(planted, rng)
        found = compared(world, scores)
        first = found.effects[0]
        planted_found += first.significant and first.interval.estimate > 0
        for comparison, truth in ((null, [0.0] * ARMS), (found, [effect] + [0.0] * (ARMS - 1))):
            pairs = list(zip(comparison.effects, truth, strict=True))
            covered += sum(not one.pointwise.excludes(true) for one, true in pairs)
            all_covered += all(not one.interval.excludes(true) for one, true in pairs)
        for name, holds in by_other_ways(scores[1] - scores[0], effect, resamples, rng).items():
            others[name] = others.get(name, 0) + holds
    return Tally(
        sweeps=sweeps,
        any_found=any_found,
        planted_found=planted_found,
        covered=covered,
        all_covered=all_covered,
        others=others,
    )


def compared(world: World, scores: Matrix) -> Comparison:
    return compare({str(arm): values for arm, values in enumerate(scores)}, "0", pooled=world.pooled)


def by_other_ways(differences: Matrix, truth: float, resamples: int, rng: np.random.Generator) -> dict[str, bool]:
    """Whether the intervals that were not chosen hold the truth; differences: (seeds, items)."""
    means = nested_means(differences, resamples, rng)
    low, high = np.quantile(means, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    bca_low, bca_high = bca_bounds(means, differences, LEVEL)
    return {
        "t_over_seeds": not t_interval(differences.mean(axis=1).tolist(), LEVEL).excludes(truth),
        "nested_percentile": bool(low <= truth <= high),
        "nested_bca": bca_low <= truth <= bca_high,
    }


def nested_means(differences: Matrix, resamples: int, rng: np.random.Generator) -> Matrix:
    """What `nested_bootstrap` draws, by counts of -1, 0 and 1: a hundred times quicker than item by item."""
    seeds, items = differences.shape
    shares = np.stack([(differences == value).mean(axis=1) for value in (-1, 0, 1)], axis=1)
    counts = rng.multinomial(items, shares[rng.integers(seeds, size=(resamples, seeds))])
    return np.asarray((counts[:, :, 2] - counts[:, :, 0]).mean(axis=1) / items)


def cells(base: World) -> list[World]:
    return [replace(base, seeds=seeds, seed_sd=sd) for seeds in SEEDS for sd in SEED_SDS]


def result_of(worlds: list[World], tallies: list[Tally]) -> dict[str, object]:
    rates = {
        "false_positive_rates": [one.any_found / one.sweeps for one in tallies],
        "powers": [one.planted_found / one.sweeps for one in tallies],
        "coverages": [one.covered / (2 * ARMS * one.sweeps) for one in tallies],
        "joint_coverages": [one.all_covered / (2 * one.sweeps) for one in tallies],
        **{f"others_{name}": [one.others[name] / one.sweeps for one in tallies] for name in tallies[0].others},
        "detectable_effects": [world.detectable() for world in worlds],
    }
    worst = {
        "false_positive_rate": max(rates["false_positive_rates"]),
        "power_at_mde": max(rates["powers"], key=lambda power: abs(power - 0.8)),
        "coverage": max(rates["coverages"], key=lambda coverage: abs(coverage - LEVEL)),
    }
    rounded = {key: [round(value, 4) for value in values] for key, values in rates.items()}
    return {
        **{key: round(value, 4) for key, value in worst.items()},
        "seeds": [world.seeds for world in worlds],
        "seed_sds": [world.seed_sd for world in worlds],
        **rounded,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--arm-sd", type=float, default=0.3, help="an arm's own deviations by item, probit scale")
    parser.add_argument("--own-spread", action="store_true")
    parser.add_argument("--uneven", type=float, default=1.0, metavar="F")
    given = parser.parse_args()
    sweeps, resamples = (20, 99) if given.quick else (1000, 999)
    base = World(seeds=3, seed_sd=0.0, arm_sd=given.arm_sd, pooled=not given.own_spread, uneven=given.uneven)
    worlds, tallies = cells(base), []
    for number, world in enumerate(worlds):
        began = time.perf_counter()
        tallies.append(tally(world, sweeps, resamples, seed=number))
        took = time.perf_counter() - began
        print(f"{world.seeds} seeds, seed sd {world.seed_sd}: {tallies[-1]}, {took:.1f} s", file=sys.stderr, flush=True)
    print(json.dumps(result_of(worlds, tallies)))


if __name__ == "__main__":
    main()
