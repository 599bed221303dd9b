"""The data card: all that can be said of a data set from its texts alone, as card.json.

Deterministic: equal examples give equal bytes. Cost and dates are no part of it (provenance.json and teacher.json of
the sample folder have them); the report puts both together on the card's page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from alpaca.curation import defects, diversity, verbs
from alpaca.curation.filters import DEFAULT_LANGUAGE
from alpaca.curation.selection import hash_order
from alpaca.records import Example, as_row

if TYPE_CHECKING:
    from alpaca.stages.pool import Pool, Step

BINS = 20
SHOWN = 20
FIELDS = ("instruction", "input", "output")
DIGITS = 4
"""Decimals of shares and scores in card.json."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contamination:
    """What was found of one evaluation set among the examples that reached decontamination."""

    items: int
    """Items of the evaluation set."""
    lcs: int | None = None
    """Examples too similar to one of them by ROUGE-L; None where this was not looked for."""
    ngram: int | None = None
    """Examples that share too many words in a row with one of them; None where this was not looked for."""
    exact: int = 0
    """Examples whose instruction and input are those of one of them."""
    dropped: int = 0
    """Examples found in any of these ways."""
    unsearchable: int = 0
    """Items with too few words for what was asked for: only what equals them is found."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Moderation:
    """What a moderation model said; an example can be of several categories."""

    model: str
    flagged: int
    categories: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """One kind of controlled damage: the share that was asked for and the examples that were really changed."""

    share: float
    examples: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Details:
    """What only curation knows. Everything is optional: what was not done is not in the card."""

    language: str = DEFAULT_LANGUAGE
    """What other languages are told from (ISO 639-1)."""
    seed: int = 0
    """The data seed; it also chooses the examples that the card shows."""
    selection: Mapping[str, Any] = field(default_factory=dict)
    """"rule": its name, and whatever it depends on."""
    nearest_within: Sequence[float] = ()
    """ROUGE-L F of the examples' instructions, each with the nearest other one of this data set."""
    nearest_sampled: int = 0
    """Examples that `nearest_within` was looked up for: all of them, or a sample of a large data set."""
    nearest: Sequence[float] | None = None
    """ROUGE-L F of each kept example with the nearest seed or earlier text of its pool, where neighbours.jsonl is."""
    ratings: Sequence[float | None] | None = None
    """The judge's scores of the rated pool; None where the judge's text held no score."""
    contamination: Mapping[str, Contamination] = field(default_factory=dict)
    """By evaluation."""
    moderation: Moderation | None = None
    damage: Mapping[str, Damage] = field(default_factory=dict)
    """By kind, only those with a share above zero."""


_NOTHING_MORE = Details()


def build(
    pool: Pool, steps: Sequence[Step], repaired: int, kept: Sequence[Example], details: Details = _NOTHING_MORE
) -> dict[str, Any]:
    """card.json. Defects are counted in the pool, before curation, and again in what is kept."""
    before, after = defects.count(pool.examples, kept, details.language)
    return {
        "source": pool.source,
        "teacher": pool.teacher,
        "pool": pool.candidates,
        "size": len(kept),
        "steps": [asdict(step) for step in steps],
        "repairs": {"no_input_spellings": repaired},
        "defects": before,
        "defects_kept": after,
        "with_input": sum(1 for example in kept if example.input),
        "words": {
            name: _lengths([len(getattr(example, name).split()) for example in kept if getattr(example, name)])
            for name in FIELDS
        },
        "diversity": _diversity(kept, details.seed),
        "verbs": asdict(verbs.tally(example.instruction for example in kept)),
        "parts": _parts(pool.examples, kept),
        **_known(details),
        "examples": [as_row(example) for example in _in_hash_order(kept, details.seed)[:SHOWN]],
    }


def _known(details: Details) -> dict[str, Any]:
    """The parts of the card that were done."""
    found: dict[str, Any] = {"seed": details.seed}
    if details.selection:
        found["selection"] = dict(details.selection)
    if details.nearest_within:
        found["nearest_within"] = {
            "sampled": details.nearest_sampled,
            "quantiles": diversity.quantiles(details.nearest_within),
        }
    if details.nearest:
        found["nearest"] = diversity.quantiles(details.nearest)
    if details.ratings is not None:
        found["ratings"] = _ratings(details.ratings)
    if details.contamination:
        found["contamination"] = {name: asdict(one) for name, one in details.contamination.items()}
    if details.moderation is not None:
        found["moderation"] = asdict(details.moderation)
    if details.damage:
        found["damage"] = {name: asdict(one) for name, one in details.damage.items()}
    return found


def _ratings(scores: Sequence[float | None]) -> dict[str, Any]:
    """Number, unreadable ones, mean and how many have each score."""
    read = [score for score in scores if score is not None]
    return {
        "rated": len(scores),
        "unreadable": len(scores) - len(read),
        "mean": round(mean(read), DIGITS) if read else None,
        "scores": [[score, number] for score, number in sorted(Counter(read).items())],
    }


def _diversity(kept: Sequence[Example], seed: int) -> dict[str, Any]:
    """distinct-n and compression ratio of instructions and outputs, in the hash order that no pool order changes."""
    ordered = _in_hash_order(kept, seed)
    texts = {name: [getattr(example, name) for example in ordered] for name in ("instruction", "output")}
    return {name: asdict(diversity.measure(each)) for name, each in texts.items()}


def _in_hash_order(examples: Sequence[Example], seed: int) -> list[Example]:
    return [examples[index] for index in hash_order([example.id for example in examples], seed)]


def _parts(source: Iterable[Example], kept: Iterable[Example]) -> dict[str, dict[str, int]]:
    """Examples of each data set of a mixture before and after curation; empty where nothing was mixed."""
    before, after = (Counter(_source_of(example) for example in each) for each in (source, kept))
    if len(before) < 2:
        return {}
    return {name: {"examples": before[name], "kept": after[name]} for name in sorted(before)}


def _source_of(example: Example) -> str:
    return str(example.provenance.get("data_set") or "")


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
