"""How long stages took in an output folder before: a forecast of those that have as much to do."""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from alpaca.artifacts import is_finished, read_json
from alpaca.errors import ArtifactError
from alpaca.plan import Node, Plan


class Earlier:
    """The finished stages of an output folder, each read once."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self._read: dict[str, dict[str, list[float]]] = {}

    def seconds(self, node: Node, plan: Plan) -> float | None:
        """Median of the stages that had as much to do: same amounts, same model, same source. None: there are none."""
        kind = f"{node.stage}/{node.slug}"
        if kind not in self._read:
            self._read[kind] = self._all(node)
        found = self._read[kind].get(_name(_workload(node.stage, asdict(node.config)), _line_of(node, plan)))
        return median(found) if found else None

    def _all(self, node: Node) -> dict[str, list[float]]:
        """What they had to do -> seconds."""
        found: dict[str, list[float]] = defaultdict(list)
        for path in (self.output / node.stage).glob(f"{node.slug}-*"):
            if is_finished(path):
                # A damaged folder is told where it is needed; for a forecast it is one example less.
                with contextlib.suppress(ArtifactError, OSError, ValueError, KeyError, TypeError):
                    name, seconds = self._took(path, node.stage)
                    found[name].append(seconds)
        return found

    def _took(self, path: Path, kind: str) -> tuple[str, float]:
        stage = read_json(path / "stage.json")
        name = _name(_workload(kind, stage["config"]), _line_on_disk(stage, self.output))
        return name, float(read_json(path / "provenance.json")["seconds"])


def _name(workload: list[Any], line: list[str]) -> str:
    return json.dumps([workload, line], default=str)


AMOUNTS = {
    "sample": (
        "data_gen.num_examples",
        "data_gen.tasks_per_request",
        "teacher.kind",
        "teacher.model",
        "teacher.in_flight",
    ),
    "curate": ("data.size", "data.dedup_threshold"),
    "pretrain": ("model.steps", "model.batch", "model.layers", "model.width"),
    "train": (
        "train.budget",
        "train.global_batch",
        "train.batch_unit",
        "train.max_length",
        "train.batching",
        "train.recompute",
        "train.adapter",
        "optimizer.kind",
        "fsdp.world_size",
        "precision.compute",
    ),
    "respond": ("size", "responses.max_new_tokens"),
    "score": ("metrics",),
}
"""Per stage: the settings that decide how long it takes."""


def _workload(stage: str, config: dict[str, Any]) -> list[Any]:
    def value(key: str) -> Any:
        node: Any = config
        for name in key.split("."):
            node = node.get(name) if isinstance(node, dict) else None
        return node

    return [value(key) for key in AMOUNTS.get(stage, ())]


def _line_of(node: Node, plan: Plan) -> list[str]:
    """Kinds of the stages before it ("train/tiny")."""
    names = []
    for key in node.parents.values():
        parent = plan.nodes[key]
        names += [_kind(parent.stage, parent.slug, asdict(parent.config), asdict(node.config))]
        names += _line_of(parent, plan)
    return sorted(names)


def _line_on_disk(frozen: dict[str, Any], output: Path) -> list[str]:
    names = []
    for place in frozen["parents"].values():
        path = output / place / "stage.json"
        if path.exists():
            parent = read_json(path)
            names += [_kind(parent["stage"], parent["name"], parent["config"], frozen["config"])]
            names += _line_on_disk(parent, output)
    return sorted(names)


def _kind(stage: str, slug: str, config: dict[str, Any], child: dict[str, Any]) -> str:
    """How many examples were selected matters to a training by epochs alone: a step takes what its batch takes."""
    if stage != "curate":
        return f"{stage}/{slug}"
    by_epochs = "epoch" in str((child.get("train") or {}).get("budget"))
    return f"curate/{config['data']['size'] if by_epochs else ''}"
