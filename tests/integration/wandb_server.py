"""A stand-in for W&B's API on the loopback, as far as the client needs it to start, log, finish, sync and save views.

It takes any key, remembers what it is sent, and knows nothing of permissions, artifacts' contents or the web pages.
"""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass
class Received:
    """What the client sent."""

    queries: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Name of the GraphQL operation, and its variables."""
    streams: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Run's id -> bodies of its file stream."""
    uploads: dict[str, bytes] = field(default_factory=dict)

    def named(self, name: str) -> list[dict[str, Any]]:
        return [variables for each, variables in self.queries if each == name]

    def history(self, run: str) -> list[dict[str, Any]]:
        """The rows of a run."""
        return [
            json.loads(line)
            for body in self.streams.get(run, [])
            for name, part in (body.get("files") or {}).items()
            if name == "wandb-history.jsonl"
            for line in part["content"]
        ]


class Server:
    """`with Server() as server:` answers at `server.url`."""

    def __init__(self) -> None:
        self.received = Received()
        handler = type("Bound", (_Handler,), {"received": self.received, "runs": {}})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        handler.url = self.url  # type: ignore[attr-defined]

    def __enter__(self) -> Server:
        Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    received: Received
    runs: dict[str, dict[str, Any]]
    url: str

    def do_POST(self) -> None:
        body = json.loads(self._body() or b"{}")
        if self.path.endswith("/graphql"):
            name, variables = _operation(body["query"]), body.get("variables") or {}
            self.received.queries.append((name, variables))
            data = self._data(name, variables)
            self._answer({"data": data} if data is not None else {"errors": [{"message": f"unknown: {name}"}]})
            return
        found = re.search(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path)
        if found:
            self.received.streams.setdefault(found[1], []).append(body)
        self._answer({})

    def do_PUT(self) -> None:
        self.received.uploads[self.path] = self._body()
        self._answer({})

    def do_GET(self) -> None:
        self._answer({})

    def _data(self, name: str, variables: dict[str, Any]) -> dict[str, Any] | None:
        if name == "UpsertBucket":
            return {"upsertBucket": {"bucket": self._bucket(variables), "inserted": True, "configDebug": None}}
        if name == "RunResumeStatus":
            return {"model": {"id": "m", "name": "p", "entity": {"id": "e", "name": "me"}, "bucket": None}}
        if name in ("Viewer", "GetDefaultEntity"):
            return {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}
        if name == "CreateRunFiles":
            files = [{"name": each, "uploadUrl": f"{self.url}/storage/{each}"} for each in variables["files"]]
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
        if name == "UpsertView2":
            view = {"id": variables.get("id") or "v1", "name": variables["name"]}
            return {"upsertView": {"view": view, "inserted": True}}
        if name == "ArtifactType":
            return {"project": {"artifact": None}}
        if name == "CreateArtifact":  # as if it were there already, so that its files are not asked for
            sequence = {"id": "s", "latestArtifact": {"id": "a", "versionIndex": 0}}
            return {"createArtifact": {"artifact": {"id": "a", "state": "COMMITTED", "artifactSequence": sequence}}}
        return None

    def _bucket(self, variables: dict[str, Any]) -> dict[str, Any]:
        project = {"id": "p", "name": variables.get("project") or "alpaca", "entity": {"id": "e", "name": "me"}}
        return {
            "id": "b", "name": variables.get("name"), "displayName": variables.get("displayName"), "description": None,
            "config": variables.get("config"), "sweepName": None, "historyLineCount": 0, "project": project,
        }  # fmt: skip

    def _body(self) -> bytes:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        return gzip.decompress(raw) if self.headers.get("content-encoding") == "gzip" else raw

    def _answer(self, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        return None


def _operation(query: str) -> str:
    found = re.search(r"(?:query|mutation)\s+(\w+)", query)
    return found[1] if found else ""
