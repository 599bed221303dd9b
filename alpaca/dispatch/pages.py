"""The page of a sweep: what it is made from, recorded when the sweep starts, and its making when stages are done."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from alpaca import artifacts, claims, frozen, plan
from alpaca.config import ReportConfig
from alpaca.errors import ArtifactError
from alpaca.plan import Node
from alpaca.report import answers
from alpaca.runtime import provenance


def record(
    config: ReportConfig, slug: str, folder: str, labels: Sequence[str], code: str, extra: dict[str, Any]
) -> dict[str, Any]:
    """Everything from which the page can be made later, as plain JSON.

    folder, labels: of the page and of the stages it shows, below the output folder; code: digest of the package;
    extra: what stage.json records beside the configuration.
    """
    return {
        "config": dataclasses.asdict(config),
        "slug": slug,
        "folder": folder,
        "labels": list(labels),
        "code": code,
        "extra": extra,
    }


def write_hypothesis(output: Path, found: dict[str, Any]) -> None:
    """Puts the hypothesis into the page's folder before anything runs: only then it was there before the result."""
    hypothesis = str(found["config"]["hypothesis"])
    if hypothesis:
        answers.add(output / str(found["folder"]), answers.Row(recorded=provenance.now(), hypothesis=hypothesis))


def write_plan(output: Path, found: dict[str, Any]) -> None:
    """Says which stages a launch is making for the page, so that none is thought to be needless until the page stands.

    It takes the place of what an earlier launch of the same page planned.
    """
    folder = output / str(found["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    artifacts.write_json(folder / artifacts.PLANNED, {"labels": found["labels"], "by": claims.owner()})


def forget_plan(output: Path, found: dict[str, Any]) -> None:
    """Once the page stands. What another launch has planned since is not ours."""
    path = output / str(found["folder"]) / artifacts.PLANNED
    with suppress(OSError, ArtifactError):
        if artifacts.read_json(path).get("by") == claims.owner():
            path.unlink()


def planned(folder: Path) -> list[str]:
    """The stages of a page that was planned and does not show all of them that are done.

    ArtifactError where the plan cannot be read.
    """
    path = folder / artifacts.PLANNED
    labels = [str(label) for label in artifacts.read_json(path).get("labels", [])] if path.exists() else []
    return [] if _shows(folder, labels) else labels


def _shows(folder: Path, labels: Iterable[str]) -> bool:
    with suppress(OSError, ArtifactError, KeyError):
        found = artifacts.read_json(folder / "stage.json")
        done = {label for label in labels if artifacts.is_finished(folder.parents[1] / label)}
        return artifacts.finished_as(folder, found["key"]) and done <= set(found["parents"])
    return False


def freeze(output: Path, found: dict[str, Any]) -> Path | None:
    """Freezes the page of what is finished now; its folder, or None when the page that is there shows just that."""
    done = {
        label: artifacts.content_digest(output / label)
        for label in found["labels"]
        if artifacts.is_finished(output / label)
    }
    config: ReportConfig = frozen.typed(ReportConfig, found["config"])
    node: Node = plan.report_node(config, done, found["slug"], found["code"])
    folder = output / str(found["folder"])
    if is_current(folder, node.key):
        return None
    artifacts.freeze(folder, frozen.freeze_node(node, {label: label for label in done}, found["extra"]))
    return folder


def is_current(folder: Path, key: str) -> bool:
    """Whether the page was made for exactly this and nobody changed it since; a damaged one is made anew."""
    if not artifacts.finished_as(folder, key):
        return False
    try:
        artifacts.verify(folder, thorough=False)
    except ArtifactError:
        (folder / "_SUCCESS").unlink(missing_ok=True)  # else the worker would find it finished
        return False
    return True
