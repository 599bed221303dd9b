"""A Batch API that goes wrong on demand: lost answers, cut files, expired and refused batches, a client that is killed.

`hook(event, number)` is asked before each call ("upload", "create", "list", "look", "content"; number from 0 for each)
and names a fault, see `_Handler.faulty`. `ending(number, lines)` says how batch number `number` ends.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Row = dict[str, Any]


@dataclass(kw_only=True)
class Ending:
    """status, the custom ids that are answered (None: all), problems of the validation, lines that differ."""

    status: str = "completed"
    answered: set[str] | None = None
    problems: list[Row] = field(default_factory=list)
    rows: dict[str, Row] = field(default_factory=dict)


class BatchServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.hook: Callable[[str, int], str | None] = lambda event, number: None
        self.ending: Callable[[int, list[Row]], Ending] = lambda number, lines: Ending()
        self.looks = 1
        """How often a batch is looked at before it has ended."""
        self.files: dict[str, tuple[str, bytes]] = {}
        self.batches: dict[str, Row] = {}
        self.calls: Counter[str] = Counter()
        self.paid: Counter[str] = Counter()
        """custom id -> how often it was answered, and so paid."""
        self.sent: list[list[Row]] = []
        """The lines of each batch."""
        self.victim = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def create(self, body: Row) -> Row:
        lines = [json.loads(line) for line in self.files[body["input_file_id"]][1].splitlines()]
        ending = self.ending(len(self.sent), lines)
        self.sent.append(lines)
        id = f"batch_{len(self.sent)}"
        good, bad = [], []
        for line in lines if ending.status != "failed" else []:
            is_done = ending.answered is None or line["custom_id"] in ending.answered
            row = ending.rows.get(line["custom_id"]) or (good_row(line) if is_done else expired_row(line))
            is_good = bool(row["response"]) and row["response"]["status_code"] == 200
            (good if is_good else bad).append(row)
            self.paid[line["custom_id"]] += is_good
        # Batches do not keep the order of their requests.
        files = {"output_file_id": self.keep(good[::-1]), "error_file_id": self.keep(bad)}
        counts = {"total": len(lines), "completed": len(good), "failed": len(bad)}
        self.batches[id] = {
            "id": id, "object": "batch", "status": "validating", "created_at": int(time.time()),
            "metadata": body.get("metadata"), "input_file_id": body["input_file_id"], "request_counts": counts,
            "output_file_id": None, "error_file_id": None, "errors": None,
            "hidden": {"looks": self.looks, "end": {
                **files, "status": ending.status, "errors": {"data": ending.problems} if ending.problems else None,
            }},
        }  # fmt: skip
        return self.shown(id)

    def look(self, id: str) -> Row:
        hidden = self.batches[id]["hidden"]
        if hidden["looks"] <= 0:
            self.batches[id] |= hidden["end"]
        else:
            self.batches[id]["status"] = "in_progress"
        hidden["looks"] -= 1
        return self.shown(id)

    def shown(self, id: str) -> Row:
        return {name: value for name, value in self.batches[id].items() if name != "hidden"}

    def keep(self, rows: list[Row]) -> str | None:
        return self.add("out.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode()) if rows else None

    def add(self, name: str, content: bytes) -> str:
        id = f"file-{len(self.files)}"
        self.files[id] = name, content
        return id


def good_row(line: Row, **changes: Any) -> Row:
    """The answer to a line; its text tells what was asked."""
    asked = line["body"]["messages"][0]["content"] if "messages" in line["body"] else line["body"]["prompt"]
    text = f"answer to {asked} ({line['body'].get('seed')})"
    choice: Row = {"message": {"content": text}} if "messages" in line["body"] else {"text": text}
    usage = {
        "prompt_tokens": 10, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }  # fmt: skip
    body = {"model": f"{line['body']['model']}-dated", "choices": [{**choice, "finish_reason": "stop"}], "usage": usage}
    return row(line, 200, body | changes)


def row(line: Row, status: int, body: Row) -> Row:
    response = {"status_code": status, "request_id": f"req_{line['custom_id'][:6]}", "body": body}
    return {"id": "x", "custom_id": line["custom_id"], "response": response, "error": None}


def expired_row(line: Row) -> Row:
    error = {"code": "batch_expired", "message": "This request could not be executed in time."}
    return {"id": "x", "custom_id": line["custom_id"], "response": None, "error": error}


@contextmanager
def batch_server() -> Iterator[BatchServer]:
    server = BatchServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: BatchServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/v1/files":
            self.handle_event("upload", lambda: {"id": self.server.add(*_form(body, self.headers["content-type"]))})
        elif self.path == "/v1/batches":
            self.handle_event("create", lambda: self.server.create(json.loads(body)))
        else:
            self.answer(404, {"error": {"message": "unknown"}})

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if found := re.fullmatch(r"/v1/files/([^/]+)/content", path):
            self.handle_event("content", lambda: self.server.files[found[1]][1])
        elif found := re.fullmatch(r"/v1/batches/([^/]+)", path):
            self.handle_event("look", lambda: self.server.look(found[1]))
        else:
            self.handle_event("list", lambda: self.page(query))

    def page(self, query: str) -> Row:
        """Two batches at a time, the newest first."""
        ids, after = list(self.server.batches)[::-1], re.search(r"after=([^&]+)", query)
        left = ids[ids.index(after[1]) + 1 :] if after else ids
        return {"data": [self.server.shown(id) for id in left[:2]], "has_more": len(left) > 2}

    def handle_event(self, event: str, work: Callable[[], Row | bytes]) -> None:
        with self.server.lock:
            number = self.server.calls[event]
            self.server.calls[event] += 1
            fault = self.server.hook(event, number)
            if fault is None:
                self.answer(200, work())
            else:
                self.faulty(fault, work)

    def faulty(self, fault: str, work: Callable[[], Row | bytes]) -> None:
        """reset: nothing is done; lost: done, but its answer is lost; kill and kill_after also kill the client."""
        if fault in ("lost", "kill_after"):
            work()
        if fault.startswith("kill"):
            os.kill(self.server.victim, signal.SIGKILL)
        if fault in ("reset", "lost", "kill", "kill_after"):
            # Lingering for zero seconds makes close() send RST instead of FIN.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif fault == "html":
            self.answer(200, b"<html>hello from a proxy</html>")
        elif fault == "tells_key":
            self.answer(200, f"<html>{self.headers['authorization']}</html>".encode())
        elif fault == "cut":
            content = work()
            assert isinstance(content, bytes)
            self.answer(200, content[:-30])
        else:
            code = "insufficient_quota" if fault == "402" else None
            self.answer(int(fault), {"error": {"message": f"a fault of kind {fault}", "code": code}})

    def answer(self, status: int, answer: Row | bytes) -> None:
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        return None


def _form(body: bytes, content_type: str) -> tuple[str, bytes]:
    """Name and content of the file in a multipart form whose purpose is "batch"."""
    boundary = content_type.partition("boundary=")[2].strip('"').encode()
    parts = [part.partition(b"\r\n\r\n") for part in body.split(b"--" + boundary)[1:-1]]
    assert any(b'name="purpose"' in head and content.strip() == b"batch" for head, _, content in parts)
    (found,) = [(head, content) for head, _, content in parts if b"filename=" in head]
    name = re.search(rb'filename="([^"]+)"', found[0])
    assert name is not None
    return name[1].decode(), found[1].removesuffix(b"\r\n")
