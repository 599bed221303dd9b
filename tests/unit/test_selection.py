from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from alpaca.curation.rouge import f_measure, lcs_length, position_masks, tokenize
from alpaca.curation.selection import (
    by_length,
    by_value,
    farthest_first,
    hash_fraction,
    hash_order,
    positions,
    take,
    with_share,
)
from alpaca.errors import UserError

IDS = [f"example-{number}" for number in range(500)]


def select(ids: list[str], size: int, seed: int) -> list[int]:
    return take(hash_order(ids, seed), size)


def test_the_order_is_that_of_sha256_of_seed_and_id() -> None:
    # `printf 0:a | sha256sum` and so on begin with: a 9df3, b e021, c be08, d 7d98;
    # with seed 1: a 4162, b 6f05, c b8a9, d 244b.
    assert hash_order(["a", "b", "c", "d"], 0) == [3, 0, 2, 1]
    assert hash_order(["a", "b", "c", "d"], 1) == [3, 0, 1, 2]


def test_fractions_are_in_the_hash_order_and_even() -> None:
    # sha256 of "0:a" begins with 9df3.
    assert hash_fraction("a", 0) == pytest.approx(0x9DF3 / 0x10000, abs=1 / 0x10000)
    fractions = [hash_fraction(id, 4) for id in IDS]
    assert sorted(range(500), key=fractions.__getitem__) == hash_order(IDS, 4)
    assert sum(fractions) / 500 == pytest.approx(0.5, abs=0.05)


def test_every_index_comes_once() -> None:
    assert sorted(hash_order(IDS, 3)) == list(range(len(IDS)))


def test_smaller_subsets_are_prefixes_of_larger_ones() -> None:
    whole = select(IDS, 500, 7)
    assert all(select(IDS, size, 7) == whole[:size] for size in (1, 10, 100, 499))


def test_seeds_give_different_subsets() -> None:
    assert set(select(IDS, 100, 0)) != set(select(IDS, 100, 1))


def test_the_chosen_ids_do_not_depend_on_the_order_of_the_pool() -> None:
    shuffled = random.Random(0).sample(IDS, len(IDS))
    assert [IDS[i] for i in select(IDS, 50, 2)] == [shuffled[i] for i in select(shuffled, 50, 2)]


def test_an_id_keeps_its_place_when_others_leave_the_pool() -> None:
    order = [IDS[i] for i in hash_order(IDS, 5)]
    fewer = IDS[100:]
    assert [fewer[i] for i in hash_order(fewer, 5)] == [id for id in order if id in set(fewer)]


def test_too_large_a_size_says_how_many_there_are_and_what_to_do() -> None:
    with pytest.raises(UserError) as error:
        select(IDS, 501, 0)
    assert error.value.where == "data.size"
    assert "501 examples wanted, 500 are there" in error.value.what
    assert "at most 500" in error.value.remedy


@pytest.mark.parametrize("size", [0, -5])
def test_a_size_below_one_is_refused(size: int) -> None:
    with pytest.raises(UserError, match="at least 1"):
        select(IDS, size, 0)


def test_longest_and_shortest_count_words_and_break_ties_by_hash() -> None:
    texts = ["one", "one two three", "a\n b", "", "x y"]
    ids = ["a", "b", "c", "d", "e"]
    ranks = hash_order(ids, 0)
    twos = sorted([2, 4], key=ranks.index)
    assert by_length(texts, ids, 0, longest=True) == [1, *twos, 0, 3]
    assert by_length(texts, ids, 0, longest=False) == [3, 0, *twos, 1]


def test_values_order_from_the_largest_and_ties_by_hash() -> None:
    order = by_value([1.0, 5.0, float("-inf"), 5.0], ["a", "b", "c", "d"], 0)
    assert order == [3, 1, 0, 2]  # hash order: d, b before a and c
    assert by_value([0.0] * 500, IDS, 9) == hash_order(IDS, 9)


WORDS = ["river", "lake", "sea", "hill", "town", "road", "bridge", "tree", "bird", "fish", "boat", "rain"]


def instructions(count: int) -> list[str]:
    rng = random.Random(3)
    return [" ".join(rng.choices(WORDS, k=rng.randint(0, 9))) for _ in range(count)]


def similarity(one: str, other: str) -> float:
    a, b = tokenize(one), tokenize(other)
    return f_measure(lcs_length(position_masks(a), len(a), b), len(a), len(b))


def greedy(texts: list[str], ids: list[str], seed: int, count: int) -> list[int]:
    """Farthest first as it is defined, comparing everything with everything."""
    order = hash_order(ids, seed)
    taken = [order[0]]
    while len(taken) < count:
        left = [index for index in order if index not in taken]
        taken.append(min(left, key=lambda index: max(similarity(texts[index], texts[one]) for one in taken)))
    return taken


@pytest.mark.parametrize("seed", [0, 1])
def test_farthest_first_is_the_greedy_traversal(seed: int) -> None:
    texts = instructions(60)
    assert farthest_first(texts, IDS[:60], seed, 25) == greedy(texts, IDS[:60], seed, 25)


def test_farthest_first_takes_each_once_and_smaller_counts_are_prefixes() -> None:
    texts = instructions(40)
    whole = farthest_first(texts, IDS[:40], 0, 100)
    assert sorted(whole) == list(range(40))
    assert farthest_first(texts, IDS[:40], 0, 10) == whole[:10]


def test_farthest_first_does_not_depend_on_the_order_of_the_pool() -> None:
    texts, ids = instructions(40), IDS[:40]
    shuffled = random.Random(1).sample(range(40), 40)
    chosen = farthest_first([texts[i] for i in shuffled], [ids[i] for i in shuffled], 4, 12)
    assert [shuffled[i] for i in chosen] == farthest_first(texts, ids, 4, 12)


def listed(tmp_path: Path, value: object) -> Path:
    path = tmp_path / "indices.json"
    path.write_text(json.dumps(value))
    return path


def test_positions_are_read_in_their_order(tmp_path: Path) -> None:
    assert positions(listed(tmp_path, [3, 0, 2]), 4) == [3, 0, 2]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([0, 4], "entry 1 is 4, but the pool has 4"),
        ([0, -1], "entry 1 is -1"),
        ([0, 1.5], "entry 1 is 1.5"),
        ([True], "entry 0 is True"),
        ([2, 1, 2], "entry 2 is 2, as entry 0"),
        ([], "empty"),
        ({"a": [1]}, "expected a list"),
        (list(range(100)), "and 76 more"),
    ],
)
def test_bad_positions_are_refused(tmp_path: Path, value: object, says: str) -> None:
    with pytest.raises(UserError) as error:
        positions(listed(tmp_path, value), 4)
    assert says in error.value.what
    assert "data.indices=" in error.value.where


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.0, [1, 3, 5]), (1.0, [0, 2, 4]), (0.5, [1, 0, 3, 2, 5, 4]), (1 / 3, [1, 3, 0, 5]), (0.29, [1, 3, 5, 0])],
)
def test_a_share_holds_for_every_beginning_of_the_order(share: float, expected: list[int]) -> None:
    found = with_share(range(6), [True, False] * 3, share)
    assert found == expected
    for count in range(1, len(found) + 1):
        assert sum(index % 2 == 0 for index in found[:count]) == int(count * share + 1e-9)


def test_a_share_is_met_to_the_last_example_in_spite_of_rounding() -> None:
    order = list(range(200))
    assert sum(index < 100 for index in with_share(order, [index < 100 for index in order], 0.29)[:100]) == 29
