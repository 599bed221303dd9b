"""The data card: what each step dropped, what the source lacked, how long the texts are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from alpaca.curation.filters import EMPTY_OUTPUT, normalise_no_input
from alpaca.records import Example, as_row

if TYPE_CHECKING:
    from alpaca.stages.curate.candidates import Pool

BINS = 20
SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One step of curation: examples dropped by it and kept after it."""

    name: str
    dropped: int
    kept: int


def build(pool: Pool, steps: Sequence[Step], repaired: int, kept: Sequence[Example]) -> dict[str, Any]:
    """card.json. Counts of defects are of the source before curation."""
    return {
        "source": pool.source,
        "teacher": pool.teacher,
        "pool": pool.candidates,
        "size": len(kept),
        "steps": [asdict(step) for step in steps],
        "repairs": {"no_input_spellings": repaired},
        "defects": {
            "empty_output": sum(1 for example in pool.examples if EMPTY_OUTPUT.drops(example)),
            "no_input_spelling": sum(
                1 for example in pool.examples if example.input != normalise_no_input(example.input)
            ),
        },
        "with_input": sum(1 for example in kept if example.input),
        "words": {
            name: _lengths([len(getattr(example, name).split()) for example in kept if getattr(example, name)])
            for name in ("instruction", "input", "output")
        },
        "examples": [as_row(example) for example in kept[:SHOWN]],
    }


def _lengths(counts: Sequence[int]) -> dict[str, Any]:
    """Words of the non-empty texts: mean, median, 99th percentile, longest, and an even histogram up to that."""
    if not counts:
        return {"mean": 0.0, "median": 0, "p99": 0, "max": 0, "histogram": []}
    ordered = sorted(counts)
    top = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    width = max(1, -(-(top + 1) // BINS))
    bins = dict.fromkeys(range(0, top + 1, width), 0)
    for count in ordered:
        if count <= top:
            bins[count // width * width] += 1
    return {
        "mean": round(mean(ordered), 2),
        "median": median(ordered),
        "p99": top,
        "max": ordered[-1],
        "histogram": sorted(bins.items()),
    }
