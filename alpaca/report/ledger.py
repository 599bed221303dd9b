"""What the runs cost and where they come from: one row per stage folder, each counted once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from alpaca.footprint import gpus
from alpaca.report import wording
from alpaca.report.blocks import Table
from alpaca.report.folders import Folder
from alpaca.teachers import prices

HOUR, DASH = 3600.0, "–"
_MAIN_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "scipy", "openai", "rouge-score")


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """What was expected before the start; None where nobody knew."""

    seconds: float | None
    tokens: float | None
    usd: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """Cost and key of a folder, or the sum of several; None where nothing was recorded, or not for all of them."""

    label: str
    folder: Folder | None
    folders: int
    seconds: float | None
    tokens: float | None
    usd: float | None
    """Of its teacher and its GPUs."""
    key: str = ""
    planned: Planned


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """One state of the code, the machine or the packages, with the number of stages that ran on it."""

    text: str
    stages: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Ledger:
    """The cost and provenance sections."""

    entries: list[Entry]
    by_stage: list[Entry]
    total: Entry
    started: str
    ended: str
    code: list[Origin]
    hardware: list[Origin]
    packages: list[Origin]


def keep(folders: list[Folder]) -> Ledger:
    """Reads every finished folder's provenance."""
    there = [folder for folder in folders if folder.path is not None]
    entries = [_entry(folder) for folder in there]
    stages = list(dict.fromkeys(folder.stage for folder in there))
    records = [folder.document("provenance.json") for folder in there]
    return Ledger(
        entries=entries,
        total=_sum("total", entries),
        by_stage=[
            _sum(stage, [one for one in entries if one.folder and one.folder.stage == stage]) for stage in stages
        ],
        started=min((str(record["started"]) for record in records if record.get("started")), default=""),
        ended=max((str(record["ended"]) for record in records if record.get("ended")), default=""),
        code=_origins([code_of(record) for record in records]),
        hardware=_origins([_pairs(record.get("hardware") or {}, ": ") for record in records]),
        packages=_origins([_pairs(_main_packages(record.get("packages") or {}), " ") for record in records]),
    )


def _entry(folder: Folder) -> Entry:
    record = folder.document("provenance.json")
    cost = record.get("cost") or {}
    return Entry(
        label=folder.name,
        folder=folder,
        folders=1,
        seconds=record.get("seconds"),
        tokens=_tokens(folder, cost),
        usd=_spent(folder, record),
        key=str(folder.document("stage.json").get("key") or ""),
        planned=_planned(folder),
    )


def _planned(folder: Folder) -> Planned:
    forecast = folder.document("stage.json").get("forecast") or {}
    hours, price = forecast.get("gpu_hours"), forecast.get("usd_per_gpu_hour")
    gpus = hours * price if hours is not None and price is not None else None
    money = _added([forecast.get("teacher_usd"), gpus])
    seconds = forecast.get("seconds")
    step, steps = forecast.get("step_seconds"), folder.document("training.json").get("steps")
    if seconds is None and step and steps:  # by the data that the plan could not count
        seconds = step * steps
    return Planned(seconds=seconds, tokens=forecast.get("tokens"), usd=money)


ON_GPUS = ("pretrain", "train", "respond")


def _spent(folder: Folder, record: dict[str, Any]) -> float | None:
    """What the teacher was paid, and the GPUs by the price of the plan or else of the table; None: not known."""
    paid, hardware = (record.get("cost") or {}).get("usd"), record.get("hardware") or {}
    if folder.stage not in ON_GPUS or not hardware.get("gpus"):
        return paid if paid is None else float(paid)
    price = (folder.document("stage.json").get("forecast") or {}).get("usd_per_gpu_hour")
    if price is None:
        gpu = gpus.of_driver(str(hardware.get("gpu") or ""))
        price = prices.gpu_prices().usd_per_hour.get(gpu.name) if gpu else None
    seconds, processes = record.get("seconds"), folder.setting("fsdp", "world_size") or 1
    return None if price is None or seconds is None else _added([paid, seconds / HOUR * processes * price])


def _tokens(folder: Folder, cost: dict[str, Any]) -> float | None:
    """Prompt and completion tokens of a teacher or of decoding; the training tokens where a stage trained."""
    counted = [cost[name] for name in ("prompt_tokens", "completion_tokens", "tokens") if name in cost]
    return sum(counted) if counted else folder.document("training.json").get("tokens")


def _sum(label: str, entries: list[Entry]) -> Entry:
    return Entry(
        label=label,
        folder=None,
        folders=len(entries),
        seconds=_added([one.seconds for one in entries]),
        tokens=_added([one.tokens for one in entries]),
        usd=_added([one.usd for one in entries]),
        planned=Planned(
            seconds=_all([one.planned.seconds for one in entries]),
            tokens=_added([one.planned.tokens for one in entries]),
            usd=_added([one.planned.usd for one in entries]),
        ),
    )


def _added(numbers: Sequence[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None


def _all(numbers: Sequence[float | None]) -> float | None:
    """The sum; None where a part is not known, since what was planned is held against all that it took."""
    return None if None in numbers else _added(numbers)


def by_stage(found: Ledger) -> Table:
    """What was planned beside what it took, a line for each kind of stage; columns of nothing are left out."""
    columns: list[tuple[str, Callable[[Entry], str]]] = [
        ("folders", lambda one: wording.count(one.folders)),
        ("time planned", lambda one: _or_dash(one.planned.seconds, wording.duration)),
        ("time", lambda one: _or_dash(one.seconds, wording.duration)),
        ("tokens planned", lambda one: _or_dash(one.planned.tokens, wording.count)),
        ("tokens", lambda one: _or_dash(one.tokens, wording.count)),
        ("USD planned", lambda one: _or_dash(one.planned.usd, _usd)),
        ("USD", lambda one: _or_dash(one.usd, _usd)),
    ]
    lines = [*found.by_stage, found.total]
    kept = [(name, told) for name, told in columns if any(told(line) not in (DASH, _usd(0)) for line in lines)]
    rows = [[line.label, *(told(line) for _, told in kept)] for line in lines]
    head = ["stage", *(name for name, _ in kept)]
    return Table(label="Cost by stage", head=head, rows=rows, right=frozenset(range(1, len(head))))


def money(found: Ledger) -> str:
    """Planned and spent dollars beside the original's; "" where no money was to be spent."""
    planned, spent = found.total.planned.usd, found.total.usd
    if not planned and not spent:
        return ""
    told = [f"{_usd(planned)} planned"] if planned is not None else []
    told += [f"{_usd(spent)} spent"] if spent is not None else []
    return f"Teachers and GPUs together: {', '.join(told)}. The original's recipe cost about $500 and $100."


def _or_dash(number: float | None, told: Callable[[float], str]) -> str:
    return DASH if number is None else told(number)


def _usd(amount: float) -> str:
    return f"${amount:,.2f}"


def _origins(texts: list[str]) -> list[Origin]:
    return [Origin(text=text, stages=texts.count(text)) for text in dict.fromkeys(texts) if text]


def _main_packages(packages: dict[str, Any]) -> dict[str, Any]:
    """Those that decide the numbers; the record of each stage has every one."""
    return {name: packages[name] for name in _MAIN_PACKAGES if name in packages}


def code_of(record: dict[str, Any]) -> str:
    """Commit and, since edits need no commit, the snapshot that ran; "" where nothing was recorded."""
    git, snapshot = record.get("git") or {}, str(record.get("code") or "").rpartition("/")[2]
    sha = str(git.get("sha") or "")[:12]
    commit = f"commit {sha}{' with uncommitted changes' if git.get('dirty') else ''}" if sha else ""
    return ", ".join(part for part in (commit, f"snapshot {snapshot}" if snapshot else "") if part)


def _pairs(record: dict[str, Any], between: str) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')}{between}{part if isinstance(part, str) else json.dumps(part)}"
        for name, part in record.items()
    )
