"""What every teacher speaks: one request, one completion, and the two ways in which a try can fail.

A failed try may heal (`RetryableError`: the queue tries again later) or cannot (`TeacherError`: the stage stops).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from alpaca.errors import TeacherError

CHARACTERS_PER_TOKEN = 4
"""Of a prompt or an answer whose tokens nobody has counted."""
KEPT = "every answer so far is kept and the same command goes on from there"


@dataclass(kw_only=True, slots=True, frozen=True)
class Message:
    """One message of a chat; role: "system", "user" or "assistant"."""

    role: str
    content: str


@dataclass(kw_only=True, slots=True, frozen=True)
class Request:
    """What a teacher is asked. `max_tokens` bounds the completion; `seed` is sent along, servers may ignore it.

    stop: the completion ends before any of these. logit_bias: token id -> bias. schema: a JSON schema that the
    completion must fit (structured outputs). What a server does not know it refuses, ignores or honours: `preflight`
    finds out which.
    """

    id: str
    messages: tuple[Message, ...]
    temperature: float
    top_p: float
    max_tokens: int
    seed: int | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float = 0.0
    logit_bias: dict[str, float] | None = None
    schema: dict[str, Any] | None = None

    @property
    def characters(self) -> int:
        """Length of all messages."""
        return sum(len(message.content) for message in self.messages)


@dataclass(kw_only=True, slots=True, frozen=True)
class Completion:
    """A usable answer: its text is not blank.

    model: as the server names it. usage_estimated: the server gave no token counts, these are characters / 4.
    cached_tokens are part of prompt_tokens, reasoning_tokens of completion_tokens. service_tier: as really used.
    cut: characters that were removed because the server left a stop string and what followed it in its answer.
    """

    text: str
    finish_reason: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    usage_estimated: bool = False
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    service_tier: str | None = None
    server_request_id: str | None = None
    system_fingerprint: str | None = None
    cut: int = 0


@dataclass(kw_only=True, slots=True, frozen=True)
class Usage:
    """Tokens that a failed try is billed for."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(kw_only=True, slots=True, frozen=True)
class Session:
    """For whom a teacher is opened: the stage's own folder for what must survive a crash, and where to say something.

    work: scratch that survives a crash and is removed when the stage is finished.
    """

    work: Path
    say: Callable[[str], None] = print


class TeacherClient(Protocol):
    """An open connection to a teacher."""

    async def complete(self, request: Request) -> Completion:
        """One try. Raises RetryableError for what may heal, TeacherError for what cannot; never retries by itself."""
        ...


class Cause(Enum):
    """Why a try failed. The first two say that the server has more to do than it can."""

    TURNED_AWAY = "turned away"
    """The server did not look at the request (429, 503): trying again costs nothing but time."""
    TIMEOUT = "timeout"
    """No answer in time."""
    EMPTY = "empty"
    """A whole answer, but without text."""
    BROKEN = "broken"
    """Anything else: an error of the server, a lost connection, an answer of no use."""


class RefusedRequestError(TeacherError):
    """The server refuses the request as it is (400, 422), whoever asks: a parameter or a text that it does not take."""


class RetryableError(Exception):
    """A try failed in a way that may heal.

    after: seconds that the server asked to wait, None if it did not say. usage: what the server bills although the
    answer is of no use, None if it did not say. may_be_billed: the server may have written an answer that got lost.
    cause: why it failed, as far as the queue has to know.
    """

    def __init__(
        self,
        reason: str,
        *,
        after: float | None = None,
        usage: Usage | None = None,
        may_be_billed: bool = False,
        cause: Cause = Cause.BROKEN,
    ) -> None:
        super().__init__(reason)
        self.reason, self.after, self.usage, self.may_be_billed, self.cause = reason, after, usage, may_be_billed, cause
