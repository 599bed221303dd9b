"""Experiment tracking of a job: Weights & Biases, trackio, or nothing.

The tracker's client lives in a process of its own (`tracking.process`), fed through a pipe that never blocks: whatever
it does (no network, a full disk, a service that was killed or hangs), the job goes on, to the same bytes at the same
speed. The one thing that a job waits for is the end, and that for `patience` seconds at most.
"""

from __future__ import annotations

import json
import operator
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from alpaca.runtime.tracking import keys

MOST_WAITING = 20_000
"""Messages kept for a process that does not read; later ones are dropped."""
TOLD_ITSELF = 3
"""Exit status of a process that has said why it stopped."""
OF_WANDB = ("wandb", "workspace")
"""Kinds that W&B's variables in the environment switch off."""
PROJECT_ROOT = Path(__file__).resolve().parents[3]


class Tracker(Protocol):
    """What a job needs of a tracker."""

    def log(self, values: dict[str, float], step: int) -> None: ...

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None: ...

    def finish(self, summary: dict[str, Any]) -> None: ...


class NullTracker:
    """Tracks nothing."""

    def log(self, values: dict[str, float], step: int) -> None:
        return None

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        return None

    def finish(self, summary: dict[str, Any]) -> None:
        return None


class ProcessTracker:
    """Sends what it is told to a process; a failure is reported by `tell` and ends the tracking, not the job."""

    def __init__(self, process: subprocess.Popen[bytes], patience: float, tell: Callable[[str], None]) -> None:
        assert process.stdin is not None
        self._process, self._patience, self._tell = process, patience, tell
        self._pipe = process.stdin
        self._waiting: deque[bytes] = deque()
        self._dropped = self._refused = False
        os.set_blocking(self._pipe.fileno(), False)

    def log(self, values: dict[str, float], step: int) -> None:
        """The numbers of one step; several calls with one step are one row."""
        self.send({"do": "log", "values": values, "step": step})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table to look at."""
        self.send({"do": "table", "name": name, "columns": list(columns), "rows": [list(row) for row in rows]})

    def finish(self, summary: dict[str, Any]) -> None:
        """The last numbers; returns when the tracker has written everything, or after `patience` seconds."""
        self.send({"do": "finish", "summary": summary})
        deadline = time.monotonic() + self._patience
        while self._waiting and not self._pipe.closed and time.monotonic() < deadline:
            select.select([], [self._pipe], [], max(0.0, deadline - time.monotonic()))
            self._push()
        self._close()
        self._await(deadline)

    def send(self, message: dict[str, Any]) -> None:
        """Takes one message; without waiting."""
        if self._pipe.closed:
            return
        if len(self._waiting) < MOST_WAITING:
            self._queue(message)
        elif not self._dropped:
            self._dropped = True
            self._tell("tracking falls behind: its process takes nothing, and what follows is dropped")
        self._push()

    def _queue(self, message: dict[str, Any]) -> None:
        """Numbers of numpy and torch become plain ones; a message that is no JSON is dropped, which is told once."""
        try:
            line = json.dumps(message, default=_plain).encode()
        except Exception as error:  # whatever a metric brought along: the job needs none of it
            if not self._refused:
                self._refused = True
                told = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                self._tell(f"tracking leaves out what it cannot write ({message.get('do', 'settings')}: {told})")
            return
        self._waiting.append(line + b"\n")

    def _push(self) -> None:
        """As much of what waits as the pipe takes now."""
        try:
            while self._waiting:
                taken = os.write(self._pipe.fileno(), self._waiting[0])
                rest = self._waiting.popleft()[taken:]
                if rest:
                    self._waiting.appendleft(rest)
        except BlockingIOError:
            return
        except OSError:
            self._lost()

    def _lost(self) -> None:
        self._close()
        try:
            status: int | None = self._process.wait(1)
        except subprocess.TimeoutExpired:
            status = None
        if status != TOLD_ITSELF:
            self._tell(f"tracking stopped: its process ended (status {status})")

    def _close(self) -> None:
        if not self._pipe.closed:
            self._pipe.close()

    def _await(self, deadline: float) -> None:
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            # Of a group of its own, so that nothing of the job is hit. W&B's service ends with the process it serves.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._tell(
                f"tracking was given up after {self._patience:g} s: it did not end by itself; "
                "`python -m alpaca sync` sends what it wrote"
            )


def _plain(value: Any) -> int | float:
    """A whole number stays one: a step is counted by it."""
    try:
        return operator.index(value)
    except TypeError:
        return float(value)


def open_tracker(settings: dict[str, Any], output: Path, tell: Callable[[str], None]) -> Tracker:
    """The tracker of one job; returns at once.

    settings: kind, mode, patience, project, entity, group, job_type, id, name, tags, config (from stage.json). What
    the tracker writes lies below `output`, so that it can be moved and synchronised as one.
    """
    kind = settings.get("kind", "none")
    if kind == "none" or (kind in OF_WANDB and keys.disabled()):  # what is recorded offline, a `sync` would send
        return NullTracker()
    try:
        return start(settings, output, tell)
    except Exception as error:  # no tracker failure may stop a job
        tell(f"tracking is off: {type(error).__name__}: {error}")
        return NullTracker()


def start(settings: dict[str, Any], output: Path, tell: Callable[[str], None]) -> ProcessTracker:
    """A tracking process that has been given its settings."""
    paths = [str(PROJECT_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-m", "alpaca.runtime.tracking.process"],
        stdin=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,  # Ctrl-C stops the job, which then closes the pipe
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    tracker = ProcessTracker(process, float(settings["patience"]), tell)
    tracker.send({**settings, "output": str(output), "pid": os.getpid()})
    return tracker
