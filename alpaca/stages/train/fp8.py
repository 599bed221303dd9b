"""Linear layers whose three matrix products run in 8 bits (Micikevicius et al., arXiv 2209.05433).

Weights and inputs in e4m3 (more precision), gradients in e5m2 (more range), each tensor scaled so that its largest
number fills the format; sums and results in bf16. The weights themselves stay as they are stored.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as nnf
from torch import nn

FORWARD, BACKWARD = torch.float8_e4m3fn, torch.float8_e5m2
MULTIPLE = 16
"""Of every side of a matrix that the 8-bit kernels take."""
SMALLEST = 1e-12


class Float8Linear(nn.Linear):
    """nn.Linear in the formats above; the same parameters under the same names."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        rows = input.flatten(0, -2)
        filled = nnf.pad(rows, (0, 0, 0, -len(rows) % MULTIPLE))
        product: torch.Tensor = ScaledProduct.apply(filled, self.weight)  # type: ignore[no-untyped-call]
        output = product[: len(rows)].reshape(*input.shape[:-1], -1)
        return output if self.bias is None else output + self.bias.to(output.dtype)


def replace_linear(module: nn.Module, kept: nn.Module | None) -> int:
    """Turns the linear layers below `module` into Float8Linear, in place; returns how many.

    kept: the output head, whose logits decide; layers whose sides are no multiples of 16 stay too.
    """
    count = 0
    for child in module.modules():
        fits = isinstance(child, nn.Linear) and not (child.in_features % MULTIPLE or child.out_features % MULTIPLE)
        if fits and type(child) is nn.Linear and child is not kept:
            child.__class__ = Float8Linear
            count += 1
    return count


class ScaledProduct(torch.autograd.Function):
    """input [M, K] @ weight [N, K].T -> [M, N] in bf16, and both gradients, in 8 bits. M, K, N: multiples of 16."""

    @staticmethod
    def forward(ctx: Any, input: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        (left, left_scale), (right, right_scale) = _quantised(input, FORWARD), _quantised(weight, FORWARD)
        ctx.save_for_backward(left, left_scale, right, right_scale)
        ctx.dtypes = input.dtype, weight.dtype
        return _product(left, right.t(), left_scale, right_scale)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        left, left_scale, right, right_scale = ctx.saved_tensors
        slope, scale = _quantised(gradients[0], BACKWARD)
        by_input = _product(slope, _by_columns(right), scale, right_scale)
        by_weight = _product(slope.t().contiguous(), _by_columns(left), scale, left_scale)
        return by_input.to(ctx.dtypes[0]), by_weight.to(ctx.dtypes[1])


def _quantised(tensor: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """The tensor in 8 bits, and the fp32 scale that gives it back."""
    scale = (tensor.abs().amax().float() / torch.finfo(dtype).max).clamp_min(SMALLEST)
    return (tensor.float() / scale).to(dtype).contiguous(), scale


def _by_columns(matrix: torch.Tensor) -> torch.Tensor:
    """The same matrix with its columns contiguous, as the kernels want the right factor."""
    return matrix.t().contiguous().t()


def _product(left: torch.Tensor, right: torch.Tensor, left_by: torch.Tensor, right_by: torch.Tensor) -> torch.Tensor:
    return torch._scaled_mm(left, right, scale_a=left_by, scale_b=right_by, out_dtype=torch.bfloat16)
