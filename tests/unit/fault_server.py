"""A chat server on this machine that goes wrong in the ways real ones do; for the tests of teachers and sampling."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from alpaca.teachers.programmatic import MODEL, Programmatic
from alpaca.teachers.programmatic.completions import complete_chat, complete_text

HEALING = (
    "rate_limit",
    "server_error",
    "cut_json",
    "cut_body",
    "html",
    "null_choices",
    "no_choices",
    "empty",
    "reset",
    "hang",
    "overloaded",
    "garbage",
    "error_in_a_good_status",
)


class FaultServer(ThreadingHTTPServer):
    """fault(seed, try number from 1) names the fault of a try, None for a good answer."""

    daemon_threads = True
    request_queue_size = 128  # with the default of 5 the system drops connections that are opened together

    def __init__(self, fault: Callable[[int, int], str | None], options: Programmatic | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fault, self.options = fault, options or Programmatic()
        self.tries: Counter[int] = Counter()
        self.served: Counter[int] = Counter()
        self.headers_seen: list[dict[str, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.released = threading.Event()
        self.lock = threading.Lock()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        return None


@contextmanager
def faulty(fault: Callable[[int, int], str | None] = lambda seed, attempt: None) -> Iterator[FaultServer]:
    """A running FaultServer."""
    server = FaultServer(fault)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FaultServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        seed = body.get("seed", 0)
        with self.server.lock:
            self.server.tries[seed] += 1
            attempt = self.server.tries[seed]
            self.server.bodies.append(body)
            self.server.headers_seen.append({name.lower(): value for name, value in self.headers.items()})
        fault = self.server.fault(seed, attempt)
        complete = complete_chat if "messages" in body else complete_text
        known = {**body, "model": MODEL, "reasoning_effort": None}
        good = complete(known, self.server.options) if "input" not in body else {}
        if fault is None:
            with self.server.lock:
                self.server.served[seed] += 1
            self._send(200, json.dumps(good))
        else:
            getattr(self, fault)(good)

    def rate_limit(self, good: dict[str, Any]) -> None:
        self._error(429, "slow down", "rate_limit_exceeded", {"retry-after": "0.01"})

    def server_error(self, good: dict[str, Any]) -> None:
        self._error(500, "the engine is on fire", None)

    def overloaded(self, good: dict[str, Any]) -> None:
        self._error(503, "come back", None, {"x-ratelimit-reset-requests": "30ms", "x-ratelimit-reset-tokens": "6m0s",
            "x-ratelimit-remaining-requests": "0", "x-ratelimit-remaining-tokens": "500"})  # fmt: skip

    def garbage(self, good: dict[str, Any]) -> None:
        self.wfile.write(b"this is no HTTP\r\n\r\n")
        self.close_connection = True

    def bad_bias(self, good: dict[str, Any]) -> None:
        self._error(400, "invalid token", "invalid_value", param="logit_bias.50256")

    def error_in_a_good_status(self, good: dict[str, Any]) -> None:
        self._send(200, json.dumps({"error": {"message": "the server behind is busy", "code": 502}}))

    def quota(self, good: dict[str, Any]) -> None:
        self._error(429, "You exceeded your current quota", "insufficient_quota")

    def no_balance(self, good: dict[str, Any]) -> None:
        self._error(402, "Insufficient Balance", "invalid_request_error")

    def unauthorised(self, good: dict[str, Any]) -> None:
        self._error(401, f"Incorrect key: {self.headers['authorization']}", "invalid_api_key")

    def forbidden(self, good: dict[str, Any]) -> None:
        self._error(403, "not for you", None)

    def no_model(self, good: dict[str, Any]) -> None:
        self._error(404, "no such model", "model_not_found")

    def bad_request(self, good: dict[str, Any]) -> None:
        self._error(400, "temperature must be 1", "unsupported_value")

    def cut_json(self, good: dict[str, Any]) -> None:
        self._send(200, json.dumps(good)[:-40])

    def cut_body(self, good: dict[str, Any]) -> None:
        text = json.dumps(good)
        self._send(200, text[: len(text) // 2], {"content-length": str(len(text))})
        self.close_connection = True

    def html(self, good: dict[str, Any]) -> None:
        self._send(200, "<html>a proxy says hello</html>", {"content-type": "text/html"})

    def key_in_an_error(self, good: dict[str, Any]) -> None:
        error = {"message": f"the server behind refused {self.headers['authorization']}"}
        self._send(200, json.dumps({"error": error, "choices": None, "usage": good.get("usage")}))

    def key_in_html(self, good: dict[str, Any]) -> None:
        self._send(200, f"<html>{self.headers['authorization']}</html>", {"content-type": "text/html"})

    def key_cut_off(self, good: dict[str, Any]) -> None:
        self._send(200, f"<html>{'x' * 280}{self.headers['authorization']}</html>", {"content-type": "text/html"})

    def key_in_a_refusal(self, good: dict[str, Any]) -> None:
        self._error(400, f"not for {self.headers['authorization']}", None)

    def null_choices(self, good: dict[str, Any]) -> None:
        self._send(200, json.dumps({**good, "choices": None}))

    def no_choices(self, good: dict[str, Any]) -> None:
        self._send(200, json.dumps({**good, "choices": []}))

    def empty(self, good: dict[str, Any]) -> None:
        good["choices"][0]["message"]["content"] = " \n"
        self._send(200, json.dumps(good))

    def reset(self, good: dict[str, Any]) -> None:
        # Lingering for zero seconds makes close() send RST instead of FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def hang(self, good: dict[str, Any]) -> None:
        self.server.released.wait()
        self.close_connection = True

    def no_usage(self, good: dict[str, Any]) -> None:
        self._send(200, json.dumps({**good, "usage": None}))

    def surrogate(self, good: dict[str, Any]) -> None:
        good["choices"][0]["message"]["content"] = "half \ud800 a pair"
        self._send(200, json.dumps(good))

    def restated(self, good: dict[str, Any]) -> None:
        message = good["choices"][0]["message"]
        message["content"] = f"###\n4. Instruction:{message['content']}"
        self._send(200, json.dumps(good))

    def repeated(self, good: dict[str, Any]) -> None:
        message = {"role": "user", "content": "List of 20 tasks:\n###\n4. Instruction:"}
        self._send(
            200, json.dumps(complete_chat({"model": MODEL, "messages": [message], "seed": 1}, self.server.options))
        )

    def _error(
        self,
        status: int,
        message: str,
        code: str | None,
        headers: dict[str, str] | None = None,
        param: str | None = None,
    ) -> None:
        error = {"message": message, "type": code or "server_error", "param": param, "code": code}
        self._send(status, json.dumps({"error": error}), headers)

    def _send(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in (
            {"content-type": "application/json", "content-length": str(len(body)), "x-request-id": "req-of-the-test"}
            | (headers or {})
        ).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        return None
