"""Mixing: shares by weight, nested in size, nothing repeated, and every reason why a mixture cannot be made."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpaca.artifacts import Context
from alpaca.config import MixtureDataGen, SampleConfig, Weighted
from alpaca.curation.selection import hash_order
from alpaca.errors import UserError
from alpaca.records import read_jsonl
from alpaca.stages.pool import read_pool
from alpaca.stages.sample import run
from alpaca.stages.sample.mixture import turns

ENDLESS = 10**9


def data_set(folder: Path, name: str, size: int) -> str:
    rows = [{"instruction": f"{name} {n}", "input": "x" * (n % 2), "output": f"{name} says {n}"} for n in range(size)]
    (folder / f"{name}.json").write_text(json.dumps(rows))
    return str(folder / f"{name}.json")


@pytest.fixture
def three(tmp_path: Path) -> dict[str, Weighted]:
    sizes = {"a": (60, 3.0), "b": (40, 2.0), "c": (90, 1.0)}
    return {
        name: Weighted(path=data_set(tmp_path, name, size), weight=weight) for name, (size, weight) in sizes.items()
    }


def mix(folder: Path, sources: dict[str, Weighted], **options: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    folder.mkdir(parents=True, exist_ok=True)
    run(
        SampleConfig(data_gen=MixtureDataGen(sources=sources, **options)),
        Context(folder=folder, work=folder, parents={}),
    )
    return list(read_jsonl(folder / "examples.jsonl")), json.loads((folder / "pool.json").read_text())


def refused(folder: Path, sources: dict[str, Weighted], **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        mix(folder, sources, **options)
    assert not (folder / "examples.jsonl").exists()
    return str(caught.value)


# --- shares


def counts(weights: dict[str, float], size: int) -> Counter[str]:
    return Counter(islice(turns(weights, dict.fromkeys(weights, ENDLESS)), size))


def largest_remainder(weights: dict[str, float], size: int) -> Counter[str]:
    total = sum(weights.values())
    found = Counter({name: int(size * weight / total) for name, weight in weights.items()})
    rest = sorted(weights, key=lambda name: (found[name] - size * weights[name] / total, name))
    found.update(rest[: size - found.total()])
    return found


weights_of_two_or_three = st.lists(st.integers(1, 50), min_size=2, max_size=3).map(
    lambda found: {f"s{index}": float(weight) for index, weight in enumerate(found)}
)


@settings(deadline=None)
@given(weights=weights_of_two_or_three, size=st.integers(1, 300))
def test_every_share_is_right_to_less_than_one_record(weights: dict[str, float], size: int) -> None:
    found = counts(weights, size)
    assert found.total() == size
    for name, weight in weights.items():
        assert abs(found[name] - size * weight / sum(weights.values())) < 1


@settings(deadline=None)
@given(weights=weights_of_two_or_three, size=st.integers(1, 300))
def test_two_sources_get_what_the_largest_remainder_gives(weights: dict[str, float], size: int) -> None:
    two = dict(islice(weights.items(), 2))
    shares = {size * weight / sum(two.values()) % 1 for weight in two.values()}
    if shares != {0.5}:  # a tie, which either rule may break as it likes
        assert counts(two, size) == largest_remainder(two, size)


def test_a_larger_mixture_takes_no_record_away_where_the_largest_remainder_would() -> None:
    weights = {"a": 6.0, "b": 6.0, "c": 2.0}  # the paradox of Alabama: 10 records give c two, 11 give it one
    assert largest_remainder(weights, 10)["c"] == 2
    assert largest_remainder(weights, 11)["c"] == 1
    for size in range(1, 200):
        assert counts(weights, size) <= counts(weights, size + 1)


def test_equal_weights_take_turns() -> None:
    assert list(islice(turns({"b": 1.0, "a": 1.0}, {"a": 9, "b": 9}), 5)) == ["a", "b", "a", "b", "a"]


# --- the stage


def test_a_mixture_holds_its_shares_and_says_where_each_record_comes_from(
    tmp_path: Path, three: dict[str, Weighted]
) -> None:
    rows, pool = mix(tmp_path / "out", three, num_examples=60)
    assert Counter(row["provenance"]["data_set"] for row in rows) == {"a": 30, "b": 20, "c": 10}
    assert len({row["id"] for row in rows}) == len({row["instruction"] for row in rows}) == 60
    for row in rows:
        name, index = row["provenance"]["data_set"], row["provenance"]["index"]
        assert (row["id"], row["instruction"]) == (f"{name}_{index:06d}", f"{name} {index}")
    assert pool["examples"] == 60
    assert pool["with_input"] == sum(bool(row["input"]) for row in rows)
    assert pool["sources"]["b"]["examples"] == 20
    assert pool["sources"]["b"]["available"] == 40
    assert rows[0]["provenance"]["source"] == f"sha256:{pool['sources']['a']['sha256'][:12]}"


def test_sizes_are_nested_and_the_seed_draws_them(tmp_path: Path, three: dict[str, Weighted]) -> None:
    large, _ = mix(tmp_path / "large", three, num_examples=100)
    small, _ = mix(tmp_path / "small", three, num_examples=37)
    assert large[:37] == small
    other, _ = mix(tmp_path / "other", three, num_examples=37, seed=1)
    assert {row["id"] for row in other} != {row["id"] for row in small}


def test_the_order_in_which_sources_are_written_changes_no_byte(tmp_path: Path, three: dict[str, Weighted]) -> None:
    mix(tmp_path / "one", three)
    mix(tmp_path / "two", dict(reversed(three.items())))
    for name in ("examples.jsonl", "pool.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_without_a_size_a_mixture_is_as_large_as_its_weights_allow(tmp_path: Path, three: dict[str, Weighted]) -> None:
    rows, _ = mix(tmp_path / "out", three)
    assert len(rows) == 120  # 60 of a, 40 of b, 20 of c: a and b are used up
    text = refused(tmp_path / "more", three, num_examples=121)
    for words in ("data_gen.num_examples", "121 examples wanted", "allow 120", "num_examples=120 at most", "a: 60"):
        assert words in text


def test_a_mixture_is_a_pool_that_can_be_curated(tmp_path: Path, three: dict[str, Weighted]) -> None:
    rows, _ = mix(tmp_path / "out", three, num_examples=12)
    assert [example.id for example in read_pool(tmp_path / "out").examples] == [row["id"] for row in rows]


def test_forms_are_mixed(tmp_path: Path, three: dict[str, Weighted]) -> None:
    lima = {"conversations": ["Why?", "So.", "And?", "No."], "source": "s"}
    (tmp_path / "lima.jsonl").write_text(json.dumps(lima))
    rows, pool = mix(tmp_path / "out", {"a": three["a"], "lima": Weighted(path=str(tmp_path / "lima.jsonl"))})
    assert pool["sources"]["lima"]["multi_turn"] == 1
    assert [row["output"] for row in rows if row["provenance"]["data_set"] == "lima"] == ["So."]


def test_problems_of_all_sources_are_told_at_once(tmp_path: Path, three: dict[str, Weighted]) -> None:
    (tmp_path / "b.json").write_text('[{"instruction": "a"}]')
    (tmp_path / "c.json").write_text("")
    text = refused(tmp_path / "out", three)
    for words in ("data_gen.sources.b.path=", 'record 0: "input" is missing', "data_gen.sources.c.path=", "is empty"):
        assert words in text


def test_one_file_under_two_names_is_refused(tmp_path: Path, three: dict[str, Weighted]) -> None:
    assert "'a' and 'again' are the same file" in refused(tmp_path / "out", {**three, "again": three["a"]})


def test_a_mixture_of_nothing_is_refused(tmp_path: Path) -> None:
    assert "data_gen.sources" in refused(tmp_path / "out", {})


def test_a_size_of_the_same_seed_keeps_the_weights(tmp_path: Path) -> None:
    sources = {
        "large": Weighted(path=data_set(tmp_path, "large", 20_000), weight=2.0),
        "small": Weighted(path=data_set(tmp_path, "small", 300), weight=1.0),
    }
    found, _ = mix(tmp_path / "out", sources, num_examples=900, seed=0)
    chosen = hash_order([row["id"] for row in found], 0)[:300]
    shares = Counter(found[index]["provenance"]["data_set"] for index in chosen)
    assert 150 < shares["large"] < 250
