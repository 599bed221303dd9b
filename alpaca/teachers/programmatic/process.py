"""The server as a process of its own: it shares neither the interpreter's lock nor the fate of the asking process.

The server ends with its standard input, whose other end only the asking process holds: however that one dies, the
system closes it, so no orphan is left.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from alpaca.errors import TeacherError

MODULE = "alpaca.teachers.programmatic"
START_SECONDS, STOP_SECONDS = 60.0, 5.0


@asynccontextmanager
async def server_process(knobs: Mapping[str, float]) -> AsyncIterator[str]:
    """Starts the server with these options and gives its base URL; stops it at the end.

    Raises TeacherError when it does not start.
    """
    options = [f"--{name.replace('_', '-')}={value}" for name, value in knobs.items()]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", MODULE, "--until-stdin-ends", *options,
        stdin=PIPE, stdout=PIPE, env={**os.environ, "PYTHONPATH": _same_code()},
        # Ctrl+C in a terminal reaches a whole group; the asking process wants the answers that are on their way.
        start_new_session=True,
    )  # fmt: skip
    try:
        yield await _address(process)
    finally:
        await _stop(process)


async def _address(process: Process) -> str:
    """The base URL that the server prints when it listens."""
    line = b""
    if process.stdout is not None:
        with suppress(TimeoutError):
            line = await asyncio.wait_for(process.stdout.readline(), START_SECONDS)
    address = line.decode(errors="replace").partition(" at ")[2].partition(" ")[0]
    if not address:
        raise TeacherError(
            what=f"its server did not start within {START_SECONDS:g} s, or said no address: {line!r}",
            where="teacher=programmatic",
            remedy=f"start it by hand to see why: python -m {MODULE}",
        )
    return address


async def _stop(process: Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()


def _same_code() -> str:
    """The import path with this very package first, wherever the asking process was started."""
    return os.pathsep.join(filter(None, [str(Path(__file__).resolve().parents[3]), os.environ.get("PYTHONPATH")]))
