"""Command line or question file -> points: the grid, its factors and seeds, and the proof that nothing else differs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alpaca import canonical, plan
from alpaca.checks import nearest
from alpaca.compose import Composer, parse
from alpaca.config import Run
from alpaca.errors import UserError

SWEEPS = Path(__file__).resolve().parents[1] / "sweeps"
SIMPLE = re.compile(r"[A-Za-z0-9_.+-]+( [A-Za-z0-9_.+-]+)*")
SEED_KEYS = ("seed", "seeds.data", "seeds.init", "seeds.order")


@dataclass(kw_only=True, slots=True)
class Question:
    """One file of sweeps/."""

    question: str = "???"
    metric: str = ""
    """EVALUATION.METRIC that answers it; empty: the first metric of the first evaluation."""
    factors: dict[str, list[Any]] = field(default_factory=dict)
    """Dotted key or group -> its values; several factors form a grid."""
    seeds: list[int] = field(default_factory=lambda: [0])
    fixed: list[str] = field(default_factory=list)
    """Overrides that all points share."""
    controls: list[str] = field(default_factory=list)
    """What is held equal, in words for the report."""


@dataclass(kw_only=True, slots=True)
class Sweep:
    """All points of one command and what they answer; one point and no factors for a plain run."""

    name: str
    question: str
    metric: str
    controls: list[str]
    factors: list[str]
    points: list[dict[str, Any]]
    """Per point: factor -> value."""
    runs: list[Run]
    promoted: frozenset[str]
    is_sweep: bool


def expand(
    overrides: Sequence[str], *, multirun: bool, composer: Composer | None = None, folder: Path = SWEEPS
) -> Sweep:
    """Every point of the command, typed and checked.

    Raises ConfigurationErrors with all problems of all points: grammar, unknown keys and values, contradictions,
    several values without -m, and points that differ in more than their factors and seeds.
    """
    composer = composer or Composer()
    parsed, problems = parse(overrides, composer.default_keys)
    composer.problems += problems
    name, question = _question(parsed, folder, composer)
    given = [item for item in parsed if item.key_or_group != "sweep"]
    _refuse_lists(given, multirun, composer)
    axes = _axes(question, given, composer)
    shared = [*_parse_file(question.fixed, composer), *(item for item in given if item.key_or_group not in axes)]
    points, runs = _runs(axes, shared, composer)
    composer.raise_problems()
    _refuse_metric(question.metric, runs, composer)
    factors = [key for key in axes if key not in SEED_KEYS]
    covered = _covered(factors, composer)
    promoted = _promoted(runs, factors, composer)
    _refuse_confounded(runs, covered, composer)
    composer.raise_problems()
    return Sweep(
        name=_name(name, _changes(given, runs[0], axes), axes),
        question=question.question if name else "",
        metric=question.metric,
        controls=question.controls,
        factors=factors,
        points=points,
        runs=runs,
        promoted=promoted,
        is_sweep=bool(name) or len(runs) > 1,
    )


def names(folder: Path = SWEEPS) -> list[str]:
    """The questions that are shipped."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def _question(parsed: list[Override], folder: Path, composer: Composer) -> tuple[str | None, Question]:
    chosen = [item for item in parsed if item.key_or_group == "sweep"]
    if any(item.is_sweep_override() for item in chosen):
        text = chosen[-1].input_line or ""
        composer.problems.append(UserError(what="one question at a time", where=text, remedy="give one name"))
        return None, Question(question="")
    chosen = [item.value() for item in chosen]
    if not chosen or chosen[-1] is None:
        return None, Question(question="")
    name = str(chosen[-1])
    if name not in names(folder):
        composer.problems.append(
            UserError(
                what=f"no question {name!r} in sweeps/", where=f"sweep={name}", remedy=nearest(name, names(folder))
            )
        )
        return None, Question(question="")
    try:
        return name, read_question(folder / f"{name}.yaml")
    except UserError as error:
        composer.problems.append(error)
        return None, Question(question="")


def read_question(path: Path) -> Question:
    """A question file; unknown keys, wrong types and a missing question are errors that name the file."""
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Question), OmegaConf.load(path))
        found = OmegaConf.to_object(merged)
    except (OmegaConfBaseException, AttributeError, ValueError, yaml.YAMLError) as error:
        raise UserError(
            what=" ".join(str(error).split())[:200],
            where=str(path),
            remedy="known keys: question, metric, factors, seeds, fixed, controls",
        ) from error
    if not isinstance(found, Question) or not found.factors:
        raise UserError(
            what="names no factor", where=str(path), remedy="for example  factors: {data.size: [250, 1000]}"
        )
    empty = [key for key, values in {**found.factors, "seeds": found.seeds}.items() if not values]
    nested = [key for key, values in found.factors.items() if any(isinstance(value, dict) for value in values)]
    seeds = [key for key in found.factors if key in SEED_KEYS]
    for keys, problem, remedy in (
        (empty, "has no values", "list at least one"),
        (nested, "has a map as a value", "give single values"),
        (seeds, "is no factor", "list seeds under `seeds:`"),
    ):
        if keys:
            raise UserError(what=f"{', '.join(keys)} {problem}", where=str(path), remedy=remedy)
    return found


def _refuse_metric(metric: str, runs: list[Run], composer: Composer) -> None:
    """A metric that the evaluations do not have would be found out by the page, after every stage has run."""
    known = {f"{name}.{one}" for run in runs for name, item in run.eval.items() for one in item.metrics}
    if metric and metric not in known:
        composer.problems.append(UserError(what=f"no metric {metric!r}", where="metric", remedy=nearest(metric, known)))


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


def _axes(question: Question, given: list[Override], composer: Composer) -> dict[str, list[str]]:
    """Key -> its values as override text; the command line's values of a key replace the file's."""
    axes = {key: [_text(value) for value in values] for key, values in question.factors.items()}
    if question.factors:
        axes["seed"] = [str(seed) for seed in question.seeds]
    for item in given:
        if item.is_sweep_override():
            axes[item.key_or_group] = _values(item, composer)
        elif item.key_or_group in axes:
            axes[item.key_or_group] = [item.get_value_element_as_str()]
    for key, values in axes.items():
        again = sorted({value for value in values if values.count(value) > 1})
        if again:
            # Equal points are one result, not replications of it.
            text = f"{key}={','.join(values)}"
            composer.problems.append(
                UserError(what=f"{', '.join(again)} given more than once", where=text, remedy="give each value once")
            )
    return axes


def _values(item: Override, composer: Composer) -> list[str]:
    try:
        return [str(value) for value in item.sweep_string_iterator()]
    except HydraException as error:
        composer.problems.append(
            UserError(what=str(error).splitlines()[0], where=item.input_line or "", remedy="list the values: KEY=A,B,C")
        )
        return []


def _text(value: Any) -> str:
    """A value of a question file as the command line would give it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return "[" + ",".join(_text(item) for item in value) + "]"
    if isinstance(value, str) and not SIMPLE.fullmatch(value):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    return str(value)


def _parse_file(fixed: list[str], composer: Composer) -> list[Override]:
    parsed, problems = parse(fixed)
    composer.problems += problems
    return parsed


def _runs(
    axes: dict[str, list[str]], shared: list[Override], composer: Composer
) -> tuple[list[dict[str, Any]], list[Run]]:
    points, runs = [], []
    parser = OverridesParser.create()
    options = {key: [parser.parse_override(f"{key}={value}") for value in values] for key, values in axes.items()}
    for chosen in itertools.product(*options.values()):
        # Shared overrides stand before the factors: a factor has the last word.
        run = composer.run([*shared, *chosen])
        if run is not None:
            runs.append(run)
            points.append({item.key_or_group: item.value() for item in chosen if item.key_or_group not in SEED_KEYS})
    return points, runs


def _covered(factors: list[str], composer: Composer) -> tuple[str, ...]:
    """Prefixes of the leaves that may differ between points: the factors, whole groups, and what seeds draw."""
    groups = composer.group_names()
    return (*(f"{key}." if key in groups else key for key in factors), "seeds.", "seed", "data_gen.seed", "model.name")


def _is_covered(path: str, covered: tuple[str, ...]) -> bool:
    return any(path == prefix or (prefix.endswith(".") and path.startswith(prefix)) for prefix in covered)


def _differing(runs: list[Run]) -> dict[str, str | None]:
    """Leaves that are not equal in all points -> their mark. A leaf that only some variants have differs as well."""
    seen: dict[str, set[str]] = {}
    marks: dict[str, str | None] = {}
    for run in runs:
        for leaf in canonical.leaves(run):
            seen.setdefault(leaf.path, set()).add(repr(leaf.value))
            marks[leaf.path] = leaf.mark
    counts = {path: sum(1 for run in runs if _has(run, path)) for path in seen}
    return {path: marks[path] for path, values in seen.items() if len(values) > 1 or counts[path] < len(runs)}


def _has(run: Run, path: str) -> bool:
    node: Any = run
    for name in path.split("."):
        node = node.get(name) if isinstance(node, dict) else getattr(node, name, _ABSENT)
        if node is _ABSENT:
            return False
    return True


_ABSENT = object()


def _promoted(runs: list[Run], factors: list[str], composer: Composer) -> frozenset[str]:
    """Execution leaves that are factors themselves, or belong to a group of nothing else: identity for this sweep.

    What a choice of model or teacher drags along (a label, a timeout) is not promoted, so that its stages keep the keys
    that they have alone. A factor that no stage reads cannot change a result and is refused.
    """
    marks = {leaf.path: leaf.mark for run in runs for leaf in canonical.leaves(run)}
    pure = tuple(f"{key}." for key in factors if _is_pure(key, marks))
    named = {path for path in marks if path in factors or path.startswith(pure)}
    varied = {path for path in named & _differing(runs).keys() if marks[path] == "execution"}
    read = {
        plan.leaf_prefix(role) + leaf.path
        for run in runs
        for role, config in plan.stage_configs(run).items()
        for leaf in canonical.leaves(config)
    }
    unread = varied - read
    composer.problems += [
        UserError(
            what="no stage reads this key, so it cannot change a result",
            where=path,
            remedy="take it out of the factors",
        )
        for path in sorted(unread)
    ]
    return frozenset(varied & read)


def _is_pure(group: str, marks: dict[str, str | None]) -> bool:
    """Whether a group holds execution leaves alone, as fsdp does."""
    below = {mark for path, mark in marks.items() if path.startswith(f"{group}.")}
    return below == {"execution"}


def _refuse_confounded(runs: list[Run], covered: tuple[str, ...], composer: Composer) -> None:
    stray = sorted(
        path for path, mark in _differing(runs).items() if mark != "execution" and not _is_covered(path, covered)
    )
    if stray:
        composer.problems.append(
            UserError(
                what="the points differ in more than their factors and seeds: " + ", ".join(stray),
                where="sweep",
                remedy="give these one value in every point (a choice such as model= brings its recipe along), or make "
                "them factors",
            )
        )


def _changes(given: list[Override], run: Run, axes: dict[str, list[str]]) -> list[str]:
    """The overrides that can change a result: not where it lies, how it is tracked or how many stages run at once."""
    marks = {leaf.path: leaf.mark for leaf in canonical.leaves(run)}

    def is_execution(key: str) -> bool:
        return key.startswith("hydra") or marks.get(key) == "execution" or _is_pure(key, marks)

    return sorted(
        item.input_line or "" for item in given if item.key_or_group in axes or not is_execution(item.key_or_group)
    )


def _name(question: str | None, changed: list[str], axes: dict[str, list[str]]) -> str:
    """The folder's name: the question's, with a digest of what the command line changed about it."""
    digest = canonical.key_of("sweep", 1, {"overrides": changed}, {})[:8]
    if question:
        return f"{question}-{digest}" if changed else question
    return plan.folder_name(f"{'-'.join(axes) or 'run'}-{digest}")
