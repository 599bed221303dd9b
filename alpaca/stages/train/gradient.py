"""The gradient of a step: its norm over all processes, and the factor that clips and unscales it."""

from __future__ import annotations

import math

import torch
from torch import nn

EPSILON = 1e-6
"""As in torch.nn.utils.clip_grad_norm_."""


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
