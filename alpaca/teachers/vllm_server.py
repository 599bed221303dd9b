"""The vLLM server of one stage: started, waited for, asked and stopped."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from alpaca.errors import TeacherError
from alpaca.teachers import keeper
from alpaca.teachers.base import Completion, Request, RetryableError, Session
from alpaca.teachers.chat import ChatClient, connected
from alpaca.teachers.openai import NO_KEY
from alpaca.teachers.vllm import VLLM
from alpaca.teachers.wire import Endpoint

HOST = "127.0.0.1"
LOG = "vllm.log"
DTYPES = {"auto": "auto", "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
TELL_SECONDS = 30.0
HEALTH_SECONDS = 5.0
DYING_SECONDS = 2.0
SHOWN_LINES, SHOWN_WIDTH, TAIL_BYTES = 20, 240, 1 << 16


@asynccontextmanager
async def serving(options: VLLM, program: str, session: Session) -> AsyncIterator[WatchedClient]:
    """Starts `vllm serve`, waits until it is healthy, stops it at the end. TeacherError when it does not come up."""
    port = free_port()
    address = f"http://{HOST}:{port}"
    server = Server.start(command(options, program, port), f"{address}/health", session.work / LOG)
    try:
        await server.healthy(options, session.say)
        endpoint = Endpoint(
            base_url=f"{address}/v1",
            model=options.name(),
            key=NO_KEY,
            timeout=options.timeout,
            api=options.endpoint,
        )
        async with connected(endpoint) as client:
            yield WatchedClient(client, server)
    finally:
        await asyncio.shield(asyncio.to_thread(server.stop))


def command(options: VLLM, program: str, port: int) -> list[str]:
    """The command line of the server."""
    found = [program, "serve", options.location(), "--host", HOST, "--port", str(port)]
    found += ["--served-model-name", options.name(), "--dtype", DTYPES[options.dtype]]
    found += ["--tensor-parallel-size", str(options.tensor_parallel)]
    found += ["--gpu-memory-utilization", f"{options.gpu_memory:g}"]
    # Else defaults of the model's own file (a repetition penalty, say) would change answers unseen.
    found += ["--generation-config", "vllm"]
    if options.path is None:
        found += ["--revision", options.revision]
    if options.quantization is not None:
        found += ["--quantization", options.quantization]
    return [*found, *options.answer_arguments, *options.arguments]


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@dataclass(slots=True, frozen=True)
class Server:
    """The running server, in the hands of its keeper; health: the address that tells whether it is ready."""

    process: subprocess.Popen[bytes]
    health: str
    log: Path

    @classmethod
    def start(cls, command: list[str], health: str, log: Path) -> Server:
        """Starts the command in a session of its own; it ends when this process does, however that happens."""
        environment = {"VLLM_NO_USAGE_STATS": "1", **os.environ}
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, keeper.__file__, *command],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
            )
        return cls(process, health, log)

    async def healthy(self, options: VLLM, say: Callable[[str], None]) -> None:
        """Waits until the server is ready; TeacherError when it ends before, or is not ready in time."""
        began = told = time.monotonic()
        pause = FIRST_PAUSE
        say(f"starting vLLM with {options.name()} (log: {self.log})")
        while not await asyncio.to_thread(answers, self.health):
            now = time.monotonic()
            if not self.runs():
                raise self.ended("before it was ready")
            if now - began > options.start_timeout:
                raise TeacherError(
                    what=f"vLLM was not ready within {options.start_timeout:g} s; the end of its log:\n{self.tail()}",
                    where="teacher.start_timeout",
                    remedy="raise it if the log shows progress; downloads and compilation are only slow the first time",
                )
            if now - told > TELL_SECONDS:
                told = now
                say(f"waiting for vLLM, {now - began:.0f} s: {self.tail(1).strip()}")
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, 1.5 * pause)
        say(f"vLLM is ready after {time.monotonic() - began:.0f} s")

    def runs(self) -> bool:
        """Whether the server is still there."""
        return self.process.poll() is None

    def died(self) -> bool:
        """Whether the server has ended, to be asked after a failed try; its keeper may need a moment to see it."""
        if self.runs() and not answers(self.health):
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(DYING_SECONDS)
        return not self.runs()

    def ended(self, when: str) -> TeacherError:
        """What to say when the server has ended by itself."""
        return TeacherError(
            what=f"vLLM ended with status {self.process.returncode} {when}; the end of its log:\n{self.tail()}",
            where="teacher",
            remedy="mend what it names: memory by teacher.gpu_memory, teacher.tensor_parallel or a smaller model, "
            'context by teacher.arguments=["--max-model-len","8192"]',
        )

    def tail(self, lines: int = SHOWN_LINES) -> str:
        """The last lines of the log, indented."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
        last = [line.rstrip()[:SHOWN_WIDTH] for line in text.splitlines() if line.strip()][-lines:]
        return "\n".join(f"      {line}" for line in last) or "      (empty)"

    def stop(self) -> None:
        """Tells the keeper to end the server, and waits until both are gone."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(keeper.GRACE + 2 * keeper.LAST)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def answers(url: str) -> bool:
    """Whether a server says that it is healthy."""
    # A proxy of the environment cannot reach this machine's own servers.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=HEALTH_SECONDS) as response:
            return int(response.status) == 200
    except (urllib.error.URLError, OSError, ValueError):
        return False


class WatchedClient:
    """`TeacherClient` of a server that may die: then no try can heal, and its log says why."""

    def __init__(self, client: ChatClient, server: Server) -> None:
        self._client, self._server = client, server

    async def complete(self, request: Request) -> Completion:
        """One try; see `TeacherClient`."""
        try:
            return await self._client.complete(request)
        except RetryableError:
            if await asyncio.to_thread(self._server.died):
                raise self._server.ended("while it was asked") from None
            raise
