"""The two results of a comparison, each with all that it was made from."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alpaca import artifacts
from alpaca.errors import ArtifactError, UserError
from alpaca.report.folders import Folder

ORDER = ("sample", "rate", "moderate", "curate", "pretrain", "train", "respond", "score")
"""Of work: the first stage in which two chains differ is where they part."""
SAME, OWN, INHERITED, CONTENT, ALONE, UNFINISHED, DAMAGED = (
    "same", "settings differ", "differs by its parents", "same settings, other content", "only on one side",
    "not finished", "damaged",
)  # fmt: skip


@dataclass(kw_only=True, slots=True)
class Stage:
    """A stage folder with its records, each read once; `finished`: its files are what they will stay."""

    folder: Folder
    frozen: dict[str, Any]
    record: dict[str, Any]
    """provenance.json; empty while the stage is not finished."""
    finished: bool
    content: str
    """Digest of the payload, "" while it is not finished."""
    damage: str = ""
    """Why a folder that is marked as finished is not taken as such, with the way out."""

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def code(self) -> str:
        """The snapshot that ran, below the output folder."""
        return str(self.record.get("code") or self.frozen.get("code") or "")


@dataclass(kw_only=True, slots=True)
class Chain:
    """One run: role -> stage, in the order of work."""

    stages: dict[str, Stage] = field(default_factory=dict)
    factors: dict[str, Any] = field(default_factory=dict)
    seeds: dict[str, int] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """What makes it the same point of a question on both sides."""
        return json.dumps([self.factors, self.seeds], sort_keys=True, default=str)

    @property
    def level(self) -> str:
        """Its factors."""
        return json.dumps(self.factors, sort_keys=True, default=str)


@dataclass(kw_only=True, slots=True)
class Side:
    """One of the two. `chains`: one, or every point of a page; `page`: the page itself."""

    label: str
    output: Path
    chains: list[Chain]
    page: Stage | None = None


def read_side(output: Path, label: str) -> Side:
    """The artifact and everything it was made from. ArtifactError where a record is torn."""
    stage = read_stage(output, label)
    if stage.frozen["stage"] != "report":
        found: dict[str, Stage] = {}
        _follow(output, label, found)
        return Side(label=label, output=output, chains=[Chain(stages=_in_order(found))])
    try:
        chains = [_point(output, point) for point in stage.frozen["config"]["points"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            what=f"does not fit the schema of a page ({type(error).__name__}: {error})",
            where=str(output / label / "stage.json"),
            remedy="it was written by another version; launch the same command again",
        ) from error
    return Side(label=label, output=output, chains=chains, page=stage)


def _point(output: Path, point: dict[str, Any]) -> Chain:
    there = {role: name for role, name in point["stages"].items() if (output / name / "stage.json").exists()}
    stages = {role: read_stage(output, name) for role, name in there.items()}
    return Chain(stages=_in_order(stages), factors=point["factors"], seeds=point["seeds"])


def _follow(output: Path, label: str, found: dict[str, Stage]) -> None:
    """The stage and its parents by role; evaluations keep their name, so that only equal ones are compared."""
    stage = read_stage(output, label)
    kind = str(stage.frozen["stage"])
    found[f"{kind}:{stage.frozen['name']}" if kind in ("respond", "score") else kind] = stage
    for parent in stage.frozen["parents"].values():
        if (output / parent / "stage.json").exists():
            _follow(output, parent, found)


def read_stage(output: Path, label: str) -> Stage:
    """One stage folder's records. ArtifactError where stage.json is torn, or of another version.

    A finished one whose other records are missing or torn is damaged, and none of its files are compared.
    """
    path = output / label
    stage = Stage(
        folder=Folder(name=label, path=path, link=""), frozen=_frozen(path), record={}, finished=False, content=""
    )
    if not artifacts.is_finished(path):
        return stage
    try:
        record, content = artifacts.read_json(path / "provenance.json"), artifacts.content_digest(path)
    except (OSError, ArtifactError) as error:
        return replace(stage, damage=_damage(path, error))
    return replace(stage, record=record, content=content, finished=True)


def _damage(path: Path, error: OSError | ArtifactError) -> str:
    if isinstance(error, ArtifactError):
        return f"{error.where}: {error.what}; {error.remedy}"
    return f"{error.filename or path}: {error.strerror}; restore it, or delete {path} and run the same command again"


def _frozen(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = artifacts.read_json(path / "stage.json")
    except OSError as error:
        raise UserError(
            what=f"cannot be read ({error.strerror})", where=str(path / "stage.json"), remedy="give a stage or a page"
        ) from error
    missing = [name for name in ("stage", "name", "key", "identity", "config", "parents") if name not in found]
    odd = [name for name in ("identity", "config", "parents") if not isinstance(found.get(name, {}), dict)]
    if missing or odd:
        raise ArtifactError(
            what=f"has no {', '.join([*missing, *odd])}",
            where=str(path / "stage.json"),
            remedy="it is no stage of launch.py",
        )
    return found


def _in_order(stages: dict[str, Stage]) -> dict[str, Stage]:
    return dict(sorted(stages.items(), key=lambda item: place(item[0])))


def place(role: str) -> tuple[int, str]:
    """Where a role stands in the order of work."""
    kind = role.partition(":")[0]
    return (ORDER.index(kind) if kind in ORDER else len(ORDER), role)


def state(one: Stage | None, other: Stage | None) -> str:
    """How a stage of the two sides differs."""
    if one is None or other is None:
        return ALONE
    if one.frozen["key"] == other.frozen["key"]:
        if one.content and other.content and one.content != other.content:
            return CONTENT
        if one.finished and other.finished:
            return SAME
        return DAMAGED if one.damage or other.damage else UNFINISHED
    own = (one.frozen["identity"], one.frozen.get("version")) != (other.frozen["identity"], other.frozen.get("version"))
    return OWN if own else INHERITED


def roles(one: Chain, other: Chain) -> list[str]:
    """All roles of either, in the order of work."""
    return sorted({*one.stages, *other.stages}, key=place)
