"""The questions of Datasheets for Datasets (Gebru et al., arXiv 1803.09010) in our words, answered from records.

What no record answers is said to be not recorded: a person has to fill it in before the data set is given away.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alpaca.report import measures, wording
from alpaca.report.blocks import Block, Code, Questions, Text
from alpaca.report.material import Material

NOT_RECORDED = "Not recorded."
_Answer = str | tuple[str | Code, ...]
_Rows = list[tuple[str, _Answer]]


def answered(material: Material) -> list[Block]:
    """All seven parts."""
    parts = {
        "Motivation": _motivation(material),
        "Composition": _composition(material),
        "Collection": _collection(material),
        "Preprocessing": _preprocessing(material),
        "Uses": _uses(material),
        "Distribution": _distribution(material),
        "Maintenance": _maintenance(material),
    }
    said = (
        "The questions follow Gebru et al. (2018). The answers come from the records of the run; where nothing was "
        "recorded, a person has to answer before the data set is given away."
    )
    return [Text(text=said, kind="fine"), *(Questions(title=title, rows=rows) for title, rows in parts.items())]


def _motivation(material: Material) -> _Rows:
    purpose = "To train models to follow instructions by supervised fine-tuning"
    asked = f", and to answer: {material.question}" if material.question else "."
    return [
        ("What was it made for?", f"{purpose}{asked}"),
        ("Who made it, and for whom?", NOT_RECORDED),
        ("Who paid for it?", NOT_RECORDED),
    ]


def _composition(material: Material) -> _Rows:
    card = material.card
    without = int(card.get("size", 0)) - int(card.get("with_input", 0))
    flaws = {name: number for name, number in (card.get("defects_kept") or {}).items() if number}
    named = wording.listing([f"{name.replace('_', ' ')} {number:,}" for name, number in flaws.items()])
    return [
        (
            "What does a record stand for?",
            "One task: an instruction, an input that may be empty, and an output that is meant as an answer to it."
            f"{_spoilt(card)}",
        ),
        ("How many are there?", f"{card.get('size', 0):,}."),
        (
            "Is it a sample of something larger?",
            _larger(material),
        ),
        ("What is in a record?", "Four texts (id, instruction, input, output) and the record's provenance."),
        ("Are there labels or targets?", "The output is the target."),
        ("Is anything missing?", f"{without:,} records have no input, which is meant."),
        ("Are records related to each other?", _related(card)),
        ("Are there recommended splits?", "None; evaluation sets are kept apart, see the overlap above."),
        ("Are there errors or noise?", _errors(card, named)),
        ("Does it rely on anything outside?", "No: the texts are complete. Addresses in them may lead nowhere."),
        ("Could it be confidential, or about people?", f"{NOT_RECORDED} Nobody looked for personal data."),
        ("Could it offend or harm?", _offence(card)),
    ]


def _spoilt(card: Mapping[str, Any]) -> str:
    changed = sum(one["examples"] for one in (card.get("damage") or {}).values())
    return f" Where the output was damaged on purpose ({changed:,} changes) it is none." if changed else ""


def _larger(material: Material) -> str:
    size, pool = int(material.card.get("size", 0)), int(material.card.get("pool", 0))
    parts = [one.get("available") or 0 for one in (material.pool.get("sources") or {}).values()]
    found = []
    if sum(parts) > pool:
        found.append(f"Of {sum(parts):,} published records {pool:,} were mixed.")
    if size < pool:
        found.append(f"Yes, of {pool:,} candidates; what was dropped, and why, stands above.")
    found += [f"{text[0].upper()}{text[1:]}." for text in material.turns]
    return " ".join(found) or f"No, all {pool:,} candidates are in it."


def _related(card: dict[str, Any]) -> str:
    nearest = measures.within(card)
    if not nearest:
        return "Similar instructions can be there; how similar was not recorded."
    return (
        f"{measures.looked_up(card)} was compared with every other one of this data set: for half of them the nearest "
        f"has a ROUGE-L F above {nearest['p50']:.2f}, for 1 % above {nearest['p99']:.2f}."
    )


def _errors(card: dict[str, Any], named: str) -> str:
    wrong = "Whether the answers are right was not checked."
    damaged = " Some outputs were damaged on purpose, see above." if card.get("damage") else ""
    return f"{f'Counted flaws: {named}.' if named else 'None of the flaws that are counted.'} {wrong}{damaged}"


def _offence(card: dict[str, Any]) -> str:
    found = card.get("moderation")
    if not found:
        return "It was not moderated."
    return f"{found['model']} flagged {found['flagged']:,} candidates, which were dropped."


def _collection(material: Material) -> _Rows:
    return [
        ("How was it acquired?", _acquired(material)),
        ("Who took part?", _took_part(material)),
        ("When?", _when(material)),
        ("How were the records chosen?", "By the steps and the selection above; nothing was chosen by hand."),
        ("Was there an ethical review? Did people consent?", NOT_RECORDED),
    ]


def _acquired(material: Material) -> str:
    source = material.card.get("source") or "an unrecorded source"
    if material.asked:
        reworked = "".join(f" The instructions come from {one.text or 'a data set'}." for one in material.origins)
        return f"A teacher was asked for it ({material.way.replace('_', ' ')}): {source}.{reworked}"
    return f"It was taken from {source}."


def _took_part(material: Material) -> str:
    teacher = material.card.get("teacher") or "not recorded"
    return f"The teacher ({teacher}) and this program; no crowd workers." if material.asked else f"Teacher: {teacher}."


def _when(material: Material) -> str:
    records = [folder.document("provenance.json") for folder in material.folders]
    starts = sorted(str(one["started"]) for one in records if one.get("started"))
    ends = sorted(str(one["ended"]) for one in records if one.get("ended"))
    if not starts or not ends:
        return NOT_RECORDED
    made = f"{wording.moment(starts[0])} to {wording.moment(ends[-1])}"
    return f"{made}." if material.asked else f"Read and curated from {made}; when it was written is not recorded."


def _preprocessing(material: Material) -> _Rows:
    return [
        ("What was done to the raw data?", _done(material.card)),
        ("Is the raw data kept?", _raw(material)),
        ("Is the software available?", _software(material)),
    ]


def _done(card: Mapping[str, Any]) -> str:
    """Every step: what parsing dropped, filters and the choice of a size in order, and what was changed."""
    steps = [measures.in_words(step["name"]) for step in card.get("steps") or []]
    repaired = sum((card.get("repairs") or {}).values())
    damaged = [
        f"{one['examples']:,} {measures.DAMAGE.get(name, measures.in_words(name))}"
        for name, one in (card.get("damage") or {}).items()
    ]
    said = [f"Records were dropped, in this order, by: {wording.listing(steps)}."] if steps else []
    if repaired:
        said.append(f'Before the filters {repaired:,} inputs that only said "no input" were made empty.')
    if damaged:
        said.append(f"Last, damage was done on purpose: {wording.listing(damaged)}.")
    return " ".join(said) or "Nothing."


def _raw(material: Material) -> str:
    if material.sample is None:
        return NOT_RECORDED
    kept = "every answer of the teacher" if material.asked else "every record that was taken, before curation"
    return f"Yes, in {material.sample.name}: {kept}."


def _software(material: Material) -> str:
    return f"Yes: this project, {wording.listing(material.code)}." if material.code else "Yes: this project."


def _uses(material: Material) -> _Rows:
    unfit = (
        "To teach a model anything about language: the answers are computed."
        if material.is_programmatic
        else "Where answers must be right, safe or private without a check: nothing here was verified by people."
    )
    return [
        ("Has it been used?", "By the runs of the report that this page belongs to."),
        ("What else could it be used for?", "To compare data sets, teachers and filters under equal training."),
        ("What should it not be used for?", unfit),
    ]


def _distribution(material: Material) -> _Rows:
    return [
        ("Is it given to others, and how?", NOT_RECORDED),
        ("Under which terms?", material.terms.text),
    ]


def _maintenance(material: Material) -> _Rows:
    said = "; the same records give the same bytes."
    again: _Answer = f"Yes, from the frozen configuration{said}"
    if material.command:
        again = ("Yes, by the command ", Code(text=material.command), said)
    return [
        ("Who maintains it, and how can they be reached?", NOT_RECORDED),
        ("Will it be updated?", "It never changes: another setting or source is another folder with another key."),
        ("Can it be made again?", again),
    ]
