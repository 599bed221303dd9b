"""Signals that ask a job to save itself and stop: SLURM's warning ahead of a time limit, a termination."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from alpaca.errors import PreemptedError

ASKING = (signal.SIGUSR2, signal.SIGTERM)
"""USR2 is what `sbatch --signal=USR2@SECONDS` (and submitit) sends ahead of a limit or a preemption."""


_heard: set[str] = set()
"""Names of all asking signals that this process has heard."""


def heard(name: str) -> bool:
    """Whether this process has heard a signal, "SIGUSR2", in whatever part of it."""
    return name in _heard


def interrupt_when_asked() -> None:
    """Outside of `Warnings` the signals end what runs, as SystemExit with the status of a temporary failure.

    Only the first does: what is told to stop is already on its way out, and must get there.
    """
    for number in ASKING:
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _heard.add(signal.Signals(number).name)
    for each in ASKING:
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(PreemptedError.exit_status)


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
        _heard.add(self.heard)
