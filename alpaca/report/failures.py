"""Stages that did not finish: which runs need them, and what they said last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alpaca import artifacts
from alpaca.report import wording
from alpaca.report.folders import Library
from alpaca.report.results import Outcome

_MOST_CHARACTERS = 600
_ERROR = "error: "


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """One stage that did not finish. `reason`: its own words; `runs`: those that need it."""

    stage: str
    reason: str
    runs: str


def failures(outcomes: Sequence[Outcome], library: Library) -> list[Failure]:
    """The first stage that is missing from each run; what comes after it could not start."""
    needed: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.missing:
            needed.setdefault(outcome.missing[0].name, []).append(outcome.label)
    # The page lies two folders below the output folder, as every stage does.
    output = library.home.parents[1]
    return [
        Failure(stage=name, reason=_reason(output / name), runs="; ".join(dict.fromkeys(labels)))
        for name, labels in needed.items()
    ]


def _reason(folder: Path) -> str:
    """What a job left when it failed, else the last error of the stage's log."""
    text = str(artifacts.stopped(folder).get("error") or "") or _last_error(folder)
    if text:
        return wording.shortened(" ".join(text.split()), _MOST_CHARACTERS)
    return "not finished; it left no error" if folder.is_dir() else "not started"


def _last_error(folder: Path) -> str:
    try:
        lines = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    starts = [at for at, line in enumerate(lines) if line.startswith(_ERROR)]
    return " ".join(lines[starts[-1] :]).removeprefix(_ERROR) if starts else ""
