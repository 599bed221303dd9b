"""What a stage asks for: requests in an order, and what becomes of their answers."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from alpaca.teachers.base import Request
from alpaca.teachers.digest import request_digest, sent

ID_DIGITS = 6
SEED_BITS = 31  # the widest integer that every server takes as `seed`


@dataclass(kw_only=True, frozen=True)
class Planned:
    """A request and what the stage knows of it and the teacher does not (`about`: seeds shown, numbers of tasks).

    keys: parameter of the API -> configuration key, where that is not the one of `data_gen`, for errors.
    Not slotted because record and digest are kept after their first use.
    """

    request: Request
    about: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)

    @cached_property
    def record(self) -> dict[str, Any]:
        """What a stage writes down of a request; a schema is the form's, which `about` names."""
        return {**self.about, **{name: value for name, value in sent(self.request).items() if name != "schema"}}

    def knobs(self) -> dict[str, Any]:
        """What was sent besides the text."""
        return {name: value for name, value in self.record.items() if name not in (*self.about, "messages")}

    @cached_property
    def digest(self) -> str:
        """sha256 of all that was sent; equal digests make answers exchangeable between runs of one teacher."""
        return request_digest(self.request)


@dataclass(kw_only=True, slots=True, frozen=True)
class Verdict:
    """What one answer brought: tasks that could be read, tasks that were kept, and tasks too much like kept ones."""

    candidates: int
    kept: int
    duplicates: int = 0


class Phase(Protocol):
    """Requests in order and what becomes of their answers; to be derived from.

    must_answer: a request that the teacher refuses ends the stage, even if it is one of thousands. whole: the phase is
    all that the stage asks for, so that its cost can be projected.
    """

    must_answer: bool = False
    whole: bool = True

    @property
    def target(self) -> int:
        """How many kept tasks end the phase."""
        ...

    @property
    def first_yield(self) -> float:
        """Kept tasks to expect of a request before any answer is there."""
        ...

    def planned(self, index: int) -> Planned | None:
        """Request number `index` from 0; None beyond the last, or as long as earlier answers decide what it is."""
        ...

    def judge(self, planned: Planned, row: dict[str, Any]) -> Verdict:
        """Takes the answer (its row of raw.jsonl); called once per request, in their order.

        A refused request has an empty text and `REFUSED` as its finish reason.
        """
        ...


class Listed(Phase):
    """A phase of fixed requests, all of which are asked; `rows` holds the answers in the order of the requests."""

    def __init__(self, requests: list[Planned], *, must_answer: bool = False, whole: bool = True) -> None:
        self.requests, self.rows = requests, list[dict[str, Any]]()
        self.must_answer, self.whole = must_answer, whole

    @property
    def target(self) -> int:
        return len(self.requests)

    @property
    def first_yield(self) -> float:
        return 1.0

    def planned(self, index: int) -> Planned | None:
        return self.requests[index] if index < len(self.requests) else None

    def judge(self, planned: Planned, row: dict[str, Any]) -> Verdict:
        self.rows.append(row)
        return Verdict(candidates=1, kept=1)


def request_id(stem: str, index: int) -> str:
    """The id of request number `index`; ids of one stem sort in the order of their numbers."""
    return f"{stem}_{index:0{ID_DIGITS}d}"


def rng_of(seed: int, id: str) -> random.Random:
    """The random stream of one request, a function of the data seed and its id alone."""
    digest = hashlib.sha256(f"{seed}:{id}".encode()).digest()
    return random.Random(int.from_bytes(digest, "big"))
