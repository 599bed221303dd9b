"""A finished stage made once more: from what it was made, the making in a folder of its own, and what came of it."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alpaca import artifacts
from alpaca.config import Cluster
from alpaca.dispatch import local
from alpaca.dispatch.display import Display
from alpaca.errors import ArtifactError, UserError
from alpaca.records import read_jsonl
from alpaca.report.diff import payload
from alpaca.report.diff.sides import read_stage
from alpaca.runtime import provenance

EQUAL, DIFFERS, MISSING, NEW = "equal", "differs", "missing now", "new"
PAID = ("openai", "openai_batch")
"""Kinds of teachers and moderators that may cost money."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What a stage was made from."""

    label: str
    output: Path
    frozen: dict[str, Any]
    record: dict[str, Any]
    """provenance.json."""

    @property
    def folder(self) -> Path:
        return self.output / self.label

    @property
    def command(self) -> str:
        """The launch that made it."""
        return shlex.join(["python", *self.record.get("argv", [])])

    @property
    def code(self) -> Path | None:
        """The snapshot that ran; None where it was removed."""
        name = self.record.get("code") or self.frozen.get("code")
        path = self.output / name if name else None
        return path if path and path.is_dir() else None

    @property
    def patch(self) -> Path | None:
        """The difference of the code from its commit; None where there was none, or it was removed."""
        name = (self.record.get("git") or {}).get("diff")
        path = self.code / name if name and self.code else None
        return path if path and path.is_file() else None

    @property
    def paid(self) -> bool:
        """Whether making it again may cost money."""
        config = self.frozen["config"]
        kinds = ((config.get("teacher") or {}).get("kind"), config.get("kind"))
        return self.frozen["stage"] in ("sample", "rate", "moderate") and any(kind in PAID for kind in kinds)


@dataclass(kw_only=True, slots=True)
class File:
    """A payload file of both; `counts`: whether it is part of the result (`artifacts.NOT_CONTENT`)."""

    name: str
    state: str
    counts: bool


@dataclass(kw_only=True, slots=True)
class Verdict:
    """How the second making compares; `loss` and `scores` only where these files differ."""

    files: list[File] = field(default_factory=list)
    loss: payload.Loss | None = None
    scores: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Metric -> first and second value."""

    @property
    def bit_equal(self) -> bool:
        return not self.differing

    @property
    def differing(self) -> list[File]:
        return [file for file in self.files if file.counts and file.state != EQUAL]


def recipe(output: Path, label: str) -> Recipe:
    """Reads and checks a finished stage. ArtifactError where it is not finished, was changed, or lost a parent."""
    # Not by the typed configuration: its own code reads that, which may be of another version than this.
    folder, found = output / label, read_stage(output, label).frozen
    if not artifacts.is_finished(folder):
        raise ArtifactError(
            what="not finished, so that there is nothing to make again",
            where=str(folder),
            remedy=f"finish it: {shlex.join(['python', *found.get('argv', ['launch.py'])])}",
        )
    artifacts.verify(folder, thorough=True)
    made = Recipe(label=label, output=output, frozen=found, record=artifacts.read_json(folder / "provenance.json"))
    lost = [problem for role, parent in found["parents"].items() if (problem := _lost(made, role, parent))]
    if lost:
        raise ArtifactError(
            what="; ".join(dict.fromkeys(lost)),
            where=str(folder),
            remedy=f"make again what it was made from: {made.command}",
        )
    return made


def _lost(made: Recipe, role: str, parent: str) -> str:
    """Why a parent cannot be read again as it was; a page only shows what its parents hold now."""
    if not artifacts.is_finished(made.output / parent):
        return f"its parent {parent} is no longer there"
    recorded = (made.record.get("parents") or {}).get(role)
    other = recorded and recorded != artifacts.content_digest(made.output / parent)
    return f"it was made from another {role} than {parent} holds now" if other else ""


def differing_packages(made: Recipe) -> dict[str, tuple[str, str]]:
    """Package -> version then and now, "" where it is gone. What came since is left out."""
    return _differing(made.record.get("packages") or {}, provenance.packages())


def differing_machine(made: Recipe) -> dict[str, tuple[str, str]]:
    """What is different about this machine."""
    return _differing(made.record.get("hardware") or {}, provenance.hardware())


def _differing(then: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {name: (str(value), str(now.get(name, ""))) for name, value in then.items() if value != now.get(name)}


def prepare(made: Recipe) -> Path:
    """A fresh output folder beside the original: parents linked, code copied, nothing tracked. Returns the stage's."""
    name = made.label.replace("/", "-")
    place = Path(tempfile.mkdtemp(prefix=f"{made.output.name}-again-{name}-", dir=made.output.parent))
    for parent in dict.fromkeys(made.frozen["parents"].values()):
        link = place / parent
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(made.output / parent, link.parent))
    settings = {key: value for key, value in made.frozen.items() if key != "tracking"}
    settings["code"] = _code(made, place).relative_to(place).as_posix()
    folder = place / made.label
    folder.mkdir(parents=True)
    artifacts.write_json(folder / "stage.json", settings)
    return folder


def _code(made: Recipe, place: Path) -> Path:
    """A copy, since running it writes compiled files into it; what is here now where the snapshot was removed."""
    (place / "code").mkdir()
    if made.code is None:
        return provenance.snapshot(place)
    target = place / "code" / made.code.name
    shutil.copytree(made.code, target, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def make(made: Recipe, folder: Path, shown: Display) -> None:
    """Runs the stage. UserError with what it said where it failed."""
    task = local.Task(key=made.frozen["key"], label=made.label, folder=folder, parents=set())
    cluster = Cluster(parallel=1, threads=int(made.frozen.get("threads", 1)))
    outcome = local.run([task], cluster, shown)
    if outcome.failed:
        raise UserError(
            what=f"failed: {outcome.failed[made.frozen['key']]}",
            where=made.label,
            remedy=f"its log: {folder / 'log.txt'}",
        )


def verdict(made: Recipe, folder: Path) -> Verdict:
    """The payload of both, file by file."""
    before, after = (artifacts.read_json(path / "manifest.json") for path in (made.folder, folder))
    found = Verdict(files=[_file(name, before, after) for name in sorted({**before, **after})])
    differing = {file.name for file in found.differing}
    if "loss.jsonl" in differing:
        found.loss = payload.compared_losses("train", *(_losses(path) for path in (made.folder, folder)))
    if "metrics.json" in differing and "metrics.json" in before and "metrics.json" in after:
        values = [artifacts.read_json(path / "metrics.json") for path in (made.folder, folder)]
        found.scores = {name: (values[0][name], values[1][name]) for name in values[0] if name in values[1]}
    return found


def _file(name: str, before: dict[str, Any], after: dict[str, Any]) -> File:
    if name not in after or name not in before:
        state = MISSING if name in before else NEW
    else:
        state = EQUAL if before[name]["sha256"] == after[name]["sha256"] else DIFFERS
    return File(name=name, state=state, counts=not artifacts.differs_each_time(name))


def _losses(folder: Path) -> list[dict[str, Any]]:
    path = folder / "loss.jsonl"
    return [row for row in read_jsonl(path) if row.get("loss") is not None] if path.exists() else []


def remove(folder: Path) -> None:
    """The whole fresh output folder of a second making; links in it are removed, not followed."""
    shutil.rmtree(folder.parents[1])
