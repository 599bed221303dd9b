"""Which examples each optimizer step sees: an endless stream of shuffled epochs, cut into global batches."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from alpaca.runtime.budget import Budget
from alpaca.runtime.seeding import derive


@dataclass(kw_only=True, slots=True)
class Order:
    """The stream of one run; a pure function of the seed, so that nothing of it has to be saved.

    draws: examples seen in all. Every step has exactly global_batch examples, but for the last step of a budget in
    epochs, which ends with the epoch.
    """

    examples: int
    global_batch: int
    steps: int
    draws: int
    seed: int
    _epochs: dict[int, list[int]] = field(default_factory=dict)

    def batch(self, step: int) -> list[int]:
        """Indices of the examples of step 0 … steps - 1."""
        first = step * self.global_batch
        return [self._at(position) for position in range(first, min(first + self.global_batch, self.draws))]

    def _at(self, position: int) -> int:
        number, offset = divmod(position, self.examples)
        if number not in self._epochs:
            self._epochs = {epoch: order for epoch, order in self._epochs.items() if epoch == number - 1}
            self._epochs[number] = list(range(self.examples))
            random.Random(derive(self.seed, "order", number)).shuffle(self._epochs[number])
        return self._epochs[number][offset]


def plan(budget: Budget, lengths: list[int], global_batch: int, seed: int) -> Order:
    """The order that spends `budget` on examples of these token counts."""
    examples = len(lengths)
    steps = budget.steps(examples, global_batch, sum(lengths) / examples)
    draws = budget.draws(examples) if budget.unit == "epochs" else steps * global_batch
    return Order(examples=examples, global_batch=global_batch, steps=steps, draws=draws, seed=seed)
