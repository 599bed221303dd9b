"""The dashboard of a sweep as code: a W&B workspace with the factor on the horizontal axis.

It selects its runs by their ids, which follow from the stages' keys: a run of W&B is in one group, and that of a stage
that another sweep made is that sweep's. What cannot be had: a stage that was made without W&B, or under another project
or entity, is no run here; and a run that is reused keeps the factors (`factors.*`), tags and group of the sweep that
made it, so that a factor which only the later sweep names has no value for it on the axis. The page has all of them.

Its definition is written beside the sweep's page; where there is a key it is saved on the server too. The file keeps
the address, so that the page's next making updates the same dashboard.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from alpaca.runtime.tracking import keys, wandb_run

FILE = "workspace.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Board:
    """What a dashboard shows."""

    project: str
    entity: str | None
    group: str
    """The sweep's name, which is the group of the runs that it made."""
    runs: list[str] = field(default_factory=list)
    """Ids of the runs of its stages, whichever sweep made them; none: those of its group (an earlier definition)."""
    factors: dict[str, str] = field(default_factory=dict)
    """Factor -> its path in the runs' configuration."""
    numeric: list[str] = field(default_factory=list)
    """The factors whose values are numbers."""
    metrics: list[str] = field(default_factory=list)
    """EVALUATION/METRIC of the scores, the deciding one first."""


class Saving:
    """Defines the dashboard at once, and has nothing else to do."""

    def log(self, values: dict[str, float], step: int) -> None:
        return None

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        return None

    def finish(self, summary: dict[str, Any] | None) -> None:
        return None


def opened(settings: dict[str, Any]) -> Saving:
    """Writes the definition into the page's folder; saves it too where there is a key."""
    output = Path(settings["output"])
    save = keys.online(settings["mode"]) and not wandb_run.failed_lately(output)
    wandb_run.quiet(output)
    write(output / settings["folder"] / FILE, Board(**settings["board"]), save=save)
    return Saving()


def write(path: Path, board: Board, *, save: bool) -> None:
    """The definition, and with `save` the dashboard on the server, unless it is there as it should be."""
    found = _read(path)
    made = definition(board)
    saved = found.get("saved") if isinstance(found.get("saved"), dict) else None
    _replace(path, {**made, "saved": saved})
    if save and (saved is None or saved.get("spec") != made["spec"]):
        _replace(path, {**made, "saved": _save(board, made["spec"], saved or {})})


def pending(path: Path) -> bool:
    """Whether the dashboard of a definition file was never saved, or not as it is defined now."""
    found = _read(path)
    saved = found.get("saved") or {}
    return "spec" in found and saved.get("spec") != found["spec"]


def board_of(path: Path) -> Board:
    """What a definition file was made from."""
    return Board(**_read(path)["board"])


def definition(board: Board) -> dict[str, Any]:
    """The workspace as plain JSON: equal for equal boards."""
    view = _workspace(board)._to_model()
    spec = json.loads(view.spec.model_dump_json(by_alias=True, exclude_none=True))
    return {"board": asdict(board), "name": view.display_name, "spec": _with_plain_ids(spec)}


def _workspace(board: Board) -> Any:
    import wandb_workspaces.workspaces as ws

    sections = [
        ws.Section(name="Scores by factor", is_open=True, panels=_score_panels(board)),
        ws.Section(name="Training", is_open=True, panels=_loss_panels(board)),
    ]
    pinned = [f"config:{path}" for path in board.factors.values()] + [f"summary:{name}" for name in board.metrics]
    return ws.Workspace(
        entity=board.entity or "",
        project=board.project,
        name=f"Sweep {board.group}",
        sections=[section for section in sections if section.panels],
        runset_settings=ws.RunsetSettings(filters=_selected(board), pinned_columns=pinned),
        auto_generate_panels=False,
    )


def _selected(board: Board) -> Any:
    """The filter of the runs that are shown."""
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces.expr import And

    return And(ws.Metric("ID").isin(board.runs) if board.runs else ws.Metric("Group") == board.group)


def _score_panels(board: Board) -> list[Any]:
    """Each score against each factor: every run a point where the factor is a number, else the mean of its runs."""
    import wandb_workspaces.reports.v2 as wr

    panels: list[Any] = []
    for metric in board.metrics:
        for factor, path in board.factors.items():
            title = f"{metric} by {factor}"
            if factor in board.numeric:
                panels.append(wr.ScatterPlot(title=title, x=f"c::{path}", y=f"s::{metric}", running_ymean=True))
            else:
                grouped = {"groupby": f"config.{path}", "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
                panels.append(wr.BarPlot(title=title, metrics=[metric], orientation="v", **grouped))
    return panels


def _loss_panels(board: Board) -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    return [
        wr.LinePlot(title=f"loss by {factor}", x="Step", y=["loss"], groupby=f"config.{path}")
        for factor, path in board.factors.items()
    ]


def _with_plain_ids(value: Any, counter: list[int] | None = None) -> Any:
    """The library draws a name for every panel and section; here they are numbers, so that equal is equal."""
    counter = [0] if counter is None else counter
    if isinstance(value, list):
        return [_with_plain_ids(item, counter) for item in value]
    if not isinstance(value, dict):
        return value
    made = {}
    for name, item in value.items():
        if name in ("__id__", "id") and isinstance(item, str) and item:
            counter[0] += 1
            made[name] = f"part{counter[0]}"
        else:
            made[name] = _with_plain_ids(item, counter)
    return made


def _save(board: Board, spec: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """Saves the dashboard, the same one as before where there is one; what to remember of it."""
    import wandb

    entity = board.entity or wandb.Api().default_entity
    made = _workspace(replace(board, entity=entity))
    made._internal_name, made._internal_id = earlier.get("name", ""), earlier.get("id", "")
    made.save()
    print(f"dashboard: {made.url}", flush=True)
    return {"name": made._internal_name, "id": made._internal_id, "url": made.url, "spec": spec}


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _replace(path: Path, value: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)
