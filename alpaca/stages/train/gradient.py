"""The gradient of a step: its norm over all processes, and the factor that clips and unscales it."""

from __future__ import annotations

import math

import torch
from torch import nn

EPSILON = 1e-6
"""As in torch.nn.utils.clip_grad_norm_."""


def norm(model: nn.Module) -> float:
    """Norm of the whole gradient. Every rank must call it."""
    # In fp32 whatever the gradients are in: summed in bf16, the norm itself would be off by half a percent.
    each = [torch.linalg.vector_norm(gradient, dtype=_wide(gradient)) for gradient in _gradients(model)]
    found = torch.linalg.vector_norm(torch.stack(each))
    return float(found.full_tensor() if hasattr(found, "full_tensor") else found)


def rescale(model: nn.Module, norm: float, largest: float | None, scale: float) -> None:
    """Takes the loss scale out of the gradient and clips it. norm: without the scale; largest: null clips nothing."""
    clipped = 1.0 if largest is None else min(1.0, largest / (norm + EPSILON))
    factor = clipped / scale
    if factor != 1.0 and math.isfinite(factor):
        torch._foreach_mul_(_gradients(model), factor)


def _wide(tensor: torch.Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _gradients(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
