"""What was sent to a Batch API, written down around every step, so that no batch is lost or paid for twice.

batches.jsonl    one event a line: planned (before anything is sent), uploaded, created, ended or dropped
batch-NAME.*     the file that was sent, and the answers and errors that came back
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpaca.records import drop_torn_tail, encode, read_jsonl

JOURNAL = "batches.jsonl"


@dataclass(kw_only=True, slots=True)
class Sent:
    """A batch as far as it is known; `name` is ours and stands in its metadata, `planned` is seconds since 1970."""

    name: str
    digests: list[str]
    planned: float
    file_id: str | None = None
    batch_id: str | None = None
    status: str | None = None
    """How it ended; None as long as it has not."""


class Journal:
    """The batches by name, in the order in which they were planned; every change is on the disk before it counts."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._path = folder, folder / JOURNAL
        self.sent: dict[str, Sent] = {}
        drop_torn_tail(self._path)
        for row in read_jsonl(self._path) if self._path.exists() else ():
            self._apply(row)

    def planned(self, name: str, requests: dict[str, str]) -> Sent:
        """A batch is going to be sent; requests: digest -> id."""
        self._append({"event": "planned", "name": name, "at": time.time(), "requests": requests})
        return self.sent[name]

    def uploaded(self, sent: Sent, file_id: str) -> None:
        self._append({"event": "uploaded", "name": sent.name, "file_id": file_id})

    def created(self, sent: Sent, batch_id: str) -> None:
        self._append({"event": "created", "name": sent.name, "batch_id": batch_id})

    def ended(self, sent: Sent, status: str) -> None:
        """What it has brought is in the files of `answers`."""
        self._append({"event": "ended", "name": sent.name, "status": status})

    def dropped(self, sent: Sent) -> None:
        """It was planned and never became a batch."""
        self._append({"event": "dropped", "name": sent.name})

    def input(self, sent: Sent) -> Path:
        return self.folder / f"batch-{sent.name}.jsonl"

    def answers(self, sent: Sent) -> tuple[Path, Path]:
        """The files of answers and of errors."""
        return self.folder / f"batch-{sent.name}.output.jsonl", self.folder / f"batch-{sent.name}.errors.jsonl"

    def _append(self, row: dict[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(encode(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._apply(row)

    def _apply(self, row: dict[str, Any]) -> None:
        name = row["name"]
        match row["event"]:
            case "planned":
                self.sent[name] = Sent(name=name, digests=list(row["requests"]), planned=row["at"])
            case "uploaded":
                self.sent[name].file_id = row["file_id"]
            case "created":
                self.sent[name].batch_id = row["batch_id"]
            case "ended":
                self.sent[name].status = row["status"]
            case "dropped":
                del self.sent[name]
