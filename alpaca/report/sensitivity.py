"""The same comparisons by other methods, paired by seed and item: what a reader would try next, beside the verdict.

None of them decides. A nested bootstrap of few seeds is too narrow, and the tests over items speak of new items for
these very runs (`alpaca.statistics.paired`); they show whether an answer hangs on the way it was computed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alpaca.report import wording
from alpaca.report.blocks import Table
from alpaca.report.effects import LEAST_ITEMS, Contrast, Contrasts
from alpaca.report.results import Level, Outcome, Scores
from alpaca.statistics import (
    Interval,
    PairedTest,
    nested_bootstrap,
    paired_test,
    sign_test,
)

DASH = "–"


@dataclass(frozen=True, kw_only=True, slots=True)
class Other:
    """One level against the baseline, over the seeds that both have; items are paired."""

    name: str
    seeds: int
    bootstrap: Interval
    """BCa, items nested in seeds."""
    test: PairedTest
    """McNemar's for single runs that are right or wrong, else sign flips over items."""
    wins: int
    """Items whose mean over these seeds is higher than the baseline's."""
    losses: int
    sign: PairedTest | None
    """None where no item differs."""


def other_methods(found: Contrasts) -> list[Other]:
    """One for each row whose level shares a seed with the baseline."""
    rows = (_other(row, found) for row in found.rows)
    return [row for row in rows if row is not None]


def _other(row: Contrast, found: Contrasts) -> Other | None:
    if row.level is None:
        return None
    pairs = _pairs(found.reference, row.level, found.metric)
    items = _items(pairs)
    if len(items) < LEAST_ITEMS:
        return None
    before, after = (np.array([[pair[side].values[item] for item in items] for pair in pairs]) for side in (0, 1))
    changes = (after - before).mean(axis=0)
    wins, losses = int(np.sum(changes > 0)), int(np.sum(changes < 0))
    return Other(
        name=row.name,
        seeds=len(pairs),
        bootstrap=nested_bootstrap(after - before),
        test=paired_test(before, after),
        wins=wins,
        losses=losses,
        sign=sign_test(wins, losses) if wins + losses else None,
    )


def _items(pairs: list[tuple[Scores, Scores]]) -> list[str]:
    """That every run answered."""
    runs = [one for pair in pairs for one in pair]
    return [item for item in runs[0].values if all(item in one.values for one in runs)] if runs else []


def _pairs(reference: Level, level: Level, metric: str) -> list[tuple[Scores, Scores]]:
    """The runs of both by the seeds that they share; seeds that change nothing in either pair nothing."""
    runs = {_seeds(one): one for one in reference.outcomes if metric in one.scores}
    pairs = [(runs[_seeds(one)], one) for one in level.outcomes if metric in one.scores and _seeds(one) in runs]
    different = {tuple(one.replication(metric) for one in pair): pair for pair in pairs}
    return [(before.scores[metric], after.scores[metric]) for before, after in different.values()]


def _seeds(outcome: Outcome) -> str:
    return json.dumps(outcome.point.seeds, sort_keys=True, default=str)


def table(found: Contrasts, rows: Sequence[Other]) -> Table:
    """One line for each level."""
    unit = ", points" if found.in_points else ""
    head = ["level", "seeds", f"bootstrap{unit}", "test over items", "p", "items won : lost", "share won", "p of signs"]
    return Table(
        label="The same comparisons by other methods",
        head=head,
        rows=[_cells(row, found) for row in rows],
        right=frozenset({1, 4, 5, 7}),
    )


def _cells(row: Other, found: Contrasts) -> list[str]:
    bootstrap = found.scaled(row.bootstrap)
    share, p_value = DASH, DASH
    if row.sign is not None:
        won = row.sign.interval
        share = f"{100 * won.estimate:.1f} % ({100 * won.low:.1f} to {100 * won.high:.1f})"
        p_value = wording.p_value(row.sign.p_value)
    return [
        row.name,
        f"{row.seeds}",
        f"{wording.signed(bootstrap)} ({wording.bounds(bootstrap)})",
        row.test.method,
        wording.p_value(row.test.p_value),
        f"{row.wins} : {row.losses}",
        share,
        p_value,
    ]


NOTE = (
    "Paired by seed and item, with nothing corrected for the number of comparisons; the verdict goes by the table "
    "above. Bootstrap: BCa over items nested in seeds, which is too narrow for few seeds. The tests over items (sign "
    "flips or McNemar's) and the sign test of items won and lost speak of new items for these very runs, not of new "
    "seeds; the share won has Wilson's interval."
)


def as_json(rows: Sequence[Other]) -> list[dict[str, Any]]:
    """For results.json, uncorrected."""
    return [
        {
            "name": row.name,
            "paired_seeds": row.seeds,
            "nested_bootstrap": [row.bootstrap.low, row.bootstrap.high],
            "over_items": {"method": row.test.method, "p": row.test.p_value},
            "items": {"won": row.wins, "lost": row.losses},
            "sign_test_p": row.sign.p_value if row.sign else None,
            "share_won": [row.sign.interval.low, row.sign.interval.high] if row.sign else None,
        }
        for row in rows
    ]
