"""Claim: a de-duplication decision costs at least 3,500 times less CPU than rouge_score's loop, and is the same.

    python benchmarks/dedup.py [--quick] [--data FILE]

Cost, against a fixed pool of 52,002 instructions: the peer scores a candidate with rouge_scorer._score_lcs against
every text of the pool, tokenised beforehand, in this process (stanford_alpaca's loop without its process pool, which
made it slower); ours is `RougeIndex.nearest_above`, tokenising included. Both are CPU time per candidate in the same
run, the peer on a sample of the candidates spread evenly over their lengths, since it needs about a second for each.

Decisions: a stream of candidates offered to a pool that grows, each decided by both; the peer's sample at the full pool
counts too. Candidates are a pool instruction with some words changed, or the head of one and the tail of another.

The pool is the released Alpaca file where it lies beside the project or is named with --data, otherwise synthetic
(`synthetic_pool` is then 1). The last line of stdout is one JSON object of numbers.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# The script is run from a checkout that need not be installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rouge_score import rouge_scorer

from alpaca.curation.dedup import ALPACA_THRESHOLD, RougeIndex
from alpaca.curation.rouge import tokenize

RELEASED_FILE = Path(__file__).resolve().parents[2] / "shared" / "data" / "alpaca" / "alpaca_data.json"
POOL_SIZE = 52_002
SPLITS = ("of", "in", "for", "to", "with", "from", "about", "on", "that", "by", "and")


@dataclass(kw_only=True, slots=True, frozen=True)
class Plan:
    """Sizes of one run; the stream starts on `stream_pool` texts of the pool."""

    candidates: int
    peer_candidates: int
    stream_pool: int


FULL = Plan(candidates=2_000, peer_candidates=40, stream_pool=1_000)
QUICK = Plan(candidates=200, peer_candidates=4, stream_pool=300)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def synthetic_pool(rng: random.Random) -> list[str]:
    """Instructions of 4 to 22 made-up words whose frequencies fall like natural ones (Zipf, 9,000 words)."""
    words = [f"w{rank}" for rank in range(9_000)] + list(SPLITS)
    weights = [1 / (rank + 10) for rank in range(9_000)] + [0.02] * len(SPLITS)
    shares = [4, 6, 9, 11, 12, 12, 11, 9, 7, 5, 4, 3, 2, 2, 1, 1, 1, 1, 1]
    lengths = rng.choices(range(4, 23), weights=shares, k=POOL_SIZE)
    return [" ".join(rng.choices(words, weights=weights, k=length)) for length in lengths]


def edited(text: str, words: Sequence[str], rng: random.Random) -> str:
    """The text with at most as many edits as words, each dropping, replacing or adding one: F around the threshold."""
    result = text.split()
    for _ in range(rng.randint(0, len(result))):
        place = rng.randrange(len(result) + 1)
        result[place : place + rng.randint(0, 1)] = [rng.choice(words)] * rng.randint(0, 1)
    return " ".join(result)


def recombined(texts: Sequence[str], rng: random.Random) -> str:
    """The head of one text and the tail of another, each cut at a preposition where it has one."""
    head, tail = (text.split() for text in rng.sample(texts, 2))
    cuts = [next((i for i, word in enumerate(part) if i and word in SPLITS), len(part) // 2) for part in (head, tail)]
    return " ".join(head[: cuts[0]] + tail[cuts[1] :])


def make_candidates(texts: Sequence[str], count: int, rng: random.Random) -> list[str]:
    words = " ".join(rng.sample(texts, min(len(texts), 2_000))).split()
    return [
        edited(rng.choice(texts), words, rng) if rng.random() < 0.5 else recombined(texts, rng) for _ in range(count)
    ]


def spread_by_length(texts: Sequence[str], count: int) -> list[str]:
    """The middle text of each of `count` equal parts of the texts in order of length: few with the same mean cost."""
    ordered = sorted(texts, key=lambda text: len(tokenize(text)))
    return [ordered[(2 * part + 1) * len(ordered) // (2 * count)] for part in range(count)]


def peer_decides(tokens: list[str], pool: Sequence[list[str]]) -> bool:
    """stanford_alpaca's decision: all scores, then the largest against the threshold."""
    scores: list[float] = [rouge_scorer._score_lcs(tokens, other).fmeasure for other in pool]
    return max(scores) > ALPACA_THRESHOLD


def cpu_per_item(started: float, count: int) -> float:
    return (time.process_time() - started) / count


def measure_cost(pool: Sequence[str], plan: Plan, rng: random.Random) -> dict[str, float]:
    """CPU seconds per decision of both at the full pool, and their differing decisions on the peer's sample."""
    index = RougeIndex()
    started = time.process_time()
    for text in pool:
        index.add(text)
    insertion = cpu_per_item(started, len(pool))
    candidates = make_candidates(pool, plan.candidates, rng)
    started = time.process_time()
    decisions = {text: index.nearest_above(text) is not None for text in candidates}
    ours = cpu_per_item(started, len(candidates))
    say(f"ours: {ours * 1e6:.0f} us per decision, {insertion * 1e6:.0f} us per insertion")

    tokens = [tokenize(text) for text in pool]
    sample = spread_by_length(candidates, plan.peer_candidates)
    started = time.process_time()
    peer_decisions = [peer_decides(tokenize(text), tokens) for text in sample]
    peer = cpu_per_item(started, len(sample))
    say(f"rouge_score: {peer * 1e3:.0f} ms per decision ({len(sample)} candidates)")
    return {
        "decision_ratio": peer / ours,
        "ours_us": ours * 1e6,
        "peer_us": peer * 1e6,
        "insertion_us": insertion * 1e6,
        "duplicate_share": sum(decisions.values()) / len(decisions),
        "mismatches": sum(decisions[text] != said for text, said in zip(sample, peer_decisions, strict=True)),
    }


def count_mismatches(pool: Sequence[str], plan: Plan, rng: random.Random) -> dict[str, float]:
    """Both decide a stream whose kept texts join the pool; after a difference they go on from the peer's decision."""
    start = rng.sample(pool, plan.stream_pool)
    index, tokens = RougeIndex(), [tokenize(text) for text in start]
    for text in start:
        index.add(text)
    mismatches = 0
    for number, text in enumerate(make_candidates(start, plan.candidates, rng), 1):
        candidate = tokenize(text)
        duplicate = peer_decides(candidate, tokens)
        mismatches += duplicate != (index.nearest_above(text) is not None)
        if not duplicate:
            index.add(text)
            tokens.append(candidate)
        if number % 200 == 0:
            say(f"stream: {number} of {plan.candidates} decided by both, {mismatches} differ, pool {len(tokens)}")
    return {"mismatches": mismatches, "stream_kept": len(index) - plan.stream_pool}


def load_pool(path: Path | None, rng: random.Random) -> tuple[list[str], bool]:
    """The instructions of the released file, and whether they had to be made up."""
    source = path or RELEASED_FILE
    if path is None and not source.exists():
        say("the released file is not beside the project: using a synthetic pool")
        return synthetic_pool(rng), True
    return [row["instruction"] for row in json.loads(source.read_text(encoding="utf-8"))], False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the candidates, in seconds")
    parser.add_argument("--data", type=Path, help="a file like alpaca_data.json: a list of objects with an instruction")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else FULL
    rng = random.Random(0)
    pool, synthetic = load_pool(arguments.data, rng)
    cost = measure_cost(pool, plan, rng)
    stream = count_mismatches(pool, plan, rng)
    mismatches = cost.pop("mismatches") + stream.pop("mismatches")
    sizes = {"pool_size": len(pool), "candidates": plan.candidates, "peer_candidates": plan.peer_candidates}
    print(json.dumps({**cost, **stream, "decision_mismatches": mismatches, **sizes, "synthetic_pool": int(synthetic)}))


if __name__ == "__main__":
    main()
