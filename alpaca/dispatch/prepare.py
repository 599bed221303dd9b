"""Where each stage of a plan lies on disk, what state it is in, and the freezing of what is to run."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpaca import artifacts, claims, frozen
from alpaca.config import Point, Run
from alpaca.dispatch import expectation, tracked, training
from alpaca.dispatch.earlier import Earlier
from alpaca.errors import ArtifactError
from alpaca.plan import Node, Plan
from alpaca.runtime import provenance
from alpaca.teachers import prices

CACHED, RUNNING, PARTIAL, NEW = "cached", "running", "resumes", "to run"


@dataclass(kw_only=True, slots=True)
class Session:
    """One launch: the plan, its folders and what is recorded with each stage."""

    plan: Plan
    output: Path
    folders: dict[str, Path]
    """Key -> folder."""
    run: Run
    """The first run, for the execution settings that all share (cluster, tracker, output_dir)."""
    group: str | None
    """Name of the sweep, for the tracker."""
    earlier: Earlier
    """What stages took in this output folder before."""
    points: Sequence[Point] = ()
    """Of the sweep, with the stages that each uses, for the tracker."""
    gpu_prices: prices.GpuPrices | None = None
    code: Path | None = None
    git: dict[str, Any] | None = None

    def label(self, key: str) -> str:
        """Folder name below the output folder."""
        return self.folders[key].relative_to(self.output).as_posix()


def open_session(plan: Plan, run: Run, group: str | None) -> Session:
    """The folders of a plan; nothing is written."""
    output = Path(run.output_dir).expanduser().resolve()
    folders = {key: artifacts.find_folder(output, node.stage, node.slug, key) for key, node in plan.nodes.items()}
    return Session(plan=plan, output=output, folders=folders, run=run, group=group, earlier=Earlier(output))


def state(folder: Path) -> str:
    """cached, running (by a living process), resumes (begun) or to run."""
    if artifacts.is_finished(folder):
        return CACHED
    if not folder.exists():
        return NEW
    if claims.holder(folder):
        return RUNNING
    return PARTIAL if any(folder.glob("claim-*")) else NEW


def verify_cached(session: Session) -> None:
    """Raises one ArtifactError that names every finished folder that was changed, or made from another parent."""
    problems = []
    for key, folder in session.folders.items():
        if artifacts.is_finished(folder):
            try:
                artifacts.verify(folder, thorough=False)
                problems += _other_parents(session, key)
            except ArtifactError as error:
                problems.append(f"{error.where}: {error.what}")
    if problems:
        raise ArtifactError(
            what="; ".join(problems),
            remedy="restore what was changed, or delete these folders and run the same command again",
        )


def _other_parents(session: Session, key: str) -> list[str]:
    """Parents whose content is not what this finished stage read: a teacher may answer otherwise the second time."""
    folder, problems = session.folders[key], []
    recorded = artifacts.read_json(folder / "provenance.json")["parents"]
    for role, parent in session.plan.nodes[key].parents.items():
        place = session.folders[parent]
        if artifacts.is_finished(place) and artifacts.content_digest(place) != recorded[role]:
            problems.append(f"{folder}: made from another {role} than {place} holds now")
    return problems


def freeze(session: Session, node: Node, folder: Path, parents: dict[str, str]) -> None:
    """Writes the stage's stage.json. parents: role -> folder below the output folder."""
    extra = {**recorded(session), "tracking": tracked.stage(session, node), **_forecast(session, node)}
    artifacts.freeze(folder, frozen.freeze_node(node, parents, extra))


def recorded(session: Session) -> dict[str, Any]:
    """What every stage.json records of the launch; the first call takes the snapshot of the code."""
    if session.code is None:
        session.output.mkdir(parents=True, exist_ok=True)
        session.code = provenance.snapshot(session.output)
        session.git = _record_git(session.code)
    return {
        "code": session.code.relative_to(session.output).as_posix(),
        "git": session.git,
        "argv": sys.argv,
        "threads": session.run.cluster.threads,
    }


def _forecast(session: Session, node: Node) -> dict[str, Any]:
    """What the plan expects of a stage, for the page to hold against what it took."""
    plan, threads = session.plan, session.run.cluster.threads
    if session.gpu_prices is None:
        session.gpu_prices = prices.gpu_prices(session.run.spend.prices)
    expected = expectation.expect(node, plan, session.earlier, threads, may_measure=False)
    found = expected.recorded(session.gpu_prices)
    if node.stage == "train":
        found |= training.recorded(node, plan, session.output, threads)
    return {"forecast": found} if found else {}


def freeze_stages(session: Session, keep: Collection[str] = ()) -> None:
    """Freezes every stage that is not finished, before any of them starts. keep: labels of those queued as they are."""
    for key, node in session.plan.nodes.items():
        folder = session.folders[key]
        if artifacts.is_finished(folder):
            if (folder / "work").exists() and not claims.holder(folder):  # killed between the marker and the clean-up
                artifacts.clean(folder)
        elif session.label(key) not in keep:
            freeze(
                session,
                node,
                session.folders[key],
                {role: session.label(parent) for role, parent in node.parents.items()},
            )


def _record_git(code: Path) -> dict[str, Any]:
    """Commit and dirty flag; the uncommitted difference is written once beside the code snapshot."""
    found = provenance.git_state()
    difference: bytes = found.pop("diff")
    found["diff"] = None
    if difference:
        path = code / f"dirty-{hashlib.sha256(difference).hexdigest()[:12]}.diff"
        path.write_bytes(difference)
        found["diff"] = path.name
    return found
