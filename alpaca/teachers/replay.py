"""The replay teacher: recorded answers by the digest of the request, so that any real run becomes a test and a demo.

A cassette is the raw.jsonl of a sample folder. Nothing is sent and nothing is paid; usage is told as it was recorded.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from alpaca.config import MISSING, Teacher, content, what
from alpaca.teachers.base import Session, TeacherClient


@dataclass(kw_only=True, slots=True)
class Replay(Teacher):
    """Answers of an earlier run; its requests must be those of that run (same data_gen, seeds, prompt and seed)."""

    kind: str = what("replay", choices=("replay",))
    cassette: str = content(MISSING, takes="either")
    """The raw.jsonl of a sample folder, or a folder of such files (*.jsonl), whose first answer to a request counts."""


@asynccontextmanager
async def opened(options: Replay, session: Session) -> AsyncIterator[TeacherClient]:
    """A client that answers from the cassette; UserError lists what is wrong with its lines."""
    from alpaca.teachers.cassette import Cassette

    cassette = Cassette.load(options.cassette)
    session.say(f"replaying {len(cassette):,} recorded answers; nothing is asked and nothing is paid")
    yield cassette
