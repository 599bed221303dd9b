"""A proxy that stands before any OpenAI-compatible server and lets a share of the requests go wrong.

    python benchmarks/_fault_proxy.py --upstream http://127.0.0.1:8000/v1 --share 0.2 --log attempts.jsonl

Prints its base URL and runs until it is told to stop (SIGINT, SIGTERM). Which try of which request fails, and how, is
drawn by a hash of the seed, the request's body and the number of the try, so a mix can be repeated. Every attempt is a
line of the log when it ends: {"request", "attempt", "start", "end", "fault", "status"}; times are seconds of one clock,
status is null where no answer was sent.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import signal
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from aiohttp import ClientSession, TCPConnector, web

FAULTS = (
    "limit_with_wait",
    "limit_without_wait",
    "server_error",
    "hang",
    "reset",
    "cut_json",
    "html",
    "null_choices",
)
HOST = "127.0.0.1"
LONGEST_HANG = 3600.0
UPSTREAM_CONNECTIONS = 10_000
MOST_BYTES = 256 << 20


@dataclass(kw_only=True, slots=True)
class Mix:
    """How much goes wrong and how: a share of tries, equally split over `faults`. retry_after in seconds."""

    share: float
    seed: int
    retry_after: float
    faults: tuple[str, ...] = FAULTS

    def fault(self, request: str, attempt: int) -> str | None:
        digest = hashlib.sha256(f"{self.seed}:{request}:{attempt}".encode()).digest()
        drawn = int.from_bytes(digest[:6], "big") / 2**48
        return self.faults[int(drawn / self.share * len(self.faults))] if drawn < self.share else None


@dataclass(kw_only=True, slots=True)
class Proxy:
    """The state of a running proxy: where it sends to, what it does, and its log."""

    upstream: str
    mix: Mix
    log: IO[str]
    session: ClientSession
    attempts: Counter[str] = field(default_factory=Counter)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One attempt, logged whatever becomes of it."""
        start, body = time.monotonic(), await request.read()
        name = hashlib.sha256(body).hexdigest()[:16]
        self.attempts[name] += 1
        fault = self.mix.fault(name, self.attempts[name]) if request.method == "POST" else None
        row: dict[str, Any] = {"request": name, "attempt": self.attempts[name], "start": start, "fault": fault}
        status: int | None = None
        try:
            response = await (ANSWERS[fault](self, request, body) if fault else self.forward(request, body))
            status = response.status
            await response.prepare(request)
            await response.write_eof()
            return response
        finally:
            self.log.write(json.dumps({**row, "end": time.monotonic(), "status": status}) + "\n")

    async def forward(self, request: web.Request, body: bytes) -> web.Response:
        """What the server behind says."""
        url = self.upstream + request.raw_path.removeprefix("/v1")
        headers = {name: request.headers[name] for name in ("authorization", "content-type") if name in request.headers}
        async with self.session.request(request.method, url, data=body or None, headers=headers) as answer:
            return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)

    async def limit_with_wait(self, request: web.Request, body: bytes) -> web.Response:
        return _error(429, "slow down", "rate_limit_exceeded", {"retry-after": f"{self.mix.retry_after:g}"})

    async def limit_without_wait(self, request: web.Request, body: bytes) -> web.Response:
        return _error(429, "slow down", "rate_limit_exceeded")

    async def server_error(self, request: web.Request, body: bytes) -> web.Response:
        return _error(500, "the engine is on fire", "server_error")

    async def hang(self, request: web.Request, body: bytes) -> web.Response:
        await asyncio.sleep(LONGEST_HANG)  # cancelled when the client has had enough
        return _error(504, "slept too long", "server_error")

    async def reset(self, request: web.Request, body: bytes) -> web.Response:
        transport = request.transport
        if transport is not None:
            # Lingering for zero seconds makes abort() send RST instead of FIN.
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        raise asyncio.CancelledError

    async def cut_json(self, request: web.Request, body: bytes) -> web.Response:
        answer = await self.forward(request, body)
        return web.Response(body=_content(answer)[:-40], content_type="application/json")

    async def html(self, request: web.Request, body: bytes) -> web.Response:
        await self.forward(request, body)
        return web.Response(text="<html>a gateway says hello</html>", content_type="text/html")

    async def null_choices(self, request: web.Request, body: bytes) -> web.Response:
        answer = json.loads(_content(await self.forward(request, body)))
        return web.json_response({**answer, "choices": None})


ANSWERS: dict[str, Callable[[Proxy, web.Request, bytes], Awaitable[web.Response]]] = {
    name: getattr(Proxy, name) for name in FAULTS
}


def _content(answer: web.Response) -> bytes:
    return answer.body if isinstance(answer.body, bytes) else b""


def _error(status: int, message: str, code: str, headers: dict[str, str] | None = None) -> web.Response:
    error = {"message": message, "type": code, "param": None, "code": code}
    return web.json_response({"error": error}, status=status, headers=headers)


async def run(upstream: str, mix: Mix, log: IO[str], port: int) -> None:
    """Serves until a signal comes."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with ClientSession(connector=TCPConnector(limit=UPSTREAM_CONNECTIONS)) as session:
        proxy = Proxy(upstream=upstream.rstrip("/"), mix=mix, log=log, session=session)
        application = web.Application(client_max_size=MOST_BYTES)
        application.router.add_route("*", "/{path:.*}", proxy.handle)
        # A client that gives up cancels what handles its request: so the log knows when the attempt ended.
        runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, HOST, port, backlog=4096)
        await site.start()
        print(f"http://{HOST}:{runner.addresses[0][1]}/v1", flush=True)
        await stop.wait()
        await runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", required=True, help="base URL of the server behind, ending in /v1")
    parser.add_argument("--share", type=float, default=0.2, help="of tries that go wrong")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--retry-after", type=float, default=1.0, help="seconds that a 429 answer asks to wait")
    parser.add_argument("--faults", default=",".join(FAULTS), help="comma-separated")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    mix = Mix(
        share=given.share, seed=given.seed, retry_after=given.retry_after, faults=tuple(given.faults.split(","))
    )
    with given.log.open("w", buffering=1) as log:
        asyncio.run(run(given.upstream, mix, log, given.port))


if __name__ == "__main__":
    main()
