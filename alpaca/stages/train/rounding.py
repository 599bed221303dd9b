"""Writing fp32 results into tensors of fewer bits."""

from __future__ import annotations

import torch

_LOST = 16
"""Bits by which fp32's mantissa is longer than bf16's; sign and exponent are the same."""


def write(target: torch.Tensor, source: torch.Tensor, stochastic: bool) -> None:
    """Copies source (fp32) into target, rounded to target's format: to the nearest number, or stochastically to bf16.

    A target in fp32 is an exact copy either way.
    """
    target.copy_(stochastically(source) if stochastic and target.dtype == torch.bfloat16 else source)


def stochastically(source: torch.Tensor) -> torch.Tensor:
    """source (fp32) rounded to one of its two neighbours in bf16, still as fp32; its expectation is source itself.

    The probability of a neighbour is one minus its distance in steps. Numbers that bf16 has stay as they are, and so do
    infinities and NaN. The noise comes from torch's global generator of the tensor's device.
    """
    bits = source.view(torch.int32)
    noise = torch.randint_like(bits, 0, 1 << _LOST)
    rounded = ((bits + noise) & -(1 << _LOST)).view(torch.float32)
    # The noise would carry a NaN of all ones, as GPUs make them, over into minus zero.
    return torch.where(source.isfinite(), rounded, source)
