"""Claim: exact ROUGE-L de-duplication costs thousands of times less CPU than rouge_score's loop, and is the same.

    python benchmarks/dedup.py [--quick] [--million [COUNT]] [--data FILE]

Cost, against a fixed pool of 52,002 instructions, as CPU time per candidate in one run of one process:

- the peer scores a candidate with rouge_scorer._score_lcs against every text of the pool, tokenised beforehand
  (stanford_alpaca's loop without its process pool, which made it slower), on a sample of the candidates spread evenly
  over their lengths, since it needs about a second for each;
- `decision_ratio`: the peer's over that of `RougeIndex.nearest_above`, tokenising included;
- `full_ratio`: the peer's over that of `NeighbourPool.nearest` (ten nearest texts and mean), twenty candidates a call
  as one answer of a teacher brings them, tokenising included.

Exactness, always against rouge_score itself:

- `f_mismatches`: F of 100,000 pairs (half random, half alphabetical neighbours) and of all lengths up to 150 that allow
  F = 0.7 exactly, by either engine;
- `decision_mismatches`: a stream of 20,000 candidates offered to a pool that grows from 500 texts to some thousands, so
  that rouge_score can decide every one of them; the peer's sample at the full pool counts too;
- `full_mismatches`: the neighbours and the mean of the peer's sample at the full pool;
- `engine_mismatches`: decisions at the full pool on which the two engines differ, for all candidates (no peer).

`neighbours_seconds`: CPU for `neighbours` of the whole pool, each instruction against all before it. With --million a
process of its own offers one million candidates to one index (see _dedup_million.py).

Candidates are a pool instruction with some words changed, or the head of one and the tail of another. The pool is the
released Alpaca file where it lies beside the project or is named with --data, otherwise synthetic (`synthetic_pool` is
then 1). The last line of stdout is one JSON object of numbers.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# The script is run from a checkout that need not be installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _dedup_exact import count_decision_mismatches, count_f_mismatches, is_nearest, score
from _dedup_texts import load_pool, make_candidates, say

from alpaca.curation.dedup import RougeIndex
from alpaca.curation.novelty import NeighbourPool, Neighbours, neighbours
from alpaca.curation.rouge import tokenize

HERE = Path(__file__).resolve().parent
MILLION = 1_000_000
# As many as Alpaca's prompt asks a teacher for in one answer.
BATCH = 20


@dataclass(kw_only=True, slots=True, frozen=True)
class Plan:
    """Sizes of one run. The stream starts on `stream_pool` texts; `chain` texts go through `neighbours`."""

    candidates: int
    peer_candidates: int
    pairs: int
    stream: int
    stream_pool: int
    chain: int | None


FULL = Plan(candidates=2_000, peer_candidates=40, pairs=100_000, stream=20_000, stream_pool=500, chain=None)
QUICK = Plan(candidates=200, peer_candidates=4, pairs=2_000, stream=200, stream_pool=300, chain=2_000)


def cpu_per_item(started: float, count: int) -> float:
    return (time.process_time() - started) / count


def time_decisions(pool: Sequence[str], candidates: Sequence[str]) -> tuple[float, float, dict[str, bool]]:
    """CPU seconds per insertion and per decision, and the decisions."""
    index = RougeIndex()
    started = time.process_time()
    for text in pool:
        index.add(text)
    insertion = cpu_per_item(started, len(pool))
    started = time.process_time()
    decisions = {text: index.nearest_above(text) is not None for text in candidates}
    return insertion, cpu_per_item(started, len(candidates)), decisions


def time_neighbours(pool: Sequence[str], candidates: Sequence[str]) -> tuple[float, dict[str, Neighbours]]:
    """CPU seconds per candidate against the whole pool, and what was found."""
    index, found = NeighbourPool(pool), list[Neighbours]()
    # The first call sorts the pool, which a growing pool does once for every eighth by which it grows.
    index.nearest(candidates[:1])
    started = time.process_time()
    for start in range(0, len(candidates), BATCH):
        found += index.nearest(candidates[start : start + BATCH])
    return cpu_per_item(started, len(candidates)), dict(zip(candidates, found, strict=True))


def time_peer(pool: Sequence[str], sample: Sequence[str]) -> tuple[float, dict[str, list[float]]]:
    """CPU seconds per candidate, and rouge_score's F with every text of the pool."""
    tokens = [tokenize(text) for text in pool]
    started = time.process_time()
    scores = {text: [score(candidate, other) for other in tokens] for text in sample for candidate in [tokenize(text)]}
    return cpu_per_item(started, len(sample)), scores


def spread_by_length(texts: Sequence[str], count: int) -> list[str]:
    """The middle text of each of `count` equal parts of the texts in order of length: few with the same mean cost."""
    ordered = sorted(texts, key=lambda text: len(tokenize(text)))
    return [ordered[(2 * part + 1) * len(ordered) // (2 * count)] for part in range(count)]


def measure_cost(pool: Sequence[str], plan: Plan, rng: random.Random) -> dict[str, float]:
    """CPU per candidate of both modes and of the peer at the full pool, and where they differ on the peer's sample."""
    candidates = make_candidates(pool, plan.candidates, rng)
    insertion, decision, decisions = time_decisions(pool, candidates)
    say(f"decision: {decision * 1e6:.0f} us, insertion {insertion * 1e6:.0f} us")
    full, nearest = time_neighbours(pool, candidates)
    say(f"ten nearest and mean: {full * 1e6:.0f} us")
    peer, scores = time_peer(pool, spread_by_length(candidates, plan.peer_candidates))
    say(f"rouge_score: {peer * 1e3:.0f} ms ({plan.peer_candidates} candidates)")
    threshold = RougeIndex().threshold
    return {
        "decision_ratio": peer / decision,
        "full_ratio": peer / full,
        "decision_us": decision * 1e6,
        "full_us": full * 1e6,
        "peer_us": peer * 1e6,
        "insertion_us": insertion * 1e6,
        "duplicate_share": sum(decisions.values()) / len(decisions),
        "decision_mismatches": sum(decisions[text] != (max(found) > threshold) for text, found in scores.items()),
        "full_mismatches": sum(not is_nearest(nearest[text], found) for text, found in scores.items()),
        "engine_mismatches": sum(decisions[text] != (nearest[text].scores[0] > threshold) for text in candidates),
    }


def measure_chain(pool: Sequence[str], plan: Plan) -> dict[str, float]:
    texts = pool[: plan.chain]
    started = time.process_time()
    neighbours(texts)
    seconds = time.process_time() - started
    say(f"neighbours of {len(texts):,} texts, each against all before it: {seconds:.1f} CPU-s")
    return {"neighbours_seconds": seconds, "neighbours_texts": len(texts)}


def measure_million(count: int, path: Path | None) -> dict[str, float]:
    """Call it before anything is loaded: on Linux the peak memory of a child starts from that of its parent."""
    command = [sys.executable, str(HERE / "_dedup_million.py"), str(count), *([str(path)] if path else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def arguments_given() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few candidates and pairs, in seconds")
    parser.add_argument("--data", type=Path, help="a file like alpaca_data.json: a list of objects with an instruction")
    parser.add_argument(
        "--million", type=int, nargs="?", const=MILLION, default=0, metavar="COUNT",
        help="also offer so many candidates to one index, a million by default",
    )  # fmt: skip
    return parser.parse_args()


def main() -> None:
    arguments = arguments_given()
    plan, rng = QUICK if arguments.quick else FULL, random.Random(0)
    million = measure_million(arguments.million, arguments.data) if arguments.million else {}
    pool, synthetic = load_pool(arguments.data, rng)
    cost = measure_cost(pool, plan, rng)
    pairs = count_f_mismatches(pool, plan.pairs, rng)
    stream = count_decision_mismatches(pool, plan.stream_pool, plan.stream, rng)
    stream["decision_mismatches"] += cost.pop("decision_mismatches")
    sizes = {"pool_size": len(pool), "candidates": plan.candidates, "peer_candidates": plan.peer_candidates}
    chain = measure_chain(pool, plan)
    print(json.dumps({**cost, **pairs, **stream, **chain, **million, **sizes, "synthetic_pool": int(synthetic)}))


if __name__ == "__main__":
    main()
