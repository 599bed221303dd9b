"""A sweep's arms against a baseline: the textbook's tests where they apply, decisions in step with their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from alpaca.statistics import compare, estimated_design, t_interval

RUNS = {"base": [0.50, 0.53, 0.49], "more": [0.58, 0.55, 0.60], "less": [0.47, 0.51, 0.46]}


def without_noise(runs, items=30):
    """Each run moves all items alike: the items bring nothing of their own, and only run means matter.

    On a scale that knows no bounds, where every spread is pooled as it is.
    """
    difficulty = 10 + np.linspace(-0.2, 0.2, items)
    return {name: np.array(means)[:, None] + difficulty for name, means in runs.items()}


def simulated(rng, arms=3, seeds=3, items=60, *, seed_sd=0.05, effect=0.0):
    """Right or wrong, with difficulties in common and luck for each run; the last arm is better by `effect`."""
    chances = rng.uniform(0.2, 0.6, items)
    lift = np.append(np.zeros(arms - 1), effect)
    luck = lift[:, None] + seed_sd * rng.standard_normal((arms, seeds))
    scores = rng.random((arms, seeds, items)) < chances + luck[:, :, None]
    return {str(arm): values.astype(float) for arm, values in enumerate(scores)}


def effects(scores, baseline="base", **options):
    return {effect.arm: effect for effect in compare(scores, baseline, **options).effects}


def test_two_arms_are_students_two_samples_of_runs():
    two = {name: RUNS[name] for name in ("base", "more")}
    effect = effects(without_noise(two))["more"]
    expected = stats.ttest_ind(two["more"], two["base"])
    bounds = expected.confidence_interval()
    assert effect.p_value == effect.corrected_p == pytest.approx(expected.pvalue)
    assert effect.interval == effect.pointwise
    assert (effect.interval.low, effect.interval.high) == (pytest.approx(bounds.low), pytest.approx(bounds.high))
    assert (effect.interval.n, effect.interval.method, effect.over_seeds) == (6, "crossed t", True)


def test_a_spread_of_ones_own_is_welchs_or_that_of_the_pairs():
    unpaired = effects(without_noise(RUNS), pooled=False)["more"]
    paired = effects(without_noise(RUNS), pooled=False, paired=True)["more"]
    welch = stats.ttest_ind(RUNS["more"], RUNS["base"], equal_var=False)
    pairs = t_interval([after - before for before, after in zip(RUNS["base"], RUNS["more"], strict=True)])
    assert unpaired.p_value == pytest.approx(welch.pvalue)
    assert paired.p_value == pytest.approx(stats.ttest_rel(RUNS["more"], RUNS["base"]).pvalue)
    assert (paired.pointwise.low, paired.pointwise.high) == (pytest.approx(pairs.low), pytest.approx(pairs.high))
    assert paired.interval.n == 3


@pytest.mark.parametrize("paired", [False, True])
def test_a_pooled_spread_is_that_of_the_linear_model_of_run_means(paired):
    arms, seeds = np.repeat([0, 1, 2], 3), np.tile([0, 1, 2], 3)
    columns = [np.ones(9), arms == 1, arms == 2] + ([seeds == 1, seeds == 2] if paired else [])
    model = sm.OLS(np.concatenate(list(RUNS.values())), np.column_stack(columns).astype(float)).fit()
    found = effects(without_noise(RUNS), paired=paired)
    for position, name in ((1, "more"), (2, "less")):
        assert found[name].p_value == pytest.approx(model.pvalues[position])
        bounds = (found[name].pointwise.low, found[name].pointwise.high)
        assert bounds == pytest.approx(tuple(model.conf_int()[position]))


def test_one_run_each_is_the_paired_t_test_of_the_items():
    scores = {name: values[:1] for name, values in simulated(np.random.default_rng(0), arms=2).items()}
    effect = effects(scores, "0")["1"]
    expected = stats.ttest_rel(scores["1"][0], scores["0"][0])
    assert effect.p_value == pytest.approx(expected.pvalue)
    assert effect.interval.low == pytest.approx(expected.confidence_interval().low)
    assert (effect.interval.n, effect.interval.method, effect.over_seeds) == (60, "Student t", False)


def test_arms_that_differ_by_item_widen_the_interval_however_well_their_runs_agree():
    rng = np.random.default_rng(1)
    tastes = rng.normal(0.0, 0.3, (2, 1, 100))
    scores = tastes + rng.normal(0.0, 0.01, (2, 5, 100))
    effect = effects({"base": scores[0], "other": scores[1]})["other"]
    width = effect.pointwise.high - effect.pointwise.low
    items = stats.ttest_rel(scores[1].mean(axis=0), scores[0].mean(axis=0)).confidence_interval()
    assert width == pytest.approx(items.high - items.low, rel=0.02)


@pytest.mark.parametrize("paired", [False, True])
def test_the_estimated_error_is_the_error(paired):
    rng, changes, widths = np.random.default_rng(2), [], []
    for _ in range(400):
        tastes = rng.normal(0.0, 0.4, (2, 1, 50))
        luck = rng.normal(0.0, 0.06, (2, 6, 1)) + rng.normal(0.0, 0.1, (1, 6, 1)) * paired
        scores = tastes + luck + rng.normal(0.0, 0.5, (2, 6, 50))
        effect = effects({"base": scores[0], "other": scores[1]}, paired=paired)["other"]
        changes.append(effect.pointwise.estimate)
        widths.append(effect.detectable)
    spread = math.sqrt(2 * (0.4**2 / 50 + 0.06**2 / 6 + 0.5**2 / 300))
    assert np.std(changes) == pytest.approx(spread, rel=0.1)
    # With many degrees of freedom the detectable effect is (1.96 + 0.84) errors; ten or so make it a little more.
    assert 2.8 * spread < np.mean(widths) < 3.2 * spread


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    arms=st.integers(2, 5),
    seeds=st.integers(1, 4),
    effect=st.floats(0.0, 0.35),
    paired=st.booleans(),
    pooled=st.booleans(),
)
def test_the_interval_excludes_zero_exactly_where_the_effect_is_significant(seed, arms, seeds, effect, paired, pooled):
    scores = simulated(np.random.default_rng(seed), arms, seeds, effect=effect)
    found = compare(scores, "0", paired=paired, pooled=pooled)
    for one in found.effects:
        assert one.significant == (one.corrected_p < 0.05) == one.interval.excludes(0.0)
        assert one.pointwise.excludes(0.0) == (one.p_value < 0.05)
        assert one.interval.low <= one.pointwise.low <= one.pointwise.high <= one.interval.high


def test_what_only_holms_second_step_finds_has_the_level_of_that_step():
    runs = {"base": [0.50, 0.52, 0.48], "clear": [0.80, 0.82, 0.78], "border": [0.545, 0.565, 0.525]}
    found = effects(without_noise(runs))
    assert 0.025 < found["border"].p_value < 0.05
    assert all(effect.significant and effect.interval.excludes(0.0) for effect in found.values())
    assert found["clear"].interval.level == pytest.approx(0.975)
    assert found["border"].interval.level == pytest.approx(0.95)
    alone = effects(without_noise({**runs, "clear": [0.50, 0.52, 0.48]}))["border"]
    assert (alone.significant, alone.interval.level) == (False, pytest.approx(0.975))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), shift=st.floats(-5, 5), scale=st.floats(0.1, 100))
def test_units_of_the_score_do_not_matter(seed, shift, scale):
    scores = {name: 1000 + values for name, values in simulated(np.random.default_rng(seed)).items()}  # no shares
    here, there = compare(scores, "0"), compare({name: shift + scale * one for name, one in scores.items()}, "0")
    for one, other in zip(here.effects, there.effects, strict=True):
        assert other.p_value == pytest.approx(one.p_value, rel=1e-6)
        assert other.detectable == pytest.approx(scale * one.detectable, rel=1e-6)


def test_arms_that_answer_alike_are_constant_and_not_significant():
    answers = np.array([[0.0, 1.0, 1.0, 0.0]] * 3)
    effect = effects({"base": answers, "same": answers})["same"]
    assert (effect.p_value, effect.significant, effect.interval.method) == (1.0, False, "constant")


@pytest.mark.parametrize(("items", "significant"), [(5, False), (6, True)])
def test_items_that_all_change_alike_are_counted_by_the_sign_test(items, significant):
    # 0.1 and 0.3 are no sums of powers of two: their means and spreads are not exactly 0.1 and 0.
    effect = effects({"base": np.full((3, items), 0.1), "other": np.full((3, items), 0.3)})["other"]
    assert effect.p_value == 2.0 ** (1 - items)
    assert effect.significant == effect.interval.excludes(0.0) == significant
    assert effect.interval.method == "sign"


def test_run_means_that_coincide_are_no_proof_that_seeds_do_not_matter():
    base = np.array([[1, 0, 0, 1, 0, 1, 0, 0], [0, 1, 0, 0, 1, 0, 1, 0]], dtype=float)
    other = np.array([[0, 1, 1, 0, 1, 0, 0, 1], [1, 0, 0, 1, 0, 1, 1, 0]], dtype=float)
    effect = effects({"base": base, "other": other})["other"]
    assert effect.pointwise.estimate == pytest.approx(1 / 8)
    assert effect.p_value > 0.3


def test_arms_may_have_unequal_seeds_and_a_single_run_borrows_the_others_spread():
    scores = without_noise({"base": [0.50, 0.53, 0.49, 0.52], "few": [0.58, 0.55], "one": [0.60]})
    found = compare(scores, "base")
    spread = math.sqrt((3 * np.var([0.50, 0.53, 0.49, 0.52], ddof=1) + np.var([0.58, 0.55], ddof=1)) / 4)
    few, one = found.effects
    assert found.seeds == {"base": 4, "few": 2, "one": 1}
    assert found.run_sd["one"] is None
    assert found.run_sd["few"] == pytest.approx(0.03 / math.sqrt(2))
    for effect, seeds in ((few, 2), (one, 1)):
        half = stats.t.ppf(0.975, 4) * spread * math.sqrt(1 / 4 + 1 / seeds)
        assert effect.pointwise.high - effect.pointwise.estimate == pytest.approx(half)
        assert effect.over_seeds
    assert not effects(scores, pooled=False)["one"].over_seeds


@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        ({"base": np.ones((2, 3))}, {}, "another arm"),
        ({"a": np.ones((2, 3)), "b": np.ones((2, 3))}, {}, "baseline 'base' among a, b"),
        ({"base": np.ones(3), "a": np.ones(3)}, {}, "expected .seeds, items."),
        ({"base": np.ones((2, 3)), "a": np.ones((2, 4))}, {}, "the same items"),
        ({"base": np.ones((2, 1)), "a": np.ones((2, 1))}, {}, "two at least"),
        ({"base": np.ones((2, 3)), "a": np.ones((3, 3))}, {"paired": True}, "equally many seeds"),
        ({"base": np.ones((2, 3)), "a": np.full((2, 3), np.nan)}, {}, "not finite in: a"),
        ({"base": np.ones((2, 3)), "a": np.ones((2, 3))}, {"alpha": 0.0}, "alpha 0.0"),
    ],
)
def test_scores_that_cannot_be_compared_are_refused(scores, options, message):
    with pytest.raises(ValueError, match=message):
        compare(scores, "base", **options)


def test_the_design_of_a_finished_sweep_is_found_in_its_scores():
    rng = np.random.default_rng(3)
    difficulty = rng.normal(0.0, 0.3, (1, 1, 1500)) + rng.normal(0.0, 0.2, (4, 1, 1500))
    luck = rng.normal(0.0, 0.04, (1, 60, 1)) + rng.normal(0.0, 0.03, (4, 60, 1))
    scores = difficulty + luck + rng.normal(0.0, 0.4, (4, 60, 1500))
    design = estimated_design({str(arm): values for arm, values in enumerate(scores)}, "0", paired=True)
    variance = 0.3**2 + 0.2**2 + 0.4**2
    assert (design.items, design.seeds, design.comparisons) == (1500, 60, 3)
    assert design.seed_sd == pytest.approx(0.05, rel=0.15)
    assert design.item_sd == pytest.approx(math.sqrt(variance), rel=0.03)
    assert design.same_arm == pytest.approx((0.3**2 + 0.2**2) / variance, rel=0.05)
    assert design.across_arms == pytest.approx(0.3**2 / variance, rel=0.1)
    assert design.seed_correlation == pytest.approx(0.04**2 / 0.05**2, rel=0.2)


def test_a_design_needs_repeated_runs_and_scores_that_vary():
    with pytest.raises(ValueError, match="a single run of a"):
        estimated_design({"base": np.eye(2), "a": np.ones((1, 2))}, "base")
    with pytest.raises(ValueError, match="the same score"):
        estimated_design({"base": np.ones((2, 3)), "a": np.ones((2, 3))}, "base")


def test_sweeps_without_any_effect_are_seldom_found_to_have_one():
    rng = np.random.default_rng(7)
    drawn = [compare(simulated(rng, 4, 3, seed_sd=0.03), "0").effects for _ in range(300)]
    assert sum(any(one.significant for one in found) for found in drawn) / 300 < 0.085
    held = [not one.pointwise.excludes(0.0) for found in drawn for one in found]
    assert 0.92 < np.mean(held) < 0.98


# --- which spreads are pooled


def at_accuracies(rng, **means):
    """Right or wrong by three runs each, which differ in luck as far as the mean leaves room."""
    arms = {}
    for name, mean in means.items():
        chances = np.clip(mean + 4 * mean * (1 - mean) * 0.03 * rng.standard_normal(3), 0, 1)
        arms[name] = (rng.random((3, 400)) < chances[:, None]).astype(float)
    return arms


def test_levels_at_the_floor_do_not_make_the_others_look_sure():
    rng = np.random.default_rng(5)
    arms = at_accuracies(rng, base=0.5, same=0.5, floor=0.005, bottom=0.005)
    alone = compare({name: arms[name] for name in ("base", "same")}, "base")
    among = effects(arms)
    assert among["same"].pointwise == alone.effects[0].pointwise
    assert among["same"].p_value == alone.effects[0].p_value
    # And they stand far below the baseline, by a spread of their own.
    assert among["floor"].significant
    assert among["floor"].interval.high < -0.3


def test_levels_with_as_much_room_share_a_spread():
    rng = np.random.default_rng(6)
    arms = at_accuracies(rng, base=0.5, other=0.6, third=0.4)
    pooled = compare(arms, "base").effects[0].pointwise
    pair = compare({name: arms[name] for name in ("base", "other")}, "base").effects[0].pointwise
    own = np.mean([arm.mean(axis=1).var(ddof=1) for arm in arms.values()])
    assert pooled != pair
    assert pooled.high - pooled.low > 2 * np.sqrt(own * 2 / 3)  # t of six degrees of freedom is above 2


def test_shares_are_pooled_in_proportion_to_the_room_that_they_have():
    # Dispersion of a quasi-binomial model (Wedderburn 1974): Pearson's chi-square over its degrees of freedom.
    runs = {"base": [0.50, 0.53, 0.49], "more": [0.62, 0.58, 0.60]}
    scores = {name: np.repeat(np.array(means)[:, None], 40, axis=1) for name, means in runs.items()}
    found = effects(scores)["more"]
    room = {name: np.mean(means) * (1 - np.mean(means)) for name, means in runs.items()}
    dispersion = sum(2 * np.var(means, ddof=1) / room[name] for name, means in runs.items()) / 4
    half = stats.t.ppf(0.975, 4) * math.sqrt(dispersion * sum(room.values()) / 3)
    assert found.pointwise.high - found.pointwise.estimate == pytest.approx(half)


def test_scores_without_bounds_share_one_spread_wherever_they_lie():
    runs = {"base": [5.0, 5.2, 4.8], "far": [90.0, 90.4, 89.6], "near": [5.1, 5.3, 4.9]}
    found = effects(without_noise(runs))
    pooled = (0.04 + 0.16 + 0.04) / 3
    half = stats.t.ppf(0.975, 6) * np.sqrt(pooled * 2 / 3)
    assert found["far"].pointwise.high - found["far"].pointwise.estimate == pytest.approx(half)


def test_a_single_run_borrows_the_spread_of_its_like_or_of_all():
    rng = np.random.default_rng(7)
    arms = at_accuracies(rng, base=0.5, like=0.5, low=0.02)
    arms["one"] = arms.pop("low")[:1]
    found = effects(arms)
    assert found["one"].over_seeds  # nothing else is as low: the spread of all
    assert found["one"].significant
    assert found["like"].over_seeds


def test_the_design_of_a_sweep_is_that_of_the_levels_like_its_baseline():
    rng = np.random.default_rng(8)
    arms = at_accuracies(rng, base=0.5, same=0.5, floor=0.004)
    design = estimated_design(arms, "base")
    alone = estimated_design({name: arms[name] for name in ("base", "same")}, "base")
    assert design.seed_sd == alone.seed_sd
    assert (design.comparisons, alone.comparisons) == (2, 1)
