"""The forecast of a training stage beside what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from alpaca.report.folders import Folder


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """One quantity in words: what was measured, what had been forecast, and by how much that was off ("+4 %")."""

    name: str
    measured: str
    forecast: str
    off: str


_QUANTITIES = (("step_seconds", "seconds a step", "{:.3g} s"), ("peak_memory_gib", "peak memory", "{:.3g} GiB"))


def compared(folder: Folder) -> list[Compared]:
    """What was both forecast (stage.json) and measured (provenance.json)."""
    forecast = folder.document("stage.json").get("forecast") or {}
    cost = folder.document("provenance.json").get("cost") or {}
    return [
        Compared(
            name=name,
            measured=form.format(cost[key]),
            forecast=form.format(forecast[key]),
            off=f"{forecast[key] / cost[key] - 1:+.0%}",
        )
        for key, name, form in _QUANTITIES
        if _is_amount(forecast.get(key)) and _is_amount(cost.get(key))
    ]


def _is_amount(value: Any) -> bool:
    return isinstance(value, (int, float)) and value > 0
