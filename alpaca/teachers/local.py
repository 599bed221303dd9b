"""A local teacher: a causal language model of transformers in the stage's own process, on the GPU where there is one.

For models that fit beside nothing else on one device; a larger one, or many requests, is faster with `teacher=vllm`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from alpaca.config import how, what
from alpaca.teachers.base import Session, TeacherClient
from alpaca.teachers.weights import WeightsTeacher, require


@dataclass(kw_only=True, slots=True)
class Local(WeightsTeacher):
    """A model of transformers; its chat template is used where it has one, else the plain text is continued.

    An answer depends on its request alone, not on the requests that are answered beside it (up to ties in floating
    point, which are rare in fp32 and less so in 16 bits).
    """

    kind: str = what("local", choices=("local",))
    batch: int = how(8, least=1)
    """Requests answered together; halved where the memory does not suffice."""
    in_flight: int = how(16, least=1)
    """Requests waiting at the same time; twice `batch`, so that the next batch is always there."""
    timeout: float = how(3600.0, least=0.001)
    """Seconds that one try may take, waiting for the batches before it included."""


@asynccontextmanager
async def opened(options: Local, session: Session) -> AsyncIterator[TeacherClient]:
    """A client of the model, loaded here; UserError when there are no weights, or none that can be loaded."""
    require(options)
    from alpaca.teachers.local_model import loaded

    async with loaded(options, session.say) as client:
        yield client
