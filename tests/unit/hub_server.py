"""A server that speaks as much of the hub's protocol as downloading a data set needs."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

Repositories = Mapping[str, Mapping[str, Mapping[str, bytes]]]
INFO = re.compile(r"/api/datasets/([^/]+/[^/]+?)(?:/revision/([^/]+))?")
TREE = re.compile(r"/api/datasets/([^/]+/[^/]+)/tree/([^/]+)/?")
FILE = re.compile(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@contextmanager
def hub(repositories: Repositories, refs: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Its address and the paths that it was asked for. repositories: id -> commit -> file -> content."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: object) -> None:
            return None

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            asked.append(path)
            for pattern, answer in ((FILE, self.file), (TREE, self.tree), (INFO, self.info)):
                if found := pattern.fullmatch(path):
                    id, revision = found[1], found[2] or "main"
                    commits = repositories.get(id)
                    if commits is None:
                        self.send(404, b"", {"X-Error-Code": "RepoNotFound"})
                    elif (commit := refs.get(revision, revision)) not in commits:
                        self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
                    else:
                        answer(id, commit, commits[commit], *found.groups()[2:])
                    return
            self.send(404, b"")

        def info(self, id: str, commit: str, files: Mapping[str, bytes]) -> None:
            self.json({"id": id, "sha": commit, "siblings": [{"rfilename": name} for name in files]})

        def tree(self, id: str, commit: str, files: Mapping[str, bytes]) -> None:
            self.json(
                [
                    {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for name, content in files.items()
                ]
            )

        def file(self, id: str, commit: str, files: Mapping[str, bytes], name: str) -> None:
            if name not in files:
                self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            tag = hashlib.sha1(files[name]).hexdigest()
            self.send(200, files[name], {"ETag": f'"{tag}"', "X-Repo-Commit": commit})

        def json(self, value: object) -> None:
            self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
