"""What asking costs and may cost: tokens and, where prices are known, money, against the bounds of `spend`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from alpaca.config import Spend
from alpaca.errors import UserError
from alpaca.teachers.base import CHARACTERS_PER_TOKEN, Request, RetryableError, Usage
from alpaca.teachers.prices import Price

COUNTS = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")


class Spending:
    """Tokens and money used up so far against `spend` (None: no bound); rows: what is already paid for.

    Every request that is out has a reservation: the most that it can take. So is a failed try whose bill is unknown
    reckoned (no answer in time, a broken one). So the bounds hold, and towards them fewer and fewer requests are in
    flight until the last one leaves no room for another. What it cannot know: what was in flight when a process was
    killed, how many tokens a prompt has before the first answer (characters / 4, or the most tokens per character seen
    so far), and a service tier dearer than the one asked for before an answer has said so.

    tier: the service tier asked for. Raises UserError for a bound on money where no price is known.
    """

    def __init__(
        self, spend: Spend, price: Price | None, rows: Iterable[dict[str, Any]] = (), tier: str | None = None
    ) -> None:
        self.bound, self.price = spend, price
        self.used, self._usd = 0, 0.0
        self._reserved: dict[str, tuple[int, float]] = {}  # by request id: tokens, dollars
        self._tokens_out, self._usd_out = 0, 0.0  # their sums: a batch has tens of thousands
        self._tokens_per_character = 1 / CHARACTERS_PER_TOKEN
        self._tier, self._factor = tier, (price.factor(tier) if price else None) or 1.0
        self._is_priced = price is not None and price.factor(tier) is not None
        if spend.max_usd is not None and not self._is_priced:
            raise unpriced(spend.max_usd, tier if price is not None else None)
        for row in rows:
            self.add(row)

    @property
    def usd(self) -> float | None:
        """Dollars so far; None where a price is not known."""
        return self._usd if self._is_priced else None

    def reserve(self, request: Request) -> None:
        """The request is out."""
        self.release(request)
        self._reserved[request.id] = tokens, usd = self.most(request), self.most_usd(request)
        self._tokens_out += tokens
        self._usd_out += usd

    def release(self, request: Request) -> None:
        """The request is not out any more."""
        tokens, usd = self._reserved.pop(request.id, (0, 0.0))
        self._tokens_out -= tokens
        # Sums of floats drift; with nothing out they are exact again.
        self._usd_out = self._usd_out - usd if self._reserved else 0.0

    def add(self, row: dict[str, Any], request: Request | None = None) -> None:
        """Counts an answer or a failed try; request: that it belongs to, where it was asked here."""
        self.used += row["prompt_tokens"] + row["completion_tokens"]
        cost = self.price.usd(row) if self.price else None
        self._is_priced = self._is_priced and cost is not None
        self._usd += cost or 0.0
        if request is not None and row["prompt_tokens"]:
            characters = max(1, request.characters)
            self._tokens_per_character = max(self._tokens_per_character, row["prompt_tokens"] / characters)
        if self.price is not None and row.get("service_tier"):
            self._factor = max(self._factor, self.price.factor(row["service_tier"]) or 1.0)

    def bill(self, request: Request, fault: RetryableError) -> Usage | None:
        """What a failed try costs: as the server says, the most possible if it may have cost something, else None."""
        if fault.usage is not None or not fault.may_be_billed:
            return fault.usage
        return Usage(prompt_tokens=self._prompt(request), completion_tokens=request.max_tokens)

    def allows(self, request: Request) -> bool:
        """Whether this request and all that are out can only end within the bounds."""
        tokens, usd = self.bound.max_tokens, self.bound.max_usd
        own_tokens, own_usd = self._reserved.get(request.id, (0, 0.0))
        if tokens is not None and self.used + self._tokens_out - own_tokens + self.most(request) > tokens:
            return False
        return usd is None or self._usd + self._usd_out - own_usd + self.most_usd(request) <= usd

    def most(self, request: Request) -> int:
        """Tokens that one request can take."""
        return self._prompt(request) + request.max_tokens

    def most_usd(self, request: Request) -> float:
        """Dollars that one request can take, at the dearest tier asked for or seen."""
        row = {"prompt_tokens": self._prompt(request), "completion_tokens": request.max_tokens}
        cost = self.price.usd(row) if self.price else None
        return (cost or 0.0) * (1.0 if self.price and self.price.tier else self._factor)

    def leaves_room(self, tokens: int) -> bool:
        """Whether so many tokens, all of them of completion, can still be spent."""
        row = {"prompt_tokens": 0, "completion_tokens": tokens, "online": True}
        most = ((self.price.usd(row) if self.price else None) or 0.0) * self._factor
        tokens_fit = self.bound.max_tokens is None or self.used + tokens <= self.bound.max_tokens
        return tokens_fit and (self.bound.max_usd is None or self._usd + most <= self.bound.max_usd)

    def reached(self, request: Request, kept: str) -> UserError:
        """The error that ends a stage at its bound. kept: what there is so far, in words."""
        usd, tokens = self.bound.max_usd, self.bound.max_tokens
        if tokens is None or (usd is not None and self._usd + self.most_usd(request) > usd):
            told = f"the bound of ${usd or 0.0:g} is reached: ${self._usd:.4f} are spent, the next request can take " \
                f"${self.most_usd(request):.4f}; {kept}"  # fmt: skip
            where = "spend.max_usd"
        else:
            told = f"the bound of {tokens:,} tokens is reached: {self.used:,} are used, the next request can take " \
                f"{self.most(request):,}; {kept}"  # fmt: skip
            where = "spend.max_tokens"
        remedy = "everything is kept: run again with a higher bound to go on, or for fewer examples"
        return UserError(what=told, where=where, remedy=remedy)

    def told(self) -> str:
        """Tokens and, where the price is known and not zero, money."""
        return f"{self.used:,} tokens" + (f", ${self.usd:,.4f}" if self.usd else "")

    def _prompt(self, request: Request) -> int:
        return math.ceil(request.characters * self._tokens_per_character)


def unpriced(bound: float, tier: str | None = None) -> UserError:
    """The error for a bound on money that could not be kept. tier: a service tier without a price."""
    served = "" if tier is None else f" at the service tier {tier!r}"
    return UserError(
        what=f"a bound of ${bound:g}, but the price of this teacher's tokens{served} is not known",
        where="spend.max_usd",
        remedy="give its price in a file (spend.prices), or bound tokens instead (spend.max_tokens)",
    )


def totals(rows: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Sums of every kind of token."""
    found = dict.fromkeys(COUNTS, 0)
    for row in rows:
        for name in COUNTS:
            found[name] += row.get(name) or 0
    return found
