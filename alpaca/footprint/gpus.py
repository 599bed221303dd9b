"""Published figures of GPUs, and which one this machine has; found without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

from alpaca.runtime import provenance


@dataclass(frozen=True, slots=True)
class Gpu:
    """One kind of GPU by its vendor's data sheet."""

    name: str
    memory_gib: float
    """As its driver tells it (nvidia-smi), which is less than the name says."""
    tflops: float
    """Dense matrix products with 16-bit operands and fp32 sums, 1e12 operations per second."""
    fp8_tflops: float | None
    """The same with 8-bit operands; None: not made for it."""
    bandwidth: float
    """GB/s between memory and chip."""
    capability: tuple[int, int]
    """CUDA compute capability."""
    words: tuple[str, ...]
    """What the driver's name of it holds."""

    @property
    def has_bf16(self) -> bool:
        """bf16 and tf32 in its matrix units (from Ampere on)."""
        return self.capability >= (8, 0)

    @property
    def has_fp8(self) -> bool:
        """fp8 in its matrix units (from Ada and Hopper on)."""
        return self.capability >= (8, 9)


# Data sheets of the vendor: SXM variants where there are several; RTX from the GA102 and Ada whitepapers.
GPUS = (
    Gpu("V100-16GB", 16.0, 125, None, 900, (7, 0), ("V100", "16GB")),
    Gpu("V100-32GB", 32.0, 125, None, 900, (7, 0), ("V100", "32GB")),
    Gpu("T4", 15.0, 65, None, 320, (7, 5), ("T4",)),
    Gpu("A10", 22.5, 125, None, 600, (8, 6), ("A10",)),
    Gpu("A100-40GB", 40.0, 312, None, 1555, (8, 0), ("A100", "40GB")),
    Gpu("A100-80GB", 80.0, 312, None, 2039, (8, 0), ("A100", "80GB")),
    Gpu("L4", 22.5, 121, 242, 300, (8, 9), ("L4",)),
    Gpu("L40S", 45.0, 362, 733, 864, (8, 9), ("L40S",)),
    Gpu("H100-80GB", 79.6, 989, 1979, 3350, (9, 0), ("H100", "80GB")),
    Gpu("H200", 140.4, 989, 1979, 4800, (9, 0), ("H200",)),
    Gpu("B200", 179.0, 2250, 4500, 7700, (10, 0), ("B200",)),
    Gpu("RTX-3090", 24.0, 71, None, 936, (8, 6), ("3090",)),
    Gpu("RTX-4090", 24.0, 165, 330, 1008, (8, 9), ("4090",)),
)


def named(name: str) -> Gpu | None:
    """The GPU of this name in the table, whatever its case."""
    return next((gpu for gpu in GPUS if gpu.name.lower() == name.lower()), None)


def of_driver(text: str) -> Gpu | None:
    """The GPU that a driver calls so, such as "NVIDIA H100 80GB HBM3"; None: not in the table."""
    parts = re.split(r"[\s-]+", text)
    return next((gpu for gpu in GPUS if all(word in parts for word in gpu.words)), None)


def here() -> Gpu | None:
    """The first GPU of this machine, if its kind is in the table."""
    text = provenance.gpu_name()
    return of_driver(text) if text else None
