"""Measures a CPU for the forecast of training: `python -m alpaca.stages.train.calibrate THREADS`, some seconds.

A few characteristic operations are timed, forward and backward, at the sizes at which training uses them; what they
take is kept in the cache for `alpaca.footprint.speed`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as nnf
from torch import nn

from alpaca.footprint import speed
from alpaca.footprint.shape import Shape
from alpaca.stages.train.attention import Segments, segment_attention
from alpaca.stages.train.loss import LinearNLL
from alpaca.stages.train.packing import Layout, Run

WIDTHS = (128, 256, 512, 1024)
TOKENS = 2048
REPEATS = 5
HEADS, HEAD_SIZE, BEGINNING = 4, 32, 33
SHORT, LONG = 24, 320
"""Lengths of segments between which attention's time is taken to be a line in its pairs."""
VOCABULARY = 4096


def calibrate() -> speed.Rates:
    """Everything, with the threads that torch has now."""
    torch.manual_seed(0)
    products = [_products(width) for width in WIDTHS]
    call, pair = _attention()
    return speed.Rates(
        widths=list(WIDTHS),
        flops=products,
        element=_element(products[1]),
        call=call,
        pair=pair,
        logit=_logit(products[1]),
        update=_update(),
    )


def seconds(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median of the repeats, after one that is not counted."""
    found = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return median(found[1:])


def _products(width: int) -> float:
    """FLOP/s of a linear layer from `width` to 8/3 of it and back."""
    inner = width * 8 // 3 // 16 * 16  # as models have it: other sizes are slower
    layers = nn.Sequential(nn.Linear(width, inner, bias=False), nn.Linear(inner, width, bias=False))
    tokens = max(256, TOKENS * 256 // max(256, width))
    inputs, slope = torch.randn(1, tokens, width, requires_grad=True), torch.randn(1, tokens, width)
    took = seconds(lambda: layers(inputs).backward(slope))
    return 2 * 6 * tokens * width * inner / took


class _Layer(nn.Module):
    """A Llama layer without attention: norms, rotations, residuals and the gated feed-forward block."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape, size = shape, (shape.width, shape.feed_forward)
        self.scales = nn.ParameterList([torch.ones(shape.width), torch.ones(shape.width)])
        self.inward = nn.ModuleList(nn.Linear(shape.width, shape.width, bias=False) for _ in range(3))
        self.outward = nn.Linear(shape.width, shape.width, bias=False)
        self.gate, self.up = nn.Linear(*size, bias=False), nn.Linear(*size, bias=False)
        self.down = nn.Linear(*reversed(size), bias=False)

    def forward(self, hidden: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        normed = _normed(hidden, self.scales[0])
        query, key, value = (each(normed).unflatten(-1, (self.shape.heads, -1)) for each in self.inward)
        mixed = _turned(query, angles) + _turned(key, angles) + value
        hidden = hidden + self.outward(mixed.flatten(-2))
        normed = _normed(hidden, self.scales[1])
        result: torch.Tensor = hidden + self.down(nnf.silu(self.gate(normed)) * self.up(normed))
        return result


def _normed(hidden: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return scale * (hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + 1e-6))


def _turned(tensor: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    left, right = tensor.chunk(2, dim=-1)
    return tensor * angles.cos() + torch.cat((-right, left), dim=-1) * angles.sin()


def _element(product_rate: float) -> float:
    """What a layer takes beside its products, for each number that its element-wise operations write."""
    shape = Shape(
        layers=1, width=256, feed_forward=688, heads=8, kv_heads=8, head_size=32, vocabulary=1, tied=True, gated=True
    )
    layers = nn.ModuleList(_Layer(shape) for _ in range(2))
    angles, slope = torch.randn(1, TOKENS, 1, shape.head_size), torch.randn(1, TOKENS, shape.width)

    def work() -> None:
        hidden = torch.randn(1, TOKENS, shape.width, requires_grad=True)
        for layer in layers:
            hidden = layer(hidden, angles)
        hidden.backward(slope)

    beside = seconds(work) / len(layers) - 6 * TOKENS * shape.layer_matrices / product_rate
    return max(0.0, beside) / (TOKENS * speed.elements(shape))


def _attention() -> tuple[float, float]:
    """Seconds of a call, and of one pair for each number of the query."""
    points = []
    for length in (SHORT, LONG):
        # Neighbouring runs of nearly equal length behind one beginning, as packing lays them out.
        runs = tuple(Run(1, length + extra, 0) for extra in range(6))
        layout = Layout(prefixes=(BEGINNING,), runs=runs)
        query, key, value = (
            torch.randn(1, HEADS, layout.tokens, HEAD_SIZE, requires_grad=True) for _ in range(3)
        )
        segments, slope = Segments(layout=layout), torch.randn(1, layout.tokens, HEADS, HEAD_SIZE)

        def work(
            query: torch.Tensor = query,
            key: torch.Tensor = key,
            value: torch.Tensor = value,
            segments: Segments = segments,
            slope: torch.Tensor = slope,
        ) -> None:
            segment_attention(None, query, key, value, None, segments=segments)[0].backward(slope)  # type: ignore[no-untyped-call]

        pairs = sum(run.length * (run.length / 2 + BEGINNING) for run in runs) / len(runs)
        points.append((pairs, seconds(work) / (len(runs) + 1)))
    call, slope_of_pairs = speed.line(points)
    return call, slope_of_pairs / (HEADS * HEAD_SIZE)


def _logit(product_rate: float) -> float:
    """What the loss takes beside the head's products, for each logit."""
    width, positions = 256, 1024
    hidden = torch.randn(positions, width, requires_grad=True)
    weight = torch.randn(VOCABULARY, width, requires_grad=True)
    targets = torch.randint(VOCABULARY, (positions,))
    took = seconds(lambda: LinearNLL.apply(hidden, weight, None, targets, positions).backward(), 3)  # type: ignore[no-untyped-call]
    beside = took - 6 * positions * VOCABULARY * width / product_rate
    return max(0.0, beside) / (positions * VOCABULARY)


def _update() -> float:
    """AdamW with the norm and the clipping before it, for each parameter."""
    weights = [nn.Parameter(torch.randn(512, 512)) for _ in range(6)]
    optimizer = torch.optim.AdamW(weights, lr=1e-5)
    for weight in weights:
        weight.grad = torch.randn_like(weight)

    def work() -> None:
        torch.nn.utils.clip_grad_norm_(weights, 0.5)
        optimizer.step()

    return seconds(work) / sum(weight.numel() for weight in weights)


def main() -> None:
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    torch.set_num_threads(threads)
    speed.keep(calibrate(), threads)


if __name__ == "__main__":
    main()
