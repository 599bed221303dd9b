"""Who was asked for a data set, what of the request was honoured, and what it cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from alpaca.report import wording
from alpaca.report.blocks import Block, Cell, Facts, Table, Text
from alpaca.report.folders import Folder
from alpaca.report.material import Material, total

_TOKENS = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
_UNKNOWN = "price unknown"


def teacher(material: Material) -> list[Block]:
    """The teacher and its terms, or where published data was taken from."""
    return _asked(material) if material.asked else _taken(material)


def _asked(material: Material) -> list[Block]:
    found, options = material.teacher, material.setting("teacher") or {}
    answered = material.card.get("teacher")
    named = [
        ("Kind", options.get("kind") or found.get("kind")),
        ("Model asked for", options.get("model") or options.get("id")),
        ("Model that answered", answered),
        ("Model in the preflight", found.get("model") if found.get("model") != answered else None),
        ("Endpoint", options.get("base_url")),
        ("Request", _way(material)),
        ("Shut down on", found.get("shutdown_date") or ("not announced" if found.get("checked") else None)),
        ("Looked at", found.get("checked")),
        ("Terms", material.terms.text),
    ]
    blocks: list[Block] = [Facts(rows=[(name, str(text)) for name, text in named if text])]
    requested, honoured = found.get("requested"), found.get("honoured")
    if isinstance(requested, Mapping):
        blocks.append(_parameters(requested, honoured if isinstance(honoured, Mapping) else None))
        blocks += [Text(text=_HONOURED, kind="fine")] if isinstance(honoured, Mapping) else []
    return blocks


_HONOURED = (
    "Each parameter that is not neutral was tried by itself before the first request: honoured, ignored, refused, or "
    "accepted, which is taken without a complaint and without an effect that could be seen."
)


def _way(material: Material) -> str:
    form = material.setting("data_gen", "form")
    return " ".join(part for part in (material.way.replace("_", " "), f"({form} form)" if form else "") if part)


def _parameters(requested: Mapping[str, Any], honoured: Mapping[str, Any] | None) -> Table:
    names = dict.fromkeys([*requested, *(honoured or {})])
    rows: list[list[Cell]] = [
        [name.replace("_", " "), _written(requested.get(name)), _kept(name, honoured)] for name in names
    ]
    return Table(label="Requested and honoured", head=["parameter", "requested", "honoured"], rows=rows)


def _kept(name: str, honoured: Mapping[str, Any] | None) -> str:
    if honoured is None:
        return "not probed"
    return _written(honoured[name]) if name in honoured else "not tried, neutral"


def _written(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False) if value else "none"
    # Seeds and the like are names, not amounts.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else wording.value(value)


def _taken(material: Material) -> list[Block]:
    sources = material.pool.get("sources") or {}
    sha = material.pool.get("source_sha256") if not sources else None
    hub, revision = material.setting("data_gen", "hub"), material.setting("data_gen", "revision")
    rows = [
        ("Way", f"published data, no teacher was asked ({material.way})" if material.way else "not recorded"),
        ("On the hub", f"{hub}, revision {revision}" if hub else None),
        ("sha256", sha),
        ("Teacher", material.card.get("teacher")),
        ("Terms", material.terms.text),
    ]
    return [Facts(rows=[(name, str(text)) for name, text in rows if text])]


def cost(material: Material) -> list[Block]:
    """Tokens and money of each stage that asked somebody; money only where its price is known."""
    folders = [folder for folder in material.folders if folder.document("provenance.json").get("cost")]
    asked = [folder for folder in folders if total([folder], "requests") or total([folder], "completion_tokens")]
    if not asked:
        nobody = "Nobody was asked, so no tokens and no money were spent."
        return [Text(text="Not recorded." if material.asked else nobody)]
    rows = [_row(folder.stage, [folder]) for folder in asked]
    if len(asked) > 1:
        rows.append(_row("total", asked))
    head = ["stage", "requests", "prompt tokens", "of them cached", "completion tokens", "of them reasoning", "USD"]
    blocks: list[Block] = [Table(label="Cost", head=head, rows=rows, right=frozenset(range(1, 7)))]
    each = _per_example(material, asked)
    return [*blocks, Text(text=each, kind="fine")] if each else blocks


def _row(label: str, folders: list[Folder]) -> list[Cell]:
    counts = [total(folders, name) for name in ("requests", *_TOKENS)]
    return [label, *("–" if number is None else wording.count(number) for number in counts), _money(folders)]


def _money(folders: list[Folder]) -> str:
    """Nothing is added up where one of the prices is unknown."""
    known = [total([folder], "usd") for folder in folders]
    return _UNKNOWN if None in known else f"${sum(amount for amount in known if amount is not None):,.2f}"


def _per_example(material: Material, folders: list[Folder]) -> str:
    size = int(material.card.get("size", 0))
    tokens = sum(total(folders, name) or 0 for name in ("prompt_tokens", "completion_tokens"))
    if not size or not tokens:
        return ""
    return (
        f"{tokens / size:,.0f} tokens for each example of this data set. A pool that several data sets share is paid "
        "for once, and counted in full here."
    )
