"""The points of a sweep, laid out and planned: what the checks look at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from alpaca.config import Run, Seeds
from alpaca.plan import Plan
from alpaca.sweep.design import Axis, Layout, Replication, levels_along
from alpaca.sweep.reading import as_text


@dataclass(frozen=True, kw_only=True, slots=True)
class Points:
    """Per point, in one order: factor -> value, its replication, its run, and (in `plan.runs`) its stages."""

    layout: Layout
    values: list[dict[str, Any]]
    replications: list[Replication]
    runs: list[Run]
    plan: Plan

    def along(self, axis: Axis) -> Iterator[list[int]]:
        """Groups of points that differ in this axis alone, seeds and arms being equal."""
        keyed = [
            {**values, "": (each.arm, *(repr(item.value()) for item in each.seeds))}
            for values, each in zip(self.values, self.replications, strict=True)
        ]
        yield from levels_along(keyed, axis)

    def told(self, place: int) -> str:
        """ "data.size=250, optimizer=muon"."""
        return values_in_words(self.values[place])

    def work(self, place: int) -> tuple[tuple[str, str], ...]:
        """Every stage of a point, by role and key: two points with equal work are one."""
        return tuple(sorted(self.plan.runs[place].items()))


def reached(points: Points, axis: Axis, role: str) -> bool:
    """Whether a factor changes this stage."""
    return any(
        len({points.plan.runs[place].get(role) for place in group}) > 1 for group in points.along(axis)
    )


def told_along(points: Points, axis: Axis, group: list[int], texts: list[str]) -> str:
    """ "102 at 250, 25.6 at 1000": something of the points of a group, by their values of an axis."""
    shown = [
        f"{text} at {' and '.join(as_text(points.values[place].get(key)) for key in axis.keys)}"
        for place, text in zip(group, texts, strict=True)
    ]
    return ", ".join(shown)


def values_in_words(values: dict[str, Any]) -> str:
    """ "data.size=250, optimizer=muon"."""
    return ", ".join(f"{key}={as_text(value)}" for key, value in values.items())


def seeds_in_words(seeds: Seeds) -> str:
    """ "0", or "data 0/init 5/order 0" where the three are not equal."""
    if seeds.data == seeds.init == seeds.order:
        return str(seeds.data)
    return f"data {seeds.data}/init {seeds.init}/order {seeds.order}"
