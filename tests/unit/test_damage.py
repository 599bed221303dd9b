from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from alpaca.curation.damage import KINDS, Damaged, Selected, label_noise, shuffled_outputs, truncated_outputs
from alpaca.curation.selection import hash_fraction

IDS = [f"example-{number}" for number in range(400)]
OUTPUTS = [f"answer {number} has six words exactly" for number in range(400)]


def data(outputs: Sequence[str] = OUTPUTS, size: int | None = None) -> Selected:
    """The first `size` of a pool of these outputs."""
    pool = dict(zip(IDS, outputs, strict=False))
    return Selected(ids=list(pool)[:size], outputs=outputs[:size], pool=pool)


def done(kind: str, share: float, seed: int = 0, **of: int) -> Damaged:
    return KINDS[kind](data(**of), share, seed)


@pytest.mark.parametrize("kind", KINDS)
def test_the_share_is_met_in_expectation_and_the_rest_is_untouched(kind: str) -> None:
    counts = []
    for seed in range(50):
        found = done(kind, 0.25, seed)
        assert [index for index in range(400) if found.outputs[index] != OUTPUTS[index]] == found.changed
        counts.append(len(found.changed))
    assert len(set(counts)) > 1
    # The standard deviation of this sum is 61.
    assert sum(counts) == pytest.approx(50 * 100, abs=250)


@pytest.mark.parametrize("kind", KINDS)
def test_smaller_shares_are_among_larger_ones(kind: str) -> None:
    shares = [set(done(kind, share).changed) for share in (0.1, 0.3, 1.0)]
    assert shares[0] < shares[1] < shares[2] == set(range(400))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.9])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_in_two_sizes_is_damaged_in_both_or_in_neither(kind: str, share: float) -> None:
    whole = done(kind, share)
    for size in range(40, 400, 7):
        part = done(kind, share, size=size)
        assert part.changed == [index for index in whole.changed if index < size]
        different = sum(part.outputs[index] != whole.outputs[index] for index in range(size))
        assert different <= (3 if kind == "shuffled_outputs" else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_seeds_and_kinds_choose_differently(kind: str) -> None:
    chosen = done(kind, 0.3).changed
    assert chosen != done(kind, 0.3, 1).changed
    assert all(chosen != done(other, 0.3).changed for other in KINDS if other != kind)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_damaged_at_zero_or_without_examples(kind: str) -> None:
    assert done(kind, 0.0).outputs == OUTPUTS
    assert done(kind, 1.0, size=0).outputs == []


def test_noise_takes_outputs_of_the_whole_pool_and_the_same_at_every_share() -> None:
    some, all_ = (label_noise(data(size=100), share, 0) for share in (0.2, 1.0))
    assert set(all_.outputs) <= set(OUTPUTS)
    assert not set(all_.outputs) <= set(OUTPUTS[:100])
    assert [some.outputs[index] for index in some.changed] == [all_.outputs[index] for index in some.changed]


def test_noise_passes_over_equal_outputs() -> None:
    outputs = ["yes"] * 399 + ["no"]
    assert label_noise(data(outputs), 1.0, 0).outputs == ["no"] * 399 + ["yes"]
    assert label_noise(data(outputs, size=10), 1.0, 0).outputs == ["no"] * 10
    assert label_noise(data(["yes"] * 400), 1.0, 0).changed == []
    assert label_noise(data(["yes"]), 1.0, 0).outputs == ["yes"]


def test_an_exchange_loses_no_output() -> None:
    for size in (1, 2, 3, 40, 399):
        for share in (0.01, 0.3, 1.0):
            found = shuffled_outputs(data(size=size), share, 0)
            assert Counter(found.outputs) == Counter(OUTPUTS[:size])


def test_one_alone_has_nobody_to_exchange_with() -> None:
    assert shuffled_outputs(data(size=1), 1.0, 0).changed == []


def mixed(seed: int, kinds: int) -> list[str]:
    rng = random.Random(seed)
    return [str(min(rng.randrange(kinds), rng.randrange(kinds))) for _ in range(rng.randrange(2, 60))]


@pytest.mark.parametrize("kinds", [2, 3, 5, 40])
def test_an_exchange_changes_as_many_as_it_can_among_equal_outputs(kinds: int) -> None:
    for seed in range(60):
        outputs = mixed(seed, kinds)
        for share in (0.3, 0.7, 1.0):
            found = shuffled_outputs(data(outputs), share, seed)
            assert Counter(found.outputs) == Counter(outputs)
            below = [hash_fraction(f"shuffled_outputs:{id}", seed) < share for id in IDS[: len(outputs)]]
            meant = [index for index, is_meant in enumerate(below) if is_meant]
            most = max(Counter(outputs[index] for index in meant).values(), default=0)
            assert len(found.changed) == min(len(meant), 2 * (len(meant) - most))
            assert set(found.changed) <= set(meant)


@pytest.mark.parametrize("kinds", [2, 3, 5])
def test_exchanges_are_nested_in_the_share_whatever_is_equal(kinds: int) -> None:
    for seed in range(60):
        outputs, before = mixed(seed, kinds), set[int]()
        for share in (0.1, 0.2, 0.3, 0.5, 0.8, 1.0):
            now = set(shuffled_outputs(data(outputs), share, seed).changed)
            assert before <= now
            before = now


def test_truncation_keeps_the_first_half_of_the_words() -> None:
    outputs = ["one  two\nthree four five", " a b", "alone", "", "  "]
    found = truncated_outputs(data(outputs), 1.0, 0)
    assert found.outputs == ["one  two", " a", "alone", "", "  "]
    assert found.changed == [0, 1]
