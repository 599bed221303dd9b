"""What a whole plan will cost: tokens of teachers and hours of GPUs, as guesses that are marked so, and in dollars.

Only what is left to do counts. Answering on a GPU is not forecast, and the bill says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from alpaca import artifacts
from alpaca.dispatch import asking, expectation, training
from alpaca.dispatch.expectation import Expectation
from alpaca.dispatch.prepare import Session
from alpaca.errors import UserError
from alpaca.sweep.question import Limit
from alpaca.teachers import prices

ORIGINAL = "the original's recipe: about $500 of teacher and $100 of GPUs"
"""Stanford Alpaca's release (2023): its data cost less than $500, its training less than $100."""


@dataclass(kw_only=True, slots=True)
class Bill:
    """Sums over the stages that are left to do."""

    tokens: int = 0
    teacher_usd: float = 0.0
    unpriced: list[str] = field(default_factory=list)
    """Stages that ask a teacher whose price nobody knows."""
    gpu_hours: dict[str, float] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    """On processors, one process after the other: of training, and of other stages where such ran before."""
    cpu_stages: int = 0
    """That `cpu_seconds` counts."""
    untimed: list[str] = field(default_factory=list)
    """Trainings on GPUs, or on nobody knows what, whose time is not known."""
    unforecast: int = 0
    """Stages that answer with a model on a GPU."""
    measured: bool = False
    """Whether some time was taken from stages that ran before."""
    prices: prices.GpuPrices = field(default_factory=prices.gpu_prices)

    @property
    def gpu_usd(self) -> float:
        """Of the kinds of GPUs that have a price."""
        return sum(hours * self.prices.usd_per_hour.get(name, 0.0) for name, hours in self.gpu_hours.items())

    @property
    def usd(self) -> float:
        return self.teacher_usd + self.gpu_usd

    @property
    def _unpriced_gpus(self) -> list[str]:
        return sorted(name for name in self.gpu_hours if name not in self.prices.usd_per_hour)

    def told(self) -> list[str]:
        """In words, one line for each part; nothing where nothing is left to do."""
        lines = [*self._teachers(), *self._gpus(), *self._processor()]
        if self.gpu_hours or self.teacher_usd:
            lines.append(f"together about ${self.usd:,.2f} (a guess); {ORIGINAL}")
        return lines

    def beyond(self, limit: Limit) -> Iterator[UserError]:
        """What the guess is above, and what cannot be held against a limit of money."""
        max_usd, max_tokens = limit.max_usd, limit.max_tokens
        if max_usd is not None and self.usd > max_usd:
            yield _beyond(f"a guess of ${self.usd:,.2f} is above the limit of ${max_usd:,.2f}", "spend.max_usd")
        elif max_usd is not None and (unknown := [*self.unpriced, *self._unpriced_gpus, *self.untimed]):
            yield _beyond(f"the price is not known of {_few(unknown)}", "spend.max_usd")
        if max_tokens is not None and self.tokens > max_tokens:
            text = f"a guess of {asking.short(self.tokens)} tokens is above the limit of {max_tokens:,}"
            yield _beyond(text, "spend.max_tokens")

    def _teachers(self) -> Iterator[str]:
        if self.tokens:
            money = f"${self.teacher_usd:,.2f}" if self.teacher_usd else "no money"
            rest = f"; price unknown: {_few(self.unpriced)}" if self.unpriced else ""
            yield f"teachers: about {asking.short(self.tokens)} tokens (a guess), {money}{rest}"

    def _gpus(self) -> Iterator[str]:
        for name, hours in sorted(self.gpu_hours.items()):
            price = self.prices.usd_per_hour.get(name)
            money = "price unknown" if price is None else f"${hours * price:,.2f} at ${price:g} ({self.prices.date})"
            how = "by what ran before and guesses" if self.measured else "a guess"
            yield f"training: about {hours:.2g} GPU-hours of {name} ({how}), {money}"
        if self.gpu_hours and self.unforecast:
            yield f"answers: {self.unforecast} stages on GPUs, not counted"
        if self.untimed:
            yield f"training: time not known of {_few(self.untimed)}"

    def _processor(self) -> Iterator[str]:
        if self.cpu_stages:
            whose = f"{self.cpu_stages} stage{'s' if self.cpu_stages > 1 else ''}"
            yield f"processor: about {training.clock(self.cpu_seconds)} one after the other ({whose}), no money"


def bill(session: Session) -> Bill:
    """The bill of a plan. Raises UserError for a file of prices that does not fit."""
    found = Bill(prices=prices.gpu_prices(session.run.spend.prices))
    threads = session.run.cluster.threads
    for key, folder in session.folders.items():
        if not artifacts.is_finished(folder):
            expected = expectation.expect(session.plan.nodes[key], session.plan, session.earlier, threads)
            _add_teacher(found, session.label(key), expected)
            _add_time(found, session, key, expected)
            found.unforecast += expected.answers
    return found


def over_limit(session: Session, limit: Limit) -> Iterator[UserError]:
    """Why a plan must not start; without a limit nothing is forecast, which may take a measurement."""
    if limit != Limit():
        yield from bill(session).beyond(limit)


def _add_teacher(found: Bill, label: str, expected: Expectation) -> None:
    if expected.tokens is None:
        return
    found.tokens += expected.tokens
    if expected.teacher_usd is None:
        found.unpriced.append(label)
    else:
        found.teacher_usd += expected.teacher_usd


def _add_time(found: Bill, session: Session, key: str, expected: Expectation) -> None:
    node = session.plan.nodes[key]
    found.measured |= expected.before
    if expected.gpu_hours is not None and expected.gpu:
        found.gpu_hours[expected.gpu] = found.gpu_hours.get(expected.gpu, 0.0) + expected.gpu_hours
    elif expected.seconds is not None:
        found.cpu_seconds += expected.seconds
        found.cpu_stages += 1
    elif node.stage == "train" and not expectation.is_tiny(node, session.plan):
        found.untimed.append(session.label(key))


def _beyond(what: str, where: str) -> UserError:
    remedy = "raise it in the question file, or fewer points, seeds or examples"
    return UserError(what=what, where=f"{where} of the question", remedy=remedy)


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
