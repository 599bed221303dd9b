from __future__ import annotations

import json
import random
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer
from rouge_score import tokenize as rouge_tokenize

from alpaca.curation.dedup import Match, RougeIndex
from alpaca.curation.rouge import f_measure, lcs_length, position_masks, tokenize
from alpaca.errors import UserError

SHARED = Path(__file__).resolve().parents[2].parent / "shared"

# Few words and short texts, so that ties, repeats and near-duplicates are the rule rather than the exception.
SMALL_TEXTS = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f", "g", "h"]), max_size=12).map(" ".join)
# Queries also have words that no text of a pool has.
SMALL_QUERIES = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "x", "y", "z"]), max_size=12).map(" ".join)
THRESHOLDS = st.sampled_from([0.0, 0.3, 0.5, 2 / 3, 0.7, 0.8, 1.0]) | st.floats(min_value=0, max_value=1)


def rouge_f(target: str, prediction: str) -> float:
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    return float(scorer.score(target, prediction)["rougeL"].fmeasure)


def oracle(pool: list[str], text: str, threshold: float) -> Match | None:
    """rouge_score against every text of the pool, one after the other."""
    scores = (rouge_f(text, other) for other in pool)
    return next((Match(index=i, score=score) for i, score in enumerate(scores) if score > threshold), None)


def pair_with_lcs(length: int, other_length: int, lcs: int) -> tuple[str, str]:
    common = [f"c{i}" for i in range(lcs)]
    return (
        " ".join(common + [f"x{i}" for i in range(length - lcs)]),
        " ".join([f"y{i}" for i in range(other_length - lcs)] + common),
    )


def index_of(texts: list[str], threshold: float = 0.7) -> RougeIndex:
    index = RougeIndex(threshold)
    for text in texts:
        index.add(text)
    return index


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(SMALL_TEXTS, min_size=2, max_size=12), threshold=THRESHOLDS)
def test_a_stream_of_offers_is_decided_as_by_rouge_score(texts: list[str], threshold: float) -> None:
    index, kept = RougeIndex(threshold), list[str]()
    for text in texts:
        expected = oracle(kept, text, threshold)
        assert index.offer(text) == expected
        if expected is None:
            kept.append(text)
    assert len(index) == len(kept)


@settings(max_examples=100, deadline=None)
@given(pool=st.lists(SMALL_TEXTS, max_size=10), text=SMALL_QUERIES, threshold=THRESHOLDS)
def test_texts_added_unconditionally_are_all_compared(pool: list[str], text: str, threshold: float) -> None:
    # Duplicates within the pool: the match is the lowest index, whatever the internal order.
    assert index_of(pool, threshold).nearest_above(text) == oracle(pool, text, threshold)


@settings(max_examples=150, deadline=None)
@given(words=SMALL_TEXTS, data=st.data(), threshold=THRESHOLDS)
def test_a_text_and_its_edit_with_new_words(words: str, data: st.DataObject, threshold: float) -> None:
    tokens = words.split()
    new = data.draw(st.lists(st.sampled_from(["", "new", "newer"]), min_size=len(tokens), max_size=len(tokens)))
    text = " ".join(replacement or token for token, replacement in zip(tokens, new, strict=True))
    assert index_of([words], threshold).nearest_above(text) == oracle([words], text, threshold)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), threshold=st.sampled_from([0.4, 0.7, 0.9]))
def test_edited_texts_longer_than_a_machine_word(seed: int, threshold: float) -> None:
    rng = random.Random(seed)
    words = [f"w{rng.randrange(60)}" for _ in range(rng.randrange(65, 140))]
    edited = [word if rng.random() > 0.3 else f"v{rng.randrange(9)}" for word in words if rng.random() > 0.1]
    pool, text = [" ".join(edited), " ".join(words)], " ".join(words[3:])
    assert index_of(pool, threshold).nearest_above(text) == oracle(pool, text, threshold)


def test_every_tie_at_the_threshold_falls_as_in_rouge_score() -> None:
    # F = 0.7 exactly: 20 LCS = 7 (n + m). About half of these lengths round up and are duplicates.
    ties = [(n, m, 7 * (n + m) // 20) for n, m in product(range(1, 61), repeat=2) if (n + m) % 20 == 0]
    ties = [(n, m, lcs) for n, m, lcs in ties if lcs <= min(n, m)]
    decisions = []
    for n, m, lcs in ties:
        text, other = pair_with_lcs(n, m, lcs)
        expected = rouge_f(text, other) > 0.7
        assert (index_of([other]).nearest_above(text) is not None) == expected, (n, m, lcs)
        decisions.append(expected)
    assert len(decisions) > 80
    assert 0.2 < sum(decisions) / len(decisions) < 0.8


def test_the_known_tie_is_a_duplicate_with_rouge_score_s_own_float() -> None:
    text, other = pair_with_lcs(11, 9, 7)
    assert index_of([other]).nearest_above(text) == Match(index=0, score=0.7000000000000001)


@given(text=st.text(max_size=60))
def test_tokens_are_those_of_rouge_score(text: str) -> None:
    assert tokenize(text) == rouge_tokenize.tokenize(text, None)


@given(a=st.lists(st.integers(0, 4), max_size=90), b=st.lists(st.integers(0, 4), max_size=90))
@settings(max_examples=60, deadline=None)
def test_lcs_and_f_equal_rouge_score_s_in_both_directions(a: list[int], b: list[int]) -> None:
    lcs = lcs_length(position_masks(a), len(a), b)
    assert f_measure(lcs, len(a), len(b)) == rouge_scorer._score_lcs(a, b).fmeasure
    assert f_measure(lcs, len(a), len(b)) == rouge_scorer._score_lcs(b, a).fmeasure


def test_decisions_do_not_depend_on_the_order_in_which_words_were_first_seen() -> None:
    rng = random.Random(3)
    words = [f"w{i}" for i in range(12)]
    pool = [" ".join(rng.choices(words, k=rng.randrange(3, 9))) for _ in range(200)]
    queries = [" ".join(rng.choices(words, k=rng.randrange(3, 9))) for _ in range(200)]
    forward, backward = index_of(pool), index_of(pool[::-1])
    found = [forward.nearest_above(text) is not None for text in queries]
    assert found == [backward.nearest_above(text) is not None for text in queries]
    assert 20 < sum(found) < 180


def test_texts_without_tokens_are_never_duplicates() -> None:
    index = RougeIndex()
    assert index.nearest_above("Name a river") is None
    assert [index.offer(text) for text in ("", "?!", "", "Name a river", "...")] == [None] * 5
    assert index.offer("name a RIVER.") == Match(index=3, score=1.0)
    assert len(index) == 5


def test_nearest_above_inserts_nothing_and_offer_inserts_only_what_is_new() -> None:
    index = RougeIndex()
    assert index.nearest_above("List three rivers of Asia") is None
    assert len(index) == 0
    assert index.offer("List three rivers of Asia") is None
    assert index.offer("List three rivers of Asia") == Match(index=0, score=1.0)
    assert len(index) == 1
    index.add("List three rivers of Asia")
    assert len(index) == 2


def test_threshold_one_keeps_even_copies() -> None:
    index = RougeIndex(1.0)
    assert index.offer("Name a river") is None
    assert index.offer("Name a river") is None


@pytest.mark.parametrize("threshold", [-0.5, 1.01, float("nan")])
def test_an_impossible_threshold_is_refused(threshold: float) -> None:
    with pytest.raises(UserError, match=r"outside \[0, 1\]"):
        RougeIndex(threshold)


def test_the_released_data_holds_no_duplicate() -> None:
    path = SHARED / "data" / "alpaca" / "alpaca_data.json"
    if not path.exists():
        pytest.skip("../shared is not beside the project: the released data cannot be checked")
    instructions = [row["instruction"] for row in json.loads(path.read_text(encoding="utf-8"))][:20_000]
    index = RougeIndex()
    assert [text for text in instructions if index.offer(text)] == []
    # The same index does find a released instruction that is offered again.
    assert index.nearest_above(instructions[7_000]) == Match(index=7_000, score=1.0)
