"""Number formats of training: which weights are stored, what is computed in, and the scaling that fp16 needs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from alpaca.config import Precision
from alpaca.errors import UserError

DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8": torch.bfloat16,
}
"""Number format -> dtype of what is computed; fp8 is inside the linear layers alone."""
FIRST_SCALE, LEAST_SCALE, LARGEST_SCALE = 2.0**16, 1.0, 2.0**24
GROWS_AFTER = 2000
"""Steps in a row without overflow after which the scale doubles (Micikevicius et al., arXiv 1710.03740)."""


def stored(precision: Precision) -> torch.dtype:
    """Dtype of the weights."""
    return DTYPES[precision.parameters]


def computed(precision: Precision) -> torch.dtype:
    """Dtype of matrix products."""
    return DTYPES[precision.compute]


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Lower-precision products over wider weights; entered per forward pass, since it caches the cast weights."""
    if computed(precision) == stored(precision):
        return nullcontext()
    return torch.autocast(device.type, dtype=computed(precision))


def prepare(precision: Precision) -> None:
    """Sets what is a switch of the whole process."""
    torch.set_float32_matmul_precision("high" if precision.compute == "tf32" else "highest")


def check(precision: Precision, device: torch.device) -> None:
    """Refuses what this device cannot compute in."""
    if precision.compute in ("tf32", "fp8") and device.type != "cuda":
        raise UserError(
            what=f"{precision.compute} is a format of GPUs, and this runs on {device.type}",
            where="precision.compute",
            remedy="precision=fp32, or precision=bf16",
        )
    if device.type != "cuda":
        return
    major, minor = torch.cuda.get_device_capability(device)
    least = {"bf16": (8, 0), "tf32": (8, 0), "fp8": (8, 9)}.get(precision.compute, (0, 0))
    if (major, minor) < least:
        raise UserError(
            what=f"{torch.cuda.get_device_name(device)} (capability {major}.{minor}) has no {precision.compute}",
            where="precision.compute",
            remedy="precision=fp16 or precision=fp32",
        )


@dataclass(kw_only=True, slots=True)
class LossScale:
    """The factor that keeps fp16 gradients above the smallest number; 1 for every other format.

    Halved where the gradient overflowed (that step is left out), doubled after many steps without.
    """

    scale: float = 1.0
    good: int = 0
    active: bool = False

    @classmethod
    def of(cls, precision: Precision) -> LossScale:
        active = precision.compute == "fp16"
        return cls(scale=FIRST_SCALE if active else 1.0, active=active)

    def update(self, finite: bool) -> None:
        """After each step. finite: whether its gradient was."""
        if not self.active:
            return
        if not finite:
            self.scale, self.good = max(LEAST_SCALE, self.scale / 2), 0
            return
        self.good += 1
        if self.good % GROWS_AFTER == 0:
            self.scale = min(LARGEST_SCALE, self.scale * 2)

    def exhausted(self) -> bool:
        """Whether an overflow can no longer be put down to the scale."""
        return not self.active or self.scale <= LEAST_SCALE
