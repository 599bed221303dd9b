"""The numbers of the page for other programs: results.json and, in long form, results.csv."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from alpaca.report import sensitivity
from alpaca.report.effects import Contrast, Contrasts, Findings
from alpaca.report.results import Level, Outcome, Results, family_intervals
from alpaca.report.sensitivity import Other
from alpaca.statistics import Effect, Interval
from alpaca.statistics.curves import PowerLaw

_OF_ALL = ""
"""Stands for a family in the rows of whole runs."""


def levels(results: Results) -> list[dict[str, Any]]:
    """Each level's mean by every metric."""
    return [
        {
            "factors": level.factors,
            "seeds": [outcome.seed for outcome in level.outcomes],
            "runs": len(level.scored(results.main)),
            "metrics": {key: {**numbers(one), "items": level.items(key)} for key, one in level.intervals.items()},
        }
        for level in results.levels
    ]


def differences(results: Results, findings: Findings) -> list[dict[str, Any]]:
    """Each level against the baseline by the metric that decides; the interval is simultaneous."""
    contrasts = findings.contrasts.get(results.main)
    return (
        [_difference(row, row.level, contrasts.reference) for row in contrasts.rows if row.level] if contrasts else []
    )


def effects(findings: Findings, main: str, others: list[Other]) -> dict[str, Any]:
    """Every comparison by every metric, and the differences of differences. others: by other methods, of `main`."""
    both = findings.interaction
    return {
        "metrics": {
            metric: _comparison(found, others if metric == main else [])
            for metric, found in findings.contrasts.items()
        },
        "interaction": None
        if both is None
        else {"factors": list(both.factors), "rows": [{"name": row.name, **_effect(row)} for row in both.rows]},
        "laws": {label: _law(law) for label, law in findings.laws.items()},
    }


def points(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Every run with its scores and stages."""
    return [
        {
            "name": outcome.point.name,
            "factors": outcome.point.factors,
            "seeds": outcome.point.seeds,
            "metrics": {key: numbers(scores.interval) for key, scores in outcome.scores.items()},
            "stages": outcome.point.stages,
            "missing": [folder.name for folder in outcome.missing],
        }
        for outcome in outcomes
    ]


def long_form(results: Results) -> str:
    """One row for each point and metric, and for each family of items; a point without scores has one of its own.

    A factor's cell is its value (`cell`), and empty where the point does not have the factor.
    """
    out = io.StringIO()
    seeds = list(dict.fromkeys(key for outcome in results.outcomes for key in outcome.point.seeds))
    head = ["name", *results.factors, *(f"seeds.{key}" for key in seeds)]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*head, "metric", "family", "value", "low", "high", "n", "method", "artifact", "missing"])
    for outcome in results.outcomes:
        start = [outcome.point.name, *_cells(outcome.point.factors, results.factors)]
        start += _cells(outcome.point.seeds, seeds)
        missing = " ".join(folder.name for folder in outcome.missing)
        writer.writerows([*start, *row, missing] for row in _rows(outcome))
    return out.getvalue()


def cell(value: Any) -> str:
    """A value that can be read back: JSON, but a text without quotes where it is no JSON by itself, as most words."""
    if not isinstance(value, str) or not value:
        return json.dumps(value, ensure_ascii=False)
    try:
        json.loads(value)
    except ValueError:
        return value
    return json.dumps(value, ensure_ascii=False)


def numbers(interval: Interval) -> dict[str, Any]:
    """An interval as plain JSON."""
    return {
        "estimate": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "n": interval.n,
        "method": interval.method,
        "level": interval.level,
    }


def _cells(given: dict[str, Any], names: Iterable[str]) -> list[str]:
    return [cell(given[name]) if name in given else "" for name in names]


def _rows(outcome: Outcome) -> Iterator[list[Any]]:
    for metric, scores in outcome.scores.items():
        artifact = outcome.point.stages.get(f"score:{metric.rpartition('.')[0]}", "")
        for family, interval in {_OF_ALL: scores.interval, **family_intervals(scores)}.items():
            row = numbers(interval)
            yield [metric, family, *(row[key] for key in ("estimate", "low", "high", "n", "method")), artifact]
    if not outcome.scores:
        yield [""] * 8


def _difference(row: Contrast, level: Level, reference: Level) -> dict[str, Any]:
    return {
        "factors": level.factors,
        "from": reference.factors,
        "pairs": "run" if row.effect.over_seeds else "item",
        "runs": {"from": row.runs[0], "to": row.runs[1]},
        "verdict": row.verdict,
        **numbers(row.effect.interval),
    }


def _comparison(found: Contrasts, others: list[Other]) -> dict[str, Any]:
    return {
        "baseline": found.reference.factors,
        "items": found.items,
        "levels": [
            {"name": row.name, "factors": row.level.factors if row.level else {}, **_effect(row)} for row in found.rows
        ],
        "other_methods": sensitivity.as_json(others),
        "not_compared": [level.factors for level in found.apart],
    }


def _law(law: PowerLaw) -> dict[str, Any]:
    foretold = law.foretold
    return {
        "sizes": list(law.sizes),
        "limit": numbers(law.limit),
        "exponent": None if law.exponent is None else numbers(law.exponent),
        "at": [{"size": size, **numbers(law.at(size))} for size in law.sizes],
        "foretold": None
        if foretold is None
        else {
            **numbers(foretold.interval),
            "size": foretold.size,
            "measured": foretold.measured,
            "holds": foretold.holds,
        },
        "missed": [{"size": one.size, "law": one.law, "measured": one.measured} for one in law.missed],
        "reach": law.reach,
        "over_seeds": law.over_seeds,
    }


def _effect(row: Contrast) -> dict[str, Any]:
    effect: Effect = row.effect
    return {
        "verdict": row.verdict,
        "runs": {"from": row.runs[0], "to": row.runs[1]},
        **numbers(effect.interval),
        "pointwise": numbers(effect.pointwise),
        "p": effect.p_value,
        "corrected_p": effect.corrected_p,
        "significant": effect.significant,
        "detectable": effect.detectable,
        "over_seeds": effect.over_seeds,
    }
