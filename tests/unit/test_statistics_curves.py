"""The power law through several sizes: what it recovers, how often its intervals hold, how far it may be carried on."""

from __future__ import annotations

import numpy as np
import pytest

from alpaca.statistics.curves import power_law

SIZES = (250.0, 500.0, 1000.0, 2000.0, 4000.0)


def truth(size: float) -> float:
    return 0.9 - 0.6 * (size / 250) ** -0.5


def measured(sizes, seed: int, law=truth, runs: int = 3, items: int = 400, spread: float = 0.02):
    """Answers of made-up models: right with the law's probability, which runs and items shift."""
    rng = np.random.default_rng(seed)
    easy = rng.normal(0, 0.05, items)
    return {
        size: (rng.random((runs, items)) < np.clip(law(size) + easy + rng.normal(0, spread, (runs, 1)), 0, 1)).astype(
            float
        )
        for size in sizes
    }


def exact(sizes, law):
    """Without any noise: every item's score is the law's."""
    return {size: np.full((3, 10), law(size)) for size in sizes}


def test_a_law_without_noise_is_recovered():
    found = power_law(exact(SIZES, truth), least=0, most=1)
    assert found.limit.estimate == pytest.approx(0.9, abs=0.005)
    assert found.exponent is not None
    assert found.exponent.estimate == pytest.approx(0.5, rel=0.02)
    places = (250, 700, 16000)
    assert [found.at(size).estimate for size in places] == pytest.approx([truth(size) for size in places], abs=0.002)


def test_a_law_that_foretells_the_largest_size_may_be_carried_on_by_one_more_step():
    found = power_law(measured(SIZES, 5), least=0, most=1)
    assert found.foretold is not None
    assert found.foretold.holds
    assert (found.foretold.size, found.reach) == (4000, 8000)


def test_intervals_hold_where_they_say_within_the_sizes_and_one_step_beyond():
    places = (250, 700, 4000, 8000)
    hits, held = np.zeros(len(places)), 0
    for seed in range(60):
        found = power_law(measured(SIZES, seed), least=0, most=1, seed=seed)
        hits += [not found.at(place).excludes(truth(place)) for place in places]
        held += found.foretold.holds
    # 95 % of 60 is 57; fewer than 51 has a probability below 1 in 1,000.
    assert hits.min() >= 51
    assert held >= 51


def test_three_sizes_are_met_exactly_and_test_no_form():
    scores = measured((250.0, 1000.0, 4000.0), 0)
    found = power_law(scores, least=0, most=1)
    assert [found.at(size).estimate for size in scores] == pytest.approx(
        [scores[size].mean() for size in scores], abs=0.01
    )
    assert found.foretold is None
    assert found.reach == 4000


def test_a_form_that_fails_at_the_largest_size_is_not_carried_on():
    found = power_law(measured(SIZES, 1, law=lambda size: truth(size) if size < 4000 else 0.5), least=0, most=1)
    assert found.foretold is not None
    assert not found.foretold.holds
    assert found.foretold.interval.low > 0.6
    assert found.reach == 4000


def test_values_that_bend_the_other_way_are_said_to_be_missed():
    steep = {250.0: 0.14, 1000.0: 0.5, 4000.0: 0.86}
    found = power_law(measured(tuple(steep), 3, law=steep.get, spread=0.01), least=0, most=1)
    assert 4000.0 in {one.size for one in found.missed}
    (last,) = [one for one in found.missed if one.size == 4000.0]
    assert last.measured == pytest.approx(0.86, abs=0.04)
    assert abs(last.law - last.measured) > 0.03


def test_a_law_that_is_true_is_hardly_ever_said_to_miss():
    missed = sum(bool(power_law(measured(SIZES, seed), least=0, most=1, seed=seed).missed) for seed in range(60))
    # 5 % of 60 is 3; more than 9 has a probability below 1 in 1,000.
    assert missed <= 9
    assert not power_law(measured((250.0, 1000.0, 4000.0), 0), least=0, most=1).missed


def test_sizes_that_change_nothing_determine_no_exponent():
    assert power_law(measured(SIZES, 2, law=lambda size: 0.5)).exponent is None


def test_the_limit_stays_on_the_scale():
    found = power_law(exact(SIZES, lambda size: 0.1 + 0.09 * np.log2(size / 250)), least=0, most=1)
    assert found.limit.high <= 1.0


def test_intervals_of_means_end_where_the_scale_does():
    low = power_law(measured(SIZES, 6, law=lambda size: 0.01, spread=0.03), least=0, most=1).at(250)
    assert low.low == 0.0


def test_single_runs_are_said_to_speak_of_themselves():
    found = power_law(measured(SIZES, 3, runs=1))
    assert not found.over_seeds
    assert found.at(1000).low < found.at(1000).high


def test_equal_scores_give_equal_intervals():
    first, second = (power_law(measured(SIZES, 4)) for _ in range(2))
    assert (first.limit, first.exponent) == (second.limit, second.exponent)


@pytest.mark.parametrize("scores", [{1.0: [[1, 0]], 2.0: [[1, 0]]}, {0.0: [[1, 0]], 1.0: [[1, 0]], 2.0: [[1, 0]]}])
def test_too_few_sizes_and_sizes_of_nothing_are_refused(scores):
    with pytest.raises(ValueError, match="at least 3, all above 0"):
        power_law(scores)


def test_other_items_are_refused():
    with pytest.raises(ValueError, match="the same ones"):
        power_law({1.0: [[1, 0]], 2.0: [[1, 0]], 3.0: [[1, 0, 1]]})
