"""Do both engines say what rouge_score says? F of pairs, the decisions of a stream, and the neighbours at a full pool.

rouge_score's own `_score_lcs` is the judge everywhere; nothing here stands in for it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import product

from _dedup_texts import make_candidates, say
from rouge_score import rouge_scorer

from alpaca.curation.dedup import Match, RougeIndex
from alpaca.curation.novelty import NeighbourPool, Neighbours
from alpaca.curation.rouge import tokenize

LONGEST_TIE = 150
# Pairs whose F is read from the diagonal of one comparison of all with all.
GROUP = 500
REPORT_EVERY = 1_000

Pair = tuple[str, str]


def score(tokens: Sequence[str], other: Sequence[str]) -> float:
    return float(rouge_scorer._score_lcs(tokens, other).fmeasure)


def count_f_mismatches(texts: Sequence[str], count: int, rng: random.Random) -> dict[str, float]:
    """Pairs on which an engine's F is not rouge_score's, bit for bit: half random, half alphabetical neighbours, ties.

    The decision engine is asked with threshold 0, where it gives the F of every pair that has a token in common.
    """
    ordered = sorted(set(texts))
    places = [rng.randrange(len(ordered) - 1) for _ in range(count - count // 2)]
    pairs = [(rng.choice(texts), rng.choice(texts)) for _ in range(count // 2)]
    pairs += [(ordered[place], ordered[place + 1]) for place in places]
    ties = list(tie_pairs())
    expected = [score(tokenize(text), tokenize(other)) for text, other in pairs + ties]
    found = zip(_f_of_pool(pairs + ties), _f_of_index(pairs + ties), expected, strict=True)
    wrong = sum(not (full == decided == right) for full, decided, right in found)
    say(f"F: {len(pairs):,} pairs and {len(ties)} ties at 0.7, {wrong} differ from rouge_score")
    rounded_up = sum(one > 0.7 for one in expected[len(pairs) :])
    return {"f_mismatches": wrong, "f_pairs": len(pairs), "f_ties": len(ties), "f_ties_above": rounded_up}


def tie_pairs() -> Iterator[Pair]:
    """A pair for each two lengths up to 150 that allow F = 0.7 exactly, that is 20 LCS = 7 (n + m)."""
    for n, m in product(range(1, LONGEST_TIE + 1), repeat=2):
        lcs, rest = divmod(7 * (n + m), 20)
        if not rest and lcs <= min(n, m):
            common = [f"c{place}" for place in range(lcs)]
            text = " ".join(common + [f"x{place}" for place in range(n - lcs)])
            yield text, " ".join([f"y{place}" for place in range(m - lcs)] + common)


def _f_of_pool(pairs: Sequence[Pair]) -> Iterator[float]:
    for start in range(0, len(pairs), GROUP):
        texts, others = zip(*pairs[start : start + GROUP], strict=True)
        yield from NeighbourPool(others).scores(texts).diagonal().tolist()


def _f_of_index(pairs: Sequence[Pair]) -> Iterator[float]:
    for text, other in pairs:
        index = RougeIndex(0.0)
        index.add(other)
        match = index.nearest_above(text)
        yield match.score if match else 0.0


def count_decision_mismatches(texts: Sequence[str], start: int, count: int, rng: random.Random) -> dict[str, float]:
    """A stream whose kept texts join the pool, each candidate decided by rouge_score and by the index.

    rouge_score compares with text after text until one is above the threshold; the index must give the same text and
    the same F, or nothing. After a difference both go on from rouge_score's decision.
    """
    pool = rng.sample(texts, start)
    index, tokens = RougeIndex(), [tokenize(text) for text in pool]
    for text in pool:
        index.add(text)
    wrong, pairs = 0, 0
    for number, text in enumerate(make_candidates(pool, count, rng), 1):
        candidate = tokenize(text)
        expected = _first_above(candidate, tokens, index.threshold)
        pairs += expected.index + 1 if expected else len(tokens)
        wrong += index.nearest_above(text) != expected
        if expected is None:
            index.add(text)
            tokens.append(candidate)
        if number % REPORT_EVERY == 0:
            say(f"stream: {number:,} of {count:,} decided by both, {wrong} differ, pool {len(tokens):,}")
    kept = len(tokens) - start
    return {"decision_mismatches": wrong, "stream_candidates": count, "stream_kept": kept, "stream_pairs": pairs}


def _first_above(candidate: list[str], pool: Sequence[list[str]], threshold: float) -> Match | None:
    scores = ((index, score(candidate, other)) for index, other in enumerate(pool))
    return next((Match(index=index, score=one) for index, one in scores if one > threshold), None)


def is_nearest(found: Neighbours, scores: Sequence[float]) -> bool:
    """Whether these are the neighbours by rouge_score's F with each text: nearest bit for bit, mean to 1e-12."""
    order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))[: len(found.indices)]
    same = found.indices == tuple(order) and found.scores == tuple(scores[index] for index in order)
    return same and abs(found.mean - sum(scores) / len(scores)) < 1e-12
