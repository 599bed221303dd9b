"""Scores by family of items: a table of every level, where the evaluation's items have families."""

from __future__ import annotations

from alpaca.report import wording
from alpaca.report.blocks import Cell, Table
from alpaca.report.results import Level, Results, Scores, family_intervals

_MOST_LEVELS = 12


def table(results: Results) -> Table | None:
    """Family by level, each mean over the level's runs with its interval over items; None where there is one level."""
    levels = results.measured[:_MOST_LEVELS]
    if len(results.measured) < 2:
        return None
    found = [family_intervals(_mean_scores(level, results.main)) for level in levels]
    names = list(dict.fromkeys(name for one in found for name in one))
    if not names:
        return None
    rows: list[list[Cell]] = [
        [
            f"{name} ({max(one[name].n for one in found if name in one)})",
            *(wording.full(one[name]) if name in one else "–" for one in found),
        ]
        for name in names
    ]
    head = ["family (items)", *(level.name for level in levels)]
    return Table(label=f"{wording.metric_in_full(results.main)} by family", head=head, rows=rows)


def left_out(results: Results) -> int:
    """Levels that the table has no room for."""
    return max(0, len(results.measured) - _MOST_LEVELS)


def _mean_scores(level: Level, metric: str) -> Scores:
    scored = level.scored(metric)
    return Scores(values=level.item_means(metric), families=scored[0].families, interval=level.intervals[metric])
