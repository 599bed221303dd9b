"""The data cards: where the training examples come from and what happened on the way."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from alpaca.report import figures, wording
from alpaca.report.folders import Folder
from alpaca.report.results import Outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One filter: what it dropped, what it kept; `share` of the pool kept, in percent."""

    name: str
    dropped: int
    kept: int
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Subset:
    """One training set made from the pool."""

    runs: str
    folder: Folder
    size: int
    with_input: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DataCard:
    """One way from a pool to training sets; `facts` are label and text, in order."""

    title: str
    facts: list[tuple[str, str]]
    warning: str
    pool: int
    steps: list[Step]
    subsets: list[Subset]
    figure: Markup | None
    lengths: list[tuple[str, list[str]]]
    examples: list[dict[str, Any]]


def data_cards(outcomes: list[Outcome]) -> list[DataCard]:
    """One card per distinct pool and list of filters, however many sizes were cut from it."""
    groups: dict[str, dict[str, list[Outcome]]] = {}
    for outcome in outcomes:
        folder = outcome.folders.get("curate")
        if folder is not None and folder.document("card.json"):
            groups.setdefault(_way(outcome, folder), {}).setdefault(folder.name, []).append(outcome)
    return [
        _card(number, list(group.values()), f"Pool {number}: {_title(list(group.values()), outcomes)}")
        for number, group in enumerate(groups.values(), 1)
    ]


def _title(subsets: list[list[Outcome]], outcomes: list[Outcome]) -> str:
    """The levels and seeds that use a pool; left out where it is all of them."""
    using = [outcome for group in subsets for outcome in group]
    levels = dict.fromkeys(wording.factors(outcome.point.factors) for outcome in using)
    seeds = dict.fromkeys(outcome.seed for outcome in using)
    parts = [] if len(levels) == len({wording.factors(one.point.factors) for one in outcomes}) else list(levels)
    if len(seeds) < len({outcome.seed for outcome in outcomes}):
        parts.append(f"seed{'s' if len(seeds) > 1 else ''} {wording.listing(list(seeds))}")
    return "; ".join(parts) or "every run"


def _way(outcome: Outcome, folder: Folder) -> str:
    """What the outcomes of one card share: the pool and every step but the last choice of a size."""
    steps = [step for step in folder.document("card.json").get("steps", []) if step.get("name") != "selection"]
    return json.dumps([outcome.point.stages.get("sample"), steps])


def _card(number: int, subsets: list[list[Outcome]], title: str) -> DataCard:
    outcome = subsets[0][0]
    card = outcome.folders["curate"].document("card.json")
    pool = int(card.get("pool", 0))
    return DataCard(
        title=title,
        facts=_facts(card),
        warning=_warning(outcome, card),
        pool=pool,
        steps=_steps(card, pool, several=len(subsets) > 1),
        subsets=[_subset(group) for group in subsets],
        figure=_lengths_figure(card, number),
        lengths=_length_rows(card),
        examples=card.get("examples") or [],
    )


def _facts(card: dict[str, Any]) -> list[tuple[str, str]]:
    repairs = {name: number for name, number in (card.get("repairs") or {}).items() if number}
    defects = {name: number for name, number in (card.get("defects") or {}).items() if number}
    facts = [
        ("Source", str(card.get("source") or "")),
        ("Teacher", str(card.get("teacher") or "")),
        ("Candidates", wording.count(card.get("pool", 0))),
        ("Defects in the source", _counted(defects)),
        ("Repaired", _counted(repairs)),
    ]
    return [(name, text) for name, text in facts if text]


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')}: {number:,}" for name, number in counts.items()) or "none"


def _warning(outcome: Outcome, card: dict[str, Any]) -> str:
    sample = outcome.folders.get("sample")
    kind = sample.setting("teacher", "kind") if sample is not None else None
    if kind == "programmatic" or "programmatic" in str(card.get("teacher") or ""):
        return (
            "The teacher is a program that computes its answers: these examples test the pipeline and carry no "
            "knowledge of language."
        )
    return ""


def _steps(card: dict[str, Any], pool: int, *, several: bool) -> list[Step]:
    """The filters in order; the selection of a size only where there is just one size."""
    rows = [row for row in card.get("steps") or [] if not (several and row["name"] == "selection")]
    return [
        Step(
            name=str(row["name"]).replace("_", " "),
            dropped=row["dropped"],
            kept=row["kept"],
            share=100 * row["kept"] / pool if pool else 0.0,
        )
        for row in rows
    ]


def _subset(group: list[Outcome]) -> Subset:
    folder = group[0].folders["curate"]
    card = folder.document("card.json")
    runs = list(dict.fromkeys(outcome.label for outcome in group))
    shown = runs if len(runs) <= 3 else [*runs[:2], f"{len(runs) - 2} more"]
    size = int(card.get("size", 0))
    return Subset(
        runs="; ".join(shown), folder=folder, size=size, with_input=wording.percent(card.get("with_input", 0), size)
    )


def _lengths_figure(card: dict[str, Any], number: int) -> Markup | None:
    words = card.get("words") or {}
    histograms = {field: numbers["histogram"] for field, numbers in words.items() if numbers.get("histogram")}
    if not histograms:
        return None
    alt = "Histograms of words: " + "; ".join(
        f"{field} mean {words[field]['mean']:.1f}, longest {words[field]['max']}" for field in histograms
    )
    return figures.lengths(histograms, figures.Words(x="words", y="examples", alt=alt, name=f"lengths{number}"))


def _length_rows(card: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Field and its mean, median, 99th percentile and maximum."""
    return [
        (field, [f"{numbers['mean']:.1f}", *(f"{numbers[key]:,.0f}" for key in ("median", "p99", "max"))])
        for field, numbers in (card.get("words") or {}).items()
    ]
