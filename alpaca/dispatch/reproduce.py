"""Finished stages made once more: from what they were made, the making in a folder of its own, and what came of it."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alpaca import artifacts, claims
from alpaca.config import Cluster
from alpaca.dispatch import garbage, local
from alpaca.dispatch.display import Display
from alpaca.errors import ArtifactError, UserError
from alpaca.records import is_number, read_jsonl, write_jsonl
from alpaca.report import answers
from alpaca.report.diff import payload
from alpaca.report.diff.sides import read_stage
from alpaca.runtime import provenance

EQUAL, DIFFERS, MISSING, NEW = "equal", "differs", "missing now", "new"
PAID = ("openai", "openai_batch")
"""Kinds of teachers and moderators that may cost money."""
NUMBERS = ("results.json", "results.csv")
"""Of a page: what holds results alone; its other files also tell when its stages were made, or how long they took."""


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
    def parents(self) -> list[str]:
        """Labels, each once."""
        return list(dict.fromkeys(self.frozen["parents"].values()))

    @property
    def failed(self) -> list[str]:
        """Of a page: the stages that it names as missing, and reads the reason of."""
        points = self.frozen["config"].get("points", []) if self.frozen["stage"] == "report" else []
        named = dict.fromkeys(str(name) for point in points for name in (point.get("stages") or {}).values())
        return [name for name in named if name not in self.parents and (self.output / name).is_dir()]

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
    if not artifacts.finished_as(folder, found["key"]):
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


def chain(output: Path, label: str) -> list[Recipe]:
    """The recipe of a stage after those of all that it was made from, parents before children."""
    found: dict[str, Recipe] = {}

    def follow(label: str) -> None:
        if label not in found:
            made = recipe(output, label)
            for parent in made.parents:
                follow(parent)
            found[label] = made

    follow(label)
    return list(found.values())


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


@contextmanager
def prepared(recipes: Sequence[Recipe]) -> Iterator[Path]:
    """A fresh output folder beside the original in which these can be made, in this order; it stays.

    It is claimed meanwhile, by which `gc` knows that the original is being read.
    """
    last = recipes[-1]
    prefix = f"{last.output.name}{garbage.AGAIN}{last.label.replace('/', '-')}-"
    place = Path(tempfile.mkdtemp(prefix=prefix, dir=last.output.parent))
    claim = claims.acquire(place, finished=lambda: False, on_wait=lambda _: None)
    try:
        _prepare_all(recipes, place)
        yield place
    finally:
        if claim:  # always: nobody else knows the folder
            claim.remove()


def _prepare_all(recipes: Sequence[Recipe], place: Path) -> None:
    try:
        (place / "code").mkdir()
        for made in recipes:
            _prepare(made, place, {each.label for each in recipes})
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _prepare(made: Recipe, place: Path, again: set[str]) -> None:
    """Parents linked but for those that are made again too, code copied, nothing tracked."""
    for label in [*made.parents, *made.failed]:
        link = place / label
        if label not in again and not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(made.output / label, link.parent))
    settings = {key: value for key, value in made.frozen.items() if key != "tracking"}
    settings["code"] = _code(made, place).relative_to(place).as_posix()
    folder = place / made.label
    folder.mkdir(parents=True)
    artifacts.write_json(folder / "stage.json", settings)
    _tell_history(made, folder)


def _tell_history(made: Recipe, folder: Path) -> None:
    """What the page had said when it was made: of what came since there are only hypotheses, with the time of launch.

    An answer of this very page may stay: the same one is not added again, and another one makes another page anyway.
    """
    path = made.folder / answers.FILE
    if path.is_file():
        began = str(made.record.get("started") or made.record.get("ended") or "")
        rows = [row for row in read_jsonl(path) if row.get("answer") or not began or str(row.get("recorded")) <= began]
        write_jsonl(folder / answers.FILE, rows)


def _code(made: Recipe, place: Path) -> Path:
    """A copy, since running it writes compiled files into it; what is here now where the snapshot was removed."""
    if made.code is None:
        return provenance.snapshot(place)
    target = place / "code" / made.code.name
    if not target.exists():
        shutil.copytree(made.code, target, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def make(made: Recipe, place: Path, shown: Display) -> None:
    """Runs the stage in a fresh output folder. UserError with what it said where it failed."""
    folder = place / made.label
    task = local.Task(key=made.frozen["key"], label=made.label, folder=folder, parents=set())
    cluster = Cluster(parallel=1, threads=int(made.frozen.get("threads", 1)))
    outcome = local.run([task], cluster, shown)
    if outcome.failed:
        raise UserError(
            what=f"failed: {outcome.failed[made.frozen['key']]}",
            where=made.label,
            remedy=f"its log: {folder / 'log.txt'}",
        )


def verdict(made: Recipe, place: Path) -> Verdict:
    """The payload of both, file by file."""
    folder = place / made.label
    before, after = (artifacts.manifest_of(path) for path in (made.folder, folder))
    found = Verdict(files=[_file(name, before, after) for name in sorted({**before, **after})])
    if any(not (place / label).is_symlink() for label in made.parents):
        for file in found.files:
            file.counts &= made.frozen["stage"] != "report" or file.name in NUMBERS
    differing = {file.name for file in found.differing}
    if "loss.jsonl" in differing:
        found.loss = payload.compared_losses("train", *(_losses(path) for path in (made.folder, folder)))
    if "metrics.json" in differing and "metrics.json" in before and "metrics.json" in after:
        values = [artifacts.read_json(path / "metrics.json") for path in (made.folder, folder)]
        shared = [name for name in values[0] if all(is_number(side.get(name)) for side in values)]
        found.scores = {name: (values[0][name], values[1][name]) for name in shared}
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


def remove(place: Path) -> None:
    """The whole fresh output folder; links in it are removed, not followed."""
    shutil.rmtree(place)
