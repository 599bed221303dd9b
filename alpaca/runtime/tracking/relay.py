"""The numbers of a rank, handed to the process that started it while it trains: that one has the tracker.

The ranks that a stage starts on its own machine share no pipe with it, so rank 0 appends lines to a file, which the
starter reads while it waits. A file that cannot be written or read ends the relay alone.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Protocol


class Taker(Protocol):
    """A tracker, as far as steps go."""

    def log(self, values: dict[str, float], step: int) -> None: ...


class Sender:
    """The tracker of rank 0: a line for each row, where the starter has made the file."""

    def __init__(self, path: Path) -> None:
        self._path, self._broken = path, not path.exists()

    def log(self, values: dict[str, float], step: int) -> None:
        """Appends the numbers of one step."""
        if self._broken:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, "values": values}, default=float) + "\n")
        except (OSError, TypeError, ValueError):
            self._broken = True


class Reader:
    """Gives what came since the last look to a tracker."""

    def __init__(self, path: Path, tracker: Taker) -> None:
        self._path, self._tracker, self._place = path, tracker, 0
        self.last = -1
        """The last step that was handed on."""
        path.write_bytes(b"")

    def look(self) -> None:
        """Hands on every whole line that is new; one that a killed rank tore is left out."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._place)
                new = file.read()
        except OSError:  # nothing was written yet
            return
        whole = new[: new.rfind(b"\n") + 1]
        self._place += len(whole)
        for line in whole.splitlines():
            with suppress(ValueError, TypeError, KeyError):
                row = json.loads(line)
                step, values = int(row["step"]), row["values"]
                self.last = max(self.last, step)
                self._tracker.log(values, step=step)
