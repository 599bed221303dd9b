"""What a question file says, typed. `alpaca.sweep.reading` makes it from the YAML and names what is wrong there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from alpaca.config import Analysis

SEED_KEYS = ("seed", "seeds.data", "seeds.init", "seeds.order")
GRID, ONE_AT_A_TIME = "grid", "one_at_a_time"
DESIGNS = (GRID, ONE_AT_A_TIME)
HIGHER, LOWER = "higher", "lower"
NESTED, ITEMS = "nested_data", "evaluation_items"
AMOUNTS = ("epochs", "steps", "tokens", "compute")
BUDGET = "budget"
EFFORTS = (*AMOUNTS, BUDGET)
"""Ways to hold the length of training equal: one at a time, since they cannot be equal together when the data grows.
budget is for data of one size, where steps and epochs are equal together."""
CHECKED: dict[str, str] = {
    "epochs": "every example is seen equally often at every point",
    "steps": "the same number of optimizer steps at every point",
    "tokens": "the same number of training tokens at every point",
    "compute": "the same number of floating-point operations of training at every point",
    BUDGET: "as many steps and epochs at every point",
    NESTED: "under one seed every smaller data set is part of every larger one",
    ITEMS: "every point answers the same evaluation items",
}
"""Controls that are checked before anything starts, and how they are told where the file has no words for them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Control:
    """Something that is held equal. name: one of CHECKED; "" where it is said in words and nobody checks it."""

    name: str = ""
    words: str

    def told(self) -> str:
        """The control in words, with whether it was checked."""
        return f"{self.name.replace('_', ' ')} (checked): {self.words}" if self.name else self.words


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """What all stages of the plan together may use up; null: no limit."""

    max_usd: float | None = None
    max_tokens: int | None = None


Seeding = dict[str, int]
"""One replication: seed key -> value."""


@dataclass(kw_only=True, slots=True)
class Question:
    """One file of sweeps/."""

    question: str = ""
    hypothesis: str = ""
    """What is expected, written down before there is a result."""
    factors: dict[str, list[Any]] = field(default_factory=dict)
    """Dotted key or group -> its values."""
    zip: dict[str, list[str]] = field(default_factory=dict)
    """Name -> factors whose values move together and are one factor of that name."""
    design: str = GRID
    """grid: every combination; one_at_a_time: the baseline, and each other value of each factor by itself."""
    baseline: dict[str, Any] = field(default_factory=dict)
    """Factor -> the value that the others are compared with; the first one of factors that are not named."""
    exclude: list[dict[str, list[Any]]] = field(default_factory=list)
    """Combinations that are left out: factor -> values; all that are named must fit."""
    when: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    """Factor -> the values of others with which it varies; elsewhere it is not set."""
    seeds: list[Seeding] = field(default_factory=list)
    arms: dict[str, list[Seeding]] = field(default_factory=dict)
    """Name -> seeds of its own: arms that differ in chance alone."""
    fixed: list[str] = field(default_factory=list)
    """Overrides that all points share."""
    controls: list[Control] = field(default_factory=list)
    metric: dict[str, str] = field(default_factory=dict)
    """METRIC or EVALUATION.METRIC -> the direction that is better, the deciding one first."""
    analysis: Analysis = field(default_factory=Analysis)
    spend: Limit = field(default_factory=Limit)

    @property
    def effort(self) -> Control | None:
        """The control that says which length of training is equal."""
        return next((control for control in self.controls if control.name in EFFORTS), None)

    def holds(self, name: str) -> bool:
        """Whether the file says that it holds this equal."""
        return any(control.name == name for control in self.controls)
