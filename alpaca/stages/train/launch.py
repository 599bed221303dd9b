"""One process or many: the stage's body runs here, or in ranks that are started here. Imports no torch itself."""

from __future__ import annotations

import sys

from alpaca.artifacts import Context, read_json
from alpaca.config import TrainConfig
from alpaca.runtime.distributed import inside_rank, launch_ranks

COST = "cost.json"


def run_everywhere(config: TrainConfig, context: Context) -> None:
    """Runs the body, in `fsdp.world_size` processes where that is more than one and this is not yet one of them."""
    if config.fsdp.world_size > 1 and not inside_rank():
        command = [sys.executable, "-m", "alpaca.jobs", str(context.folder)]
        launch_ranks(command, config.fsdp.world_size, context.check)
        if (context.work / COST).exists():  # rank 0 cannot reach this process's context
            context.cost.update(read_json(context.work / COST))
        return
    from alpaca.stages.train.stage import run_here

    run_here(config, context)
