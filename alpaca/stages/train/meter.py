"""How fast and how large training is: tokens per second, model FLOP utilisation, peak memory."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from alpaca.config import TrainConfig
from alpaca.footprint import gpus, shape_of, speed
from alpaca.runtime.distributed import Ranks
from alpaca.stages.train.tokens import Row

WARMUP_STEPS = 2
"""Steps that are left out of the rates: allocation, kernels chosen, compilation."""


@dataclass(kw_only=True, slots=True)
class Meter:
    """Seconds and tokens of each step of this start of the process."""

    device: torch.device
    seconds: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    _since: float = field(default_factory=time.monotonic)

    def start(self) -> None:
        """Before a step."""
        self._since = time.monotonic()

    def stop(self, tokens: int) -> float:
        """After a step of so many real tokens; returns tokens per second of this step."""
        self.seconds.append(time.monotonic() - self._since)
        self.tokens.append(tokens)
        return tokens / self.seconds[-1]

    def summary(self) -> dict[str, float]:
        """Over the steps after the first few; peak memory of this process in GiB (of its GPU where it has one)."""
        skipped = WARMUP_STEPS if len(self.seconds) > 2 * WARMUP_STEPS else 0
        seconds, tokens = self.seconds[skipped:], self.tokens[skipped:]
        if not seconds:
            return {}
        return {
            "train_seconds": sum(self.seconds),
            "tokens_per_second": sum(tokens) / sum(seconds),
            "step_seconds": statistics.median(seconds),
            "peak_memory_gib": peak_memory(self.device) / 2**30,
        }


def utilisation(config: TrainConfig, rows: Sequence[Row], ranks: Ranks, cost: dict[str, float]) -> dict[str, float]:
    """Model FLOP utilisation: FLOP of the real tokens (`footprint.speed.flops`) over the GPUs' dense bf16 peak.

    Recomputation, padding and sharing change neither count nor meaning. {} without a GPU that is in the table.
    """
    shape = shape_of(config.model)
    gpu = gpus.of_driver(torch.cuda.get_device_name(ranks.device)) if ranks.device.type == "cuda" else None
    if gpu is None or shape is None or "tokens_per_second" not in cost:
        return {}
    mean = sum(len(row.ids) for row in rows) / len(rows)
    return {"mfu": speed.mfu(shape, cost["tokens_per_second"] / ranks.world_size, mean, gpu)}


def peak_memory(device: torch.device) -> int:
    """Largest memory so far in bytes: allocated on the GPU, or resident on a CPU (imports and data included)."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    status = Path("/proc/self/status")
    if status.exists():  # getrusage's figure is inherited: a child of a large process would report its parent's
        kibibytes = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(kibibytes) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
