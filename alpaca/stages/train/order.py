"""Which examples each optimizer step sees: an endless stream of shuffled epochs, cut into global batches."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from alpaca.runtime.budget import Budget
from alpaca.runtime.seeding import derive


@dataclass(kw_only=True, slots=True)
class Stream:
    """The endless stream of one seed; a pure function of it, so that nothing of it has to be saved."""

    examples: int
    seed: int
    _epochs: dict[int, list[int]] = field(default_factory=dict)

    def at(self, position: int) -> int:
        """The example at a position of the stream."""
        number, offset = divmod(position, self.examples)
        if number not in self._epochs:
            self._epochs = {epoch: order for epoch, order in self._epochs.items() if epoch == number - 1}
            self._epochs[number] = list(range(self.examples))
            random.Random(derive(self.seed, "order", number)).shuffle(self._epochs[number])
        return self._epochs[number][offset]


@dataclass(kw_only=True, slots=True)
class Order:
    """The stream cut into steps. starts: where each step begins in the stream, and where the last one ends.

    Every step is full, but for the last one of a budget in epochs, which ends with the epoch.
    """

    stream: Stream
    starts: list[int]

    @property
    def steps(self) -> int:
        return len(self.starts) - 1

    @property
    def draws(self) -> int:
        """Examples seen in all."""
        return self.starts[-1]

    def batch(self, step: int) -> list[int]:
        """Indices of the examples of step 0 … steps - 1."""
        return [self.stream.at(position) for position in range(self.starts[step], self.starts[step + 1])]


def plan(budget: Budget, lengths: list[int], global_batch: int, seed: int, unit: str = "examples") -> Order:
    """The order that spends `budget` on examples of these token counts.

    unit: of global_batch, "examples", or "tokens": as many whole examples as fit, at least one.
    """
    stream = Stream(examples=len(lengths), seed=seed)
    if unit == "tokens":
        return Order(stream=stream, starts=_by_tokens(budget, lengths, global_batch, stream))
    steps = budget.steps(len(lengths), global_batch, sum(lengths) / len(lengths))
    draws = budget.draws(len(lengths)) if budget.unit == "epochs" else steps * global_batch
    return Order(stream=stream, starts=[min(step * global_batch, draws) for step in range(steps + 1)])


def _by_tokens(budget: Budget, lengths: list[int], batch: int, stream: Stream) -> list[int]:
    starts, spent = [0], 0
    while not _spent(budget, len(starts) - 1, starts[-1], spent, len(lengths)):
        end, held = starts[-1], 0
        most = budget.draws(len(lengths)) if budget.unit == "epochs" else None
        while end != most and (not held or held + lengths[stream.at(end)] <= batch):
            held += lengths[stream.at(end)]
            end += 1
        starts.append(end)
        spent += held
    return starts


def _spent(budget: Budget, steps: int, draws: int, tokens: int, examples: int) -> bool:
    """Whether the budget is used up after so much."""
    if budget.unit == "steps":
        return steps >= budget.amount
    return draws >= budget.draws(examples) if budget.unit == "epochs" else tokens >= budget.amount


def hold_out(examples: int, count: int, seed: int) -> tuple[list[int], list[int]]:
    """Positions of the examples to train on, and of `count` that are held out."""
    shuffled = list(range(examples))
    random.Random(derive(seed, "holdout")).shuffle(shuffled)
    return sorted(shuffled[count:]), sorted(shuffled[:count])
