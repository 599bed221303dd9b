"""What every teacher speaks: one request, one completion, and the two ways in which a try can fail.

A failed try may heal (`RetryableError`: the queue tries again later) or cannot (`TeacherError`: the stage stops).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(kw_only=True, slots=True, frozen=True)
class Message:
    """One message of a chat; role: "system", "user" or "assistant"."""

    role: str
    content: str


@dataclass(kw_only=True, slots=True, frozen=True)
class Request:
    """What a teacher is asked. `max_tokens` bounds the completion; `seed` is sent along, servers may ignore it."""

    id: str
    messages: tuple[Message, ...]
    temperature: float
    top_p: float
    max_tokens: int
    seed: int | None = None


@dataclass(kw_only=True, slots=True, frozen=True)
class Completion:
    """A usable answer: its text is not blank.

    model: as the server names it. usage_estimated: the server gave no token counts, these are characters / 4.
    """

    text: str
    finish_reason: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    usage_estimated: bool = False
    server_request_id: str | None = None
    system_fingerprint: str | None = None


@dataclass(kw_only=True, slots=True, frozen=True)
class Usage:
    """Tokens that a failed try is billed for."""

    prompt_tokens: int
    completion_tokens: int


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
