"""The page of one data set: card.json, what the sample folder recorded, and the datasheet's questions, as a document.

data/NAME.html   beside report.html, self-contained
data/NAME.md     the same as Markdown, fit to be the data set's README on a hub
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alpaca.report import costs, datasheet, measures, wording
from alpaca.report.blocks import Block, Cell, Code, Document, Facts, Link, Sample, Samples, Section, Table, Text
from alpaca.report.material import Material

BEYOND = "beyond the list"
SHOWN_CHARACTERS = 1_500
_FILES = ("examples.jsonl", "examples.parquet", "card.json", "neighbours.jsonl", "contamination.jsonl")
_FLAWS = {
    "empty_output": "the output is blank",
    "no_input_spelling": 'the input only says that there is none ("No input", "N/A")',
    "merged_tasks": 'the output holds the next task ("7. Instruction:")',
    "url_only_input": "the input is a web address and nothing else",
    "url_in_input": 'the input holds "http"',
    "input_equals_output": "the output repeats the input, or both are blank",
    "noinput_output": 'the output holds the mark "<noinput>"',
    "colon_output": "the output ends with a colon",
    "multimodal": "the instruction needs a photo, chart or screenshot, or the input embeds a picture",
    "cut_output": "long prose that stops in the middle",
    "unterminated_output": "more than 200 characters without a closing mark at the end; mostly lists, tables, code",
    "other_language": "the instruction is certainly not in the wanted language",
    "ends_in_20": 'the output ends in a bare "20", as one does that was cut at the stop string "20."',
}
_SELECTIONS = {
    "random": "random: the first of one order that the data seed fixes, so that smaller sets lie inside larger ones",
    "longest": "the longest outputs",
    "shortest": "the shortest outputs",
    "diverse": "farthest first: each next example is the one least similar to those chosen",
    "judge_score": "the highest scores of the judge",
    "indices": "a list of positions that the user gave",
}


def document(material: Material, *, alone: bool = True) -> Document:
    """The card of one data set; a part that was not done or not recorded is left out or says so.

    alone: with its provenance, which a report that holds the card shows by itself.
    """
    card = material.card
    sections = [
        Section(title="Overview", blocks=_overview(material)),
        Section(title="From candidates to examples", blocks=_steps(card)),
        Section(title="Sources", blocks=_parts(material)),
        Section(title="Lengths", blocks=measures.lengths(material)),
        Section(title="What the instructions ask for", blocks=measures.verbs(material)),
        Section(title="Diversity", blocks=measures.diversity(card)),
        Section(title="Flaws", blocks=_flaws(card)),
        Section(title="Overlap with evaluation sets", blocks=measures.contamination(card)),
        Section(title="Moderation", blocks=measures.moderation(card)),
        Section(title="The judge's scores", blocks=measures.ratings(card)),
        Section(title="Damage done on purpose", blocks=measures.damage(card)),
        Section(title="Teacher and terms", blocks=costs.teacher(material)),
        Section(title="Cost", blocks=costs.cost(material)),
        Section(title=f"{len(card.get('examples') or [])} examples", blocks=_examples(card)),
        Section(title="Datasheet", blocks=datasheet.answered(material)),
        Section(title="Provenance", blocks=_provenance(material) if alone else []),
    ]
    return Document(
        title=f"Data set {material.name}",
        lead=sentence(card),
        sections=[section for section in sections if section.blocks],
        caveats=caveats(material),
        metadata=_metadata(material),
    )


def sentence(card: Mapping[str, Any]) -> str:
    """What the data set is, in one sentence."""
    size, pool = int(card.get("size", 0)), int(card.get("pool", 0))
    words = card.get("words") or {}
    middle = {name: words.get(name, {}).get("median", 0) for name in ("instruction", "output")}
    return (
        f"{size:,} examples, kept of {wording.plural(pool, 'candidate')}; "
        f"{wording.percent(card.get('with_input', 0), size)} have an input; the median instruction has "
        f"{middle['instruction']:,.0f} words, the median output {middle['output']:,.0f}."
    )


def caveats(material: Material) -> list[str]:
    """What must be known before the data is used."""
    found = []
    if material.is_programmatic:
        found.append(
            "The teacher is a program that computes its answers: these examples test the pipeline and carry no "
            "knowledge of language."
        )
    damage = material.card.get("damage") or {}
    if damage:
        kinds = wording.listing(
            [f"{one['examples']:,} {measures.DAMAGE.get(name, name)}" for name, one in damage.items()]
        )
        found.append(f"This data set was damaged on purpose: {kinds}.")
    return found


def _overview(material: Material) -> list[Block]:
    card = material.card
    size, with_input = int(card.get("size", 0)), int(card.get("with_input", 0))
    rows: list[tuple[str, Cell]] = [
        ("Examples", wording.count(size)),
        ("Source", str(card.get("source") or "not recorded")),
        *[("Conversations", text) for text in material.turns],
        ("Teacher", str(card.get("teacher") or "not recorded")),
        ("With input", f"{wording.count(with_input)} ({wording.percent(with_input, size)})"),
        ("Selection", _selection(material)),
        ("Data seed", str(card.get("seed", "not recorded"))),
        ("Licence", f"{material.terms.licence or 'not known'} (the terms stand below)"),
    ]
    files = [Link(text=name, target=material.curate.link_to(name)) for name in _FILES]
    rows += [("Files" if number == 0 else "", file) for number, file in enumerate(one for one in files if one.target)]
    return [Facts(rows=rows)]


def _selection(material: Material) -> str:
    given = dict(material.card.get("selection") or {})
    rule = str(given.pop("rule", "") or material.curate.setting("data", "selection") or "not recorded")
    more = [f"{name.replace('_', ' ')} {wording.value(value)}" for name, value in given.items() if value is not None]
    return f"{_SELECTIONS.get(rule, rule)}{f' ({wording.listing(more)})' if more else ''}"


def _steps(card: Mapping[str, Any]) -> list[Block]:
    repaired = sum((card.get("repairs") or {}).values())
    notes = [f'{repaired:,} inputs that only said "no input" were made empty.'] if repaired else []
    if any(step["name"] == BEYOND and step["dropped"] for step in card.get("steps") or []):
        notes.append(
            "Beyond the list: tasks numbered higher than was asked for, and what the last answer went on to say after "
            "the task that filled the pool."
        )
    return [steps_table(card), *([Text(text=" ".join(notes), kind="fine")] if notes else [])]


def steps_table(card: Mapping[str, Any]) -> Table:
    """What each step of curation dropped and kept, from the candidates on."""
    pool = int(card.get("pool", 0))
    steps = card.get("steps") or []
    rows = [["candidates", "–", wording.count(pool)]]
    rows += [
        [measures.in_words(step["name"]), wording.count(step["dropped"]), wording.count(step["kept"])] for step in steps
    ]
    return Table(
        label="Steps of curation",
        head=["step", "dropped", "kept"],
        rows=rows,
        right=frozenset({1, 2}),
        of="share kept",
        shares=[1.0, *(step["kept"] / pool if pool else 0.0 for step in steps)],
    )


def _parts(material: Material) -> list[Block]:
    parts, sources = material.card.get("parts") or {}, material.pool.get("sources") or {}
    if not parts:
        return []
    rows = [
        [
            name,
            wording.value(sources.get(name, {}).get("weight")) if name in sources else "–",
            wording.count(part["examples"]),
            wording.count(part["kept"]),
            str(sources.get(name, {}).get("sha256", ""))[:12] or "–",
        ]
        for name, part in parts.items()
    ]
    head = ["data set", "weight", "in the mixture", "kept", "sha256"]
    return [Table(label="Parts of the mixture", head=head, rows=rows, right=frozenset({1, 2, 3}))]


def _flaws(card: Mapping[str, Any]) -> list[Block]:
    before, after = card.get("defects") or {}, card.get("defects_kept")
    if not before:
        return []
    rows = [
        [
            measures.in_words(name),
            wording.count(number),
            wording.count(after.get(name, 0)) if after is not None else "–",
            _FLAWS.get(name, ""),
        ]
        for name, number in before.items()
    ]
    head = ["flaw", "in the source", "in the data set", "counted when"]
    note = "Each flaw is counted by itself, whether or not a filter drops it; an example can have several."
    return [
        Table(label="Flaws", head=head, rows=rows, right=frozenset({1, 2})),
        Text(text=note, kind="fine"),
    ]


def _examples(card: Mapping[str, Any]) -> list[Block]:
    rows = card.get("examples") or []
    if not rows:
        return []
    items = [
        Sample(
            instruction=wording.shortened(str(row.get("instruction") or ""), SHOWN_CHARACTERS),
            input=wording.shortened(str(row.get("input") or ""), SHOWN_CHARACTERS),
            output=wording.shortened(str(row.get("output") or ""), SHOWN_CHARACTERS),
            origin=str(row.get("id") or ""),
        )
        for row in rows
    ]
    how = "Taken by rule, not by hand: the first in the random order of the data seed."
    return [Text(text=how, kind="fine"), Samples(items=items)]


def _provenance(material: Material) -> list[Block]:
    rows: list[tuple[str, Cell]] = []
    for folder in material.folders:
        key = str(folder.document("stage.json").get("key") or "")
        text = f"{folder.name} (key {key[:16]}…)" if key else folder.name
        rows.append((f"{folder.stage} folder", Link(text=text, target=folder.link)))
    rows += [("Code", text) for text in material.code]
    if material.command:
        rows.append(("Command", Code(text=material.command)))
    return [Facts(rows=rows)]


def _metadata(material: Material) -> dict[str, str | list[str]]:
    """The YAML head that hubs read."""
    found: dict[str, str | list[str]] = {"pretty_name": material.name, "task_categories": ["text-generation"]}
    if material.terms.licence:
        found["license"] = material.terms.licence
    # Nothing else says in which language the texts are.
    if "other_language" in (material.curate.setting("data", "filters") or []):
        found["language"] = [str(material.curate.setting("data", "language"))]
    found["tags"] = ["instruction-tuning", "synthetic"] if material.asked else ["instruction-tuning"]
    found["size_categories"] = [_size_category(int(material.card.get("size", 0)))]
    return found


def _size_category(size: int) -> str:
    """The hub's name of a size, such as "10K<n<100K"."""
    names = ["1K", "10K", "100K", "1M", "10M", "100M", "1B"]
    if size < 1_000:
        return "n<1K"
    place = min(len(str(size)) - 4, len(names) - 2)
    return f"{names[place]}<n<{names[place + 1]}"
