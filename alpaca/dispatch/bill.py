"""What a whole plan will cost: tokens of teachers and hours of GPUs, as guesses that are marked so, and in dollars.

Only what is left to do counts. What nobody can forecast is named, and is within no limit of money.
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

REQUESTS, PRICE, TIME = "the number of requests", "the price", "the time"
KNOWN_BY = {
    REQUESTS: "data_gen.num_examples=N of what is answered anew; a pool that is rated is counted once it is there "
    "(until=sample)",
    PRICE: "spend.prices=FILE with a table of your own",
    TIME: "data.size=N and eval.NAME.size=N, and fsdp.gpu=NAME for the kind of GPU",
}
"""What is not known -> what makes it known."""

ON_GPUS = {"train": "training", "respond": "answers"}
"""Kinds of stages that run on GPUs where there are any, in words."""


@dataclass(kw_only=True, slots=True)
class Bill:
    """Sums over the stages that are left to do."""

    tokens: int = 0
    teacher_usd: float = 0.0
    unpriced: list[str] = field(default_factory=list)
    """Stages that ask a teacher whose price nobody knows."""
    uncounted: list[str] = field(default_factory=list)
    """Stages that ask a teacher nobody knows how often."""
    uncounted_paid: list[str] = field(default_factory=list)
    """Those of them that may cost money."""
    gpu_hours: dict[str, float] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    """On processors, one process after the other: of training, and of other stages where such ran before."""
    cpu_stages: int = 0
    """That `cpu_seconds` counts."""
    untimed: list[str] = field(default_factory=list)
    """Trainings and answers on GPUs, or on nobody knows what, whose time is not known."""
    work: set[str] = field(default_factory=set)
    """The kinds of stages that `gpu_hours` counts."""
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

    @property
    def _unknown_usd(self) -> dict[str, list[str]]:
        """What of a stage or GPU is not known and may be money -> of which."""
        found = {
            REQUESTS: self.uncounted_paid,
            PRICE: [*self.unpriced, *self._unpriced_gpus],
            TIME: self.untimed,
        }
        return {what: names for what, names in found.items() if names}

    def told(self) -> list[str]:
        """In words, one line for each part; nothing where nothing is left to do."""
        lines = [*self._teachers(), *self._gpus(), *self._processor()]
        if self.usd:
            rest = ", without what is not known" if self._unknown_usd else ""
            lines.append(f"together about ${self.usd:,.2f} (a guess){rest}; {ORIGINAL}")
        return lines

    def beyond(self, limit: Limit) -> Iterator[UserError]:
        """What the guess is above, else what cannot be held against a limit because nobody knows it."""
        max_usd, max_tokens = limit.max_usd, limit.max_tokens
        if max_usd is not None and self.usd > max_usd:
            yield _above(f"${self.usd:,.2f}", f"${max_usd:,.2f}", "max_usd")
        elif max_usd is not None:
            for what, names in self._unknown_usd.items():
                yield _unknown(what, names, "max_usd")
        if max_tokens is not None and self.tokens > max_tokens:
            yield _above(f"{asking.short(self.tokens)} tokens", f"{max_tokens:,}", "max_tokens")
        elif max_tokens is not None and self.uncounted:
            yield _unknown(REQUESTS, self.uncounted, "max_tokens")

    def _teachers(self) -> Iterator[str]:
        if self.tokens:
            money = f"${self.teacher_usd:,.2f}" if self.teacher_usd else "no money"
            rest = f"; price unknown: {_few(self.unpriced)}" if self.unpriced else ""
            yield f"teachers: about {asking.short(self.tokens)} tokens (a guess), {money}{rest}"
        if self.uncounted:
            yield f"teachers: {REQUESTS} is not known of {_few(self.uncounted)}"

    def _gpus(self) -> Iterator[str]:
        work = " and ".join(words for stage, words in ON_GPUS.items() if stage in self.work)
        for name, hours in sorted(self.gpu_hours.items()):
            price = self.prices.usd_per_hour.get(name)
            money = "price unknown" if price is None else f"${hours * price:,.2f} at ${price:g} ({self.prices.date})"
            how = "by what ran before and guesses" if self.measured else "a guess"
            yield f"{work}: about {hours:.2g} GPU-hours of {name} ({how}), {money}"
        if self.untimed:
            yield f"GPUs: {TIME} is not known of {_few(self.untimed)}"

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
    return found


def over_limit(session: Session, limit: Limit) -> Iterator[UserError]:
    """Why a plan must not start; without a limit nothing is forecast, which may take a measurement."""
    if limit != Limit():
        yield from bill(session).beyond(limit)


def _add_teacher(found: Bill, label: str, expected: Expectation) -> None:
    if not expected.asks:
        return
    if expected.tokens is None:
        found.uncounted.append(label)
    found.tokens += expected.tokens or 0
    if expected.teacher_usd is None:
        (found.uncounted_paid if expected.tokens is None else found.unpriced).append(label)
    else:
        found.teacher_usd += expected.teacher_usd


def _add_time(found: Bill, session: Session, key: str, expected: Expectation) -> None:
    found.measured |= expected.before
    if expected.gpu_hours is not None and expected.gpu:
        found.gpu_hours[expected.gpu] = found.gpu_hours.get(expected.gpu, 0.0) + expected.gpu_hours
        found.work.add(session.plan.nodes[key].stage)
    elif expected.seconds is not None:
        found.cpu_seconds += expected.seconds
        found.cpu_stages += 1
    elif expected.untimed:
        found.untimed.append(session.label(key))


def _above(guess: str, most: str, key: str) -> UserError:
    remedy = "raise it in the question file, or fewer points, seeds or examples"
    return UserError(
        what=f"a guess of {guess} is above the limit of {most}", where=f"spend.{key} of the question", remedy=remedy
    )


def _unknown(what: str, names: list[str], key: str) -> UserError:
    return UserError(
        what=f"{what} is not known of {_few(names)}",
        where=f"spend.{key} of the question",
        remedy=f"{KNOWN_BY[what]}; or no spend.{key} in the question file",
    )


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
