"""What was measured of a data set's texts, and what was done to them, as sections of its card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alpaca.report import figures, sunburst, wording
from alpaca.report.blocks import Block, Figure, Table, Text
from alpaca.report.material import Material

DAMAGE = {
    "label_noise": "outputs replaced by those of other examples",
    "shuffled_outputs": "outputs exchanged among examples",
    "truncated_outputs": "outputs cut to the first half of their words",
}


def lengths(material: Material) -> list[Block]:
    words = {name: one for name, one in (material.card.get("words") or {}).items() if one.get("histogram")}
    rows = [
        [name, f"{one['mean']:.1f}", *(f"{one[key]:,.0f}" for key in ("median", "p99", "max"))]
        for name, one in (material.card.get("words") or {}).items()
    ]
    if not rows:
        return []
    head = ["words", "mean", "median", "99th percentile", "longest"]
    blocks: list[Block] = [Table(label="Lengths in words", head=head, rows=rows, right=frozenset({1, 2, 3, 4}))]
    if words:
        alt = "Histograms of words: " + "; ".join(
            f"{name} mean {one['mean']:.1f}, longest {one['max']}" for name, one in words.items()
        )
        of = figures.Words(x="words", y="examples", alt=alt, name=f"lengths{material.number}")
        svg = figures.lengths({name: one["histogram"] for name, one in words.items()}, of)
        blocks.insert(0, Figure(svg=svg, caption="Texts that are not empty, up to the 99th percentile."))
    return blocks


def verbs(material: Material) -> list[Block]:
    found = material.verbs
    if not found.get("instructions"):
        return []
    total = found["instructions"]
    blocks: list[Block] = [Text(text=f"{_covered(found, total)} Found by {_method(found)}.")]
    if found["top"]:
        wedges = [sunburst.Wedge(name=one["verb"], count=one["count"], parts=one["objects"]) for one in found["top"]]
        alt = f"First verbs: {', '.join(f'{one.name} {one.count:,}' for one in wedges)}"
        caption = (
            f"Inner ring: the {len(wedges)} most frequent first verbs by number of instructions. Outer ring: each "
            f"verb's most frequent objects by their share of those. Arcs too narrow for their label have none."
        )
        blocks += [Figure(svg=sunburst.drawn(wedges, alt), caption=caption), _verb_table(found, total)]
    if found["question_words"]:
        asked = [f"{word} {count:,}" for word, count in found["question_words"][:8]]
        blocks.append(Text(text=f"Questions open with: {', '.join(asked)}.", kind="fine"))
    return blocks


def _covered(found: Mapping[str, Any], total: int) -> str:
    return (
        f"{wording.percent(found['with_verb'], total)} of the instructions open with a verb that was recognised, "
        f"{wording.percent(found['with_object'], total)} with its object as well; "
        f"{wording.percent(found['questions'], total)} open with a question word, "
        f"{wording.percent(found['other'], total)} otherwise. {found['different_verbs']:,} different verbs are as "
        f"varied as {found['effective_verbs']:.1f} equally frequent ones (exp of the entropy)."
    )


def _method(found: Mapping[str, Any]) -> str:
    rules = "rules (a list of verbs and the noun phrase after it), no parser"
    return rules if found["method"] == "rules" else str(found["method"])


def _verb_table(found: Mapping[str, Any], total: int) -> Table:
    rows = [
        [
            one["verb"],
            wording.count(one["count"]),
            wording.percent(one["count"], total),
            ", ".join(f"{name} {count:,}" for name, count in one["objects"]) or "–",
        ]
        for one in found["top"]
    ]
    head = ["first verb", "instructions", "share", "its most frequent objects"]
    return Table(label="First verbs and objects", head=head, rows=rows, right=frozenset({1, 2}), folded=True)


def diversity(card: Mapping[str, Any]) -> list[Block]:
    fields = card.get("diversity") or {}
    blocks: list[Block] = []
    if fields:
        orders = [f"distinct\N{NON-BREAKING HYPHEN}{n}" for n in (1, 2, 3)]
        head = ["field", "words", *orders, f"{orders[1]} of 5,000 words", "compression"]
        rows = [
            [
                name,
                wording.count(one["words"]),
                *(f"{value:.4f}" for value in one["distinct"]),
                f"{one['distinct_fixed'][1]:.3f}" if one.get("distinct_fixed") else "–",
                f"{one['compression']:.2f}",
            ]
            for name, one in fields.items()
        ]
        blocks.append(Table(label="Diversity", head=head, rows=rows, right=frozenset(range(1, 7))))
        blocks.append(Text(text=_DIVERSITY, kind="fine"))
    return [*blocks, *_nearest(card)]


_DIVERSITY = (
    "distinct-n: different n-grams over all words (Li et al. 2016); it falls as a set grows, so sets of different "
    "sizes are compared by that of their first 5,000 words. Compression: bytes over bytes compressed by zlib (Shaib et "
    "al. 2024); higher is more repetitive."
)


def within(card: Mapping[str, Any]) -> dict[str, float]:
    """Quantiles of the ROUGE-L F of instructions with the nearest other one of the data set; empty if not recorded."""
    return dict((card.get("nearest_within") or {}).get("quantiles") or {})


def looked_up(card: Mapping[str, Any]) -> str:
    """Which instructions `within` is of, at the beginning of a sentence."""
    size, sampled = int(card.get("size", 0)), int((card.get("nearest_within") or {}).get("sampled") or 0)
    return "Each instruction" if sampled in (0, size) else f"A sample of {sampled:,} instructions"


def _nearest(card: Mapping[str, Any]) -> list[Block]:
    """Near-duplicates within the data set, and beside neighbours.jsonl what that file has: two different measures."""
    found = {"within the data set": within(card), "among seeds and earlier pool texts": card.get("nearest") or {}}
    rows = {name: quantiles for name, quantiles in found.items() if quantiles}
    if not rows:
        return []
    names = next(iter(rows.values()))
    said = []
    if within(card):
        said.append(f"Within the data set: {looked_up(card).lower()} against every other one of this data set.")
    if card.get("nearest"):
        said.append(
            "Among seeds and earlier pool texts: each against the seed tasks and what came before it and passed all "
            "steps up to the selection, as in neighbours.jsonl."
        )
    table = Table(
        label="Near-duplicate quantiles",
        head=["nearest, ROUGE-L F", *(f"{name.removeprefix('p')} %" for name in names)],
        rows=[[name, *(f"{value:.3f}" for value in quantiles.values())] for name, quantiles in rows.items()],
        right=frozenset(range(1, len(names) + 1)),
    )
    return [table, Text(text=" ".join(said), kind="fine")]


def contamination(card: Mapping[str, Any]) -> list[Block]:
    found = card.get("contamination")
    if not found:
        return [Text(text="Not looked for: no threshold was set (data.decontaminate_lcs, data.decontaminate_ngram).")]
    rows = [
        [name, *(_or_dash(one.get(key)) for key in ("items", "lcs", "ngram", "exact", "dropped"))]
        for name, one in found.items()
    ]
    head = ["evaluation", "its items", "too similar (ROUGE-L)", "shared n-gram", "equal", "dropped"]
    table = Table(label="Overlap with evaluation sets", head=head, rows=rows, right=frozenset(range(1, 6)))
    unsearchable = {name: one["unsearchable"] for name, one in found.items() if one.get("unsearchable")}
    if not unsearchable:
        return [table]
    items = wording.listing([f"{wording.plural(number, 'item')} of {name}" for name, number in unsearchable.items()])
    short = f"Too few words to look for anything but their equals, so a near copy would not be found: {items}."
    return [table, Text(text=short, kind="caveat")]


def moderation(card: Mapping[str, Any]) -> list[Block]:
    found = card.get("moderation")
    if not found:
        return []
    categories = [[in_words(name), wording.count(number)] for name, number in found["categories"].items() if number]
    text = Text(text=f"{found['flagged']:,} of the candidates were flagged by {found['model']} and dropped.")
    table = Table(label="Moderation", head=["category", "flagged"], rows=categories, right=frozenset({1}))
    return [text, table] if categories else [text]


def ratings(card: Mapping[str, Any]) -> list[Block]:
    found = card.get("ratings")
    if not found:
        return []
    mean = "" if found["mean"] is None else f" Their mean is {found['mean']:.2f}."
    unread = f" {found['unreadable']:,} answers held no score." if found["unreadable"] else ""
    text = Text(text=f"{found['rated']:,} examples were scored from 0 to 5.{mean}{unread}")
    rows = [[f"{score:g}", wording.count(number)] for score, number in found["scores"]]
    shares = [number / found["rated"] for _, number in found["scores"]]
    table = Table(label="Scores", head=["score", "examples"], rows=rows, right=frozenset({0, 1}), shares=shares)
    return [text, table] if rows else [text]


def damage(card: Mapping[str, Any]) -> list[Block]:
    rows = [
        [DAMAGE.get(name, in_words(name)), f"{100 * one['share']:g} %", wording.count(one["examples"])]
        for name, one in (card.get("damage") or {}).items()
    ]
    head = ["damage", "share asked for", "examples changed"]
    return [Table(label="Damage", head=head, rows=rows, right=frozenset({1, 2}))] if rows else []


def in_words(name: str) -> str:
    """ "merged_tasks" -> "merged tasks"."""
    return name.replace("_", " ")


def _or_dash(number: Any) -> str:
    return "–" if number is None else wording.count(number)
