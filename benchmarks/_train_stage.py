"""What needs the whole train stage: an interrupted run against an uninterrupted one, two processes against one."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

from alpaca import config
from alpaca.runtime.distributed import launch_ranks
from alpaca.stages.train import run
from tests.unit import training_world as world

INTERRUPTED_BEFORE = 4


def prepare(folder: Path) -> None:
    """folder/base and folder/data: a tiny model and 30 examples."""
    world.make_base(folder / "base")
    world.make_data(folder / "data", world.examples(30))


def train(folder: Path, name: str, interrupt: int | None = None, **settings: Any) -> list[float]:
    """The losses that the stage records; interrupt: stops before that step, and is then started again."""
    context = world.make_context(folder / name, base=folder / "base", data=folder / "data")
    chosen = world.train_config(**settings)
    if interrupt is not None:
        with contextlib.suppress(world.Interrupted):
            run(chosen, world.interrupt_at(context, interrupt))
        context.check = lambda: None
    run(chosen, context)
    return recorded(folder / name)


def recorded(folder: Path) -> list[float]:
    return [row["loss"] for row in world.losses(folder)]


def resume_mismatch(folder: Path) -> int:
    """How many recorded losses differ, in any bit, between an uninterrupted run and one that was resumed."""
    settings: dict[str, Any] = {"budget": "8 steps", "checkpoint_seconds": 0.0}
    whole = train(folder, "whole", **settings)
    resumed = train(folder, "resumed", interrupt=INTERRUPTED_BEFORE, **settings)
    return sum(left != right for left, right in zip(whole, resumed, strict=True))


def sharded_errors(folder: Path) -> dict[str, float]:
    """The largest relative difference of a loss: two gloo processes (full_shard) against one."""
    launch_ranks([sys.executable, world.__file__, str(folder), "full_shard", "full_shard+muon"], 2)
    alone = {
        "full_shard": train(folder, "alone", checkpoint_seconds=0.0),
        "full_shard+muon": train(folder, "alone+muon", checkpoint_seconds=0.0, optimizer=config.Muon()),
    }
    keys = {"fsdp_loss_error": "full_shard", "fsdp_loss_error_muon": "full_shard+muon"}
    return {key: largest_difference(alone[name], recorded(folder / name)) for key, name in keys.items()}


def largest_difference(expected: list[float], found: list[float]) -> float:
    return max(abs(left - right) / abs(left) for left, right in zip(expected, found, strict=True))
