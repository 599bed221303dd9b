"""The data sets of a report: a page of its own for each, a short section, and a table that compares them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from alpaca.curation import dependency
from alpaca.report import datacard, html, markdown, measures, wording
from alpaca.report.blocks import Block, Cell, Link, Table, Text
from alpaca.report.folders import Folder, Library
from alpaca.report.material import Material, by_role
from alpaca.report.results import Outcome

PAGES = "data"
"""Folder of the cards, beside report.html."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Subset:
    """One training set made from a pool; `page` is its card, relative to report.html."""

    runs: str
    folder: Folder
    size: int
    with_input: str
    page: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DataCard:
    """One way from a pool to training sets; `facts` are label and text, in order."""

    title: str
    facts: list[tuple[str, str]]
    warning: str
    steps: Table
    subsets: list[Subset]


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """The numbers of a data set that others can be compared by; None where they were not recorded."""

    data_set: str
    used_by: str
    size: int
    kept_share: float | None
    """Candidates that passed every step but the last choice of a size."""
    distinct_2: float | None
    """Of the outputs; it falls with the size."""
    distinct_2_fixed: float | None
    """Of the first 5,000 words of the outputs."""
    compression: float | None
    """Of the outputs."""
    median_output: float | None
    """Words."""
    nearest_median: float | None
    """ROUGE-L F of an instruction with the nearest other one of the data set."""


def materials(outcomes: Sequence[Outcome], *, question: str = "", command: str = "") -> list[Material]:
    """What each finished data set's card is made from, in order of first use."""
    found: dict[str, Outcome] = {}
    for outcome in outcomes:
        folder = outcome.folders.get("curate")
        if folder is not None and folder.document("card.json"):
            found.setdefault(folder.name, outcome)
    return [_material(number, outcome, question, command) for number, outcome in enumerate(found.values(), 1)]


def _material(number: int, outcome: Outcome, question: str, command: str) -> Material:
    curate = outcome.folders["curate"]
    card = curate.document("card.json")
    parsed = dependency.tally(_instructions(curate)) if dependency.available() else None
    return Material(
        number=number,
        card=card,
        curate=curate,
        others=by_role(outcome.folders),
        verbs=asdict(parsed) if parsed is not None else card.get("verbs") or {},
        question=question,
        command=command,
    )


def _instructions(curate: Folder) -> list[str]:
    return [str(row["instruction"]) for row in curate.rows("examples.jsonl")]


def moved(material: Material, library: Library) -> Material:
    """The same with links that start at the library's home."""
    return Material(
        number=material.number,
        card=material.card,
        curate=library.folder(material.curate.name),
        others={role: library.folder(folder.name) for role, folder in material.others.items()},
        verbs=material.verbs,
        question=material.question,
        command=material.command,
    )


def write_pages(found: Sequence[Material], report: Path, parents: dict[str, Path]) -> None:
    """Writes data/NAME.html and data/NAME.md for each data set, and removes cards that the report no longer has."""
    home = report / PAGES
    home.mkdir(exist_ok=True)
    library = Library(parents=parents, home=home)
    for material in found:
        document = datacard.document(moved(material, library))
        markdown_name = f"{material.name}.md"
        page = html.rendered("card.html", document=document, markdown=quote(markdown_name), report="../report.html")
        html.write(home / f"{material.name}.html", page)
        html.write(home / markdown_name, markdown.written(document))
    wanted = {f"{material.name}{suffix}" for material in found for suffix in (".html", ".md")}
    for path in home.iterdir():
        if path.name not in wanted:
            path.unlink()


def page_of(folder: Folder) -> str:
    """URL of a data set's card, relative to report.html."""
    return quote(f"{PAGES}/{folder.name.rpartition('/')[2]}.html")


def data_cards(outcomes: Sequence[Outcome]) -> list[DataCard]:
    """One card per distinct pool and list of filters, however many sizes were cut from it."""
    groups: dict[str, dict[str, list[Outcome]]] = {}
    for outcome in outcomes:
        folder = outcome.folders.get("curate")
        if folder is not None and folder.document("card.json"):
            groups.setdefault(_way(outcome, folder), {}).setdefault(folder.name, []).append(outcome)
    return [
        _card(list(group.values()), f"Pool {number}: {_title(list(group.values()), outcomes)}")
        for number, group in enumerate(groups.values(), 1)
    ]


def _title(subsets: list[list[Outcome]], outcomes: Sequence[Outcome]) -> str:
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
    return json.dumps([outcome.point.stages.get("sample"), _before_selection(folder.document("card.json"))])


def _before_selection(card: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [step for step in card.get("steps") or [] if step.get("name") != "selection"]


def _card(subsets: list[list[Outcome]], title: str) -> DataCard:
    outcome = subsets[0][0]
    material = Material(
        number=0,
        card=outcome.folders["curate"].document("card.json"),
        curate=outcome.folders["curate"],
        others=by_role(outcome.folders),
        verbs={},
    )
    card = material.card if len(subsets) == 1 else {**material.card, "steps": _before_selection(material.card)}
    return DataCard(
        title=title,
        facts=_facts(card),
        warning=" ".join(datacard.caveats(material)),
        steps=datacard.steps_table(card),
        subsets=[_subset(group) for group in subsets],
    )


def _facts(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    flaws = {name: number for name, number in (card.get("defects") or {}).items() if number}
    facts = [
        ("Source", str(card.get("source") or "")),
        ("Teacher", str(card.get("teacher") or "")),
        ("Candidates", wording.count(card.get("pool", 0))),
        ("Flaws in the source", _counted(flaws)),
    ]
    return [(name, text) for name, text in facts if text]


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{measures.in_words(name)} {number:,}" for name, number in counts.items()) or "none"


def _subset(group: list[Outcome]) -> Subset:
    folder = group[0].folders["curate"]
    card = folder.document("card.json")
    size = int(card.get("size", 0))
    return Subset(
        runs=_runs(group),
        folder=folder,
        size=size,
        with_input=wording.percent(card.get("with_input", 0), size),
        page=page_of(folder),
    )


def _runs(group: Sequence[Outcome]) -> str:
    runs = list(dict.fromkeys(outcome.label for outcome in group))
    return "; ".join(runs if len(runs) <= 3 else [*runs[:2], f"{len(runs) - 2} more"])


def compared(found: Sequence[Material], outcomes: Sequence[Outcome]) -> list[Compared]:
    """One row per data set."""
    users = {
        material.curate.name: [one for one in outcomes if one.folders.get("curate") is material.curate]
        for material in found
    }
    return [_compared(material, _runs(users[material.curate.name])) for material in found]


def _compared(material: Material, used_by: str) -> Compared:
    card = material.card
    pool, steps = int(card.get("pool", 0)), _before_selection(card)
    outputs = (card.get("diversity") or {}).get("output") or {}
    fixed = outputs.get("distinct_fixed")
    return Compared(
        data_set=material.name,
        used_by=used_by,
        size=int(card.get("size", 0)),
        kept_share=(steps[-1]["kept"] / pool if steps else 1.0) if pool else None,
        distinct_2=outputs["distinct"][1] if outputs else None,
        distinct_2_fixed=fixed[1] if fixed else None,
        compression=outputs.get("compression"),
        median_output=((card.get("words") or {}).get("output") or {}).get("median"),
        nearest_median=measures.within(card).get("p50"),
    )


def comparison(rows: Sequence[Compared]) -> list[Block]:
    """The data sets side by side; nothing where there is only one."""
    if len(rows) < 2:
        return []
    head = [
        "data set",
        "examples",
        "kept",
        "distinct\N{NON-BREAKING HYPHEN}2",
        "of 5,000 words",
        "compression",
        "median output",
        "nearest",
    ]
    lines: list[list[Cell]] = [
        [
            Link(text=row.used_by, target=quote(f"{PAGES}/{row.data_set}.html")),
            wording.count(row.size),
            "–" if row.kept_share is None else f"{100 * row.kept_share:.1f} %",
            _number(row.distinct_2, 3),
            _number(row.distinct_2_fixed, 3),
            _number(row.compression, 2),
            _number(row.median_output, 0),
            _number(row.nearest_median, 3),
        ]
        for row in rows
    ]
    table = Table(label="Data sets compared", head=head, rows=lines, right=frozenset(range(1, 8)))
    return [table, Text(text=_COMPARISON, kind="fine")]


_COMPARISON = (
    "Each name leads to the card. Kept: the share of the candidates that passed every step but the last choice of a "
    "size. distinct-2: of the outputs, which falls as a set grows, and of their first 5,000 words. Compression: bytes "
    "of the outputs over bytes compressed; higher is more repetitive. Median output: words. Nearest: median ROUGE-L F "
    "of an instruction with the nearest other one of its data set; it rises as a set grows."
)


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def in_one_sentence(found: Sequence[Material], missing: int) -> str:
    """What a report without evaluations answers: which data sets there are."""
    if not found:
        return "No data set is finished yet."
    if len(found) == 1:
        return datacard.sentence(found[0].card)
    sizes = sorted(int(material.card.get("size", 0)) for material in found)
    of = f"{sizes[0]:,}" if sizes[0] == sizes[-1] else f"{sizes[0]:,} to {sizes[-1]:,}"
    unfinished = f"; {wording.plural(missing, 'more')} did not finish" if missing else ""
    return f"{len(found)} data sets of {of} examples{unfinished}."
