"""The Batch API: a file of requests in, files of answers and of errors out.

The answers are computed when the batch is created; how long it then says that it is at work, and which of its requests
it leaves undone at the end of its window, are knobs for tests (`BatchRules`).
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from alpaca.teachers.programmatic.files import Files, Upload
from alpaca.teachers.programmatic.refusal import RefusedError, bad_request, not_found

WINDOW, WINDOW_SECONDS = "24h", 24 * 3600
MOST_LINES = 50_000
ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/moderations")
PAGE = 20
EXPIRED = "This request could not be executed before the completion window expired."
FINAL = ("completed", "expired", "cancelled", "failed")

Row = dict[str, Any]


@dataclass(kw_only=True, slots=True, frozen=True)
class BatchRules:
    """seconds: until a batch is done; expired_share: requests that it leaves undone, drawn anew for each batch."""

    seconds: float = 0.0
    expired_share: float = 0.0


@dataclass(kw_only=True, slots=True)
class _Batch:
    """A batch with its answers, in the order of its input; `cancelled` is seconds after its creation."""

    id: str
    ordinal: int
    request: Row
    created: float
    total: int = 0
    errors: list[Row] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    files: dict[str, str | None] | None = None
    cancelled: float | None = None


class Batches:
    """The batches by id. answer: url and body of a line -> the body of its answer, or RefusedError."""

    def __init__(self, files: Files, rules: BatchRules, answer: Callable[[str, Row], Row]) -> None:
        self._files, self._rules, self._answer = files, rules, answer
        self._batches: dict[str, _Batch] = {}

    def create(self, request: Row) -> Row:
        """Answers all lines and gives the batch object; raises RefusedError for what is no batch."""
        if request.get("endpoint") not in ENDPOINTS:
            raise bad_request(f"endpoint is {request.get('endpoint')!r}; known: {ENDPOINTS}", param="endpoint")
        if request.get("completion_window") != WINDOW:
            raise bad_request(f"completion_window must be {WINDOW!r}", param="completion_window")
        content = self._files.content(str(request.get("input_file_id")))
        batch = _Batch(id=f"batch_{uuid.uuid4().hex}", ordinal=len(self._batches), request=request, created=time.time())
        lines, batch.errors = _read_lines(content, request["endpoint"])
        batch.total = len(lines)
        if not batch.errors:
            batch.rows = [self._row(batch, line) for line in lines]
        self._batches[batch.id] = batch
        return self._object(batch, "failed" if batch.errors else "validating")

    def described(self, id: str) -> Row:
        """The batch object as of now; raises RefusedError for an unknown id."""
        batch = self._found(id)
        status = self._status(batch)
        if status in FINAL and batch.files is None:
            batch.files = self._written(batch)
        return self._object(batch, status)

    def cancel(self, id: str) -> Row:
        """Ends a batch early: it is "cancelling" now and "cancelled" at the next look, with what it had done so far."""
        batch = self._found(id)
        if self._status(batch) in FINAL:
            raise bad_request(f"Cannot cancel a batch with status {self._status(batch)!r}.")
        batch.cancelled = time.time() - batch.created
        return self._object(batch, "cancelling")

    def page(self, query: str) -> Row:
        """The newest batches first; `limit` and `after` (an id) of the query as OpenAI has them."""
        asked = parse_qs(query)
        ids = list(self._batches)[::-1]
        after, limit = asked.get("after", [""])[0], asked.get("limit", [str(PAGE)])[0]
        ids = ids[ids.index(after) + 1 :] if after in ids else ids
        shown = ids[: int(limit) if limit.isdecimal() else PAGE]
        return {
            "object": "list", "data": [self.described(id) for id in shown],
            "first_id": shown[0] if shown else None, "last_id": shown[-1] if shown else None,
            "has_more": len(shown) < len(ids),
        }  # fmt: skip

    def _found(self, id: str) -> _Batch:
        if id not in self._batches:
            raise not_found(f"No batch found with id '{id}'.", param="batch_id")
        return self._batches[id]

    def _status(self, batch: _Batch) -> str:
        if batch.errors:
            return "failed"
        if batch.cancelled is not None:
            return "cancelled"
        if time.time() - batch.created < self._rules.seconds:
            return "in_progress"
        return "expired" if any(row["error"] for row in batch.rows) else "completed"

    def _row(self, batch: _Batch, line: Row) -> Row:
        """A line of the output: an answer, an answer with an error status, or no answer because it expired."""
        head = {"id": f"batch_req_{uuid.uuid4().hex}", "custom_id": line["custom_id"]}
        if _draw(batch.ordinal, line["custom_id"]) < self._rules.expired_share:
            return {**head, "response": None, "error": {"code": "batch_expired", "message": EXPIRED}}
        try:
            status, body = 200, self._answer(line["url"], line["body"])
        except RefusedError as refused:
            status, body = int(refused.status), refused.body
        response = {"status_code": status, "request_id": f"req_{uuid.uuid4().hex}", "body": body}
        return {**head, "response": response, "error": None}

    def _written(self, batch: _Batch) -> dict[str, str | None]:
        """The ids of the files that a batch that has ended leaves, in OpenAI's names; None for an empty one."""
        done = self._done(batch)
        good = [row for row in done if _is_good(row)]
        bad = [row for row in done if not _is_good(row)]
        return {"output_file_id": self._save(batch, "output", good), "error_file_id": self._save(batch, "error", bad)}

    def _done(self, batch: _Batch) -> list[Row]:
        """The first rows, as many as the time since the batch was created allows."""
        passed = time.time() - batch.created if batch.cancelled is None else batch.cancelled
        share = min(1.0, passed / self._rules.seconds) if self._rules.seconds else 1.0
        return batch.rows[: int(share * len(batch.rows))]

    def _save(self, batch: _Batch, name: str, rows: list[Row]) -> str | None:
        if not rows:
            return None
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        upload = Upload(name=f"{batch.id}_{name}.jsonl", purpose="batch_output", content=content)
        return str(self._files.add(upload)["id"])

    def _object(self, batch: _Batch, status: str) -> Row:
        request, ended = batch.request, int(batch.created + self._rules.seconds)
        done = [] if status in ("validating", "failed") else self._done(batch)
        good = sum(map(_is_good, done))
        return {
            "id": batch.id, "object": "batch", "endpoint": request["endpoint"],
            "errors": {"object": "list", "data": batch.errors} if batch.errors else None,
            "input_file_id": request["input_file_id"], "completion_window": WINDOW, "status": status,
            "output_file_id": None, "error_file_id": None,
            **(batch.files or {}),
            "created_at": int(batch.created), "expires_at": int(batch.created) + WINDOW_SECONDS,
            "in_progress_at": int(batch.created) if status != "validating" else None,
            **{f"{final}_at": ended if status == final else None for final in FINAL},
            "request_counts": {"total": batch.total, "completed": good, "failed": len(done) - good},
            "usage": _usage(done), "metadata": request.get("metadata"),
        }  # fmt: skip


def _usage(rows: list[Row]) -> Row | None:
    """Tokens of all answers, under the names that batches have; None where nothing is counted in tokens."""
    used = [row["response"]["body"]["usage"] for row in rows if _is_good(row) and "usage" in row["response"]["body"]]
    if not used:
        return None
    asked, answered = (sum(each[f"{kind}_tokens"] for each in used) for kind in ("prompt", "completion"))
    return {
        "input_tokens": asked, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": answered, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": asked + answered,
    }  # fmt: skip


def _is_good(row: Row) -> bool:
    return row["response"] is not None and row["response"]["status_code"] == 200


def _draw(ordinal: int, custom_id: str) -> float:
    """A number in [0, 1) that another batch draws anew, so that requests asked again do not expire for ever."""
    return int.from_bytes(hashlib.sha256(f"{ordinal} {custom_id}".encode()).digest()[:8], "big") / 2**64


def _read_lines(content: bytes, endpoint: str) -> tuple[list[Row], list[Row]]:
    """The requests of a file, and what is wrong with it in OpenAI's form; one problem fails the whole batch."""
    numbered = [(number, line) for number, line in enumerate(content.splitlines(), 1) if line.strip()]
    if not 0 < len(numbered) <= MOST_LINES:
        return [], [_problem("invalid_file", f"{len(numbered)} requests, expected 1 to {MOST_LINES}", None)]
    lines, problems, seen = [], [], set[str]()
    for number, text in numbered:
        line = _parsed(text)
        found = list(_line_problems(line, endpoint, seen))
        problems += [_problem(code, message, number) for code, message in found]
        if line is not None and not found:
            seen.add(line["custom_id"])
            lines.append(line)
    return lines, problems


def _parsed(text: bytes) -> Row | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


def _line_problems(line: Row | None, endpoint: str, seen: set[str]) -> Iterator[tuple[str, str]]:
    if line is None:
        yield "invalid_json_line", "This line is not parseable as valid JSON."
        return
    if not isinstance(line.get("custom_id"), str):
        yield "missing_required_parameter", "custom_id must be a text."
    elif line["custom_id"] in seen:
        yield "duplicate_custom_id", f"The custom_id {line['custom_id']!r} is used more than once."
    if line.get("method") != "POST":
        yield "invalid_method", "method must be POST."
    if line.get("url") != endpoint:
        yield "mismatched_endpoint", f"url is {line.get('url')!r}, the batch is for {endpoint!r}."
    if not isinstance(line.get("body"), dict):
        yield "missing_required_parameter", "body must be an object."


def _problem(code: str, message: str, line: int | None) -> Row:
    return {"code": code, "message": message, "param": None, "line": line}
