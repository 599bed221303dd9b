"""What every teacher speaks: one request, one completion, and the two ways in which a try can fail.

A failed try may heal (`RetryableError`: the queue tries again later) or cannot (`TeacherError`: the stage stops).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


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


@dataclass(kw_only=True, slots=True, frozen=True)
class Completion:
    """A usable answer: its text is not blank.

    model: as the server names it. usage_estimated: the server gave no token counts, these are characters / 4.
    cached_tokens are part of prompt_tokens, reasoning_tokens of completion_tokens. service_tier: as really used.
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


class RetryableError(Exception):
    """A try failed in a way that may heal.

    after: seconds that the server asked to wait, None if it did not say. usage: what the server bills although the
    answer is of no use, None if it did not say. may_be_billed: the server may have written an answer that got lost.
    """

    def __init__(
        self, reason: str, *, after: float | None = None, usage: Usage | None = None, may_be_billed: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason, self.after, self.usage, self.may_be_billed = reason, after, usage, may_be_billed
