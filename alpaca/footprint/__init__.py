"""What a training run needs before it runs: memory, operations, seconds. Arithmetic alone; imports no torch.

shape (of the model) and work (of one step) -> memory, speed; gpus: published figures
"""

from __future__ import annotations

from alpaca.footprint.gpus import GPUS, Gpu
from alpaca.footprint.memory import GIB, Memory, Settings, memory, peak, settings_of
from alpaca.footprint.shape import Shape, shape_of
from alpaca.footprint.work import Lengths, Work, fullest, step

__all__ = [
    "GIB",
    "GPUS",
    "Gpu",
    "Lengths",
    "Memory",
    "Settings",
    "Shape",
    "Work",
    "fullest",
    "memory",
    "peak",
    "settings_of",
    "shape_of",
    "step",
]
