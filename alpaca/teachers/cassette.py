"""Reading cassettes: rows of raw.jsonl, each checked before the first is used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alpaca.errors import TeacherError, UserError
from alpaca.records import is_text
from alpaca.teachers.base import Completion, RefusedRequestError, Request
from alpaca.teachers.digest import request_digest
from alpaca.teachers.raw import REFUSED

KEY = "teacher.cassette"
DIGEST_LENGTH = 64
MOST_PROBLEMS = 20  # listed; the others are counted
SHOWN_DIGITS = 12
# Beside the answers of a sample folder stand its failed tries, which are no answers.
RAW, NO_ANSWERS = "raw.jsonl", ("failed.jsonl",)
COUNTS = ("prompt_tokens", "completion_tokens")
# Written by newer versions only; where they are missing, the values that mean "not said".
LATER: dict[str, Any] = {
    "usage_estimated": False, "cached_tokens": 0, "reasoning_tokens": 0,
    "service_tier": None, "server_request_id": None, "system_fingerprint": None,
}  # fmt: skip


class Cassette:
    """`TeacherClient` over recorded answers."""

    def __init__(self, path: str, rows: dict[str, dict[str, Any]]) -> None:
        self._path, self._rows = path, rows

    @classmethod
    def load(cls, path: str) -> Cassette:
        """Reads a cassette, a file or a folder of them. Raises UserError with all problems of its lines."""
        rows: dict[str, dict[str, Any]] = {}
        problems: list[str] = []
        for file in cassette_files(path):
            for place, row in _lines(file, problems):
                if found := _problem(row):
                    problems.append(f"{place}: {found}")
                elif _is_refusal(rows.get(row["request_sha256"], row)):  # an answer counts more than a refusal
                    rows[row["request_sha256"]] = row
                else:
                    rows.setdefault(row["request_sha256"], row)
        if problems or not rows:
            raise _unusable(path, problems)
        return cls(path, rows)

    def __len__(self) -> int:
        return len(self._rows)

    async def complete(self, request: Request) -> Completion:
        """The recorded answer; see `TeacherClient`. TeacherError when there is none.

        RefusedRequestError where a refusal was recorded, so that a replay goes on without the same requests.
        """
        digest = request_digest(request)
        row = self._rows.get(digest)
        if row is None:
            raise TeacherError(
                what=f"no recorded answer to {request.id} (request_sha256 {digest[:SHOWN_DIGITS]}...) among the "
                f"{len(self):,} in {self._path}",
                where=KEY,
                remedy="replay the run that recorded it: the same data_gen (seeds, prompt, temperature, max_tokens, "
                "seed) and no more examples than it had; or ask its teacher for the rest, with another teacher=...",
            )
        if _is_refusal(row):
            raise RefusedRequestError(
                what=str(row.get("reason") or f"{request.id} was refused when this was recorded"),
                where=KEY,
                remedy="its teacher does not take this request; leave its text out, or ask another teacher",
            )
        later: dict[str, Any] = {name: row.get(name, default) for name, default in LATER.items()}
        return Completion(
            text=row["text"],
            finish_reason=row["finish_reason"],
            model=row["model"],
            prompt_tokens=row["prompt_tokens"],
            completion_tokens=row["completion_tokens"],
            **later,
        )


def cassette_files(path: str) -> list[Path]:
    """The files of a cassette: itself, the raw.jsonl of a sample folder, or all *.jsonl of a folder by name."""
    place = Path(path).expanduser()
    if not place.is_dir():
        return [place]
    if (place / RAW).is_file():
        return [place / RAW]
    return sorted(file for file in place.glob("*.jsonl") if file.name not in NO_ANSWERS)


def _lines(file: Path, problems: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and object of each line; what is no JSON object becomes a problem."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(
            what=f"cannot be read: {error.strerror}", where=KEY, remedy=f"give the path of a raw.jsonl, not {file}"
        ) from error
    *lines, tail = content.split(b"\n")
    # A run that was killed, or still runs, leaves half a line at the end.
    if _is_json(tail):
        lines.append(tail)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:  # no JSON, or no UTF-8
            problems.append(f"{file}:{number}: not JSON ({error})")
            continue
        if isinstance(row, dict):
            yield f"{file}:{number}", row
        else:
            problems.append(f"{file}:{number}: a JSON {type(row).__name__}, expected an object")


def _is_refusal(row: dict[str, Any]) -> bool:
    return row.get("finish_reason") == REFUSED and row.get("text") == ""


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _problem(row: dict[str, Any]) -> str | None:
    """What keeps a row from being an answer, None if nothing does."""
    digest, text = row.get("request_sha256"), row.get("text")
    if not isinstance(digest, str) or len(digest) != DIGEST_LENGTH:
        return f"request_sha256 is {digest!r}, expected 64 hex digits"
    if not _is_refusal(row) and (not is_text(text) or not str(text).strip()):
        return "text is missing or blank"
    for name in ("finish_reason", "model"):
        if not isinstance(row.get(name), str):
            return f"{name} is {row.get(name)!r}, expected a text"
    for name in COUNTS:
        if not isinstance(row.get(name), int) or isinstance(row[name], bool) or row[name] < 0:
            return f"{name} is {row.get(name)!r}, expected a number of tokens"
    return None


def _unusable(path: str, problems: list[str]) -> UserError:
    if not problems:
        told = f"no recorded answers in {path}"
    else:
        more = len(problems) - MOST_PROBLEMS
        shown = [*problems[:MOST_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]
        told = f"{len(problems)} broken lines:\n      " + "\n      ".join(shown)
    remedy = "give the raw.jsonl of a sample folder (or a folder of such files), as the run wrote it"
    return UserError(what=told, where=KEY, remedy=remedy)
