"""Requests, a source and a policy for the tests of teachers."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from typing import Any

from alpaca.teachers.base import Message, Request, RetryableError, Session
from alpaca.teachers.queue import Answer, Policy, ask

PROMPT = "List of 8 tasks:\n###\n4. Instruction:"


def request(number: int) -> Request:
    message = Message(role="user", content=PROMPT)
    return Request(id=f"r{number}", messages=(message,), temperature=1.0, top_p=1.0, max_tokens=500, seed=number)


class Requests:
    """A source of so many requests. goes_on: without those that cannot be answered."""

    def __init__(self, count: int, *, goes_on: bool = False) -> None:
        self.left = [request(number) for number in reversed(range(count))]
        self.closed = False
        self.faults: list[RetryableError] = []
        self.missed: list[str] = []  # what was given up, where the others go on
        self.goes_on = goes_on

    def next_request(self) -> Request | None:
        return self.left.pop() if self.left else None

    def wants_more(self) -> bool:
        return not self.closed

    def failed(self, request: Request, fault: RetryableError) -> bool:
        self.faults.append(fault)
        return True

    def gave_up(self, request: Request, reason: str) -> bool:
        self.missed.append(request.id)
        return self.goes_on


def policy(**changes: Any) -> Policy:
    return Policy(**{"in_flight": 8, "max_attempts": 4, "timeout": 5.0, "first_delay": 0.005, "drain": 1.0, **changes})


async def collect(client: Any, source: Requests, rules: Policy, notes: list[str] | None = None) -> list[Answer]:
    async with aclosing(ask(client, source, rules, (notes if notes is not None else []).append)) as answers:
        return [answer async for answer in answers]


def session() -> Session:
    """A session whose words nobody reads."""
    return Session(work=Path(), say=lambda text: None)
