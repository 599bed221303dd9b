"""The gradient of one global batch: accumulated over passes and processes, measured, scaled."""

from __future__ import annotations

import math

import torch
from torch import nn

from alpaca.stages.train.batches import Form, collate, passes
from alpaca.stages.train.parallel import Placed
from alpaca.stages.train.tokens import Row

EPSILON = 1e-6
"""As in torch.nn.utils.clip_grad_norm_."""


def accumulate(placed: Placed, rows: list[Row], form: Form, *, scale: float = 1.0) -> torch.Tensor:
    """Adds the gradient of the mean NLL per supervised token of the whole global batch; returns that mean.

    The sum over each pass is divided by the token count of the whole batch, so neither the form, nor the cut into
    passes, nor the number of processes changes the result (a mean of means would weigh short examples more; see
    transformers issue 34242). scale: factor of the gradient, not of what is returned.
    """
    ranks, total = placed.ranks, sum(row.supervised for row in rows)
    share = passes(rows, form, ranks.rank, ranks.world_size)
    loss = torch.zeros((), device=ranks.device)
    for index, each in enumerate(share):
        batch = collate(each, form, ranks.device)
        with placed.accumulating(last=index == len(share) - 1):
            with placed.autocast():
                mean = placed.forward(batch) / total
            # DDP and FSDP average gradients over the processes, where the sum is wanted.
            (mean * (ranks.world_size * scale)).backward()  # type: ignore[no-untyped-call]
        loss = loss + mean.detach()
    return ranks.sum(loss)


def norm(model: nn.Module) -> float:
    """Norm of the whole gradient. Every rank must call it."""
    found = torch.nn.utils.get_total_norm(_gradients(model))
    return float(found.full_tensor() if hasattr(found, "full_tensor") else found)


def rescale(model: nn.Module, norm: float, largest: float | None, scale: float) -> None:
    """Takes the loss scale out of the gradient and clips it. norm: without the scale; largest: null clips nothing."""
    clipped = 1.0 if largest is None else min(1.0, largest / (norm + EPSILON))
    factor = clipped / scale
    if factor != 1.0 and math.isfinite(factor):
        torch._foreach_mul_(_gradients(model), factor)


def _gradients(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
