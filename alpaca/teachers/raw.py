"""raw.jsonl: every answer, appended as it arrives; and answers taken over from other folders.

failed.jsonl: the tries that brought no answer and yet were, or may have been, paid for.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alpaca.errors import ArtifactError
from alpaca.records import drop_torn_tail, encode, read_jsonl

RAW, FAILED = "raw.jsonl", "failed.jsonl"
REFUSED = "refused"
"""finish_reason of a request that the teacher does not take; its text is empty."""
STAGE = "stage.json"
SYNC_ROWS = 16
SYNC_SECONDS = 1.0


class RawRecords:
    """The rows of a raw.jsonl by request id, in `rows`, and those of the failed.jsonl beside it, in `failed`.

    A killed process loses nothing that was appended, a dead machine about one second of it.
    """

    def __init__(self, path: Path) -> None:
        drop_torn_tail(path)
        self.rows: dict[str, dict[str, Any]] = {}
        for row in read_jsonl(path) if path.exists() else ():
            self.rows.setdefault(row["id"], row)
        self._refused: int = sum(row["finish_reason"] == REFUSED for row in self.rows.values())
        self.path = path
        self._failed_path = path.with_name(FAILED)
        drop_torn_tail(self._failed_path)
        self.failed = list(read_jsonl(self._failed_path)) if self._failed_path.exists() else []
        self._file = path.open("a", encoding="utf-8", newline="\n")
        self._unsynced, self._synced_at = 0, time.monotonic()

    @property
    def refused(self) -> int:
        """Requests put down as refused."""
        return self._refused

    @property
    def answered(self) -> int:
        """Requests with an answer."""
        return len(self.rows) - self._refused

    def paid(self) -> list[dict[str, Any]]:
        """The rows that were asked for here, not taken over from another folder."""
        return [row for row in self.rows.values() if not row.get("adopted")]

    def append(self, row: dict[str, Any]) -> None:
        """Adds the answer to a request that has none yet."""
        if row["id"] in self.rows:
            remedy = "keep one process per folder"
            raise ArtifactError(what=f"a second answer to {row['id']}", where=str(self.path), remedy=remedy)
        self.rows[row["id"]] = row
        self._refused += int(row["finish_reason"] == REFUSED)
        self._file.write(encode(row) + "\n")
        self._file.flush()
        self._unsynced += 1
        if self._unsynced >= SYNC_ROWS or time.monotonic() - self._synced_at >= SYNC_SECONDS:
            self.sync()

    def append_failed(self, row: dict[str, Any]) -> None:
        """Adds a failed try that is or may be billed; a request can have several."""
        self.failed.append(row)
        # Rare, so the file is opened for each, and there is none where nothing has failed.
        with self._failed_path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(encode(row) + "\n")

    def sync(self) -> None:
        """Forces what was appended to the disk."""
        if self._unsynced:
            os.fsync(self._file.fileno())
        self._unsynced, self._synced_at = 0, time.monotonic()

    def close(self) -> None:
        self.sync()
        self._file.close()


def adoptable(folder: Path) -> dict[str, dict[str, Any]]:
    """Rows by request digest of the folders beside this one that differ from it in nothing but the size of the pool.

    Unfinished folders count too, with their complete lines; a line that is not JSON is left out, and so is a refusal,
    which another try may overcome.
    """
    ours = _plan_of(folder)
    rows: dict[str, dict[str, Any]] = {}
    if ours is None:
        return rows
    for sibling in sorted(folder.parent.iterdir()):
        if sibling != folder and _plan_of(sibling) == ours:
            for row in _complete_rows(sibling / RAW):
                if row.get("finish_reason") != REFUSED:
                    rows.setdefault(str(row.get("request_sha256")), row)
    return rows


def _plan_of(folder: Path) -> dict[str, Any] | None:
    """Identity and version of a stage without the size of its pool; None for whatever is no stage folder."""
    try:
        stage = json.loads((folder / STAGE).read_text(encoding="utf-8"))
        identity, version = dict(stage["identity"]), stage.get("version")
        if "data_gen" in identity:
            identity["data_gen"] = {key: value for key, value in identity["data_gen"].items() if key != "num_examples"}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return {"version": version, "identity": identity}


def _complete_rows(path: Path) -> Iterator[dict[str, Any]]:
    # Another process may be appending, so the file is read and never mended.
    content = path.read_bytes() if path.exists() else b""
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row
