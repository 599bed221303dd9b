"""What the runs cost and where they come from: one row per stage folder, each counted once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alpaca.report.folders import Folder

_MAIN_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "scipy", "openai", "rouge-score")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """Cost and key of a folder, or the sum of several; None where nothing was recorded."""

    label: str
    folder: Folder | None
    folders: int
    seconds: float | None
    tokens: float | None
    usd: float | None
    key: str = ""
    planned: float | None = None
    """Seconds that the plan foretold, where it measured what they are made of: so far of training alone."""


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
        usd=cost.get("usd"),
        key=str(folder.document("stage.json").get("key") or ""),
        planned=_planned(folder),
    )


def _planned(folder: Folder) -> float | None:
    forecast = folder.document("stage.json").get("forecast") or {}
    step, steps = forecast.get("step_seconds"), folder.document("training.json").get("steps")
    return step * steps if step and steps else None


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
        planned=_added([one.planned for one in entries]),
    )


def _added(numbers: Sequence[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None


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
