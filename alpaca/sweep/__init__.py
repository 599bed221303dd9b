"""Command line or question file -> points: their factors and seeds, and the proof that nothing else differs.

The order of a command: `reading` (the file) -> `design` (combinations and seeds) -> composition -> `controls` and
`amounts` (what is held equal, what is dragged along). Every problem is told before anything starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from alpaca import canonical, plan
from alpaca.checks import nearest
from alpaca.compose import Composer, parse
from alpaca.config import Analysis, Run
from alpaca.errors import UserError
from alpaca.metrics import METRICS
from alpaca.plan import Plan
from alpaca.sweep import amounts, controls
from alpaca.sweep.design import Layout, added, lay_out, plain, setting
from alpaca.sweep.points import Points
from alpaca.sweep.question import EFFORTS, HIGHER, ITEMS, SEED_KEYS, Control, Limit, Question
from alpaca.sweep.reading import read_question

__all__ = ["SWEEPS", "Sweep", "expand", "names", "read_question"]

SWEEPS = Path(__file__).resolve().parents[2] / "sweeps"
ARM = "arm"
"""Stands among a point's factors where the question has arms."""


@dataclass(kw_only=True, slots=True)
class Sweep:
    """All points of one command and what they answer; one point and no factors for a plain run."""

    name: str
    question: str
    metric: str
    """EVALUATION.METRIC that decides; "": the first metric of the first evaluation."""
    controls: list[str]
    """What is held equal, in words; those that were checked say so."""
    factors: list[str]
    points: list[dict[str, Any]]
    """Per point: factor -> value."""
    runs: list[Run]
    promoted: frozenset[str]
    is_sweep: bool
    plan: Plan
    """The stages of all points."""
    hypothesis: str = ""
    directions: dict[str, str] = field(default_factory=dict)
    """EVALUATION.METRIC -> higher or lower, for the metrics that the question names."""
    baseline: dict[str, Any] = field(default_factory=dict)
    bundles: dict[str, list[str]] = field(default_factory=dict)
    """Name -> factors that move together."""
    analysis: Analysis = field(default_factory=Analysis)
    spend: Limit = field(default_factory=Limit)
    """Of the whole plan."""
    dragged: list[str] = field(default_factory=list)
    """What the factors change by necessity beside themselves, in words."""


def expand(
    overrides: Sequence[str], *, multirun: bool, composer: Composer | None = None, folder: Path = SWEEPS
) -> Sweep:
    """Every point of the command, typed and checked.

    Raises ConfigurationErrors with all problems of all points: grammar, the question file, unknown keys and values,
    contradictions, several values without -m, points that differ in more than their factors and seeds, factors without
    an effect, and controls that are declared and not kept.
    """
    composer = composer or Composer()
    parsed, problems = parse(overrides, composer.default_keys)
    composer.problems += problems
    given = [item for item in parsed if item.key_or_group != "sweep"]
    name, question = _question([item for item in parsed if item.key_or_group == "sweep"], given, folder, composer)
    _refuse_lists(given, multirun or name is not None, composer)
    layout = lay_out(question, given, composer)
    shared = _shared(question, layout, given, composer)
    values, replications, runs = _runs(layout, shared, composer)
    composer.raise_problems()
    promoted, unread = controls.promoted(runs, layout.factors)
    composer.problems += unread
    composer.raise_problems()
    graph = plan.build(runs, promoted)
    points = Points(layout=layout, values=values, replications=replications, runs=runs, plan=graph)
    directions = _directions(question, runs, composer)
    composer.problems += controls.problems(question, points, composer)
    if runs[0].until in ("train", "score"):
        composer.problems += amounts.effort_problems(question, points)
    composer.raise_problems()
    is_sweep = bool(name) or len(runs) > 1
    return Sweep(
        name=_name(name, _changes(question, given, runs[0], layout), given),
        question=question.question,
        metric=next(iter(directions), ""),
        controls=[_control(control, points) for control in question.controls if _is_reached(control, runs[0].until)],
        factors=[*layout.factors, *([ARM] if question.arms else [])],
        points=[
            {**each, ARM: replication.arm} if replication.arm else each
            for each, replication in zip(values, replications, strict=True)
        ],
        runs=runs,
        promoted=promoted,
        is_sweep=is_sweep,
        plan=graph,
        hypothesis=question.hypothesis,
        directions=directions,
        baseline=layout.baseline,
        bundles=question.zip,
        analysis=question.analysis,
        spend=question.spend,
        dragged=[*_unmeasured(question, directions), *_dragged(question, points, composer)] if is_sweep else [],
    )


def names(folder: Path = SWEEPS) -> list[str]:
    """The questions that are shipped."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def _question(
    chosen: list[Override], given: list[Override], folder: Path, composer: Composer
) -> tuple[str | None, Question]:
    """The question that the command names, in the form for the model that it chooses."""
    if any(item.is_sweep_override() for item in chosen):
        text = chosen[-1].input_line or ""
        composer.problems.append(UserError(what="one question at a time", where=text, remedy="give one name"))
        return None, Question()
    if not chosen or chosen[-1].value() is None:
        return None, Question()
    name = str(chosen[-1].value())
    if name not in names(folder):
        composer.problems.append(
            UserError(
                what=f"no question {name!r} in sweeps/", where=f"sweep={name}", remedy=nearest(name, names(folder))
            )
        )
        return None, Question()
    general, embedded, problems = read_question(folder / f"{name}.yaml")
    composer.problems += problems
    if problems:
        return None, Question()
    return name, embedded if _is_embedded(general, given, composer) else general


def _is_embedded(question: Question, given: list[Override], composer: Composer) -> bool:
    """Whether the model (the first, where it is a factor) is one that is built here."""
    parsed, _ = parse(question.fixed)
    first = [setting(key, values[0]) for key, values in question.factors.items() if key in ("model", "recipe")]
    chosen = {item.key_or_group: item for item in (*parsed, *first, *given) if item.key_or_group in ("model", "recipe")}
    return composer.model_kind([_first(item) for item in chosen.values()]) == "tiny"


def _first(item: Override) -> Override:
    """The override itself, or the one of its first value where it has several."""
    if not item.is_sweep_override():
        return item
    try:
        return setting(item.key_or_group, next(iter(item.sweep_string_iterator()), None))
    except HydraException:  # a glob, which is refused with the other values
        return setting(item.key_or_group, None)


def _refuse_lists(given: list[Override], multirun: bool, composer: Composer) -> None:
    for item in given:
        if item.is_sweep_override() and not multirun:
            composer.problems.append(
                UserError(
                    what="has several values",
                    where=item.input_line or "",
                    remedy="add -m to run one point for each of them",
                )
            )


def _shared(question: Question, layout: Layout, given: list[Override], composer: Composer) -> list[Override]:
    """What all points have: what the file fixes, unless the command line gives it, and what the command line gives."""
    fixed, problems = parse(question.fixed, composer.default_keys)
    composer.problems += problems
    taken = {*layout.factors, *(item.key_or_group for item in given if not item.is_add())}
    varied = {*layout.factors, *SEED_KEYS}
    return [
        *(item for item in fixed if item.key_or_group not in taken),
        *(item for item in given if item.key_or_group not in varied),
    ]


def _runs(
    layout: Layout, shared: list[Override], composer: Composer
) -> tuple[list[dict[str, Any]], list[Any], list[Run]]:
    """Values, replication and run of every point that can be composed."""
    values, replications, runs = [], [], []
    for combination in layout.combinations:
        for replication in layout.replications:
            # Shared overrides stand before the factors: a factor has the last word.
            run = composer.run([*shared, *combination.values(), *replication.seeds])
            if run is not None:
                values.append(plain(combination))
                replications.append(replication)
                runs.append(run)
    return values, replications, runs


def _directions(question: Question, runs: list[Run], composer: Composer) -> dict[str, str]:
    """EVALUATION.METRIC -> better direction. A metric without an evaluation is that of every one that measures it.

    A metric that is not measured would be found out by the page, after every stage has run.
    """
    measured = (f"{name}.{one}" for run in runs for name, item in run.eval.items() for one in item.metrics)
    known = list(dict.fromkeys(measured))
    found = {
        full: direction
        for name, direction in question.metric.items()
        for full in known
        if full == name or full.rpartition(".")[2] == name
    }
    composer.problems += _metric_problems(question, known, found)
    return found if runs[0].until == "score" else {}


def _metric_problems(question: Question, known: list[str], found: dict[str, str]) -> Iterator[UserError]:
    for name, direction in question.metric.items():
        metric = name.rpartition(".")[2]
        if metric not in METRICS:
            yield UserError(what=f"no metric {metric!r}", where="metric", remedy=nearest(metric, METRICS))
        elif direction != HIGHER:
            yield UserError(what=f"{direction}: more of {metric} is better", where=f"metric.{name}", remedy=HIGHER)
        elif "." in name and name not in known:
            yield UserError(what=f"no metric {name!r}", where="metric", remedy=nearest(name, known))
    if question.metric and not found and all("." not in name for name in question.metric):
        name = next(iter(question.metric))
        yield UserError(what=f"no metric {name!r} is measured", where="metric", remedy=nearest(name, known))


def _unmeasured(question: Question, directions: dict[str, str]) -> Iterator[str]:
    """Metrics that the question names and these evaluations do not have: another one decides."""
    measured = {full.rpartition(".")[2] for full in directions}
    missing = [name for name in question.metric if "." not in name and name not in measured]
    if missing and directions:
        yield f"not measured by these evaluations: {', '.join(missing)}; {next(iter(directions))} decides"


def _is_reached(control: Control, until: str) -> bool:
    """Whether the stages that a control is about are done at all."""
    needed = {ITEMS: ("score",), **dict.fromkeys(EFFORTS, ("train", "score"))}
    return until in needed.get(control.name, (until,))


def _control(control: Control, points: Points) -> str:
    budgets = list(dict.fromkeys(run.train.budget for run in points.runs))
    is_budget = control.name and len(budgets) == 1 and budgets[0].endswith(control.name)
    return control.told() + (f" ({budgets[0]})" if is_budget else "")


def _dragged(question: Question, points: Points, composer: Composer) -> Iterator[str]:
    """What a reader must know that factors change beside themselves."""
    for name, keys in question.zip.items():
        yield f"{name}: {' and '.join(keys)} move together; a difference is one of both"
    yield from controls.brought_along(points, composer)
    if points.runs[0].until in ("train", "score"):
        yield from amounts.dragged(question, points)
    items = controls.differing_items(points)
    if items and not question.holds(ITEMS):
        yield f"the evaluation items differ ({', '.join(items)}): differences are not of the same items"
    asks = question.analysis.contrasts or question.analysis.curve
    if asks and not question.arms and len({repr(values) for values in points.values}) < 2:
        yield "one level alone: there is nothing that it could be compared with"
    if question.arms:
        shared = controls.shared_by_arms(points)
        told = f"the arms share {', '.join(shared)}, which is not repeated" if shared else "the arms share no stage"
        yield told


def _changes(question: Question, given: list[Override], run: Run, layout: Layout) -> list[str]:
    """The overrides that can change a result: not where it lies, how it is tracked or how many stages run at once.

    More seeds and more values than the file has are the same question: their page takes the place of the smaller one.
    """
    marks = {leaf.path: leaf.mark for leaf in canonical.leaves(run)}
    varied = {*layout.factors, *SEED_KEYS}
    more = added(question, given)

    def is_execution(key: str) -> bool:
        return key.startswith("hydra") or marks.get(key) == "execution" or controls.is_pure(key, marks)

    return sorted(
        item.input_line or ""
        for item in given
        if item.key_or_group not in more and (item.key_or_group in varied or not is_execution(item.key_or_group))
    )


def _name(question: str | None, changed: list[str], given: list[Override]) -> str:
    """The folder's name: the question's, with a digest of what the command line changed about it."""
    digest = canonical.key_of("sweep", 1, {"overrides": changed}, {})[:8]
    if question:
        return f"{question}-{digest}" if changed else question
    varied = [item.key_or_group for item in given if item.is_sweep_override()]
    return plan.folder_name(f"{'-'.join(varied) or 'run'}-{digest}")
