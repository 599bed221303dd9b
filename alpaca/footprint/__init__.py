"""What a training run needs before it runs: memory, operations, seconds. Arithmetic alone; imports no torch.

shape (of the model) and work (of one step) -> memory, speed -> outlook; gpus: published figures
"""

from __future__ import annotations

from alpaca.footprint.gpus import GPUS, Gpu
from alpaca.footprint.memory import GIB, Memory, Settings, memory, settings_of
from alpaca.footprint.outlook import Outlook, gpu_of, outlook, peak
from alpaca.footprint.shape import Shape, shape_of
from alpaca.footprint.work import Lengths, Work, fullest, step

__all__ = [
    "GIB",
    "GPUS",
    "Gpu",
    "Lengths",
    "Memory",
    "Outlook",
    "Settings",
    "Shape",
    "Work",
    "fullest",
    "gpu_of",
    "memory",
    "outlook",
    "peak",
    "settings_of",
    "shape_of",
    "step",
]
