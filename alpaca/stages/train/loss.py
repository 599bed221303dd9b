"""The loss of the positions that bear one, from hidden states to nats, without a tensor of all logits."""

from __future__ import annotations

from typing import Any

import torch


class LinearNLL(torch.autograd.Function):
    """Sum of -log softmax(hidden @ weight.T + bias)[target], in chunks of positions.

    Gradients are computed with the loss, chunk by chunk, so that the logits of only one chunk exist and none are
    computed twice (the idea of Liger Kernel's fused linear cross-entropy, arXiv 2410.10989, in plain PyTorch).
    trains: whether a backward pass will follow. Shapes: hidden [S, D], weight [V, D], bias [V] or None, targets [S]
    -> scalar, at least in fp32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        chunk: int,
        trains: bool,
    ) -> torch.Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        total = hidden.new_zeros((), dtype=wide)
        # Told by the caller: gradients are always off in here, and inputs need them whether or not any are wanted.
        wanted = [trains and each for each in ctx.needs_input_grad[:3]]
        shapes = (hidden, weight, bias)
        kept = [
            torch.zeros_like(each, dtype=each.dtype if each is hidden else wide) if want and each is not None else None
            for each, want in zip(shapes, wanted, strict=True)
        ]
        for start in range(0, len(hidden), chunk):
            part, aims = hidden[start : start + chunk], targets[start : start + chunk].unsqueeze(1)
            logits = (part @ weight.t() if bias is None else torch.addmm(bias, part, weight.t())).to(wide)
            scale = logits.logsumexp(dim=1, keepdim=True)
            total += (scale - logits.gather(1, aims)).sum()
            if any(wanted):
                _add_gradients(kept, start, part, weight, _slope(logits, scale, aims, hidden.dtype))
        ctx.save_for_backward(*kept)
        ctx.dtypes = [None if each is None else each.dtype for each in shapes]
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        scaled = [
            None if each is None else each.mul_(gradients[0]).to(dtype)  # in place: nobody comes back for them
            for each, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return (*scaled, None, None, None)


def _slope(logits: torch.Tensor, scale: torch.Tensor, aims: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The loss's gradient by the logits, softmax minus one-hot; overwrites the logits."""
    slope = logits.sub_(scale).exp_()
    slope.scatter_add_(1, aims, torch.full_like(aims, -1, dtype=slope.dtype))
    return slope.to(dtype)


def _add_gradients(
    kept: list[torch.Tensor | None], start: int, part: torch.Tensor, weight: torch.Tensor, slope: torch.Tensor
) -> None:
    hidden, matrix, bias = kept
    if hidden is not None:
        torch.mm(slope, weight, out=hidden[start : start + len(part)])
    if matrix is not None and matrix.dtype == slope.dtype:
        matrix.addmm_(slope.t(), part)
    elif matrix is not None:
        matrix += slope.t() @ part
    if bias is not None:
        bias += slope.sum(0)
