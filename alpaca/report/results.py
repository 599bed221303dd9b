"""From score folders to outcomes, levels and differences: every number of the page, with its interval."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from alpaca.config import Point, ReportConfig
from alpaca.errors import UserError
from alpaca.report import wording
from alpaca.report.folders import Folder, Library
from alpaca.statistics import (
    Interval,
    bootstrap_mean,
    can_be_conclusive,
    change_interval,
    is_binary,
    mean_interval,
    simultaneous_level,
    t_interval,
    welch_interval,
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
        settings = wording.factors(self.point.factors)
        return f"{settings}, seed {self.seed}" if settings else f"{self.point.name}, seed {self.seed}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """The runs that differ in nothing but their seeds; `intervals` by metric where anything was measured."""

    factors: dict[str, Any]
    outcomes: list[Outcome]
    intervals: dict[str, Interval]

    def scored(self, metric: str) -> list[Scores]:
        """One entry per distinct trained model: seeds that change nothing in it repeat nothing."""
        return _distinct(self.outcomes, metric)

    def collapsed(self, metric: str) -> int:
        """Scored points beyond the first of each trained model."""
        return sum(metric in outcome.scores for outcome in self.outcomes) - len(self.scored(metric))

    def items(self, metric: str) -> int:
        """Items that every run of the level answered."""
        return len(_item_means(self.scored(metric)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A level minus the reference level; `runs` counts the distinct runs of the reference and of the level."""

    level: Level
    interval: Interval
    pairs: str
    """"seed", "item", or "run" where whole runs are compared without pairs (Welch)."""
    runs: tuple[int, int]

    @property
    def direction(self) -> str:
        """ "higher", "lower", or "" where the difference is inconclusive or none at all."""
        few = self.pairs == "item" and not can_be_conclusive(self.interval.n, self.interval.level)
        if few or not self.interval.excludes(0.0):
            return ""
        return "higher" if self.interval.estimate > 0 else "lower"

    @property
    def repeats_runs(self) -> bool:
        """Whether the interval covers what changes from run to run."""
        return self.pairs != "item"

    @property
    def verdict(self) -> str:
        """The direction, with its limit where the interval is over the items of these runs only."""
        if self.interval.method == "constant" and self.interval.estimate == 0:
            return f"identical for every {self.pairs}"
        if not self.direction:
            return "inconclusive"
        return self.direction if self.repeats_runs else f"{self.direction} on these items ({self._runs_each})"

    @property
    def _runs_each(self) -> str:
        few, many = sorted(self.runs)
        if few != many:
            return f"{self.runs[1]} against {wording.plural(self.runs[0], 'run')}"
        return "one run each" if few == 1 else f"{few} runs each"


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """All that was measured. `main` is the metric of the figure, "" where nothing was scored."""

    metrics: list[str]
    main: str
    outcomes: list[Outcome]
    levels: list[Level]
    differences: list[Difference]

    @property
    def measured(self) -> list[Level]:
        """The levels with a value of the main metric."""
        return [level for level in self.levels if self.main in level.intervals]

    def items(self, metric: str) -> int | None:
        """Items that every run was scored on; None where the runs differ."""
        counts = {outcome.scores[metric].interval.n for outcome in self.outcomes if metric in outcome.scores}
        return counts.pop() if len(counts) == 1 else None

    @property
    def evaluations(self) -> list[str]:
        return list(dict.fromkeys(metric.rpartition(".")[0] for metric in self.metrics))

    @property
    def axis(self) -> str:
        """The first factor with several values, all of them numbers; "" where there is none."""
        for key in self.levels[0].factors if self.levels else []:
            values = [level.factors.get(key) for level in self.levels]
            if all(_is_number(value) for value in values) and len(set(values)) > 1:
                return key
        return ""


def gather(config: ReportConfig, library: Library) -> Results:
    """Reads every score folder once. Raises UserError where `config.metric` is not among what was measured."""
    by_folder: dict[str, dict[str, Scores]] = {}
    outcomes = [_outcome(point, library, by_folder) for point in config.points]
    metrics = list(dict.fromkeys(key for outcome in outcomes for key in outcome.scores))
    main = _main_metric(config, metrics)
    levels = _levels(outcomes, metrics)
    return Results(metrics=metrics, main=main, outcomes=outcomes, levels=levels, differences=_differences(levels, main))


def family_intervals(scores: Scores) -> dict[str, Interval]:
    """The metric in each family of at least LEAST_FAMILY items, over items; empty without two such families."""
    members: dict[str, list[float]] = {}
    for item, value in scores.values.items():
        members.setdefault(scores.families[item], []).append(value)
    large = {name: values for name, values in sorted(members.items()) if name and len(values) >= LEAST_FAMILY}
    # Whether a metric is 0 or 1 shows in all items: a family of ROUGE-L zeros is no sample of failures.
    of_family = mean_interval if is_binary(list(scores.values.values())) else bootstrap_mean
    return {name: of_family(values) for name, values in large.items()} if len(large) > 1 else {}


def _outcome(point: Point, library: Library, by_folder: dict[str, dict[str, Scores]]) -> Outcome:
    folders = {role: library.folder(name) for role, name in point.stages.items()}
    scores: dict[str, Scores] = {}
    for role, folder in folders.items():
        if role.startswith("score:") and folder.path is not None:
            if folder.name not in by_folder:
                by_folder[folder.name] = _read_scores(folder)
            scores |= {f"{role.partition(':')[2]}.{name}": item for name, item in by_folder[folder.name].items()}
    return Outcome(point=point, folders=folders, scores=scores)


def _read_scores(folder: Folder) -> dict[str, Scores]:
    rows = folder.rows_by_id("scores.jsonl").values()
    names = [name for name in folder.document("metrics.json") if name != "items"]
    families = {row["id"]: row.get("family") or "" for row in rows}
    columns = {name: {row["id"]: float(row[name]) for row in rows if _is_number(row.get(name))} for name in names}
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
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(json.dumps(outcome.point.factors, sort_keys=True, default=str), []).append(outcome)
    levels = [_level(group, metrics) for group in groups.values()]
    return sorted(levels, key=lambda level: [_rank(value) for value in level.factors.values()])


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
    if not scores:
        return {}
    shared = [item for item in scores[0].values if all(item in one.values for one in scores)]
    return {item: fmean(one.values[item] for one in scores) for item in shared}


def _differences(levels: list[Level], metric: str) -> list[Difference]:
    measured = [level for level in levels if metric in level.intervals]
    level_of_each = simultaneous_level(max(1, len(measured) - 1))
    compared = [_difference(measured[0], other, metric, level_of_each) for other in measured[1:]]
    return [difference for difference in compared if difference is not None]


def _difference(reference: Level, other: Level, metric: str, level: float) -> Difference | None:
    """By whole runs where there are enough of them, otherwise by the items that every run of both levels answered."""
    here, there = reference.scored(metric), other.scored(metric)
    interval, pairs = _over_runs(reference, other, metric, level)
    if interval is None:
        before, after = _item_means(here), _item_means(there)
        changes = [after[item] - before[item] for item in before if item in after]
        interval, pairs = (change_interval(changes, 0, level) if changes else None), "item"
    if interval is None:
        return None
    return Difference(level=other, interval=interval, pairs=pairs, runs=(len(here), len(there)))


def _over_runs(reference: Level, other: Level, metric: str, level: float) -> tuple[Interval | None, str]:
    """Paired by seed, else unpaired; None with fewer than SEEDS_FOR_T runs, or where runs have no spread at all."""
    pairs = _paired_by_seed(reference, other, metric)
    here, there = (_means(one.scored(metric)) for one in (reference, other))
    if len(pairs) >= SEEDS_FOR_T:
        interval, kind = t_interval([after - before for before, after in pairs], level), "seed"
    elif min(len(here), len(there)) >= SEEDS_FOR_T:
        interval, kind = welch_interval(here, there, level), "run"
    else:
        return None, ""
    return (interval, kind) if interval.method != "constant" else (None, "")


def _paired_by_seed(reference: Level, other: Level, metric: str) -> list[tuple[float, float]]:
    """Means of the runs with equal seeds; each trained model is in one pair only, as pairs must be independent."""
    there = {outcome.seed: outcome for outcome in other.outcomes if metric in outcome.scores}
    pairs: list[tuple[float, float]] = []
    used: set[tuple[str, str]] = set()
    for outcome in reference.outcomes:
        if metric not in outcome.scores or outcome.seed not in there:
            continue
        twin = there[outcome.seed]
        models = {("reference", outcome.replication(metric)), ("other", twin.replication(metric))}
        if not models & used:
            used |= models
            pairs.append((outcome.scores[metric].interval.estimate, twin.scores[metric].interval.estimate))
    return pairs


def _means(scores: Sequence[Scores]) -> list[float]:
    return [one.interval.estimate for one in scores]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _rank(value: Any) -> float:
    """Numbers in their order; null means "all" where others are sizes, so it comes last; words keep theirs."""
    return value if _is_number(value) else float("inf") if value is None else 0.0
