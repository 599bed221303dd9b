"""What the levels of a sweep do: each against the baseline, and whether one factor's effect depends on another.

All by `alpaca.statistics.compare` over runs and items, unpaired and with one spread of seeds for all levels, as the
plan's detectable effect is: that is the way whose false alarms, power and coverage are measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from alpaca.config import ReportConfig
from alpaca.report import curve, wording
from alpaca.report.naming import fits, told_apart
from alpaca.report.results import Level, Results
from alpaca.statistics import (
    ALPHA,
    Comparison,
    Design,
    Effect,
    Interval,
    can_be_conclusive,
    compare,
    estimated_design,
)
from alpaca.statistics.curves import PowerLaw

Matrix = list[list[float]]
LEAST_ITEMS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Contrast:
    """One effect with its verdict. `name`: what sets the level apart from the baseline."""

    name: str
    effect: Effect
    runs: tuple[int, int]
    """Distinct runs of the baseline and of the level."""
    better: str = ""
    """The direction that is better; "" where the question names none."""
    level: Level | None = None
    """None for an interaction, which is of four levels."""

    @property
    def is_identical(self) -> bool:
        """Whether no item changes at all."""
        return self.effect.interval.method == "constant" and self.effect.interval.estimate == 0

    @property
    def direction(self) -> str:
        """ "higher", "lower", or "" where the effect is inconclusive or none at all."""
        interval = self.effect.interval
        few = not self.effect.over_seeds and not can_be_conclusive(interval.n, interval.level)
        if few or self.is_identical or not self.effect.significant:
            return ""
        return "higher" if interval.estimate > 0 else "lower"

    @property
    def verdict(self) -> str:
        """The direction with what it is worth, and its limit where these very runs are all that it is about."""
        if self.is_identical:
            return "identical on every item"
        if not self.direction:
            return "inconclusive"
        worth = {"": "", self.direction: " (better)"}.get(self.better, " (worse)")
        limit = "" if self.effect.over_seeds else f", of {self._these}"
        return f"{self.direction}{worth}{limit}"

    @property
    def _these(self) -> str:
        return "these two runs" if max(self.runs) == 1 else "these very runs"


@dataclass(frozen=True, kw_only=True, slots=True)
class Contrasts:
    """The levels against the baseline by one metric."""

    metric: str
    reference: Level
    rows: list[Contrast]
    apart: list[Level]
    """Levels with too few items in common with the baseline to be compared."""
    items: int
    """Items that every compared run answered."""
    in_points: bool
    """Whether scores lie between 0 and 1, so that a difference is told in points, hundredths of the scale."""
    comparison: Comparison | None = None
    design: Design | None = None
    """With its spreads estimated; None where they cannot be, as of single runs."""

    def of(self, level: Level) -> Contrast | None:
        """The row of a level."""
        return next((row for row in self.rows if row.level is level), None)

    def scaled(self, interval: Interval) -> Interval:
        """The interval in the unit in which it is told."""
        return in_unit(interval, self.in_points)

    @property
    def over_seeds(self) -> bool:
        return all(row.effect.over_seeds for row in self.rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class Interaction:
    """Whether the effect of one factor depends on another: differences of differences, and their unit."""

    factors: tuple[str, str]
    rows: list[Contrast]
    in_points: bool

    def scaled(self, interval: Interval) -> Interval:
        """The interval in the unit in which it is told."""
        return in_unit(interval, self.in_points)


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """All effects of a page; `contrasts` by metric, the deciding one among them where anything can be compared."""

    contrasts: dict[str, Contrasts]
    interaction: Interaction | None
    laws: dict[str, PowerLaw]
    """By series, where the question draws a curve."""
    missing_baseline: str = ""
    """The baseline that the question names, where it has no scores; nothing is compared then."""


def find(config: ReportConfig, results: Results) -> Findings:
    """The effects by every metric that was measured at two levels; each metric is a family of its own."""
    contrasts, missing = {}, ""
    for metric in results.metrics:
        levels = [level for level in results.levels if metric in level.intervals]
        reference = baseline_of(levels, config.baseline)
        if reference is not None and len(levels) > 1:
            contrasts[metric] = _contrasts(config, metric, reference, levels, in_points=results.is_share(metric))
        elif reference is None and metric == results.main:
            missing = wording.factors(config.baseline)
    both = config.analysis.interaction
    interaction = _interaction(config, results) if len(both) == 2 and not missing else None
    return Findings(
        contrasts=contrasts, interaction=interaction, laws=curve.laws(config, results), missing_baseline=missing
    )


def baseline_of(levels: Sequence[Level], baseline: Mapping[str, Any]) -> Level | None:
    """The level that the others are compared with: the named one, or the first; None where it is not there."""
    fitting = (level for level in levels if fits(level.factors, baseline))
    return next(fitting, None)


def in_unit(interval: Interval, in_points: bool) -> Interval:
    """A hundredfold where the unit is points."""
    if not in_points:
        return interval
    return replace(interval, estimate=100 * interval.estimate, low=100 * interval.low, high=100 * interval.high)


def _contrasts(
    config: ReportConfig, metric: str, reference: Level, levels: Sequence[Level], *, in_points: bool
) -> Contrasts:
    compared, items = _comparable(metric, reference, levels)
    scores = {str(at): _matrix(level, metric, items) for at, level in enumerate(compared)}
    found = compare(scores, "0") if len(compared) > 1 else None
    better = config.directions.get(metric, "")
    return Contrasts(
        metric=metric,
        reference=reference,
        rows=[
            Contrast(
                name=told_apart(level.factors, reference.factors, config.bundles),
                effect=effect,
                runs=(len(scores["0"]), len(scores[effect.arm])),
                better=better,
                level=level,
            )
            for level, effect in zip(compared[1:], found.effects if found else (), strict=True)
        ],
        apart=[level for level in levels if level not in compared],
        items=len(items),
        in_points=in_points,
        comparison=found,
        design=_design(scores) if found else None,
    )


def _comparable(metric: str, reference: Level, levels: Sequence[Level]) -> tuple[list[Level], list[str]]:
    """The baseline and the levels that have items in common with it, and the items that all of these have."""
    kept, items = [reference], reference.shared(metric)
    for level in levels:
        answered = set(level.shared(metric))
        common = [item for item in items if item in answered]
        if level is not reference and len(common) >= LEAST_ITEMS:
            kept.append(level)
            items = common
    return kept, items


def _matrix(level: Level, metric: str, items: Sequence[str]) -> Matrix:
    return [[one.values[item] for item in items] for one in level.scored(metric)]


def _design(scores: Mapping[str, Matrix]) -> Design | None:
    """None where a level has one run, and where nothing varies at all."""
    try:
        return estimated_design(scores, "0")
    except ValueError:
        return None


def _interaction(config: ReportConfig, results: Results) -> Interaction | None:
    """Every pair of values beside the baseline's; the other factors stay at the baseline."""
    first, second = config.analysis.interaction
    metric, levels = results.main, results.measured
    reference = baseline_of(levels, config.baseline)
    if reference is None:
        return None
    squares = list(_squares(reference, levels, [config.bundles.get(name, [name]) for name in (first, second)]))
    rows = [_crossed(square, metric, config, len(squares)) for square in squares]
    return Interaction(
        factors=(first, second),
        rows=[row for row in rows if row is not None],
        in_points=results.is_share(metric),
    )


def _squares(reference: Level, levels: list[Level], axes: list[list[str]]) -> Iterator[tuple[Level, ...]]:
    """Baseline, the first factor changed, the second, both: where all four were measured."""
    first, second = axes
    for both in levels:
        if not (_differs(both, reference, first) and _differs(both, reference, second)):
            continue
        start = reference.factors
        corners = [
            {**start, **{key: both.factors.get(key) for key in keys}} for keys in ([], first, second, [*first, *second])
        ]
        found = [next((level for level in levels if level.factors == corner), None) for corner in corners]
        square = tuple(level for level in found if level is not None)
        if len(square) == len(corners):
            yield square


def _differs(level: Level, other: Level, keys: Sequence[str]) -> bool:
    return any(level.factors.get(key) != other.factors.get(key) for key in keys)


def _crossed(square: tuple[Level, ...], metric: str, config: ReportConfig, comparisons: int) -> Contrast | None:
    """(both + neither) - (first + second), as two arms whose runs are sums of two; the fewest of the four count."""
    neither, first, second, both = square
    answered = [set(level.shared(metric)) for level in square[1:]]
    items = [item for item in neither.shared(metric) if all(item in one for one in answered)]
    if len(items) < LEAST_ITEMS:
        return None
    arms = {"0": _summed(first, second, metric, items), "1": _summed(both, neither, metric, items)}
    runs = min(len(arm) for arm in arms.values())
    found = compare({name: arm[:runs] for name, arm in arms.items()}, "0", alpha=ALPHA / comparisons)
    effect = found.effects[0]
    return Contrast(
        name=told_apart(both.factors, neither.factors, config.bundles),
        # Bonferroni's, as the interval is: the effect was tested at its share of alpha.
        effect=replace(effect, corrected_p=min(1.0, comparisons * effect.p_value)),
        runs=(runs, runs),
        better=config.directions.get(metric, ""),
    )


def _summed(one: Level, other: Level, metric: str, items: Sequence[str]) -> Matrix:
    pairs = zip(_matrix(one, metric, items), _matrix(other, metric, items), strict=False)
    return [[a + b for a, b in zip(here, there, strict=True)] for here, there in pairs]
