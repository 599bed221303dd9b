from __future__ import annotations

from collections import Counter

import pytest

from alpaca.curation.damage import KINDS, label_noise, shuffled_outputs, truncated_outputs

IDS = [f"example-{number}" for number in range(400)]
OUTPUTS = [f"answer {number} has six words exactly" for number in range(400)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_share_is_exact_and_the_rest_is_untouched(kind: str) -> None:
    done = KINDS[kind](OUTPUTS, IDS, 0.25, 0)
    assert len(done.changed) == 100
    assert [index for index in range(400) if done.outputs[index] != OUTPUTS[index]] == done.changed


@pytest.mark.parametrize("kind", KINDS)
def test_smaller_shares_are_among_larger_ones(kind: str) -> None:
    shares = [set(KINDS[kind](OUTPUTS, IDS, share, 0).changed) for share in (0.1, 0.3, 1.0)]
    assert shares[0] < shares[1] < shares[2] == set(range(400))


@pytest.mark.parametrize("kind", KINDS)
def test_seeds_and_kinds_choose_differently(kind: str) -> None:
    chosen = KINDS[kind](OUTPUTS, IDS, 0.3, 0).changed
    assert chosen != KINDS[kind](OUTPUTS, IDS, 0.3, 1).changed
    assert all(chosen != KINDS[other](OUTPUTS, IDS, 0.3, 0).changed for other in KINDS if other != kind)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_damaged_at_zero_or_without_examples(kind: str) -> None:
    assert KINDS[kind](OUTPUTS, IDS, 0.0, 0).outputs == OUTPUTS
    assert KINDS[kind]([], [], 1.0, 0).outputs == []


def test_noise_takes_the_output_of_another_and_the_same_at_every_share() -> None:
    some, all_ = (label_noise(OUTPUTS, IDS, share, 0) for share in (0.2, 1.0))
    assert set(all_.outputs) <= set(OUTPUTS)
    assert [some.outputs[index] for index in some.changed] == [all_.outputs[index] for index in some.changed]


def test_noise_passes_over_equal_outputs() -> None:
    outputs = ["yes"] * 399 + ["no"]
    done = label_noise(outputs, IDS, 1.0, 0)
    assert done.outputs == ["no"] * 399 + ["yes"]
    assert label_noise(["yes"] * 400, IDS, 1.0, 0).changed == []
    assert label_noise(["yes"], ["a"], 1.0, 0).outputs == ["yes"]


def test_an_exchange_loses_no_output() -> None:
    for share in (0.01, 0.3, 1.0):
        done = shuffled_outputs(OUTPUTS, IDS, share, 0)
        assert Counter(done.outputs) == Counter(OUTPUTS)
        assert len(done.changed) == round(share * 400)


def test_one_alone_has_nobody_to_exchange_with() -> None:
    assert shuffled_outputs(OUTPUTS[:10], IDS[:10], 0.1, 0).changed == []


def test_truncation_keeps_the_first_half_of_the_words() -> None:
    outputs = ["one  two\nthree four five", " a b", "alone", "", "  "]
    done = truncated_outputs(outputs, IDS[:5], 1.0, 0)
    assert done.outputs == ["one  two", " a", "alone", "", "  "]
    assert done.changed == [0, 1]
