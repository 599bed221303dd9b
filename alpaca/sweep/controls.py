"""Controlled means checked: the points differ in factors and seeds alone, and what is declared equal is equal."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from alpaca import canonical, plan
from alpaca.compose import Composer
from alpaca.config import AskedDataGen, EvalSource, Run
from alpaca.errors import UserError
from alpaca.sweep.design import Layout
from alpaca.sweep.points import Points
from alpaca.sweep.question import ITEMS, NESTED, Question

ITEM_LEAVES = frozenset(item.name for item in dataclasses.fields(EvalSource)) - {"url"}
"""What decides which items an evaluation has."""
SEED_LEAVES = ("seeds.", "seed", "data_gen.seed")


def promoted(runs: list[Run], factors: list[str]) -> tuple[frozenset[str], list[UserError]]:
    """Execution leaves that are factors themselves, or belong to a group of nothing else: identity for this sweep.

    What a choice of model or teacher drags along (a label, a timeout) is not promoted, so that its stages keep the keys
    that they have alone. The problems are factors that no stage reads: they cannot change a result.
    """
    marks = {leaf.path: leaf.mark for run in runs for leaf in canonical.leaves(run)}
    pure = tuple(f"{key}." for key in factors if is_pure(key, marks))
    named = {path for path in marks if path in factors or path.startswith(pure)}
    varied = named & differing(runs).keys()
    read = {
        plan.leaf_prefix(role) + leaf.path
        for run in runs
        for role, config in plan.stage_configs(run).items()
        for leaf in canonical.leaves(config)
    }
    unread = [
        UserError(
            what=f"no stage reads this key, so it cannot change a result{_why_unread(path, runs)}",
            where=path,
            remedy="take it out of the factors",
        )
        for path in sorted(varied - read)
    ]
    return frozenset(path for path in varied & read if marks[path] == "execution"), unread


def _why_unread(path: str, runs: list[Run]) -> str:
    kinds = ", ".join(dict.fromkeys(run.data_gen.kind for run in runs if not isinstance(run.data_gen, AskedDataGen)))
    return f" (data_gen={kinds} asks no teacher)" if path.startswith("teacher.") and kinds else ""


def is_pure(group: str, marks: dict[str, str | None]) -> bool:
    """Whether a group holds execution leaves alone, as fsdp does."""
    return {mark for path, mark in marks.items() if path.startswith(f"{group}.")} == {"execution"}


def problems(question: Question, points: Points, composer: Composer) -> Iterator[UserError]:
    """Everything because of which these points would not answer the question."""
    covered = _covered(points.layout, composer)
    stray = sorted(
        path
        for path, mark in differing(points.runs).items()
        if mark != "execution" and not _is_covered(path, covered)
    )
    yield from _confounded([path for path in stray if not _is_item(path)])
    yield from _other_items([path for path in stray if _is_item(path)])
    idle = list(_idle(points))
    yield from idle
    if not idle and not stray:
        yield from _same_work(points)
        if question.holds(ITEMS):
            yield from _items_declared(points)
        if question.holds(NESTED):
            yield from _not_nested(points)


def _confounded(stray: list[str]) -> Iterator[UserError]:
    if stray:
        yield UserError(
            what="the points differ in more than their factors and seeds: " + ", ".join(stray),
            where="sweep",
            remedy="give these one value in every point (a choice such as model= brings its recipe along), or make "
            "them factors",
        )


def _other_items(stray: list[str]) -> Iterator[UserError]:
    if stray:
        yield UserError(
            what="the points answer different evaluation items: " + ", ".join(stray),
            where="sweep",
            remedy="give every point the same evaluations, or make them a factor",
        )


def _is_item(path: str) -> bool:
    return path.startswith("eval.") and path.rpartition(".")[2] in ITEM_LEAVES


def differing_items(points: Points) -> list[str]:
    """Leaves in which the evaluations of the points have other items."""
    return sorted(path for path in differing(points.runs) if _is_item(path))


def _items_declared(points: Points) -> Iterator[UserError]:
    found = differing_items(points)
    if found:
        yield UserError(
            what=f"declared equal, but a factor changes {', '.join(found)}",
            where=f"controls: {ITEMS}",
            remedy="take the control out, or the factor",
        )


def _idle(points: Points) -> Iterator[UserError]:
    """Factors whose values leave every stage as it is."""
    for axis in points.layout.axes:
        groups = list(points.along(axis))
        if groups and all(len({points.work(place) for place in group}) == 1 for group in groups):
            shown = ", ".join(
                " and ".join(item.get_value_element_as_str() for item in level.values()) for level in axis.levels
            )
            last = points.runs[0].until
            yield UserError(
                what=f"changes no stage: all keys are the same at {shown}",
                where=axis.name,
                remedy="take it out of the factors, or choose what heeds it"
                + (f" (the last stage is {last}: until={last})" if last != "score" else ""),
            )


def _same_work(points: Points) -> Iterator[UserError]:
    """Points of different factors and equal seeds whose stages are all the same: one result, counted twice."""
    first: dict[Any, int] = {}
    pairs = []
    for place, each in enumerate(points.replications):
        found = (points.work(place), each.arm, *(item.input_line for item in each.seeds))
        if found in first:
            pairs.append((first[found], place))
        first.setdefault(found, place)
    if pairs:
        one, other = (points.told(place) for place in pairs[0])
        more = f" (and {len(pairs) - 1} more pairs)" if len(pairs) > 1 else ""
        yield UserError(
            what=f"these points are one and the same work: {one}; {other}{more}",
            where="sweep",
            remedy="vary a factor only where it has an effect: in a question file by `when` or `exclude`",
        )


def _not_nested(points: Points) -> Iterator[UserError]:
    """Data sets of different sizes under one seed that differ in more than their size."""
    sized = [group for axis in points.layout.axes for group in points.along(axis) if _sizes(points, group)]
    if not sized:
        yield UserError(
            what="declared, but data.size has one value, or none that varies alone; pools are not checked",
            where=f"controls: {NESTED}",
            remedy="several values of data.size (data.size=A,B on the command line), or take the control out",
        )
    found = sorted({path for group in sized for path in _beside_size(points, group)})
    if found:
        yield UserError(
            what=f"declared, but sets of different sizes differ in {', '.join(found)} too",
            where=f"controls: {NESTED}",
            remedy="give these one value at every size, or take the control out",
        )
    noisy = [run for run in points.runs if run.data.shuffled_outputs]
    if noisy and "data.size" in points.layout.factors:
        yield UserError(
            what="declared, but outputs that are exchanged within a set are others at another size",
            where=f"controls: {NESTED}",
            remedy="data.label_noise, which is nested, instead of data.shuffled_outputs",
        )


def _sizes(points: Points, group: list[int]) -> bool:
    return len({points.runs[place].data.size for place in group}) > 1


def _beside_size(points: Points, group: list[int]) -> set[str]:
    """What decides about the data, beside its size, and is not equal in these points."""
    found = {
        path
        for path in differing([points.runs[place] for place in group])
        if path.startswith("data.") and path != "data.size"
    }
    pools = [points.plan.runs[place]["sample"] for place in group]
    if len(set(pools)) > 1:
        asked = [points.plan.nodes[key].identity for key in pools]
        found |= _unequal(asked)
    return found


def _unequal(trees: list[dict[str, Any]], prefix: str = "") -> set[str]:
    """Dotted paths in which nested dictionaries differ."""
    found = set()
    for name in {name for tree in trees for name in tree}:
        values = [tree.get(name) for tree in trees]
        if all(isinstance(value, dict) for value in values):
            found |= _unequal([value for value in values if isinstance(value, dict)], f"{prefix}{name}.")
        elif any(value != values[0] for value in values):
            found.add(f"{prefix}{name}")
    return found


def brought_along(points: Points, composer: Composer) -> Iterator[str]:
    """The settings that a choice of group changes beside its name, since its options differ in them."""
    groups = composer.group_names()
    changed = differing(points.runs)
    factors = points.layout.factors
    for key in factors:
        if key in groups:
            below = [
                path
                for path, mark in changed.items()
                if path.startswith(f"{key}.") and mark != "execution" and path not in (*factors, f"{key}.kind")
            ]
            if below:
                yield f"{key} brings along {', '.join(below)}"


def shared_by_arms(points: Points) -> list[str]:
    """Roles of stages that are the same in several arms, so that what they do is not repeated."""
    arms: dict[str, dict[str, set[str]]] = {}
    for roles, each in zip(points.plan.runs, points.replications, strict=True):
        for role, key in roles.items():
            arms.setdefault(role, {}).setdefault(key, set()).add(each.arm)
    return [role for role, found in arms.items() if any(len(names) > 1 for names in found.values())]


def _covered(layout: Layout, composer: Composer) -> tuple[str, ...]:
    """Prefixes of the leaves that may differ between points: the factors, whole groups, and what seeds draw."""
    groups = composer.group_names()
    return (*(f"{key}." if key in groups else key for key in layout.factors), *SEED_LEAVES, "model.name")


def _is_covered(path: str, covered: tuple[str, ...]) -> bool:
    return any(path == prefix or (prefix.endswith(".") and path.startswith(prefix)) for prefix in covered)


def differing(runs: list[Run]) -> dict[str, str | None]:
    """Leaves that are not equal in all points -> their mark. A leaf that only some variants have differs as well."""
    seen: dict[str, set[str]] = {}
    counts: dict[str, int] = {}
    marks: dict[str, str | None] = {}
    for run in runs:
        for leaf in canonical.leaves(run):
            seen.setdefault(leaf.path, set()).add(repr(leaf.value))
            counts[leaf.path] = counts.get(leaf.path, 0) + 1
            marks[leaf.path] = leaf.mark
    return {path: marks[path] for path, values in seen.items() if len(values) > 1 or counts[path] < len(runs)}
