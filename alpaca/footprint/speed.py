"""How long training takes, from counts of its operations and the rates of a machine."""

from __future__ import annotations

import bisect
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path

from alpaca.artifacts import write_json
from alpaca.footprint.gpus import Gpu
from alpaca.footprint.memory import Settings, state_bytes, trained
from alpaca.footprint.shape import Shape
from alpaca.footprint.work import Lengths, Work, is_packed
from alpaca.runtime import provenance
from alpaca.runtime.download import cache_folder

SWITCH = "ALPACA_CALIBRATE"
"""Environment: 0 leaves a CPU unmeasured, so that plans say nothing of its seconds."""
VERSION = 5
"""Of what is measured; a record of another version counts as missing."""
PACKED_UTILISATION, PADDED_UTILISATION = 0.5, 0.25
"""Guesses of the share of a GPU's peak that its matrix products reach."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """A CPU's seconds for the operations that training is made of, forward and backward together, in fp32."""

    widths: list[int]
    flops: list[float]
    """Per second of a layer without attention, its element-wise operations included, at these widths (ascending)."""
    call: float
    """Of attention's call for one run of equal segments, whatever its length."""
    pair: float
    """Of one query and key in attention, for each number of the query over all heads."""
    logit: float
    """Of one logit in softmax and loss."""
    logit_width: float
    """Of one logit in the head's products, for each number of the hidden state."""
    update: float
    """Of AdamW and clipping for one parameter."""

    def layer(self, width: int) -> float:
        """FLOP/s at a width, linear between those that were measured."""
        place = bisect.bisect_left(self.widths, width)
        if place == 0 or place == len(self.widths):
            return self.flops[min(place, len(self.widths) - 1)]
        low, high = self.widths[place - 1 : place + 1]
        share = (width - low) / (high - low)
        return self.flops[place - 1] * (1 - share) + self.flops[place] * share


def cpu_seconds(shape: Shape, work: Work, settings: Settings, rates: Rates) -> float:
    """Seconds of one optimizer step on a CPU."""
    again = 4 / 3 if settings.train.recompute == "full" else 1.0
    number = shape.heads * shape.head_size
    layer = 6 * work.tokens * shape.layer_matrices / rates.layer(shape.width)
    layer += work.runs * rates.call + work.pairs * number * rates.pair
    head = work.supervised * shape.vocabulary * (rates.logit + shape.width * rates.logit_width)
    return work.passes * (again * shape.layers * layer + head) + _update(shape, settings, rates)


def _update(shape: Shape, settings: Settings, rates: Rates) -> float:
    """The optimizer; Muon's iterations are products of each matrix with itself (five times three)."""
    seconds = trained(shape, settings.train) * rates.update
    if settings.optimizer.kind == "muon" and settings.train.adapter == "none":
        seconds += 5 * 6 * shape.width * shape.layers * shape.layer_matrices / rates.layer(shape.width)
    return seconds


def flops(shape: Shape, tokens: float, mean_length: float) -> float:
    """FLOP of training on so many tokens: 6 for each token and number of a matrix (the embedding is looked up, the head
    counts), and attention over half of each example (causal). After Chowdhery et al., arXiv 2204.02311, appendix B."""
    attention = 6 * shape.layers * shape.heads * shape.head_size * mean_length
    return tokens * (6 * shape.matrices + attention)


def mfu(shape: Shape, tokens_per_second: float, mean_length: float, gpu: Gpu) -> float:
    """Model FLOP utilisation of one GPU: FLOP of the real tokens over the dense 16-bit peak."""
    return flops(shape, tokens_per_second, mean_length) / (gpu.tflops * 1e12)


def gpu_seconds(shape: Shape, work: Work, settings: Settings, gpu: Gpu, lengths: Lengths) -> float:
    """Seconds of one optimizer step of one GPU: a guessed share of its peak, and the optimizer's traffic."""
    use = PACKED_UTILISATION if is_packed(settings.train) else PADDED_UTILISATION
    again = 4 / 3 if settings.train.recompute == "full" else 1.0
    computed = flops(shape, work.passes * work.tokens, lengths.mean) * again
    peak = gpu.tflops * 1e12
    if settings.precision.compute in ("fp32", "tf32"):
        peak /= 2 if settings.precision.compute == "tf32" and gpu.has_bf16 else 8
    elif settings.precision.compute == "fp8" and gpu.fp8_tflops:
        peak = (gpu.tflops + gpu.fp8_tflops) / 2 * 1e12  # what is no product stays in bf16
    number = 4 if settings.precision.parameters == "fp32" else 2
    moved = 2 * state_bytes(shape, settings) + 3 * number * trained(shape, settings.train)
    return computed / (peak * use) + moved / (gpu.bandwidth * 1e9)


def cached_rates(threads: int) -> Rates | None:
    """What was measured on this machine with this torch and so many threads, if anything was."""
    file = record(threads)
    try:
        return Rates(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return None


@lru_cache(maxsize=4)
def rates(threads: int) -> Rates | None:
    """As measured before; else measured now, in some seconds, by a process of its own. None: it cannot be measured."""
    found = cached_rates(threads)
    if found is not None or os.environ.get(SWITCH) == "0":
        return found
    print("measuring this processor once for the forecast of training (some seconds) ...", file=sys.stderr, flush=True)
    measure(threads)
    return cached_rates(threads)


def measure(threads: int) -> None:
    """Measures in a process of its own, and records; silent where that fails: a forecast is not worth an error."""
    command = [sys.executable, "-m", "alpaca.stages.train.calibrate", str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    try:
        subprocess.run(command, cwd=provenance.ROOT, env=environment, capture_output=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return


def record(threads: int) -> Path:
    """The file of this processor, number of threads and version of torch."""
    hardware = provenance.hardware()
    name = f"{hardware['processor']}-{hardware['cores']}cores-{threads}threads-torch{_torch()}-v{VERSION}"
    plain = "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in name)
    return cache_folder() / "calibration" / f"{plain}.json"


def keep(found: Rates, threads: int) -> None:
    """Writes the record."""
    file = record(threads)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, asdict(found))


@cache
def _torch() -> str:
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return "none"


def line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Height at zero and slope of the line through the first and the last point; through zero where it ends below."""
    (left, low), (right, high) = points[0], points[-1]
    slope = (high - low) / (right - left)
    height = low - slope * left
    return (height, slope) if height > 0 and slope > 0 else (0.0, high / right)
