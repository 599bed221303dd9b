from __future__ import annotations

import random

import pytest

from alpaca.curation.selection import hash_order, select
from alpaca.errors import UserError

IDS = [f"example-{number}" for number in range(500)]


def test_the_order_is_that_of_sha256_of_seed_and_id() -> None:
    # `printf 0:a | sha256sum` and so on begin with: a 9df3, b e021, c be08, d 7d98;
    # with seed 1: a 4162, b 6f05, c b8a9, d 244b.
    assert hash_order(["a", "b", "c", "d"], 0) == [3, 0, 2, 1]
    assert hash_order(["a", "b", "c", "d"], 1) == [3, 0, 1, 2]


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
