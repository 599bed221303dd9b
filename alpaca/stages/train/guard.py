"""What is done about a loss that is no number, or far above those before it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from alpaca.config import Train
from alpaca.errors import UserError

WINDOW = 50
"""Losses that a new one is compared with."""
LEAST_WINDOW = 20
MOST_ROLLBACKS = 5
MOST_IN_A_ROW = 10
"""Batches that are left out one after the other, or have no gradient at all, before that is an error."""

KEEP, SKIP, ROLLBACK = "keep", "skip", "rollback"


@dataclass(kw_only=True, slots=True)
class Guard:
    """Judges each step's loss and gradient norm before the step is made."""

    rules: Train
    say: Callable[[str], None]
    losses: list[float] = field(default_factory=list)
    """The last good ones."""
    spikes: int = 0
    nonfinite: int = 0
    rollbacks: int = 0
    bad: int = 0
    """Batches in a row that were left out or had no gradient."""

    def judge(self, step: int, loss: float, norm: float) -> str:
        """KEEP, SKIP (leave this batch out) or ROLLBACK (and those since the last point).

        Raises UserError where the rules say stop, or where going back did not help.
        """
        self.bad = self.bad + 1 if norm == 0 or not (math.isfinite(loss) and math.isfinite(norm)) else 0
        if self.bad >= MOST_IN_A_ROW:
            raise _stopped(f"came to nothing: no usable gradient in {self.bad} batches in a row up to step {step + 1}")
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.nonfinite += 1
            return self._act(self.rules.on_nonfinite, f"diverged at step {step + 1}: loss {loss}, gradient norm {norm}")
        if (height := self._height(loss)) is not None:
            self.spikes += 1
            told = f"spiked at step {step + 1}: loss {loss:.3f} is {height:.1f} standard deviations above the last ones"
            verdict = self._act(self.rules.on_spike, told)
            if verdict != KEEP:
                return verdict
        self.losses = [*self.losses, loss][-WINDOW:]
        return KEEP

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {name: getattr(self, name) for name in ("losses", "spikes", "nonfinite", "rollbacks", "bad")}

    def load(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    def _height(self, loss: float) -> float | None:
        """Standard deviations of a spike above the mean; None where there is none."""
        if len(self.losses) < LEAST_WINDOW:
            return None
        spread = statistics.stdev(self.losses)
        height = (loss - statistics.fmean(self.losses)) / spread if spread > 0 else 0.0
        return height if height > self.rules.spike_deviations else None

    def _act(self, rule: str, problem: str) -> str:
        if rule == "stop" or (rule == "rollback" and self.rollbacks >= MOST_ROLLBACKS):
            gone = f" (after going back {self.rollbacks} times)" if self.rollbacks else ""
            raise _stopped(f"{problem}{gone}")
        self.say(f"training {problem}: {_ACTS[rule]}")
        if rule == "rollback":
            self.rollbacks += 1
        return {"report": KEEP}.get(rule, rule)


def _stopped(problem: str) -> UserError:
    return UserError(
        what=f"training {problem}",
        where="optimizer.lr",
        remedy="a lower optimizer.lr, a longer optimizer.warmup_ratio or a smaller optimizer.clip; if the "
        "first step diverges, the base model's weights are damaged",
    )


_ACTS = {
    "report": "reported, as train.on_spike=report says",
    "skip": "this batch is left out",
    "rollback": "back to the last point; the batches since then are left out",
}
