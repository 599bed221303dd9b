"""AdamW with fewer bits: weights and states in bf16 with stochastic rounding, or states of eight bits."""

from __future__ import annotations

import math
from typing import Any

import torch

from alpaca.stages.train import blockwise
from alpaca.stages.train.elementwise import Elementwise, Group, flat, kernel
from alpaca.stages.train.rounding import write

SMALLEST = 4096
"""Parameters of fewer numbers keep states in fp32: they are most sensitive and cost nothing."""


class LowPrecisionAdamW(Elementwise):
    """AdamW (arXiv 1711.05101) on weights and states in fp32 or bf16; all arithmetic is in fp32.

    states: format of the two states; stochastic: how results reach what is in bf16, else to the nearest.
    The update takes the states before they are rounded.
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        states: torch.dtype = torch.float32,
        stochastic: bool = False,
    ) -> None:
        self.format, self.stochastic = states, stochastic
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def fresh(self, parameter: torch.Tensor, group: Group) -> dict[str, torch.Tensor]:
        """Both moments, of the parameter's shape."""
        return {name: torch.zeros_like(parameter, dtype=self.format) for name in ("exp_avg", "exp_avg_sq")}

    def numbers(self, group: Group, step: float) -> list[float]:
        """Share of the weight that is kept, step size, and what the root of the second moment is multiplied by."""
        beta1, beta2 = group["betas"]
        size = group["lr"] / (1 - beta1**step)
        return [1 - group["lr"] * group["weight_decay"], size, 1 / math.sqrt(1 - beta2**step)]

    def update(
        self,
        weight: torch.Tensor,
        gradient: torch.Tensor,
        states: dict[str, torch.Tensor],
        numbers: torch.Tensor,
        group: Group,
    ) -> None:
        """Changes weight, exp_avg and exp_avg_sq in place."""
        tensors = flat([weight, gradient, states["exp_avg"], states["exp_avg_sq"]])
        kernel(update, weight)(*tensors, numbers, **self._constants(group))

    def _constants(self, group: Group) -> dict[str, Any]:
        return {"betas": group["betas"], "eps": group["eps"], "stochastic": self.stochastic}


class AdamW8bit(LowPrecisionAdamW):
    """AdamW whose states are of eight bits, scaled by blocks of `block` neighbours in a row (`blockwise`).

    Vectors, parameters of fewer than SMALLEST numbers and groups with block=None keep states in fp32: the paper keeps
    embeddings so, whose rows have gradients of very different size.
    """

    def __init__(self, params: Any, *, lr: float, block: int | None = 256, **options: Any) -> None:
        given = list(params)
        groups = given if isinstance(given[0], dict) else [{"params": given}]
        super().__init__([{"block": block, **each} for each in groups], lr=lr, **options)

    def fresh(self, parameter: torch.Tensor, group: Group) -> dict[str, torch.Tensor]:
        """Codes of the parameter's shape, and one scale per block."""
        if group["block"] is None or parameter.ndim < 2 or parameter.numel() < SMALLEST:
            return super().fresh(parameter, group)
        made = {}
        for name in ("exp_avg", "exp_avg_sq"):
            made[name] = torch.zeros_like(parameter, dtype=torch.uint8, memory_format=torch.contiguous_format)
            made[f"{name}_scale"] = blockwise.scales_like(parameter, group["block"])
        return made

    def update(
        self,
        weight: torch.Tensor,
        gradient: torch.Tensor,
        states: dict[str, torch.Tensor],
        numbers: torch.Tensor,
        group: Group,
    ) -> None:
        """Changes weight, codes and scales in place."""
        if "exp_avg_scale" not in states:
            return super().update(weight, gradient, states, numbers, group)
        originals = [weight, gradient, states["exp_avg"], states["exp_avg_sq"]]
        blocked = [blockwise.blocks(each, group["block"]) for each in originals]
        scales = [states[f"{name}_scale"].view(-1) for name in ("exp_avg", "exp_avg_sq")]
        tables = blockwise.tables(weight.device)
        kernel(update_8bit, weight)(*blocked, *scales, numbers, tables, **self._constants(group))
        for index in (0, 2, 3):
            blockwise.unblock(originals[index], blocked[index])
        return None


def update(
    weight: torch.Tensor,
    gradient: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    numbers: torch.Tensor,
    *,
    betas: tuple[float, float],
    eps: float,
    stochastic: bool,
) -> None:
    """One step on one parameter, in place. All tensors but numbers (see `LowPrecisionAdamW.numbers`) are of one shape.

    first, second: the moments, fp32 or bf16.
    """
    mean, square = first.float(), second.float()  # what is in fp32 already is changed in place
    _advance(weight, gradient, mean, square, numbers, betas=betas, eps=eps, stochastic=stochastic)
    write(first, mean, stochastic)
    write(second, square, stochastic)


def update_8bit(
    weight: torch.Tensor,
    gradient: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    first_scale: torch.Tensor,
    second_scale: torch.Tensor,
    numbers: torch.Tensor,
    tables: tuple[blockwise.Table, blockwise.Table],
    *,
    betas: tuple[float, float],
    eps: float,
    stochastic: bool,
) -> None:
    """One step on one parameter, in place. Weight, gradient and codes are (count, block), scales (count)."""
    signed, unsigned = tables
    mean = blockwise.dequantise(first, first_scale, signed)
    square = blockwise.dequantise(second, second_scale, unsigned)
    _advance(weight, gradient, mean, square, numbers, betas=betas, eps=eps, stochastic=stochastic)
    _store(first, first_scale, mean, signed)
    _store(second, second_scale, square, unsigned)


def _store(codes: torch.Tensor, scales: torch.Tensor, moment: torch.Tensor, table: blockwise.Table) -> None:
    for target, source in zip((codes, scales), blockwise.quantise(moment, table), strict=True):
        target.copy_(source)


def _advance(
    weight: torch.Tensor,
    gradient: torch.Tensor,
    mean: torch.Tensor,
    square: torch.Tensor,
    numbers: torch.Tensor,
    *,
    betas: tuple[float, float],
    eps: float,
    stochastic: bool,
) -> None:
    """The moments (fp32) and the weight go one step on, in place."""
    kept, size, correction = numbers.unbind()
    gradient = gradient.float()
    mean.lerp_(gradient, 1 - betas[0])
    square.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    spread = square.sqrt().mul_(correction).add_(eps)
    write(weight, weight.float().mul_(kept).sub_((mean / spread).mul_(size)), stochastic)
