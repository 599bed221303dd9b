"""What a level is called: by its settings, by what sets it apart from the baseline, or as an arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alpaca.config import ReportConfig
from alpaca.report import wording

ARM = "arm"
"""The factor of a question whose arms differ in chance alone."""
BASELINE = "baseline"
_MOST_IN_FULL = 2


def setting(config: ReportConfig, factors: Mapping[str, Any]) -> str:
    """A level's name: with more than two factors and a baseline, what is not as in that; "" without factors."""
    if not config.baseline or len(config.baseline) <= _MOST_IN_FULL:
        return wording.factors(bundled(factors, factors, config.bundles))
    return told_apart(factors, config.baseline, config.bundles) or BASELINE


def told_apart(factors: Mapping[str, Any], reference: Mapping[str, Any], bundles: Mapping[str, Sequence[str]]) -> str:
    """What sets a level apart from another, factors that move together under their common name."""
    changed = {key: value for key, value in factors.items() if key not in reference or reference[key] != value}
    if set(changed) == {ARM}:
        return f"arm {wording.value(changed[ARM])}"
    return wording.factors_in_words(bundled(changed, factors, bundles))


def bundled(
    chosen: Mapping[str, Any], factors: Mapping[str, Any], bundles: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """The chosen factors of a level; those that move together once, as "muon / 0.015" under their common name."""
    told: dict[str, Any] = {}
    for key, value in chosen.items():
        name = next((name for name, keys in bundles.items() if key in keys), key)
        together = [wording.value(factors[one]) for one in bundles.get(name, ()) if one in factors]
        told[name] = " / ".join(together) if name != key else value
    return told


def fits(factors: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether the factors have these values; a factor that does not vary here is no obstacle."""
    return all(factors[key] == value for key, value in wanted.items() if key in factors)
