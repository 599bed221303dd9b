"""Stochastic gradient descent with decoupled weight decay; torch's adds it to the gradient, and so to the momentum."""

from __future__ import annotations

from typing import Any

import torch

from alpaca.stages.train.elementwise import Elementwise, Group, flat, kernel
from alpaca.stages.train.rounding import write


class SGD(Elementwise):
    """SGD with momentum as torch.optim.SGD has it, decay as AdamW has it; arithmetic and momentum are in fp32.

    stochastic: how results reach weights in bf16, else to the nearest.
    """

    def __init__(
        self, params: Any, *, lr: float, momentum: float = 0.9, weight_decay: float = 0.0, stochastic: bool = False
    ) -> None:
        self.stochastic = stochastic
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def fresh(self, parameter: torch.Tensor, group: Group) -> dict[str, torch.Tensor]:
        """The momentum, of the parameter's shape; nothing where there is none."""
        return {"momentum_buffer": torch.zeros_like(parameter, dtype=torch.float32)} if group["momentum"] else {}

    def numbers(self, group: Group, step: float) -> list[float]:
        """Share of the weight that is kept, and the rate."""
        return [1 - group["lr"] * group["weight_decay"], group["lr"]]

    def update(
        self,
        weight: torch.Tensor,
        gradient: torch.Tensor,
        states: dict[str, torch.Tensor],
        numbers: torch.Tensor,
        group: Group,
    ) -> None:
        """Changes weight and momentum in place."""
        tensors = flat([weight, gradient, *states.values()])
        kernel(update, weight)(numbers, *tensors, momentum=group["momentum"], stochastic=self.stochastic)


def update(
    numbers: torch.Tensor,
    weight: torch.Tensor,
    gradient: torch.Tensor,
    moving: torch.Tensor | None = None,
    *,
    momentum: float,
    stochastic: bool,
) -> None:
    """One step on one parameter, in place. moving: the momentum, fp32, of the weight's shape."""
    kept, rate = numbers.unbind()
    direction = gradient.float()
    if moving is not None:
        direction = moving.mul_(momentum).add_(direction)
    write(weight, weight.float().mul_(kept).sub_(direction * rate), stochastic)
