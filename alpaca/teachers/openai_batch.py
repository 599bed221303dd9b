"""The Batch API of OpenAI and of servers that have it too: half the price, an answer within a day.

Requests that come in together are sent as one file. What was sent is written down before and after each step, so that
a process that dies at any moment neither loses a batch nor pays for it twice: the next start attaches to it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from alpaca.config import how, what
from alpaca.errors import TeacherError
from alpaca.teachers.base import Session, TeacherClient
from alpaca.teachers.openai import OpenAI, endpoint_of


@dataclass(kw_only=True, slots=True)
class OpenAIBatch(OpenAI):
    """The options of `teacher=openai`, and how its requests become batches."""

    kind: str = what("openai_batch", choices=("openai_batch",))
    in_flight: int = how(50_000, least=1)
    """Requests waiting for an answer at the same time, in as many batches as their limits make of them."""
    timeout: float = how(26 * 3600.0, least=0.001)
    """Seconds that one try may take; a batch has 24 hours, and is asked for again and not paid again after this."""
    drain: float | None = how(5.0, least=0.0)
    """Surplus requests are not waited for: their batch may take a day."""
    gather: float = how(5.0, least=0.0)
    """Seconds without a further request after which a batch is sent."""
    poll: float = how(15.0, least=0.001)
    """Seconds before a batch is first asked how far it is; twenty times as long in the end."""
    batch_requests: int = how(50_000, least=1)
    """Requests of one batch at most; OpenAI takes 50,000."""
    batch_bytes: int = how(200_000_000, least=1)
    """Bytes of one batch's file at most; OpenAI takes 200 MB."""


@asynccontextmanager
async def opened(options: OpenAIBatch, session: Session) -> AsyncIterator[TeacherClient]:
    """A client that has attached to what earlier starts have sent.

    Raises TeacherError before anything is sent as for `teacher=openai`, and for what only the online endpoint has.
    """
    endpoint = endpoint_of(options)
    if options.service_tier is not None:
        raise TeacherError(
            what=f"{options.service_tier!r}, but a batch is a service tier of its own",
            where="teacher.service_tier",
            remedy="set it to null, or take teacher=openai",
        )
    from alpaca.teachers.batch_client import batching

    async with batching(options, endpoint, session) as client:
        yield client
