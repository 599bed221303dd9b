"""What one stage is expected to take, before it starts: time, a teacher's tokens, GPU-hours and money."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from alpaca.config import TinyModel
from alpaca.dispatch import asking, training
from alpaca.dispatch.earlier import Earlier
from alpaca.plan import Node, Plan
from alpaca.teachers.prices import GpuPrices

HOUR = 3600.0


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
    answers: bool = False
    """Whether it generates with a model that wants a GPU, which is not forecast before one ran."""

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
        return _training(node, plan, earlier, threads, may_measure)
    asked = asking.asked(node, plan, earlier.output)
    return Expectation(
        seconds=before,
        before=before is not None,
        asks=asked is not None,
        tokens=asked.tokens if asked else None,
        teacher_usd=asked.usd if asked else None,
        answers=node.stage == "respond" and not is_tiny(node, plan),
    )


def _training(node: Node, plan: Plan, earlier: Earlier, threads: int, may_measure: bool) -> Expectation:
    before = earlier.seconds(node, plan)
    found = training.expected(node, plan, earlier.output, threads, may_measure=may_measure)
    return Expectation(
        seconds=found.seconds if before is None else before,
        before=before is not None,
        gpu=found.gpu,
        gpus=node.config.fsdp.world_size,
    )


def is_tiny(node: Node, plan: Plan) -> bool:
    """Whether the model of this stage, or of the training before it, is one of the embedded world."""
    above = [plan.nodes[key] for key in node.parents.values()]
    return any(isinstance(getattr(each.config, "model", None), TinyModel) for each in (node, *above))
