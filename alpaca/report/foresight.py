"""How fast and how large a training stage was, beside the plan's forecast, and what its guards met."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from alpaca.report.folders import Folder


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """One quantity in words: what was measured, and behind it what had been forecast ("0.1 s, -4%"), if anything."""

    name: str
    measured: str
    forecast: str


_QUANTITIES = (
    ("step_seconds", "seconds a step", "{:.3g} s"),
    ("peak_memory_gib", "peak memory", "{:.3g} GiB"),
    ("tokens_per_second", "real tokens a second", "{:,.0f}"),
    ("mfu", "model FLOP utilisation", "{:.1%}"),
)


def compared(folder: Folder) -> list[Compared]:
    """What was measured (provenance.json), and forecast where it was (stage.json)."""
    forecast = folder.document("stage.json").get("forecast") or {}
    cost = folder.document("provenance.json").get("cost") or {}
    rows = []
    for key, name, form in _QUANTITIES:
        measured, expected = _amount(cost.get(key)), _amount(forecast.get(key))
        if measured:
            told = f"{form.format(expected)}, {expected / measured - 1:+.0%}" if expected else ""
            rows.append(Compared(name=name, measured=form.format(measured), forecast=told))
    return rows


def events(training: dict[str, Any]) -> list[str]:
    """What the guards met and the held-out examples showed, in words; nothing where nothing happened."""
    found = {
        "steps whose batch was left out": training.get("left_out_steps"),
        "losses or gradients that were no finite number": training.get("nonfinite_steps"),
        "spikes of the loss": training.get("spikes"),
        "returns to an earlier checkpoint": training.get("rollbacks"),
    }
    told = [f"{count:,} {name}" for name, count in found.items() if count]
    if _amount(training.get("best_holdout_loss")):
        told.append(
            f"lowest loss on {training['held_out_examples']:,} held-out examples "
            f"{training['best_holdout_loss']:.3f}, after step {training['best_step']:,}"
        )
    exported = training.get("exported_step")
    if exported is not None and exported != training.get("steps"):
        told.append(f"the weights of step {exported:,} of {training['steps']:,} are the ones kept")
    return told + [str(text) for text in training.get("warnings") or ()]


def _amount(value: Any) -> float | None:
    """The value where it is a number above zero."""
    return value if isinstance(value, (int, float)) and value > 0 else None
