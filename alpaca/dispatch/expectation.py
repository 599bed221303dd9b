"""What one stage is expected to take, before it starts: time, a teacher's tokens, GPU-hours and money."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpaca.config import EvalSource, Model, RespondConfig, TinyModel, TrainConfig
from alpaca.dispatch import asking, training
from alpaca.dispatch.earlier import Earlier
from alpaca.footprint import Gpu, outlook, shape_of
from alpaca.plan import Node, Plan
from alpaca.teachers.prices import GpuPrices

HOUR = 3600.0
WEIGHT_BYTES = 4
"""Of one number: models answer in fp32, whatever they were trained in (`alpaca.generation`)."""
BANDWIDTH_SHARE = 0.5
"""Of a GPU's published bandwidth that decoding reaches: a guess."""

START_SECONDS = 8.0
"""From the start of a process to its first step, imports above all: as seen on two cores. A guess elsewhere."""
DISK = 1e9
"""Bytes a second by which weights of two bytes are read and written: a guess."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Expectation:
    """None wherever nobody knows."""

    seconds: float | None = None
    before: bool = False
    """Whether the time is that of stages which ran before."""
    asks: bool = False
    """Whether a teacher is asked."""
    tokens: int | None = None
    """That a teacher will be sent and will answer."""
    teacher_usd: float | None = None
    gpu: str | None = None
    """The kind that it runs on; None: a processor, or not known."""
    gpus: int = 1
    untimed: bool = False
    """Whether it may take a GPU for a time that nobody knows."""

    @property
    def gpu_hours(self) -> float | None:
        """Of all its GPUs together."""
        return None if self.gpu is None or self.seconds is None else self.seconds * self.gpus / HOUR

    def recorded(self, prices: GpuPrices) -> dict[str, Any]:
        """What is kept with the stage, for the page to compare."""
        price = prices.usd_per_hour.get(self.gpu or "")
        gpu = {"gpu": self.gpu, "gpu_hours": self.gpu_hours, "usd_per_gpu_hour": price} if self.gpu else {}
        found = {"seconds": self.seconds, "tokens": self.tokens, "teacher_usd": self.teacher_usd, **gpu}
        return {name: value for name, value in found.items() if value is not None}


def expect(node: Node, plan: Plan, earlier: Earlier, threads: int, may_measure: bool = True) -> Expectation:
    """threads: of a process on a CPU. may_measure: whether a CPU that was never measured is, for some seconds."""
    before = earlier.seconds(node, plan)
    if node.stage == "train":
        found = training.expected(node, plan, earlier.output, threads, may_measure=may_measure)
        return _training(node.config, found, before)
    if node.stage == "respond":
        return _answers(node, plan, before)
    asked = asking.asked(node, plan, earlier.output)
    return Expectation(
        seconds=before,
        before=before is not None,
        asks=asked is not None,
        tokens=asked.tokens if asked else None,
        teacher_usd=asked.usd if asked else None,
    )


def _training(config: TrainConfig, found: training.Expected, before: float | None) -> Expectation:
    guess = None if found.seconds is None else found.seconds + beside_steps(config.model, passes=2)
    seconds = guess if before is None else before
    return Expectation(
        seconds=seconds,
        before=before is not None,
        gpu=found.gpu,
        gpus=config.fsdp.world_size,
        untimed=seconds is None and not isinstance(config.model, TinyModel),
    )


def _answers(node: Node, plan: Plan, before: float | None) -> Expectation:
    """On one GPU of the kind that the training before it runs on; on a processor the time is not guessed."""
    train = plan.nodes[node.parents["model"]].config
    found = outlook(train, may_measure=False)
    gpu = found.gpu if found else None
    seconds = before if before is not None or gpu is None else decoding_seconds(node.config, train.model, gpu)
    on_processor = found is not None and gpu is None
    return Expectation(
        seconds=seconds,
        before=before is not None,
        gpu=gpu.name if gpu else None,
        untimed=seconds is None and not on_processor and not isinstance(train.model, TinyModel),
    )


def beside_steps(model: Model, passes: int) -> float:
    """Of a stage's start, and of its weights through the disk. passes: 2 where they are read and written."""
    shape = shape_of(model)
    return START_SECONDS + (passes * 2 * shape.parameters / DISK if shape else 0.0)


def decoding_seconds(config: RespondConfig, model: Model, gpu: Gpu) -> float | None:
    """A guess by memory bandwidth; None where the number of items or the model's shape is not known.

    Every step of decoding reads all weights once for its whole batch (Pope et al., arXiv 2211.05102). That each batch
    goes on to max_new_tokens is too much; prompts and the cache of keys and values are left out.
    """
    items, shape = items_of(config), shape_of(model)
    if items is None or shape is None:
        return None
    steps = math.ceil(items / config.responses.batch) * config.responses.max_new_tokens
    decoding = steps * shape.matrices * WEIGHT_BYTES / (gpu.bandwidth * 1e9 * BANDWIDTH_SHARE)
    return decoding + beside_steps(model, passes=1)


def items_of(source: EvalSource) -> int | None:
    """Items of an evaluation that are answered; None where the set alone knows."""
    return whole_set(source) if source.size is None else source.size


def whole_set(source: EvalSource) -> int | None:
    """All items of a set: the lines of a file of the user's own, else what its configuration says."""
    if source.path is None:
        return source.items
    file = Path(source.path).expanduser()
    return sum(bool(line.strip()) for line in file.read_bytes().split(b"\n")) if file.is_file() else None
