"""One process or many: the stage's body runs here, or in ranks that are started here. Imports no torch itself."""

from __future__ import annotations

import sys

from alpaca.artifacts import Context, read_json
from alpaca.config import TrainConfig
from alpaca.records import read_jsonl
from alpaca.runtime.distributed import inside_rank, launch_ranks

COST = "cost.json"


def run_everywhere(config: TrainConfig, context: Context) -> None:
    """Runs the body, in `fsdp.world_size` processes where that is more than one and this is not yet one of them."""
    if config.fsdp.world_size > 1 and not inside_rank():
        command = [sys.executable, "-m", "alpaca.jobs", str(context.folder)]
        launch_ranks(command, config.fsdp.world_size, context.check)
        _take_over(context)
        return
    from alpaca.stages.train.stage import run_here

    run_here(config, context)


def _take_over(context: Context) -> None:
    """Gives this process's context what rank 0 could only leave in files: costs, and the steps for the tracker."""
    context.cost.update(read_json(context.work / COST))
    rows = list(read_jsonl(context.folder / "loss.jsonl"))
    context.log(f"{len(rows)} steps in {read_json(context.folder / 'training.json')['examples']} examples")
    for row in rows:
        values = {name: value for name, value in row.items() if name != "step" and value is not None}
        context.tracker.log(values, step=int(row["step"]))
