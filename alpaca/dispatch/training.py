"""The plan's line for a training stage: steps, tokens, time and memory, against what is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from alpaca.artifacts import find_folder, is_finished
from alpaca.config import Run, TinyModel, TrainConfig
from alpaca.dispatch import asking
from alpaca.footprint import GIB, Lengths, Outlook, outlook, shape_of
from alpaca.footprint.memory import gib, listed, told
from alpaca.footprint.outlook import lengths_of
from alpaca.footprint.speed import PACKED_UTILISATION, PADDED_UTILISATION, flops
from alpaca.footprint.work import is_packed, step_examples
from alpaca.plan import Node, Plan
from alpaca.records import read_jsonl
from alpaca.runtime.budget import Budget

CHARACTERS_PER_TOKEN = 4.2
TEMPLATE_CHARACTERS = 165
"""Of Alpaca's template around an instruction, in the mean of both."""
COUNTED = 2000
"""Examples whose lengths stand for all."""


def line(node: Node, plan: Plan, output: Path, threads: int) -> str:
    """Steps and tokens, FLOP, time and memory; what is not known is left out."""
    config: TrainConfig = node.config
    lengths = lengths_in(config, plan.nodes[node.parents["data"]], output)
    steps = steps_of(config, _examples(node, plan, output), lengths)
    unit = config.train.batch_unit
    if steps is None:
        return f"{Budget.parse(config.train.budget).canonical()} x batch {config.train.global_batch} {unit}"
    tokens = steps * step_examples(config.train, lengths) * lengths.mean
    parts = [f"{steps:,} steps x {config.train.global_batch} {unit}, {asking.short(tokens)} tokens"]
    shape, found = shape_of(config.model), outlook(config, threads=threads, lengths=lengths)
    if shape is not None and not isinstance(config.model, TinyModel):
        parts[0] += f", {flops(shape, tokens, lengths.mean):.1e} FLOP"
    if found is not None:
        parts += [*_time(config, found, steps), memory(config, found)]
    return "; ".join(parts)


def recorded(node: Node, plan: Plan, output: Path, threads: int) -> dict[str, float]:
    """The forecast as the report compares it: by the names of what the stage measures; {} where nothing is known."""
    config: TrainConfig = node.config
    lengths = lengths_in(config, plan.nodes[node.parents["data"]], output)
    found = outlook(config, threads=threads, lengths=lengths, may_measure=False)
    if found is None or found.assumed:
        return {}
    # On a GPU the tensors alone are measured, without what the driver takes.
    memory = found.memory.total - (found.memory.overhead if found.gpu else 0.0)
    seconds = {} if found.seconds is None else {"step_seconds": found.seconds}
    return {**seconds, "peak_memory_gib": memory / GIB}


def steps_of(config: TrainConfig, examples: int | None, lengths: Lengths) -> int | None:
    """Optimizer steps; None where the size of the data decides and is not known."""
    budget = Budget.parse(config.train.budget)
    if budget.unit != "steps" and examples is None:
        return None
    trained = max(1, (examples or 0) - config.train.holdout)
    return budget.steps(trained, max(1, round(step_examples(config.train, lengths))), lengths.mean)


def lengths_in(config: TrainConfig, data: Node, output: Path) -> Lengths:
    """By the characters of the curated examples where there are any, else what is usual."""
    usual = lengths_of(config)
    folder = find_folder(output, data.stage, data.slug, data.key)
    if isinstance(config.model, TinyModel) or not is_finished(folder):
        return usual
    rows = [row for row, _ in zip(read_jsonl(folder / "examples.jsonl"), range(COUNTED), strict=False)]
    answers = sum(len(row["output"]) for row in rows)
    prompts = sum(len(row["instruction"]) + len(row["input"]) + TEMPLATE_CHARACTERS for row in rows)
    if not rows:
        return usual
    mean = min(float(config.train.max_length), (answers + prompts) / CHARACTERS_PER_TOKEN / len(rows) + 1)
    return replace(usual, mean=max(mean, usual.shared_mean + 1), supervised=answers / (answers + prompts))


def _examples(node: Node, plan: Plan, output: Path) -> int | None:
    """Size of the training set as far as the plan knows it."""
    curate = plan.nodes[node.parents["data"]]
    size: int | None = curate.config.data.size
    return size if size is not None else asking.pool_size(plan.nodes[curate.parents["pool"]], output)


def _time(config: TrainConfig, found: Outlook, steps: int) -> list[str]:
    if found.seconds is None:
        return []
    seconds, processes = found.seconds * steps, config.fsdp.world_size
    if found.gpu is None:
        return [f"about {clock(seconds)} on this processor"]
    share = PACKED_UTILISATION if is_packed(config.train) else PADDED_UTILISATION
    where = f"{processes} GPUs {found.gpu.name}" if processes > 1 else f"a GPU {found.gpu.name}"
    note = ", if it had one (fsdp.gpu=NAME for another)" if found.assumed else ""
    return [f"about {clock(seconds)} on {where} at {share:.0%} of its peak (a guess){note}"]


def memory(config: Run | TrainConfig, found: Outlook) -> str:
    """The peak of one process by part, and what there is; beside a GPU from a GiB of host memory on."""
    text = f"{gib(found.memory.total)} GiB per process ({told(found.memory)})"
    if found.room is not None:
        place = f"on a GPU {found.gpu.name}" if found.gpu else "in this machine"
        text += f" of {gib(found.room)} {place}"
    host = found.memory.host_total
    return text if host < GIB else f"{text}, and {gib(host)} of host memory ({listed(found.memory.host)})"


def clock(seconds: float) -> str:
    """Seconds, minutes or hours, in two digits."""
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.2g} s" if seconds < 99.5 else f"{seconds:.0f} s"
