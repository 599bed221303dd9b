"""Sampling: 52,000 examples end to end, the rate under latency and faults, kills, parity, the forecast of the cost.

    python benchmarks/sampling.py [--quick]

kept_52k_seconds    wall seconds until 52,000 tasks are kept: the programmatic teacher in a process of its own, over
                    HTTP, asked through the openai client, at most 20 tasks a request, all released filters and
                    de-duplication on, responses on disk
ideal_share_100     100 requests in flight at 1 s latency: the ideal seconds (requests * latency / in flight) over the
                    measured ones
fault_*             1,000 requests under 20 % mixed faults; fault_wall_ratio: wall over a perfect scheduler's, which is
                    the larger of all slot seconds that attempts held over the number in flight and the longest chain
                    of one request with the waits that the server asked for, both from the fault proxy's log; the median
                    of three seeds of the mix, and fault_wall_ratio_worst beside it: which of the last requests hang
                    decides a single run
distinct_hashes     different sha256 of the curated data beyond the first, over `kill -9` at 20 random moments and
                    1 / 16 / 256 in flight
parity_differences  places at which the kept lists of the product and of an independent rewriting of the original's
                    rules differ, from the same recorded answers
cost_error          relative error of the cost projected after 50 requests of the 52,000 run against its final cost

The last line of stdout is one JSON object of numbers.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

# The script is run from a checkout that need not be installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import _end_to_end
import _parity
import _teachers_bench


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few hundred examples and requests, in seconds")
    quick = parser.parse_args().quick
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        found |= _end_to_end.fill(place / "fill", 2_000 if quick else 52_000, say)
        found |= _end_to_end.kills(place / "kills", 300 if quick else 3_000, 2 if quick else 20, say)
    found |= _parity.parity(30 if quick else 300)
    found |= _teachers_bench.ideal_share(requests=200 if quick else 1_000, latency=0.2 if quick else 1.0, say=say)
    found |= _teachers_bench.under_faults(requests=60 if quick else 1_000, quick=quick, say=say)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
