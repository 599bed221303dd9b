"""Moderation models, asked through the same queue and records as teachers: a text in, flagged categories out.

A moderator is a `TeacherClient` whose completion is the JSON {"flagged": bool, "categories": [names]} for the text of
the last message. One that runs here is one module with its options and how to open it, and a line in `MODERATORS`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alpaca.config import ModerateConfig, Teacher
from alpaca.errors import TeacherError
from alpaca.teachers.base import Completion, Request, RetryableError, Session, TeacherClient
from alpaca.teachers.keys import Keys
from alpaca.teachers.openai import OPENAI_URL, key_for, url_problem
from alpaca.teachers.prices import FREE

if TYPE_CHECKING:
    from alpaca.teachers.chat import ChatClient


KEYS = Keys(
    teacher="data.moderation",
    base_url="data.moderation_url",
    model="data.moderation_model",
    in_flight=None,
    max_attempts=None,
    timeout=None,
)
QUOTED = 200  # characters of an answer that an error message shows


@dataclass(kw_only=True, slots=True)
class Moderation(Teacher):
    """Options of the moderations endpoint of an OpenAI-compatible server; OpenAI asks no money for it."""

    kind: str = FREE
    model: str = "omni-moderation-latest"
    base_url: str | None = None

    @property
    def keys(self) -> Keys:
        """What its errors point to."""
        return KEYS


def openai_options(config: ModerateConfig) -> Moderation:
    """The stage's configuration as options of a teacher."""
    return Moderation(model=config.model, base_url=config.base_url, in_flight=config.in_flight, timeout=config.timeout)


@asynccontextmanager
async def openai_opened(options: Moderation, session: Session) -> AsyncIterator[TeacherClient]:
    """A client of the endpoint; TeacherError before anything is sent when the URL is none or there is no key."""
    from alpaca.teachers.chat import connected
    from alpaca.teachers.wire import Endpoint

    base_url = options.base_url or OPENAI_URL
    if problem := url_problem(base_url):
        raise TeacherError(what=problem, where=KEYS.base_url, remedy=f"for example {OPENAI_URL}")
    endpoint = Endpoint(
        base_url=base_url,
        model=options.model,
        key=key_for(base_url, KEYS),
        timeout=options.timeout,
        api="moderations",
        keys=KEYS,
    )
    async with connected(endpoint) as client:
        yield ModerationClient(client, options.model)


class ModerationClient:
    """`TeacherClient` over POST /moderations."""

    def __init__(self, client: ChatClient, model: str) -> None:
        self._client, self._model = client, model

    async def complete(self, request: Request) -> Completion:
        """One try; see `TeacherClient`."""
        body = {"model": self._model, "input": request.messages[-1].content}
        return await self._client.exchange(body, lambda answer, _: read_moderation(answer))


def read_moderation(answer: Any) -> Completion:
    """The first result of a moderation response, checked; RetryableError where it holds none."""
    results = answer.get("results") if isinstance(answer, dict) else None
    first = results[0] if isinstance(results, list) and results else None
    flagged = first.get("flagged") if isinstance(first, dict) else None
    categories = first.get("categories") if isinstance(first, dict) else None
    if not isinstance(flagged, bool) or not isinstance(categories, dict):
        raise RetryableError(f"the answer holds no moderation result: {str(answer)[:QUOTED]}")
    names = sorted(name for name, value in categories.items() if value is True)
    return Completion(
        text=json.dumps({"flagged": flagged, "categories": names}),
        finish_reason="stop",
        model=str(answer.get("model") or ""),
        prompt_tokens=0,
        completion_tokens=0,
    )


@dataclass(frozen=True, slots=True)
class Moderator:
    """One kind of moderation: the options it makes of the stage's configuration, and how it is opened."""

    options: Callable[[ModerateConfig], Teacher]
    opened: Callable[[Any, Session], AbstractAsyncContextManager[TeacherClient]]


MODERATORS: dict[str, Moderator] = {"openai": Moderator(openai_options, openai_opened)}
"""`data.moderation` -> moderator."""
