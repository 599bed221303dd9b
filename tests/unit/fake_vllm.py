"""A program that behaves like `vllm serve` as far as the teacher can see; put on the PATH by the tests.

FAKE_VLLM in the environment names what goes wrong; every process writes its number into the folder FAKE_VLLM_PIDS.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def option(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


def write_pid(name: str) -> None:
    (Path(os.environ["FAKE_VLLM_PIDS"]) / f"{name}-{os.getpid()}").touch()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        loading = self.server.ready_at > time.monotonic()  # type: ignore[attr-defined]
        self.send(503 if loading else 200, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if os.environ.get("FAKE_VLLM") == "dies_when_asked":
            print("CUDA error: an illegal memory access was encountered", flush=True)
            os._exit(3)
        chat = self.path == "/v1/chat/completions"
        text = json.dumps({"path": self.path, "body": body, "argv": sys.argv[1:]})
        choice: dict[str, Any] = {"message": {"content": text}} if chat else {"text": text}
        usage = {"prompt_tokens": 3, "completion_tokens": 5}
        answer = {"model": body["model"], "choices": [{**choice, "finish_reason": "stop"}], "usage": usage}
        known = body["model"] == option("--served-model-name")
        self.send(200 if known else 404, answer if known else {"error": {"message": "no such model"}})

    def send(self, status: int, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    mode = os.environ.get("FAKE_VLLM", "")
    if mode == "worker":  # holds the GPU, in a session of its own, and does not want to go
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        write_pid("worker")
        time.sleep(120)
        return
    write_pid("server")
    print("INFO loading weights", flush=True)
    if mode == "dies":
        print("ValueError: No available memory for the cache blocks.", file=sys.stderr, flush=True)
        raise SystemExit(7)
    if mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if mode == "workers":
        environment = {**os.environ, "FAKE_VLLM": "worker"}
        subprocess.Popen([sys.executable, __file__], start_new_session=True, env=environment)
        while not list(Path(os.environ["FAKE_VLLM_PIDS"]).glob("worker-*")):
            time.sleep(0.01)
    server = ThreadingHTTPServer((option("--host"), int(option("--port"))), Handler)
    server.ready_at = time.monotonic() + (1e9 if mode == "never" else 0.05)  # type: ignore[attr-defined]
    server.serve_forever()


if __name__ == "__main__":
    main()
