"""Measures a CPU for the forecast of training: `python -m alpaca.stages.train.calibrate THREADS`, some seconds.

A few characteristic operations are timed, forward and backward, at the sizes at which training uses them; what they
take is kept in the cache for `alpaca.footprint.speed`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as nnf
from torch import nn

from alpaca.footprint import speed
from alpaca.footprint.shape import Shape
from alpaca.stages.train.attention import Segments, segment_attention
from alpaca.stages.train.loss import LinearNLL
from alpaca.stages.train.packing import Layout, Run

WIDTHS = (64, 128, 256, 512)
TOKENS = 1536
REPEATS = 5
HEADS, HEAD_SIZE, BEGINNING = 4, 32, 33
SHORT, LONG = 24, 320
"""Lengths of segments between which attention's time is taken to be a line in its pairs."""
VOCABULARY, POSITIONS = 4096, 512


def calibrate() -> speed.Rates:
    """Everything, with the threads that torch has now."""
    torch.manual_seed(0)
    layers = [_layer(width) for width in WIDTHS]
    (call, pair), (logit, logit_width) = _attention(), _logit()
    return speed.Rates(
        widths=list(WIDTHS),
        flops=layers,
        call=call,
        pair=pair,
        logit=logit,
        logit_width=logit_width,
        update=_update(),
    )


def seconds(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """The quickest of the repeats, after one that is not counted: other programs can only slow them down.

    Of one thread the processor's own seconds are counted, which are those of an idle machine.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    found = []
    for _ in range(repeats + 1):
        began = clock()
        work()
        found.append(clock() - began)
    return min(found[1:])


class _Layer(nn.Module):
    """A Llama layer without attention: norms, rotations, residuals and the gated feed-forward block."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.scales = nn.ParameterList([torch.ones(shape.width), torch.ones(shape.width)])
        self.inward = nn.ModuleList(nn.Linear(shape.width, shape.width, bias=False) for _ in range(3))
        self.outward = nn.Linear(shape.width, shape.width, bias=False)
        self.gate, self.up = (nn.Linear(shape.width, shape.feed_forward, bias=False) for _ in range(2))
        self.down = nn.Linear(shape.feed_forward, shape.width, bias=False)

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


def _layer(width: int) -> float:
    """FLOP/s of a layer without attention: products and what lies between them."""
    inner = width * 8 // 3 // 16 * 16  # other sizes are slower, and no model has them
    heads = width // HEAD_SIZE
    shape = Shape(
        layers=1, width=width, feed_forward=inner, heads=heads, kv_heads=heads, head_size=HEAD_SIZE,
        vocabulary=1, tied=True, gated=True,
    )  # fmt: skip
    layers, tokens = nn.ModuleList(_Layer(shape) for _ in range(2)), TOKENS * 256 // max(256, width)
    angles, slope = torch.randn(1, tokens, 1, HEAD_SIZE), torch.randn(1, tokens, width)

    def work() -> None:
        hidden = torch.randn(1, tokens, width, requires_grad=True)
        for layer in layers:
            hidden = layer(hidden, angles)
        hidden.backward(slope)  # type: ignore[no-untyped-call]

    return len(layers) * 6 * tokens * shape.layer_matrices / seconds(work)


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


def _logit() -> tuple[float, float]:
    """Seconds of a logit, and of one for each number of the hidden state."""
    points = [(float(width), _loss(width) / (POSITIONS * VOCABULARY)) for width in (128, 512)]
    return speed.line(points)


def _loss(width: int) -> float:
    hidden = torch.randn(POSITIONS, width, requires_grad=True)
    weight = torch.randn(VOCABULARY, width, requires_grad=True)
    targets = torch.randint(VOCABULARY, (POSITIONS,))

    def work() -> None:
        LinearNLL.apply(hidden, weight, None, targets, POSITIONS, True).backward()  # type: ignore[no-untyped-call]

    return seconds(work)


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
