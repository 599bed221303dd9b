"""Signals that ask a job to save itself and stop: SLURM's warning ahead of a time limit, a termination."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from alpaca.errors import PreemptedError

ASKING = (signal.SIGUSR2, signal.SIGTERM)
"""USR2 is what `sbatch --signal=USR2@SECONDS` (and submitit) sends ahead of a limit or a preemption."""
STATUS = {signal.SIGUSR2: PreemptedError.exit_status, signal.SIGTERM: 128 + signal.SIGTERM}
"""How a process ends that is interrupted by one of them."""
ENDINGS = frozenset({*STATUS.values(), *(-number for number in ASKING)})
"""Exit statuses, as subprocess tells them, of a process that stopped since it was asked to. Negative: it was too young
to listen."""

_asked: list[signal.Signals] = []


def interrupt_when_asked() -> None:
    """From here on the signals end what runs outside of `Warnings`, by SystemExit with the status in `STATUS`.

    Only the first does: what is told to stop is already on its way out, and must get there.
    """
    for number in ASKING:
        signal.signal(number, _interrupt)


def stop_if_asked() -> None:
    """Raises the SystemExit again, which a library's callback or destructor may have swallowed."""
    if _asked:
        raise SystemExit(STATUS[_asked[0]])


def asked() -> str | None:
    """Name of the first signal that interrupted this process; None before that."""
    return _asked[0].name if _asked else None


def _interrupt(number: int, frame: FrameType | None) -> None:
    _asked.append(signal.Signals(number))
    if len(_asked) == 1:
        stop_if_asked()


class Warnings:
    """Within this context the signals only leave word in `heard`; the job looks there between its steps.

    Outside the main thread, where Python cannot set handlers, nothing is heard and the signals act as before.
    """

    def __init__(self) -> None:
        self.heard: str | None = None
        """Name of the signal that came last."""
        self.all: list[str] = []
        """Names of all that came, in order."""
        self._before: dict[int, Any] = {}

    def listen(self) -> Warnings:
        """Begins without a context, for a process that listens to its very end."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in ASKING}
        return self

    def __enter__(self) -> Warnings:
        return self.listen()

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.heard = signal.Signals(number).name
        self.all.append(self.heard)
