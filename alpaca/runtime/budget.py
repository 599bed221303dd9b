"""The training budget: how long, in one explicit unit. Free of torch, since the planner reads it too."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from alpaca.errors import UserError

UNITS = {
    "epoch": "epochs",
    "epochs": "epochs",
    "step": "steps",
    "steps": "steps",
    "token": "tokens",
    "tokens": "tokens",
}
_FORM = re.compile(r"\s*([0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]+)\s*")
_ROUNDING = 1e-9  # 0.07 * 100 is 7.000000000000001, which must not become an eighth example


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """`amount` of `unit` ("epochs", "steps" or "tokens")."""

    amount: float
    unit: str

    @classmethod
    def parse(cls, text: str, where: str = "train.budget") -> Budget:
        """Reads "3 epochs", "200 steps" or "1e6 tokens"; anything else is a UserError that lists these forms."""
        found = _FORM.fullmatch(text)
        unit = UNITS.get(found[2].lower()) if found else None
        if found is None or unit is None:
            raise _refusal(text, where, "not a training budget")
        amount = float(found[1])
        if not math.isfinite(amount) or amount <= 0:
            raise _refusal(text, where, "nothing to train for")
        if unit == "steps" and not amount.is_integer():
            raise _refusal(text, where, "not a whole number of steps")
        return cls(amount=amount, unit=unit)

    def canonical(self) -> str:
        """One spelling per budget: "1e6 tokens" and "1000000 tokens" are the same."""
        amount = str(int(self.amount)) if self.amount.is_integer() else repr(self.amount)
        return f"{amount} {self.unit}"

    def steps(self, examples: int, global_batch: int, tokens_per_example_mean: float) -> int:
        """Optimizer steps: at least one; epochs and tokens are rounded up to the step that completes them."""
        if self.unit == "steps":
            return int(self.amount)
        if self.unit == "epochs":
            return max(1, math.ceil(self.draws(examples) / global_batch))
        return max(1, math.ceil(self.amount / (global_batch * tokens_per_example_mean) - _ROUNDING))

    def draws(self, examples: int) -> int:
        """Examples seen in all, for a budget of epochs: the last batch is smaller so that none is seen once more."""
        return max(1, math.ceil(self.amount * examples - _ROUNDING))


def _refusal(text: str, where: str, problem: str) -> UserError:
    return UserError(
        what=f"{problem}: {text!r}",
        where=where,
        remedy='a positive number and a unit, such as "3 epochs", "200 steps" or "1e6 tokens"',
    )
