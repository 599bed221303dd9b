"""What asking costs and may cost: tokens and, where prices are known, money, against the bounds of `spend`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from alpaca.config import Spend
from alpaca.errors import UserError
from alpaca.teachers.base import Request, RetryableError, Usage
from alpaca.teachers.prices import Price

CHARACTERS_PER_TOKEN = 4
COUNTS = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")


class Spending:
    """Tokens and money used up so far against `spend` (None: no bound); rows: what is already paid for.

    Every request that is out is reckoned with the most that it can take, and so is a failed try whose bill is unknown
    (no answer in time, a broken one). So the bounds hold, and towards them fewer and fewer requests are in flight until
    the last one leaves no room for another. Two things it cannot know: what was in flight when a process was killed,
    and how many tokens a prompt has before the first answer (characters / 4).

    Raises UserError for a bound on money where no price is known: it could not be kept.
    """

    def __init__(self, spend: Spend, price: Price | None, rows: Iterable[dict[str, Any]] = ()) -> None:
        if spend.max_usd is not None and price is None:
            raise UserError(
                what=f"a bound of ${spend.max_usd:g}, but the price of this teacher's tokens is not known",
                where="spend.max_usd",
                remedy="give its price in a file (spend.prices), or bound tokens instead (spend.max_tokens)",
            )
        self.bound, self.price = spend, price
        self.used, self.usd = 0, 0.0
        self._longest_prompt = 0
        for row in rows:
            self.add(row)

    def add(self, row: dict[str, Any]) -> None:
        """Counts an answer or a failed try."""
        self.used += row["prompt_tokens"] + row["completion_tokens"]
        self.usd += self.price.usd(row) if self.price else 0.0
        self._longest_prompt = max(self._longest_prompt, row["prompt_tokens"])

    def bill(self, request: Request, fault: RetryableError) -> Usage | None:
        """What a failed try costs: as the server says, the most possible if it may have cost something, else None."""
        if fault.usage is not None or not fault.may_be_billed:
            return fault.usage
        return Usage(prompt_tokens=self.most(request) - request.max_tokens, completion_tokens=request.max_tokens)

    def allows(self, request: Request, outstanding: int) -> bool:
        """Whether this request and those that are still out can only end within the bounds."""
        out = outstanding + 1
        tokens, usd = self.bound.max_tokens, self.bound.max_usd
        if tokens is not None and self.used + self.most(request) * out > tokens:
            return False
        return usd is None or self.usd + self.most_usd(request) * out <= usd

    def most(self, request: Request) -> int:
        """Tokens that one request can take; its prompt is as long as the longest so far, or by characters if longer."""
        return self._prompt(request) + request.max_tokens

    def most_usd(self, request: Request) -> float:
        """Dollars that one request can take."""
        row = {"prompt_tokens": self._prompt(request), "completion_tokens": request.max_tokens}
        return self.price.usd(row) if self.price else 0.0

    def reached(self, request: Request, kept: str) -> UserError:
        """The error that ends a stage at its bound. kept: what there is so far, in words."""
        usd, tokens = self.bound.max_usd, self.bound.max_tokens
        if usd is not None and self.usd + self.most_usd(request) > usd:
            told = f"the bound of ${usd:g} is reached: ${self.usd:.4f} are spent, the next request can take " \
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
        money = f", ${self.usd:,.4f}" if self.price is not None and (self.price.input or self.price.output) else ""
        return f"{self.used:,} tokens{money}"

    def _prompt(self, request: Request) -> int:
        return max(estimated_tokens(request), self._longest_prompt)


def estimated_tokens(request: Request) -> int:
    """Tokens of a prompt by its characters."""
    return math.ceil(sum(len(message.content) for message in request.messages) / CHARACTERS_PER_TOKEN)


def totals(rows: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Sums of every kind of token."""
    found = dict.fromkeys(COUNTS, 0)
    for row in rows:
        for name in COUNTS:
            found[name] += row.get(name) or 0
    return found
