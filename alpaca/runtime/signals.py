"""Signals that ask a job to save itself and stop: SLURM's warning ahead of a time limit, a termination."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

ASKING = (signal.SIGUSR2, signal.SIGTERM)
"""USR2 is what `sbatch --signal=USR2@SECONDS` (and submitit) sends ahead of a limit or a preemption."""


class Warnings:
    """Within this context the signals only leave word in `heard`; the job looks there between its steps.

    Outside the main thread, where Python cannot set handlers, nothing is heard and the signals act as before.
    """

    def __init__(self) -> None:
        self.heard: str | None = None
        """Name of the signal that came."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Warnings:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in ASKING}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.heard = signal.Signals(number).name
