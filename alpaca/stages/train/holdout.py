"""Held-out examples: their loss now and then, and early stopping on it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from alpaca.config import Train
from alpaca.stages.train.batches import Form, collate, passes
from alpaca.stages.train.parallel import Placed
from alpaca.stages.train.tokens import Row


@dataclass(kw_only=True, slots=True)
class Holdout:
    """rows: never trained on. Patience counts looks without a new best."""

    rules: Train
    rows: list[Row] = field(default_factory=list)
    best: float = math.inf
    best_step: int = 0
    without: int = 0
    """Looks since the best one."""

    def due(self, step: int, steps: int) -> bool:
        """Whether to look after this many steps."""
        return bool(self.rows) and (step % self.rules.holdout_steps == 0 or step == steps)

    def note(self, step: int, loss: float) -> bool:
        """Takes a look's loss down; whether it is a new best."""
        better = loss < self.best
        self.without = 0 if better else self.without + 1
        if better:
            self.best, self.best_step = loss, step
        return better

    def forget_after(self, step: int) -> None:
        """After a rollback to `step`: a best one of later weights is none any more."""
        if self.best_step > step:
            self.best, self.best_step, self.without = math.inf, 0, 0

    def exhausted(self) -> bool:
        """Whether early stopping ends the training now."""
        return self.rules.patience is not None and self.without >= self.rules.patience

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        best = None if math.isinf(self.best) else self.best
        return {"best": best, "best_step": self.best_step, "without": self.without}

    def load(self, state: dict[str, Any]) -> None:
        self.best = math.inf if state["best"] is None else state["best"]
        self.best_step, self.without = state["best_step"], state["without"]


def loss_of(placed: Placed, rows: list[Row], form: Form) -> float:
    """Mean NLL in nats per supervised token of all rows. Every rank must call it."""
    ranks, total = placed.ranks, sum(row.supervised for row in rows)
    summed = torch.zeros((), dtype=torch.float64, device=ranks.device)
    with placed.looking():
        for each in passes(rows, form, ranks.rank, ranks.world_size):
            with placed.autocast():
                summed += placed.forward(collate(each, form, ranks.device))
    return float(ranks.sum(summed)) / total
