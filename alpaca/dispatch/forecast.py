"""What a stage will cost, in words for the plan: amounts where they are known, guesses marked as such."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from alpaca.artifacts import is_finished, read_json
from alpaca.config import (
    AskedDataGen,
    CurateConfig,
    MixtureDataGen,
    ModerateConfig,
    PretrainConfig,
    ReleasedDataGen,
    RespondConfig,
    SampleConfig,
)
from alpaca.dispatch import asking, training
from alpaca.plan import Node, Plan


def cost(node: Node, plan: Plan, output: Path, threads: int = 1) -> str:
    """One line: amounts, then how long such a stage took here before, if any did. threads: of a stage on a CPU."""
    describe = _DESCRIBE.get(node.stage)
    amount = describe(node, plan, output) if describe else ""
    if node.stage == "train":
        amount = training.line(node, plan, output, threads)
    seconds = seconds_before(node, plan, output)
    before = "" if seconds is None else f"about {seconds:.0f} s, as before"
    return "; ".join(part for part in (amount, before) if part) or "seconds"


def seconds_before(node: Node, plan: Plan, output: Path) -> float | None:
    """Median seconds of the finished stages here that had as much to do: same amounts, same model, same source."""
    found = []
    wanted = _workload(node.stage, asdict(node.config)), _line_of(node, plan)
    for path in (output / node.stage).glob(f"{node.slug}-*"):
        if is_finished(path):
            earlier = read_json(path / "stage.json")
            if (_workload(node.stage, earlier["config"]), _line_on_disk(earlier, output)) == wanted:
                found.append(float(read_json(path / "provenance.json")["seconds"]))
    return median(found) if found else None


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
    """Kinds of the stages before it ("train/tiny"); how many examples were selected does not matter to a step."""
    names = []
    for key in node.parents.values():
        parent = plan.nodes[key]
        names += [f"{parent.stage}/{'' if parent.stage == 'curate' else parent.slug}", *_line_of(parent, plan)]
    return sorted(names)


def _line_on_disk(frozen: dict[str, Any], output: Path) -> list[str]:
    names = []
    for place in frozen["parents"].values():
        path = output / place / "stage.json"
        if path.exists():
            parent = read_json(path)
            name = "" if parent["stage"] == "curate" else parent["name"]
            names += [f"{parent['stage']}/{name}", *_line_on_disk(parent, output)]
    return sorted(names)


def _sample(node: Node, plan: Plan, output: Path) -> str:
    config: SampleConfig = node.config
    source = config.data_gen
    if isinstance(source, ReleasedDataGen):
        return f"reads {source.path or source.hub}" if source.path or source.hub else "one download, kept in the cache"
    if isinstance(source, MixtureDataGen):
        return f"reads {len(source.sources)} data sets"
    if not isinstance(source, AskedDataGen) or config.teacher is None:
        return ""
    asked = asking.asked(node, plan, output)
    return asked.told() if asked is not None else "one request per instruction"


def _rate(node: Node, plan: Plan, output: Path) -> str:
    asked = asking.asked(node, plan, output)
    return asked.told() if asked is not None else "one request per example of the pool"


def _moderate(node: Node, plan: Plan, output: Path) -> str:
    config: ModerateConfig = node.config
    examples = asking.pool_size(plan.nodes[node.parents["pool"]], output)
    return f"{'one request per example' if examples is None else f'{examples:,} requests'} to {config.model}"


def _curate(node: Node, plan: Plan, output: Path) -> str:
    config: CurateConfig = node.config
    return f"selects {config.data.size:,}" if config.data.size else "keeps all that pass"


def _pretrain(node: Node, plan: Plan, output: Path) -> str:
    config: PretrainConfig = node.config
    return f"{config.model.steps:,} steps x {config.model.batch} lines"


def _respond(node: Node, plan: Plan, output: Path) -> str:
    config: RespondConfig = node.config
    items = f"{config.size:,} items" if config.size else "all items"
    return f"{items}, up to {config.responses.max_new_tokens} new tokens each"


_DESCRIBE: dict[str, Callable[[Node, Plan, Path], str]] = {
    "sample": _sample,
    "rate": _rate,
    "moderate": _moderate,
    "curate": _curate,
    "pretrain": _pretrain,
    "respond": _respond,
}
