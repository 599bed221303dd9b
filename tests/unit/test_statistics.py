"""Intervals against published and independently computed values."""

from __future__ import annotations

import math
import random

import pytest
from scipy import stats

from alpaca.statistics import (
    bootstrap_mean,
    can_be_conclusive,
    change_interval,
    mean_interval,
    simultaneous_level,
    t_interval,
    welch_interval,
    wilson,
)


def test_wilson_gives_the_published_interval_of_alpacas_blind_comparison():
    interval = wilson(90, 179)
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.4303, 0.5752)
    assert interval.estimate == 90 / 179


@pytest.mark.parametrize("successes", [0, 25])
def test_wilson_has_width_where_every_item_agrees(successes):
    interval = wilson(successes, 25)
    # Wilson's bound at the end of the scale: z^2 / (n + z^2).
    reach = 1.959964**2 / (25 + 1.959964**2)
    assert interval.high - interval.low == pytest.approx(reach, abs=1e-6)


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(ValueError, match=f"{successes} successes of {n}"):
        wilson(successes, n)


def test_t_interval_of_three_seeds_uses_two_degrees_of_freedom():
    interval = t_interval([1.0, 2.0, 3.0])
    half = 4.302653 / math.sqrt(3)  # t(0.975; 2) from the tables
    assert (interval.low, interval.high) == (pytest.approx(2 - half, abs=1e-6), pytest.approx(2 + half, abs=1e-6))
    assert (interval.n, interval.method) == (3, "Student t")


def test_t_interval_says_when_the_seeds_agree_and_refuses_a_single_one():
    assert t_interval([0.5, 0.5, 0.5]).method == "constant"
    with pytest.raises(ValueError, match="1 values"):
        t_interval([0.5])


def test_welch_gives_the_interval_worked_out_by_hand():
    # Variances 1 and 4 of three values each: error sqrt(5 / 3), 2.941 degrees of freedom, t(0.975) = 3.2199.
    interval = welch_interval([1.0, 2.0, 3.0], [4.0, 6.0, 8.0])
    assert interval.estimate == 4.0
    assert interval.low == pytest.approx(4.0 - 3.2199 * math.sqrt(5 / 3), abs=2e-3)
    assert (interval.n, interval.method) == (6, "Welch t")
    assert welch_interval([1.0] * 3, [2.0] * 3).method == "constant"


@pytest.mark.parametrize("n", range(1, 12))
@pytest.mark.parametrize("change", [1.0, -0.25])
def test_equal_changes_pass_zero_exactly_where_the_sign_test_rejects(n, change):
    interval = change_interval([change] * n)
    rejects = bool(stats.binomtest(n, n).pvalue < 0.05)
    assert interval.excludes(0.0) is rejects
    assert can_be_conclusive(n) is rejects
    assert interval.high - interval.low > 0


def test_changes_are_bootstrapped_where_they_differ_and_constant_where_there_are_none():
    assert change_interval([0.0, 1.0, 1.0, 0.0]).method == "bootstrap"
    assert change_interval([0.0] * 8).method == "constant"


def test_t_interval_is_cut_at_the_ends_of_the_scale():
    interval = t_interval([0.95, 0.99, 1.0])
    assert interval.high > 1.0
    assert interval.within(0.0, 1.0).high == 1.0
    assert interval.within(0.0, 1.0).low == interval.low


def test_bootstrap_agrees_with_the_normal_interval_of_a_large_sample():
    rng = random.Random(3)
    values = [rng.gauss(10.0, 2.0) for _ in range(400)]
    interval = bootstrap_mean(values, seed=0)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 2.0 / 20, rel=0.12)
    assert interval.low < 10.0 < interval.high


def test_bootstrap_is_a_function_of_values_and_seed():
    values = [0.1, 0.4, 0.35, 0.8, 0.2]
    assert bootstrap_mean(values, seed=7) == bootstrap_mean(values, seed=7)
    assert bootstrap_mean(values, seed=7) != bootstrap_mean(values, seed=8)


def test_bootstrap_copes_with_values_that_hardly_vary():
    assert bootstrap_mean([0.5] * 20, seed=0).method == "constant"
    nearly = bootstrap_mean([0.5] * 399 + [0.9], seed=0)
    assert math.isfinite(nearly.high - nearly.low)


@pytest.mark.parametrize("bad", [[], [1.0, float("nan")]])
def test_values_that_have_no_mean_are_refused(bad):
    with pytest.raises(ValueError, match=r"values|finite"):
        bootstrap_mean(bad, seed=0)


def test_the_interval_over_items_follows_the_kind_of_score():
    assert mean_interval([0.0, 1.0, 1.0]).method == "Wilson"
    assert mean_interval([0.0, 0.5, 1.0]).method == "bootstrap"


def test_several_intervals_hold_together_at_a_higher_level_each():
    assert simultaneous_level(5) == pytest.approx(0.99)
    assert simultaneous_level(1) == pytest.approx(0.95)
    with pytest.raises(ValueError, match="0 comparisons"):
        simultaneous_level(0)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = random.Random(1)
    draws = [t_interval([rng.gauss(0.0, 1.0) for _ in range(3)]) for _ in range(600)]
    covered = sum(not interval.excludes(0.0) for interval in draws) / len(draws)
    assert 0.92 < covered < 0.98
