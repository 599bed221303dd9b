"""Intervals, tests and detectable effects against published values, scipy and statsmodels."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower, TTestPower, normal_sample_size_one_tail
from statsmodels.stats.proportion import confint_proportions_2indep

from alpaca.statistics import (
    Design,
    bootstrap_mean,
    can_be_conclusive,
    change_interval,
    detectable_effect,
    holm,
    mcnemar,
    mean_interval,
    needed,
    nested_bootstrap,
    sign_flip_test,
    sign_test,
    simultaneous_level,
    t_interval,
    untied_pairs,
    welch_interval,
    wilson,
)
from alpaca.statistics.paired import bca_bounds
from alpaca.statistics.power import Error, detectable

SEEDS_ALONE = Design(items=400, seeds=5, seed_sd=0.03, same_arm=1.0, across_arms=1.0)
"""Items that tell nothing of their own: the textbook's t test of run means."""
TYPICAL = Design(items=400, seeds=3, seed_sd=0.03, same_arm=0.35, across_arms=0.3, comparisons=4)


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


def test_alpacas_blind_comparison_is_a_draw_by_the_sign_test():
    test = sign_test(90, 89)
    assert test.p_value == 1.0
    assert (round(test.interval.low, 3), round(test.interval.high, 3)) == (0.430, 0.575)


def test_the_sign_test_is_exact_and_needs_an_untied_pair():
    assert sign_test(8, 1).p_value == pytest.approx(2 * (1 + 9) / 2**9)
    with pytest.raises(ValueError, match="0 successes of 0"):
        sign_test(0, 0)


@pytest.mark.parametrize(("share", "pairs"), [(0.55, 783), (0.60, 194), (0.45, 783)])
def test_pairs_that_the_sign_test_needs(share, pairs):
    spread = math.sqrt(share * (1 - share))
    assert untied_pairs(share) == pairs
    assert pairs == math.ceil(normal_sample_size_one_tail(abs(share - 0.5), 0.8, 0.025, 0.5, spread))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_that_no_number_of_pairs_would_find_is_refused(share):
    with pytest.raises(ValueError, match=f"share {share}"):
        untied_pairs(share)


def answers(both, lost, won, neither):
    """Reference and other, by how many items each got right."""
    reference = [1] * (both + lost) + [0] * (won + neither)
    return reference, [1] * both + [0] * lost + [1] * won + [0] * neither


def test_mcnemar_looks_at_the_items_that_changed():
    test = mcnemar(*answers(both=30, lost=2, won=9, neither=9))
    assert test.p_value == pytest.approx(stats.binomtest(2, 11).pvalue)
    assert test.interval.estimate == pytest.approx(7 / 50)
    assert test.interval.excludes(0.0)


def test_newcombes_interval_is_that_of_two_samples_where_the_answers_are_unrelated():
    # 40 of 60 before, 30 of 60 after, and both = 40 * 30 / 60: no correlation.
    interval = mcnemar(*answers(both=20, lost=20, won=10, neither=10)).interval
    low, high = confint_proportions_2indep(30, 60, 40, 60, compare="diff", method="newcomb")
    assert (interval.low, interval.high) == (pytest.approx(low), pytest.approx(high))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_turned_round_is_its_mirror(pairs):
    reference, other = zip(*pairs, strict=True)
    there, back = mcnemar(reference, other), mcnemar(other, reference)
    assert there.p_value == back.p_value
    assert (there.interval.low, there.interval.high) == pytest.approx((-back.interval.high, -back.interval.low))
    assert -1 <= there.interval.low <= there.interval.estimate <= there.interval.high <= 1


def test_newcombes_interval_holds_the_truth_as_often_as_it_says():
    rng, held = np.random.default_rng(0), 0
    for _ in range(600):
        difficulty = rng.random(80)
        reference, other = rng.random(80) < 0.8 * difficulty, rng.random(80) < difficulty
        held += not mcnemar(reference, other).interval.excludes(0.1)
    assert 0.92 < held / 600 < 0.985


@pytest.mark.parametrize(
    ("reference", "other", "message"),
    [([1, 0], [1], "shapes"), ([], [], "shapes"), ([0.5, 1], [1, 0], "sign_flip_test")],
)
def test_mcnemar_refuses_what_is_not_right_or_wrong_on_the_same_items(reference, other, message):
    with pytest.raises(ValueError, match=message):
        mcnemar(reference, other)


def test_flipping_seeds_is_exact_and_bounded_by_their_number():
    differences = np.array([[0.1, 0.3], [0.2, 0.2], [0.0, 0.1], [0.4, 0.0], [0.1, 0.1], [0.3, 0.5]])
    test = sign_flip_test(differences, over="seeds")
    assert (test.p_value, test.method) == (2 / 2**6, "sign flips, exact")
    assert test.interval == t_interval(differences.mean(axis=1).tolist())
    assert sign_flip_test(differences[:5], over="seeds").p_value == 2 / 2**5 > 0.05


def test_flipping_items_agrees_with_the_t_test_of_many():
    differences = np.random.default_rng(5).normal(0.12, 1.0, (3, 300))
    test = sign_flip_test(differences, over="items")
    expected = stats.ttest_1samp(differences.mean(axis=0), 0.0).pvalue
    assert test.method == "sign flips, sampled"
    assert test.p_value == pytest.approx(expected, abs=0.01)
    assert test.interval == change_interval(differences.mean(axis=0).tolist())


def test_sampled_flips_are_scipys_within_the_luck_of_the_draw():
    rng = np.random.default_rng(11)
    for shift in (0.0, 0.05, 0.1):
        differences = rng.choice([-1.0, 0.0, 1.0], p=[0.2 - shift / 2, 0.6, 0.2 + shift / 2], size=(1, 400))
        theirs = stats.permutation_test(
            (differences[0],), np.mean, permutation_type="samples", n_resamples=2999, rng=np.random.default_rng(1)
        ).pvalue
        ours = sign_flip_test(differences, over="items").p_value
        assert ours == pytest.approx(theirs, abs=4 * np.sqrt(max(theirs * (1 - theirs), 1e-4) / 2999) + 1e-3)


@pytest.mark.parametrize(
    ("shape", "over", "message"), [((3, 4), "runs", "'runs'"), ((1, 4), "seeds", "1 values"), ((4,), "items", "shape")]
)
def test_flips_need_a_known_unit_and_two_of_it(shape, over, message):
    with pytest.raises(ValueError, match=message):
        sign_flip_test(np.ones(shape), over=over)


def test_holm_gives_the_textbook_steps():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))
    assert holm([]) == ()
    with pytest.raises(ValueError, match=r"1\.2"):
        holm([0.1, 1.2])


@settings(max_examples=15, deadline=None)  # statsmodels collects garbage in every call
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12))
def test_holm_agrees_with_statsmodels(p_values):
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_bca_bounds_are_scipys_for_the_same_resamples():
    values = np.random.default_rng(2).exponential(size=40)
    expected = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=999, rng=np.random.default_rng(0))
    bounds = bca_bounds(expected.bootstrap_distribution, values[None, :], 0.95)
    assert bounds == pytest.approx((expected.confidence_interval.low, expected.confidence_interval.high))


def test_the_nested_bootstrap_of_one_seed_is_that_of_its_items():
    values = np.random.default_rng(4).exponential(size=200)
    nested, plain = nested_bootstrap(values[None, :]), bootstrap_mean(values.tolist())
    assert (nested.low, nested.high) == (pytest.approx(plain.low, abs=0.01), pytest.approx(plain.high, abs=0.01))
    assert nested.n == 200


def test_the_nested_bootstrap_sees_the_spread_over_seeds():
    offsets = np.array([[-0.3], [-0.1], [0.0], [0.1], [0.3]])
    items = np.random.default_rng(0).normal(0.0, 0.01, (5, 100))
    interval = nested_bootstrap(offsets + items)
    # The bootstrap's error divides by n, not n - 1: sd 0.2 of five seeds.
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 0.2 / math.sqrt(5), rel=0.1)
    assert interval == nested_bootstrap(offsets + items)
    assert interval != nested_bootstrap(offsets + items, seed=1)


def test_the_nested_bootstrap_names_constant_values_and_refuses_a_vector():
    assert nested_bootstrap(np.full((3, 4), 0.5)).method == "constant"
    with pytest.raises(ValueError, match="expected \\(seeds, items\\)"):
        nested_bootstrap([0.1, 0.2])


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_without_items_the_detectable_effect_is_that_of_two_samples(seeds):
    effect = detectable_effect(replace(SEEDS_ALONE, seeds=seeds))
    expected = TTestIndPower().solve_power(nobs1=seeds, alpha=0.05, power=0.8) * 0.03
    assert effect == pytest.approx(expected, rel=1e-3)


def test_paired_seeds_that_go_together_detect_less_than_their_spread():
    design = replace(SEEDS_ALONE, paired=True, seed_correlation=0.75)
    expected = TTestPower().solve_power(nobs=5, alpha=0.05, power=0.8) * 0.03 * math.sqrt(2 * 0.25)
    assert detectable_effect(design) == pytest.approx(expected, rel=1e-3)


def test_one_run_each_is_a_paired_t_test_over_items():
    design = Design(items=100, seeds=1, seed_sd=9.0, item_sd=0.5, same_arm=0.5, across_arms=0.4)
    expected = TTestPower().solve_power(nobs=100, alpha=0.05, power=0.8) * 0.5 * math.sqrt(2 * (1 - 0.4))
    assert detectable_effect(design) == pytest.approx(expected, rel=1e-3)


def test_a_correction_and_a_spread_of_ones_own_cost_power():
    assert detectable_effect(replace(TYPICAL, comparisons=1)) < detectable_effect(replace(TYPICAL, pooled=False))
    shared, own = (replace(TYPICAL, pooled=pooled) for pooled in (True, False))
    assert detectable_effect(shared) < detectable_effect(own) < detectable_effect(replace(own, comparisons=8))


def test_noise_that_is_taken_off_takes_no_degrees_of_freedom_along():
    # Runs that agree by luck, and items that exceed the noise by a hair.
    error = Error(runs=1e-6, runs_df=2, items=1.001, items_df=399, noise=1.0, noise_df=1596)
    assert error.df == 2
    assert 0 < detectable(error, comparisons=4, alpha=0.05, power=0.8) < 1


def test_a_design_in_which_nothing_varies_detects_everything():
    assert detectable_effect(replace(SEEDS_ALONE, seed_sd=0.0)) == 0.0


@given(st.integers(2, 40), st.floats(0.0, 0.2), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_more_seeds_never_detect_less(seeds, seed_sd, same, share):
    design = replace(TYPICAL, seeds=seeds, seed_sd=seed_sd, same_arm=same, across_arms=same * share)
    assert detectable_effect(replace(design, seeds=seeds + 1)) <= detectable_effect(design) * (1 + 1e-6)


@settings(max_examples=40)
@given(st.floats(0.02, 0.3), st.sampled_from([0.0, 0.01, 0.05]))
def test_what_is_needed_suffices_and_one_less_does_not(effect, seed_sd):
    design = replace(TYPICAL, seed_sd=seed_sd)
    found = needed(design, effect)
    for key, count in (("seeds", found.seeds), ("items", found.items)):
        if count is not None:
            assert detectable_effect(replace(design, **{key: count})) <= effect
            assert count == 2 or detectable_effect(replace(design, **{key: count - 1})) > effect
    assert found == needed(design, -effect)


def test_no_number_of_items_makes_up_for_few_seeds_nor_seeds_for_few_items():
    assert needed(replace(TYPICAL, seed_sd=0.1), 0.1).items is None
    few_items = replace(TYPICAL, items=20, same_arm=0.6, across_arms=0.2)
    assert needed(few_items, 0.05).seeds is None
    assert needed(replace(few_items, seed_sd=0.0), 0.05).items is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"items": 1}, "1 items"),
        ({"seeds": 0}, "0 seeds"),
        ({"comparisons": 0}, "0 comparisons"),
        ({"seed_sd": -0.1}, "seed_sd -0.1"),
        ({"item_sd": 0.0}, "item_sd 0.0"),
        ({"across_arms": 0.5}, "across_arms 0.5"),
        ({"seed_correlation": 1.5}, "seed_correlation 1.5"),
    ],
)
def test_impossible_designs_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(TYPICAL, **changes)


def test_power_below_alpha_and_an_effect_of_nothing_are_refused():
    with pytest.raises(ValueError, match=r"alpha 0\.9, power 0\.8"):
        detectable_effect(TYPICAL, alpha=0.9)
    with pytest.raises(ValueError, match="effect 0"):
        needed(TYPICAL, 0.0)
