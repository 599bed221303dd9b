"""The teacher of the embedded world: a program that writes verifiable tasks and computes their answers.

It is served over HTTP and asked through the same client and queue as any other teacher, so the default run exercises
what a real one does; its knobs make teachers of known quality.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from alpaca.config import Teacher, how, what
from alpaca.teachers.base import Session, TeacherClient

MODEL = "programmatic"
KNOBS = ("error_rate", "verbosity", "diversity", "latency")
"""The options that the server reads; the others are about asking it."""


@dataclass(kw_only=True, slots=True)
class Programmatic(Teacher):
    """Options of the programmatic teacher. The same seed gives the same tasks whatever error_rate and verbosity are."""

    kind: str = what("programmatic", choices=("programmatic",))
    error_rate: float = what(0.0, least=0.0, below=1.0)
    """Share of tasks that are answered wrongly; those of a smaller share are among those of a larger one."""
    verbosity: float = what(0.0, least=0.0, below=1.0)
    """Share of answers wrapped in a polite phrase, nested likewise."""
    diversity: float = what(1.0, least=0.01, below=1.0)
    """Share of the world's lexicon and of its families of tasks that are used."""
    latency: float = how(0.0, least=0.0)
    """Seconds that the server waits before it answers."""


@asynccontextmanager
async def opened(options: Programmatic, session: Session) -> AsyncIterator[TeacherClient]:
    """A client of a server that runs in a process of its own as long as the client is open."""
    from alpaca.teachers.chat import Endpoint, connected
    from alpaca.teachers.openai import NO_KEY
    from alpaca.teachers.programmatic.process import server_process

    async with server_process({name: getattr(options, name) for name in KNOBS}) as base_url:
        endpoint = Endpoint(base_url=base_url, model=MODEL, key=NO_KEY, timeout=options.timeout)
        async with connected(endpoint) as client:
            yield client
