"""One million candidates offered to one index, alone in a process: `dedup.py --million` starts this file.

    python benchmarks/_dedup_million.py COUNT [FILE]

Candidates are the head of one released instruction and the tail of another, made a thousand at a time between the
measured stretches. Prints a JSON object: CPU seconds of the offers, and the peak resident memory of the process in MB
(10^6 bytes), interpreter, numpy and the pieces of the released file included.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import time
from pathlib import Path

# The script is run from a checkout that need not be installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _dedup_texts import load_pool, recombined, say, split

from alpaca.curation.dedup import RougeIndex

BATCH = 1_000
REPORTS = 10


def measure(count: int, path: Path | None) -> dict[str, float]:
    rng = random.Random(0)
    parts = [split(text) for text in load_pool(path, rng)[0]]
    index, seconds = RougeIndex(), 0.0
    for done in range(0, count, BATCH):
        candidates = [recombined(parts, rng) for _ in range(min(BATCH, count - done))]
        started = time.process_time()
        for text in candidates:
            index.offer(text)
        seconds += time.process_time() - started
        if done // BATCH % max(1, count // BATCH // REPORTS) == 0:
            say(f"million: {done + len(candidates):,} offered, {len(index):,} kept, {seconds:.1f} CPU-s")
    return {
        "million_seconds": seconds,
        # Linux counts ru_maxrss in units of 1,024 bytes.
        "million_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "million_candidates": count,
        "million_kept": len(index),
    }


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)))
