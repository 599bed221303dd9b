"""What a stage's record says for the experiment tracker: execution, so that no key depends on it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from alpaca import outcomes, plan
from alpaca.config import Point
from alpaca.plan import Node
from alpaca.records import is_number
from alpaca.sweep import Sweep
from alpaca.sweep.reading import as_text

if TYPE_CHECKING:
    from alpaca.dispatch.prepare import Session

LONGEST_TAG = 64
"""W&B refuses longer ones."""


def stage(session: Session, node: Node) -> dict[str, Any]:
    """The tracker's settings of one stage; its id is a function of its key, so that every start goes on in one run.

    A stage that several points share belongs to all of them: its tags are the factor values that all of them have.
    """
    label = session.label(node.key)
    users = [point for point in session.points if label in point.stages.values()]
    factors = _shared([point.factors for point in users])
    return {
        **_common(session),
        "job_type": node.stage,
        "id": run_id(node),
        "name": node.label,
        "tags": [tag(name, value) for name, value in factors.items()],
        "config": {
            **node.identity,
            "factors": {field(name): plain(value) for name, value in factors.items()},
            "seed": _shared([point.seeds for point in users]),
        },
    }


def run_id(node: Node) -> str:
    """The same for every sweep that uses the stage."""
    return f"{node.stage}-{node.key[:16]}"


def page(session: Session, sweep: Sweep) -> dict[str, Any]:
    """The settings of a sweep's page: what its dashboard shows. Nothing where there is no factor, score or W&B."""
    scores = [f"{name}/{metric}" for name, item in session.run.eval.items() for metric in item.metrics]
    if session.run.tracker.kind != "wandb" or session.run.until != "score" or not (sweep.factors and scores):
        return {}
    first = sweep.metric.replace(".", "/", 1)
    board = {
        "project": session.run.tracker.project,
        "entity": session.run.tracker.entity,
        "group": _common(session)["group"],
        "runs": sorted(run_id(node) for node in session.plan.nodes.values() if node.stage in outcomes.TRACKED),
        "factors": {name: f"factors.{field(name)}" for name in sweep.factors},
        "numeric": [name for name in sweep.factors if all(is_number(point.get(name)) for point in sweep.points)],
        "metrics": sorted(scores, key=lambda name: name != first),
    }
    return {**_common(session), "kind": "workspace", "board": board}


def _common(session: Session) -> dict[str, Any]:
    tracker = session.run.tracker
    return {
        "kind": tracker.kind,
        "mode": tracker.mode,
        "patience": tracker.patience,
        "project": tracker.project,
        "entity": tracker.entity,
        "group": tracker.group or session.group,
    }


def _shared(points: list[dict[str, Any]]) -> dict[str, Any]:
    """What is equal in all of them."""
    first = points[0] if points else {}
    return {name: value for name, value in first.items() if all(point.get(name) == value for point in points)}


def tag(name: str, value: Any) -> str:
    """ "data.size=250"; a long one is cut, with a digest so that it stays another than its like."""
    text = f"{name}={as_text(plain(value))}"
    if len(text) <= LONGEST_TAG:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    return f"{text[: LONGEST_TAG - 7]}~{digest}"


def field(name: str) -> str:
    """A factor's name in the run's configuration, where a dot would mean another level."""
    return name.replace(".", "_")


def plain(value: Any) -> Any:
    """A factor's value as a tracker takes it."""
    return value if value is None or isinstance(value, bool | int | float | str) else as_text(value)


def points(session: Session, sweep: Sweep) -> list[Point]:
    """The points of a sweep with their stages' folders."""
    labels = {key: session.label(key) for key in session.folders}
    return [
        plan.point(roles, labels, factors, run)
        for roles, factors, run in zip(session.plan.runs, sweep.points, sweep.runs, strict=True)
    ]
