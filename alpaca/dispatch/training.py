"""The plan's line for a training stage: steps, tokens, time and memory, against what is there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from alpaca.artifacts import find_folder, is_finished
from alpaca.config import Run, TinyModel, TrainConfig
from alpaca.dispatch import asking
from alpaca.footprint import GIB, Gpu, Lengths, Outlook, outlook, shape_of
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
    parts, found = [_amount(config, steps, lengths)], outlook(config, threads=threads, lengths=lengths)
    if found is not None:
        parts += [*_time(config, found, steps, lengths), memory(config, found)]
    return "; ".join(parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """Of a whole training. seconds: None where it is not known; gpu: the kind it runs on, None: a processor."""

    seconds: float | None
    gpu: str | None


def expected(node: Node, plan: Plan, output: Path, threads: int, may_measure: bool = True) -> Expected:
    """How long a training will take, and on what. may_measure: see `outlook`."""
    config: TrainConfig = node.config
    lengths = lengths_in(config, plan.nodes[node.parents["data"]], output)
    steps = steps_of(config, _examples(node, plan, output), lengths)
    found = outlook(config, threads=threads, lengths=lengths, may_measure=may_measure)
    if found is None:
        return Expected(seconds=None, gpu=None)
    seconds = None if steps is None or found.seconds is None else steps * found.seconds
    return Expected(seconds=seconds, gpu=found.gpu.name if found.gpu else None)


def _amount(config: TrainConfig, steps: int | None, lengths: Lengths) -> str:
    """Steps, tokens and FLOP; the budget as it was given where the number of examples is not known yet."""
    batch = f"{config.train.global_batch} {config.train.batch_unit}"
    if steps is None:
        return f"{Budget.parse(config.train.budget).canonical()} x batch {batch}"
    tokens, shape = steps * step_examples(config.train, lengths) * lengths.mean, shape_of(config.model)
    text = f"{steps:,} steps x {batch}, {asking.short(tokens)} tokens"
    if shape is None or isinstance(config.model, TinyModel):
        return text
    return f"{text}, {flops(shape, tokens, lengths.mean):.1e} FLOP"


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


def _time(config: TrainConfig, found: Outlook, steps: int | None, lengths: Lengths) -> list[str]:
    """Of the whole training, or of a step where the number of steps is not known."""
    compute = config.precision.compute
    if found.seconds is None:
        return [f"time not known for {compute} on a CPU"] if found.gpu is None and compute != "fp32" else []
    took = f"about {clock(found.seconds)} a step" if steps is None else f"about {clock(found.seconds * steps)}"
    if found.gpu is None:
        return [f"{took} on this processor"]
    return [f"{took} on {_gpus(found.gpu, config.fsdp.world_size, found.assumed)}{_once(config, lengths)}"]


def _gpus(gpu: Gpu, processes: int, assumed: bool) -> str:
    """Which and how many, and where they come from if they are neither here nor named."""
    which, other = (f"{processes} GPUs {gpu.name}", "others") if processes > 1 else (f"a GPU {gpu.name}", "another")
    return f"{which} (assumed; fsdp.gpu=NAME for {other})" if assumed else which


def _once(config: TrainConfig, lengths: Lengths) -> str:
    """At which speed, and why the time is shorter than the FLOP at that speed."""
    packed = is_packed(config.train)
    text = f" at {PACKED_UTILISATION if packed else PADDED_UTILISATION:.0%} of peak (a guess)"
    shared = packed and config.train.shared_prefix and bool(lengths.shared)
    return text + (", the template's tokens computed once per pass" if shared else "")


def memory(config: Run | TrainConfig, found: Outlook) -> str:
    """The peak of one process by part, and what there is; beside a GPU from a GiB of host memory on."""
    text = f"{gib(found.memory.total)} GiB per process ({told(found.memory)})"
    if found.room is not None:
        place = f"on a GPU {found.gpu.name}" if found.gpu else "in this machine"
        text += f" of {gib(found.room)} {place}{', which is too little' if found.memory.total > found.room else ''}"
    host = found.memory.host_total
    return text if host < GIB else f"{text}, and {gib(host)} of host memory ({listed(found.memory.host)})"


def clock(seconds: float) -> str:
    """Seconds, minutes or hours, in two digits."""
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.2g} s" if seconds < 99.5 else f"{seconds:.0f} s"
