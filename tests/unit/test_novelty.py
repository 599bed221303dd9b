from __future__ import annotations

import json
import random
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from alpaca.curation import novelty
from alpaca.curation.novelty import NeighbourPool, Neighbours, nearest_other, neighbours
from alpaca.curation.rouge import tokenize

SHARED = Path(__file__).resolve().parents[2].parent / "shared"

# Few words, so that repeats, ties and carries through whole lanes are the rule.
SMALL_TEXTS = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f"]), max_size=14).map(" ".join)
SMALL_QUERIES = st.lists(st.sampled_from(["a", "b", "c", "x", "y"]), max_size=20).map(" ".join)


def rouge_f(text: str, other: str) -> float:
    return float(rouge_scorer._score_lcs(tokenize(text), tokenize(other)).fmeasure)


def oracle(pool: list[str], text: str, count: int = 10) -> Neighbours:
    """rouge_score against every text, then a stable sort by score."""
    scores = [rouge_f(text, other) for other in pool]
    order = sorted(range(len(pool)), key=lambda index: (-scores[index], index))[:count]
    mean = sum(scores) / len(scores) if scores else 0.0
    return Neighbours(indices=tuple(order), scores=tuple(scores[index] for index in order), mean=mean)


def assert_same(found: Neighbours, expected: Neighbours) -> None:
    assert (found.indices, found.scores) == (expected.indices, expected.scores)
    assert abs(found.mean - expected.mean) < 1e-12


def made_up(rng: random.Random, count: int, longest: int, words: int = 40) -> list[str]:
    return [" ".join(f"w{rng.randrange(words)}" for _ in range(rng.randrange(longest + 1))) for _ in range(count)]


def related(rng: random.Random, count: int, lengths: list[int]) -> list[str]:
    """Texts that share long subsequences: each has words of one sequence, some replaced, in these lengths in turn."""
    words = [f"w{place % 97}" for place in range(max(lengths) + 1)]
    return [
        " ".join(word if rng.random() > 0.2 else f"v{rng.randrange(5)}" for word in words[: lengths[i % len(lengths)]])
        for i in range(count)
    ]


@settings(max_examples=120, deadline=None)
@given(pool=st.lists(SMALL_TEXTS, max_size=14), texts=st.lists(SMALL_QUERIES, max_size=9), count=st.integers(1, 12))
def test_nearest_texts_and_mean_are_those_of_rouge_score(pool: list[str], texts: list[str], count: int) -> None:
    for text, found in zip(texts, NeighbourPool(pool).nearest(texts, count), strict=True):
        assert_same(found, oracle(pool, text, count))


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(SMALL_TEXTS, max_size=12), seeds=st.lists(SMALL_TEXTS, max_size=3))
def test_each_text_is_compared_with_the_seeds_and_all_before_it(texts: list[str], seeds: list[str]) -> None:
    found = neighbours(texts, seeds)
    assert len(found) == len(texts)
    for number, one in enumerate(found):
        assert_same(one, oracle(seeds + texts[:number], texts[number]))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), batch=st.integers(1, 9), block=st.integers(1, 30), words=st.integers(1, 3))
def test_batches_blocks_and_words_change_nothing(
    monkeypatch: pytest.MonkeyPatch, seed: int, batch: int, block: int, words: int
) -> None:
    rng = random.Random(seed)
    texts, seeds = made_up(rng, 25, 30, words=15), made_up(rng, 4, 30, words=15)
    expected = neighbours(texts, seeds)
    with monkeypatch.context() as patch:
        patch.setattr(novelty, "BATCH", batch)
        patch.setattr(novelty, "BLOCK", block)
        patch.setattr(novelty, "WORDS", words)
        for found, one in zip(neighbours(texts, seeds), expected, strict=True):
            assert_same(found, one)


def test_a_pool_that_grows_in_pieces_answers_as_one_made_at_once() -> None:
    rng = random.Random(5)
    texts, queries = made_up(rng, 300, 14), made_up(rng, 30, 14)
    pool, size = NeighbourPool(), 0
    while size < len(texts):
        piece = texts[size : size + rng.randrange(1, 40)]
        pool.extend(piece)
        size += len(piece)
        # Words that come later are unknown now and known afterwards.
        for found, expected in zip(pool.nearest(queries), NeighbourPool(texts[:size]).nearest(queries), strict=True):
            assert_same(found, expected)
    assert len(pool) == len(texts)


LENGTHS = [1, 2, 31, 32, 33, 62, 63, 64, 65, 66, 100, 140]


def test_f_of_texts_around_and_beyond_a_machine_word() -> None:
    rng = random.Random(2)
    pool, queries = related(rng, 24, LENGTHS), related(rng, 12, LENGTHS)
    scores = NeighbourPool(pool).scores(queries)
    assert scores.tolist() == [[rouge_f(query, text) for text in pool] for query in queries]
    assert (scores > 0.3).sum() > 50


def test_nearest_of_a_query_longer_than_any_byte_can_count() -> None:
    # F = 0.4 with 260 common words in the one, 0.56 with 140 in the other.
    words = [f"w{place}" for place in range(300)]
    pool = [" ".join(words[:260] + ["x"] * 740), " ".join(words[:140] + ["y"] * 60), "w1 w2"]
    for count in (1, 2, 3):
        found = NeighbourPool(pool).nearest([" ".join(words)], count)[0]
        assert_same(found, oracle(pool, " ".join(words), count))
        assert found.indices[0] == 1


def test_every_tie_at_the_threshold_has_rouge_score_s_own_float() -> None:
    ties = [(n, m, 7 * (n + m) // 20) for n, m in product(range(1, 81), repeat=2) if (n + m) % 20 == 0]
    ties = [(n, m, lcs) for n, m, lcs in ties if lcs <= min(n, m)]
    rounded_up = 0
    for n, m, lcs in ties:
        common = [f"c{i}" for i in range(lcs)]
        text = " ".join(common + [f"x{i}" for i in range(n - lcs)])
        other = " ".join([f"y{i}" for i in range(m - lcs)] + common)
        score = float(NeighbourPool([other]).scores([text])[0, 0])
        assert score == rouge_f(text, other), (n, m, lcs)
        rounded_up += score > 0.7
    assert len(ties) > 140
    assert 0.2 < rounded_up / len(ties) < 0.8


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(0, 70), max_size=30))
def test_lanes_never_overlap_and_leave_a_bit_for_the_carry(lengths: list[int]) -> None:
    words = novelty._pack(lengths)
    assert sorted(lane.query for word in words for lane in word) == [i for i, n in enumerate(lengths) if n <= 64]
    for word in words:
        assert all(lane.length == lengths[lane.query] for lane in word)
        assert all(below.shift + below.length < above.shift for below, above in pairwise(word))
        assert word[-1].shift + word[-1].length <= 64


def test_ties_go_to_the_lowest_index_even_across_the_parts_of_a_pool() -> None:
    pool = NeighbourPool([f"Name a river {i % 3}" for i in range(40)])
    pool.nearest(["warm"])
    pool.extend(["Name a river 1"] * 3)
    found = pool.nearest(["name a RIVER 1!"], 16)[0]
    assert found.indices == (*range(1, 40, 3), 40, 41, 42)
    assert found.scores == (1.0,) * 16


def test_only_the_texts_before_count_towards_the_mean_and_the_neighbours() -> None:
    pool = NeighbourPool(["a b c d", "x y", "a b c d"])
    first, second, third, all_of_them = pool.nearest(["a b c d"] * 4, before=[0, 1, 2, 3])
    assert first == Neighbours(indices=(), scores=(), mean=0.0)
    assert second == Neighbours(indices=(0,), scores=(1.0,), mean=1.0)
    assert third == Neighbours(indices=(0, 1), scores=(1.0, 0.0), mean=0.5)
    assert all_of_them.indices == (0, 2, 1)


def test_texts_without_tokens_are_like_nothing() -> None:
    pool = NeighbourPool(["", "?!", "a"])
    assert pool.scores(["", "...", "A"]).tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert pool.nearest([""])[0] == Neighbours(indices=(0, 1, 2), scores=(0.0, 0.0, 0.0), mean=0.0)
    assert NeighbourPool().nearest(["a", ""]) == [Neighbours(indices=(), scores=(), mean=0.0)] * 2
    assert NeighbourPool(["a"]).nearest([]) == []
    assert NeighbourPool().scores(["a"]).shape == (1, 0)
    assert neighbours([]) == []


def test_neighbours_of_released_instructions() -> None:
    path = SHARED / "data" / "alpaca" / "alpaca_data.json"
    if not path.exists():
        pytest.skip("../shared is not beside the project: the released data cannot be checked")
    texts = [row["instruction"] for row in json.loads(path.read_text(encoding="utf-8"))][:9_000]
    pool, queries = NeighbourPool(texts[:8_900]), texts[8_900:]
    found = pool.nearest(queries)
    for text, one in list(zip(queries, found, strict=True))[::25]:
        assert_same(one, oracle(texts[:8_900], text))
    assert 0.3 < np.median([one.scores[0] for one in found]) <= 0.7


def test_the_nearest_other_text_is_earlier_or_later_and_never_the_text_itself() -> None:
    texts = ["name two rivers", "bake a cake", "name two lakes", "bake a cake", "?", "bake a cake"]
    assert nearest_other(texts, range(6)) == [pytest.approx(2 / 3), 1.0, pytest.approx(2 / 3), 1.0, 0.0, 1.0]
    assert nearest_other(texts, [4, 2]) == [0.0, pytest.approx(2 / 3)]
    assert nearest_other(texts[:1], [0]) == []
