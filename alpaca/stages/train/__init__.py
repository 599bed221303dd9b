"""Supervised fine-tuning: one plain PyTorch loop on Alpaca's templates, in one process or in ranks started here.

stage -> tokens (examples as ids) -> order (which step sees what) -> loop -> export
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from alpaca.artifacts import read_json
from alpaca.records import read_jsonl
from alpaca.runtime.distributed import inside_rank, launch_ranks, speaks_to_its_starter
from alpaca.runtime.tracking import relay

if TYPE_CHECKING:
    from alpaca.artifacts import Context
    from alpaca.config import TrainConfig

COST, SAID, LIVE = "cost.json", "said", "live.jsonl"
"""What rank 0 leaves for the process that started it: the numbers of `Context.cost`, its last line, and its steps."""


def run(config: TrainConfig, context: Context) -> None:
    """Fine-tunes the base model on the curated examples; writes model/, loss.jsonl and training.json.

    In `fsdp.world_size` processes where that is more than one and this is not yet one of them.
    """
    if config.fsdp.world_size > 1 and not inside_rank():
        command = [sys.executable, "-m", "alpaca.jobs", str(context.folder)]
        reader = relay.Reader(context.work / LIVE, context.tracker)

        def while_waiting() -> None:
            context.check()
            reader.look()

        launch_ranks(command, config.fsdp.world_size, while_waiting)
        reader.look()
        _take_over(context, reader.last)
        return
    if speaks_to_its_starter():
        context.tracker = relay.Sender(context.work / LIVE)
    from alpaca.stages.train.stage import run_here

    run_here(config, context)


def _take_over(context: Context, seen: int) -> None:
    """Gives this process's context what rank 0 could only leave in files: costs, and steps after the last one seen."""
    told = read_json(context.work / COST)
    context.said = told.pop(SAID)
    context.cost.update(told)
    for row in read_jsonl(context.folder / "loss.jsonl"):
        values = {name: value for name, value in row.items() if name != "step" and value is not None}
        if int(row["step"]) > seen:
            context.tracker.log(values, step=int(row["step"]))
