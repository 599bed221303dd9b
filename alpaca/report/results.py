"""From score folders to outcomes and levels: every number of the page that is no difference, with its interval."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from alpaca.config import Point, ReportConfig
from alpaca.errors import UserError
from alpaca.records import is_number
from alpaca.report import naming
from alpaca.report.folders import Folder, Library
from alpaca.statistics import (
    Interval,
    is_binary,
    mean_interval,
    t_interval,
)

SEEDS_FOR_T = 3
"""With fewer runs a t interval is too wide to say anything; the interval is then over items."""
LEAST_FAMILY = 5
"""Items that a family must have to be shown by itself: fewer say nothing about it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """One metric of one run: the value of each item, and the mean with its interval over items."""

    values: dict[str, float]
    families: dict[str, str]
    interval: Interval


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """One point with what is left of it; `scores` by "EVALUATION.METRIC"."""

    point: Point
    folders: dict[str, Folder]
    scores: dict[str, Scores]
    setting: str
    """What the level is called that it is a run of; "" without factors."""

    @property
    def missing(self) -> list[Folder]:
        """The stages that did not finish, first cause first."""
        return [folder for folder in self.folders.values() if folder.path is None]

    @property
    def seed(self) -> str:
        """ "0", or "0/1/0" (data/init/order) where the three differ."""
        seeds = [str(seed) for seed in self.point.seeds.values()]
        return seeds[0] if len(set(seeds)) == 1 else "/".join(seeds)

    def replication(self, metric: str) -> str:
        """What makes a run a repetition of its own: its trained model, not the seeds written beside it."""
        stages = self.point.stages
        return stages.get("train") or stages.get(f"score:{metric.rpartition('.')[0]}") or self.seed

    @property
    def is_named_by_factors(self) -> bool:
        """Whether the point's name says nothing that its factors do not."""
        return self.point.name == ", ".join(f"{key}={value}" for key, value in self.point.factors.items())

    @property
    def label(self) -> str:
        """ "data.size = 250, seed 0": unlike the point's name it tells the seeds apart."""
        return f"{self.setting or self.point.name}, seed {self.seed}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """The runs that differ in nothing but their seeds; `intervals` by metric where anything was measured."""

    factors: dict[str, Any]
    outcomes: list[Outcome]
    intervals: dict[str, Interval]

    @property
    def name(self) -> str:
        """What it is called; "" without factors."""
        return self.outcomes[0].setting

    def scored(self, metric: str) -> list[Scores]:
        """One entry per distinct trained model: seeds that change nothing in it repeat nothing."""
        return _distinct(self.outcomes, metric)

    def collapsed(self, metric: str) -> int:
        """Scored points beyond the first of each trained model."""
        return sum(metric in outcome.scores for outcome in self.outcomes) - len(self.scored(metric))

    def items(self, metric: str) -> int:
        """Items that every run of the level answered."""
        return len(self.shared(metric))

    def item_means(self, metric: str) -> dict[str, float]:
        """Each item's mean over the runs, for the items that all of them answered."""
        return _item_means(self.scored(metric))

    def shared(self, metric: str) -> list[str]:
        """The items that every run of the level answered."""
        return _shared_items(self.scored(metric))


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """All that was measured. `main` is the metric of the figure, "" where nothing was scored."""

    metrics: list[str]
    main: str
    outcomes: list[Outcome]
    levels: list[Level]
    factors: list[str]
    """Every factor of the levels, in the question's order."""
    axis: str = ""
    """The factor of numbers along which the scores are drawn; "" where levels have names."""

    @property
    def measured(self) -> list[Level]:
        """The levels with a value of the main metric."""
        return [level for level in self.levels if self.main in level.intervals]

    def items(self, metric: str) -> int | None:
        """Items that every run was scored on; None where the runs differ."""
        counts = {outcome.scores[metric].interval.n for outcome in self.outcomes if metric in outcome.scores}
        return counts.pop() if len(counts) == 1 else None

    def is_share(self, metric: str) -> bool:
        """Whether every score lies between 0 and 1: a difference is then told in points, hundredths of the scale."""
        scores = (outcome.scores[metric] for outcome in self.outcomes if metric in outcome.scores)
        return all(0.0 <= value <= 1.0 for one in scores for value in one.values.values())

    @property
    def evaluations(self) -> list[str]:
        return list(dict.fromkeys(metric.rpartition(".")[0] for metric in self.metrics))


def gather(config: ReportConfig, library: Library) -> Results:
    """Reads every score folder once. Raises UserError where `config.metric` is not among what was measured."""
    by_folder: dict[str, dict[str, Scores]] = {}
    outcomes = [_outcome(point, naming.setting(config, point.factors), library, by_folder) for point in config.points]
    metrics = list(dict.fromkeys(key for outcome in outcomes for key in outcome.scores))
    factors = list(dict.fromkeys(key for outcome in outcomes for key in outcome.point.factors))
    levels = _levels(outcomes, metrics)
    axis = _axis(config, levels, factors)
    if axis or not config.analysis.contrasts:
        levels = sorted(levels, key=lambda level: [_rank(level.factors.get(key)) for key in factors])
    return Results(
        metrics=metrics,
        main=_main_metric(config, metrics),
        outcomes=outcomes,
        levels=levels,
        factors=factors,
        axis=axis,
    )


def _axis(config: ReportConfig, levels: list[Level], factors: list[str]) -> str:
    """The factor that the question draws its curve over, else the first with several values, all of them numbers.

    None where levels are compared with a baseline: a value of one factor is no place on another's axis.
    """
    if config.analysis.contrasts and not config.analysis.curve:
        return ""
    for key in [config.analysis.curve] if config.analysis.curve else factors:
        values = [level.factors.get(key) for level in levels]
        if all(is_number(value) for value in values) and len(set(values)) > 1:
            return key
    return ""


def family_intervals(scores: Scores) -> dict[str, Interval]:
    """The metric in each family of at least LEAST_FAMILY items, over items; empty without two such families."""
    members: dict[str, list[float]] = {}
    for item, value in scores.values.items():
        members.setdefault(scores.families[item], []).append(value)
    large = {name: values for name, values in sorted(members.items()) if name and len(values) >= LEAST_FAMILY}
    # Whether a metric is 0 or 1 shows in all items: a family of ROUGE-L zeros is no sample of failures.
    of_family = mean_interval if is_binary(list(scores.values.values())) else _graded
    return {name: of_family(values) for name, values in large.items()} if len(large) > 1 else {}


def _graded(values: list[float]) -> Interval:
    """Student's t, as a page has hundreds of families and a bootstrap takes a hundred times as long."""
    interval = t_interval(values)
    return interval.within(0.0, 1.0) if all(0.0 <= value <= 1.0 for value in values) else interval


def _outcome(point: Point, setting: str, library: Library, by_folder: dict[str, dict[str, Scores]]) -> Outcome:
    folders = {role: library.folder(name) for role, name in point.stages.items()}
    scores: dict[str, Scores] = {}
    for role, folder in folders.items():
        if role.startswith("score:") and folder.path is not None:
            if folder.name not in by_folder:
                by_folder[folder.name] = _read_scores(folder)
            scores |= {f"{role.partition(':')[2]}.{name}": item for name, item in by_folder[folder.name].items()}
    return Outcome(point=point, folders=folders, scores=scores, setting=setting)


def _read_scores(folder: Folder) -> dict[str, Scores]:
    rows = folder.rows_by_id("scores.jsonl").values()
    names = [name for name in folder.document("metrics.json") if name != "items"]
    families = {row["id"]: row.get("family") or "" for row in rows}
    columns = {name: {row["id"]: float(row[name]) for row in rows if is_number(row.get(name))} for name in names}
    return {
        name: Scores(values=values, families=families, interval=mean_interval(list(values.values())))
        for name, values in columns.items()
        if values
    }


def _main_metric(config: ReportConfig, metrics: list[str]) -> str:
    if not config.metric:
        return metrics[0] if metrics else ""
    evaluation = config.metric.rpartition(".")[0]
    measured = any(metric.rpartition(".")[0] == evaluation for metric in metrics)
    planned = any(f"score:{evaluation}" in point.stages for point in config.points)
    if config.metric in metrics or (planned and not measured):
        return config.metric
    raise UserError(
        what=f"nothing measured {config.metric!r}",
        where="metric",
        remedy=f"measured were: {', '.join(metrics) or 'none'}",
    )


def _levels(outcomes: list[Outcome], metrics: list[str]) -> list[Level]:
    """In the order of the question."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(json.dumps(outcome.point.factors, sort_keys=True, default=str), []).append(outcome)
    return [_level(group, metrics) for group in groups.values()]


def _level(outcomes: list[Outcome], metrics: list[str]) -> Level:
    scored = {metric: _distinct(outcomes, metric) for metric in metrics}
    intervals = {metric: _level_interval(scores) for metric, scores in scored.items() if scores}
    return Level(factors=outcomes[0].point.factors, outcomes=outcomes, intervals=intervals)


def _distinct(outcomes: Sequence[Outcome], metric: str) -> list[Scores]:
    """The scores of the first outcome of each trained model."""
    first: dict[str, Scores] = {}
    for outcome in outcomes:
        if metric in outcome.scores:
            first.setdefault(outcome.replication(metric), outcome.scores[metric])
    return list(first.values())


def _level_interval(scores: list[Scores]) -> Interval:
    if len(scores) >= SEEDS_FOR_T:
        interval = t_interval([one.interval.estimate for one in scores])
        # Runs that agree to the last item would get no width at all; the items still have theirs.
        if interval.method != "constant":
            bounded = all(0.0 <= value <= 1.0 for one in scores for value in one.values.values())
            return interval.within(0.0, 1.0) if bounded else interval
    return mean_interval(list(_item_means(scores).values()))


def _item_means(scores: Sequence[Scores]) -> dict[str, float]:
    """Each item's mean over runs, for the items that all the runs answered."""
    return {item: fmean(one.values[item] for one in scores) for item in _shared_items(scores)}


def _shared_items(scores: Sequence[Scores]) -> list[str]:
    return [item for item in scores[0].values if all(item in one.values for one in scores)] if scores else []


def _rank(value: Any) -> float:
    """Numbers in their order; null means "all" where others are sizes, so it comes last; words keep theirs."""
    return value if is_number(value) else float("inf") if value is None else 0.0
