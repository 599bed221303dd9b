"""Learning rates: pure functions of the step, so that nothing of a schedule has to be saved."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

WSD_DECAY = 0.4
_ROUNDING = 1e-9


def set_rates(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Gives every group its own rate times `factor`; the first call takes the rates that the groups have as theirs."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


def rate(schedule: str, steps: int, warmup_ratio: float) -> Callable[[int], float]:
    """The factor of the learning rate at step 0 … steps - 1.

    Warm-up and decay as transformers' `get_scheduler` has them, but for the first step: it has the first fraction of
    the rise instead of rate zero, which would be a step without effect.
    """
    warmup = math.ceil(warmup_ratio * steps - _ROUNDING)

    def factor(step: int) -> float:
        # A scheduler asks once more after the last step: progress 1.
        progress = max(0, step - warmup) / max(1, steps - warmup)
        decay = {
            "constant": 1.0,
            "linear": 1 - progress,
            "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
            "wsd": min(1.0, (steps - step) / (WSD_DECAY * steps)),
        }[schedule]
        return min(1.0, (step + 1) / max(1, warmup)) * decay

    return factor
