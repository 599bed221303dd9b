"""The process beside a job that holds the tracker's client: `python -m alpaca.runtime.tracking.process`.

Reads JSON lines from its standard input: the settings, then what is to be done. The end of the input without a
`finish` means that the job died; the run is closed as failed, and a later start goes on under the same id.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from alpaca.runtime.tracking import TOLD_ITSELF, trackio_run, wandb_run, workspace

NICENESS = 5  # the job's threads go first


class Client(Protocol):
    """One run of a tracker."""

    def log(self, values: dict[str, float], step: int) -> None: ...

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None: ...

    def finish(self, summary: dict[str, Any] | None) -> None:
        """summary: the last numbers; None where the job ended before its time."""


OPEN: dict[str, Callable[[dict[str, Any]], Client]] = {
    "wandb": wandb_run.opened,
    "trackio": trackio_run.opened,
    "workspace": workspace.opened,
}


def serve(inbox: IO[bytes]) -> None:
    """Opens what the first line asks for and does what the others say."""
    settings = json.loads(inbox.readline())
    Path(settings["output"]).mkdir(parents=True, exist_ok=True)
    client = OPEN[settings["kind"]](settings)
    for line in inbox:
        message = json.loads(line)
        if message["do"] == "log":
            client.log(message["values"], message["step"])
        elif message["do"] == "table":
            _try_table(client, message)
        else:
            client.finish(message["summary"])
            return
    client.finish(None)


def _try_table(client: Client, message: dict[str, Any]) -> None:
    """A table is a decoration: where it fails, the numbers still count."""
    try:
        client.table(message["name"], message["columns"], message["rows"])
    except Exception as error:  # W&B's client asks the server for its artifacts, whose answers may be anything
        print(f"tracking: table {message['name']} is left out: {_in_one_line(error)}", flush=True)


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _take_input() -> IO[bytes]:
    """The standard input, out of reach of what is started here: else the job would not notice this process's end."""
    inbox = os.fdopen(os.dup(0), "rb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    return inbox


def main() -> None:
    os.nice(NICENESS)
    try:
        serve(_take_input())
    except Exception as error:  # told in one line, whatever the client, its service or the disk does
        print(f"tracking stopped: {_in_one_line(error)}", flush=True)
        raise SystemExit(TOLD_ITSELF) from None
    finally:
        sys.stdout.flush()


if __name__ == "__main__":
    main()
