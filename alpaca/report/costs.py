"""Who was asked for a data set, what of the request was honoured, and what it cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alpaca.report import wording
from alpaca.report.blocks import Block, Cell, Facts, Table, Text
from alpaca.report.folders import Folder
from alpaca.report.material import Material, Origin, total

_TOKENS = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
_UNKNOWN, _NOTHING_PAID = "price unknown", "nothing paid"
_PARAMETERS = ("temperature", "top_p", "max_tokens", "seed", "stop", "presence_penalty", "logit_bias")


_KNOBS = (
    "tasks_per_request", "seeds_per_prompt", "machine_share", "input_share", "language", "instances", "rounds",
    "breadth_share",
)  # fmt: skip


def teacher(material: Material) -> list[Block]:
    """The teacher and its terms, or where published data was taken from."""
    return _asked(material) if material.asked else _taken(material)


def _asked(material: Material) -> list[Block]:
    found, options = material.teacher, material.setting("teacher") or {}
    instructions = ", ".join(one.text or "not recorded" for one in material.origins)
    answered = material.card.get("teacher")
    named = [
        ("Kind", options.get("kind") or found.get("kind")),
        ("Model asked for", options.get("model") or options.get("id")),
        ("Model that answered", answered),
        ("Model in the preflight", found.get("model") if found.get("model") != answered else None),
        ("Endpoint", options.get("base_url")),
        ("Request", _way(material)),
        ("Asked for", _knobs(material)),
        ("Instructions of", instructions),
        ("Shut down on", found.get("shutdown_date") or ("not announced" if found.get("checked") else None)),
        ("Looked at", found.get("checked")),
        ("Terms", material.terms.text),
    ]
    blocks: list[Block] = [Facts(rows=[(name, str(text)) for name, text in named if text])]
    honoured = found.get("honoured")
    requested = found.get("requested") or _sent(material)
    if requested:
        blocks.append(_parameters(requested, honoured if isinstance(honoured, Mapping) else None))
        blocks += [Text(text=_HONOURED, kind="fine")] if isinstance(honoured, Mapping) else []
    return blocks


def _sent(material: Material) -> dict[str, Any]:
    """The parameters that the first recorded response says it was asked with; there is no teacher.json where all
    answers were taken over. Where responses say nothing of it, those of the configuration.
    """
    response = material.sample.first_row("responses.jsonl") if material.sample else {}
    asked = response.get("request") or material.setting("data_gen") or {}
    return {name: asked[name] for name in _PARAMETERS if name in asked}


_HONOURED = (
    "Each parameter that is not neutral was tried by itself before the first request: honoured, ignored, refused, or "
    "accepted, which is taken without a complaint and without an effect that could be seen."
)


def _way(material: Material) -> str:
    form = material.setting("data_gen", "form")
    return " ".join(part for part in (material.way.replace("_", " "), f"({form} form)" if form else "") if part)


def _knobs(material: Material) -> str:
    """What the prompts were made with, besides the parameters of the API; files of the user's own by their names."""
    options = material.setting("data_gen") or {}
    found = [f"{name.replace('_', ' ')} {wording.value(options[name])}" for name in _KNOBS if options.get(name)]
    return ", ".join([*found, *(f"own {name}" for name in ("seeds", "prompt", "topics") if options.get(name))])


def _parameters(requested: Mapping[str, Any], honoured: Mapping[str, Any] | None) -> Table:
    names = dict.fromkeys([*requested, *(honoured or {})])
    rows: list[list[Cell]] = [
        [name.replace("_", " "), _requested(name, requested.get(name)), _kept(name, honoured)] for name in names
    ]
    return Table(label="Requested and honoured", head=["parameter", "requested", "honoured"], rows=rows)


def _requested(name: str, value: Any) -> str:
    # The recorded seed is that of one request: each has its own.
    return "drawn per request" if name == "seed" and value is not None else _written(value)


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
    rows = [("Way", f"published data, no teacher was asked ({material.way})" if material.way else "not recorded")]
    for one in material.origins:
        rows += [(f"From {one.name}", one.text)] if one.name else _where_from(one)
    rows += [("Teacher", str(material.card.get("teacher") or "")), ("Terms", material.terms.text)]
    return [Facts(rows=[(name, text) for name, text in rows if text])]


def _where_from(origin: Origin) -> list[tuple[str, str]]:
    place = ("On the hub", origin.text) if origin.hub else ("File", origin.file)
    return [place, ("sha256", origin.sha256)]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    """A row of the table: counts by name, None where they are not known; money in words."""

    label: str
    counts: Mapping[str, float | None]
    money: str


def cost(material: Material) -> list[Block]:
    """Tokens and money of each stage that asked somebody; money only where its price is known.

    Answers that were taken over or replayed were paid for by an earlier run: their tokens have rows of their own.
    """
    entries, said, paid = list[_Entry](), list[str](), list[Folder]()
    for folder in material.folders:
        own, adopted = _own(folder), _adopted(folder)
        entries += [one for one in (own, adopted) if one]
        if own and not _is_replay(folder):
            paid.append(folder)
        if adopted and not total([folder], "requests"):
            said.append(f"{folder.stage}: 0 new requests, {wording.count(adopted.counts['requests'] or 0)} taken over.")
    if not entries:
        nobody = "Nobody was asked, so no tokens and no money were spent."
        return [Text(text="Not recorded." if material.asked else nobody)]
    lines = [_line(one) for one in entries]
    if len(paid) > 1:
        lines.append(_line(_Entry(label="total paid for here", counts=_counts(paid), money=_money(paid))))
    head = ["answers", "requests", "prompt tokens", "of them cached", "completion tokens", "of them reasoning", "USD"]
    table = Table(label="Cost", head=head, rows=lines, right=frozenset(range(1, 7)))
    fine = [text for text in (*said, _per_example(material, entries)) if text]
    return [table, Text(text=" ".join(fine), kind="fine")] if fine else [table]


def _own(folder: Folder) -> _Entry | None:
    """What the stage asked for itself, failed tries and the look at the teacher included."""
    counts = _counts([folder])
    if not counts["requests"] and not counts["completion_tokens"]:
        return None
    if _is_replay(folder):
        return _Entry(label=f"{folder.stage}, replayed: tokens as recorded", counts=counts, money=_NOTHING_PAID)
    return _Entry(label=folder.stage, counts=counts, money=_money([folder]))


def _adopted(folder: Folder) -> _Entry | None:
    """The answers that were taken over from other folders, from raw.jsonl."""
    known = (folder.document("provenance.json").get("cost") or {}).get("adopted_requests")
    rows = [] if known == 0 else [row for row in folder.rows("raw.jsonl") if row.get("adopted")]
    if not rows and not known:
        return None
    counts = {name: sum(row.get(name) or 0 for row in rows) if rows else None for name in _TOKENS}
    money = _NOTHING_PAID if _is_replay(folder) else "paid in an earlier run"
    label = f"{folder.stage}, taken over from earlier runs"
    return _Entry(label=label, counts={"requests": len(rows) or known, **counts}, money=money)


def _is_replay(folder: Folder) -> bool:
    return bool(folder.setting("teacher", "kind") == "replay")


def _counts(folders: list[Folder]) -> dict[str, float | None]:
    return {name: total(folders, name) for name in ("requests", *_TOKENS)}


def _line(entry: _Entry) -> list[Cell]:
    counts = ("–" if number is None else wording.count(number) for number in entry.counts.values())
    return [entry.label, *counts, entry.money]


def _money(folders: list[Folder]) -> str:
    """Nothing is added up where one of the prices is unknown."""
    known = [total([folder], "usd") for folder in folders]
    return _UNKNOWN if None in known else f"${sum(amount for amount in known if amount is not None):,.2f}"


def _per_example(material: Material, entries: list[_Entry]) -> str:
    """Of all answers that the data set was made of, whoever paid for them."""
    size = int(material.card.get("size", 0))
    tokens = sum(one.counts[name] or 0 for one in entries for name in ("prompt_tokens", "completion_tokens"))
    if not size or not tokens:
        return ""
    return (
        f"{tokens / size:,.0f} tokens for each example of this data set. A pool that several data sets share is paid "
        "for once, and counted in full here."
    )
