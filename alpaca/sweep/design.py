"""Factors and seeds -> the combinations that are run: grid or one at a time, what moves together, what is left out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from alpaca.compose import Composer
from alpaca.errors import UserError
from alpaca.sweep.question import GRID, SEED_KEYS, Question, Seeding
from alpaca.sweep.reading import as_text

Combination = dict[str, Override]
"""Factor -> its setting at one point."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """One factor, or several that move together under a name; each level sets all of its keys."""

    name: str
    keys: tuple[str, ...]
    levels: tuple[Combination, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Replication:
    """One repetition of every combination. arm: "" where the question has no arms."""

    arm: str = ""
    seeds: tuple[Override, ...] = ()


@dataclass(kw_only=True, slots=True)
class Layout:
    """What is varied: every combination is run with every replication."""

    axes: list[Axis] = field(default_factory=list)
    combinations: list[Combination] = field(default_factory=list)
    replications: list[Replication] = field(default_factory=list)
    baseline: dict[str, Any] = field(default_factory=dict)
    """Factor -> value of the combination that the others are compared with; empty: the question names none."""

    @property
    def factors(self) -> list[str]:
        """Every key that is a factor."""
        return [key for axis in self.axes for key in axis.keys]


def lay_out(question: Question, given: Sequence[Override], composer: Composer) -> Layout:
    """The layout of a question with what the command line gives: its values of a key replace the file's.

    Problems are added to the composer's.
    """
    values = {key: [setting(key, value) for value in found] for key, found in question.factors.items()}
    for item in given:
        if item.key_or_group not in SEED_KEYS and (item.is_sweep_override() or item.key_or_group in values):
            values[item.key_or_group] = _given(item, composer)
    changed = {item.key_or_group for item in given}
    composer.problems += _half_zipped(question, given)
    axes = _axes(question, values, composer)
    start = _start(question, axes, composer)
    combinations = _combinations(question, axes, start)
    if combinations:
        if not changed & values.keys():  # else values of the file that are gone may leave rules without a use
            composer.problems += [*_unused_exclusions(question, axes, start), *_lost(axes, combinations)]
        composer.problems += _tied(question, axes, combinations)
    elif all(axis.levels for axis in axes):  # else what took the values away is told
        composer.problems.append(
            UserError(what="leaves out every combination", where="exclude", remedy="leave some of them in")
        )
    named = question.baseline or question.design != GRID
    return Layout(
        axes=axes,
        combinations=combinations,
        replications=_replications(question, given, composer),
        baseline=plain(start) if named else {},
    )


def added(question: Question, given: Sequence[Override]) -> set[str]:
    """Keys to which the command line gives all that the file gives them, and perhaps more."""
    found = set()
    seeds = {seeding["seed"] for seeding in question.seeds if "seed" in seeding}
    for item in given:
        key = item.key_or_group
        mine = [setting(key, value).value() for value in question.factors.get(key, [])]
        mine = sorted(seeds) if key == "seed" and len(seeds) == len(question.seeds) else mine
        try:
            theirs = [each.value() for each in _separate(item)]
        except HydraException:  # told elsewhere
            continue
        if mine and all(value in theirs for value in mine):
            found.add(key)
    return found


def setting(key: str, value: Any) -> Override:
    """A value as the override that sets it."""
    return OverridesParser.create().parse_override(f"{key}={as_text(value)}")


def plain(combination: Combination) -> dict[str, Any]:
    """Factor -> value."""
    return {key: item.value() for key, item in combination.items()}


def _given(item: Override, composer: Composer) -> list[Override]:
    """The values that the command line gives a key, each as an override of its own."""
    try:
        return _separate(item)
    except HydraException as error:
        composer.problems.append(
            UserError(what=str(error).splitlines()[0], where=item.input_line or "", remedy="list the values: KEY=A,B,C")
        )
        return []


def _separate(item: Override) -> list[Override]:
    if not item.is_sweep_override():
        return [item]
    texts = [str(value) for value in item.sweep_string_iterator()]
    return [OverridesParser.create().parse_override(f"{item.key_or_group}={text}") for text in texts]


def _axes(question: Question, values: dict[str, list[Override]], composer: Composer) -> list[Axis]:
    """In the order of the factors; what moves together stands where its first key does."""
    name_of = {key: name for name, keys in question.zip.items() for key in keys if key in values}
    axes: dict[str, Axis] = {}
    for key, found in values.items():
        name = name_of.get(key, key)
        if name not in axes:
            keys = tuple(each for each in values if name_of.get(each, each) == name)
            levels = _levels(name, {each: values[each] for each in keys}, composer)
            axes[name] = Axis(name=name, keys=keys, levels=levels)
        if name == key:
            composer.problems += _repeated(key, found)
    return list(axes.values())


def _levels(name: str, values: dict[str, list[Override]], composer: Composer) -> tuple[Combination, ...]:
    """One level per place of the lists; one value alone, as the command line may give it, goes with every place."""
    count = max(map(len, values.values()))
    wrong = {key: len(found) for key, found in values.items() if len(found) not in (1, count)}
    if wrong:
        told = ", ".join(f"{key} has {number}" for key, number in wrong.items())
        composer.problems.append(
            UserError(what=f"{told} of {count} values", where=f"zip: {name}", remedy=f"give one, or {count}")
        )
        return ()
    return tuple({key: found[place % len(found)] for key, found in values.items()} for place in range(count))


def _repeated(key: str, found: list[Override]) -> Iterator[UserError]:
    """Equal points are one result, not replications of it."""
    texts = [item.get_value_element_as_str() for item in found]
    again = sorted({text for text in texts if texts.count(text) > 1})
    if again:
        where = f"{key}={','.join(texts)}"
        yield UserError(what=f"{', '.join(again)} given more than once", where=where, remedy="give each value once")


def _half_zipped(question: Question, given: Sequence[Override]) -> Iterator[UserError]:
    """Lists of the command line for some of what moves together: which value would go with which is anybody's guess."""
    listed = {item.key_or_group for item in given if item.is_sweep_override()}
    for name, keys in question.zip.items():
        rest = [key for key in keys if key not in listed]
        if listed & set(keys) and any(len(question.factors.get(key, [])) > 1 for key in rest):
            given_keys = [key for key in keys if key in listed]
            yield UserError(
                what=f"{' and '.join(keys)} move together, and only {', '.join(given_keys)} is given",
                where=f"zip: {name}",
                remedy=f"give {', '.join(rest)} as well, in the same order",
            )


def _tied(question: Question, axes: list[Axis], combinations: list[Combination]) -> Iterator[UserError]:
    """Factors that never vary while all others stay: what they do cannot be told from what moves with them."""
    for axis in axes:
        values = {_level_of(each, axis.keys) for each in combinations}
        nested = {key for key, condition in question.when.items() if set(condition) & set(axis.keys)}
        if len(values) > 1 and not any(_alone(axis, nested, combinations)):
            others = [
                other.name
                for other in axes
                if other is not axis and len({_level_of(each, other.keys) for each in combinations}) > 1
            ]
            yield UserError(
                what=f"never varies by itself: {' and '.join(others)} changes with it at every point",
                where=f"factors: {axis.name}",
                remedy="add combinations in which it varies alone, or make them one: zip: {NAME: [FACTOR, FACTOR]}",
            )


def _level_of(combination: Combination, keys: Iterable[str]) -> str:
    return repr([(key, combination[key].value()) for key in keys if key in combination])


def _alone(axis: Axis, nested: set[str], combinations: list[Combination]) -> Iterator[list[int]]:
    """Places that differ in this axis alone; factors that exist with some of its values only do not count."""
    bare = [{key: item.value() for key, item in each.items() if key not in nested} for each in combinations]
    for places in levels_along(bare, axis):
        if len({_level_of(combinations[place], axis.keys) for place in places}) > 1:
            yield places


def _start(question: Question, axes: list[Axis], composer: Composer) -> Combination:
    """The baseline: the values that the question names, and the first of every other factor."""
    found: Combination = {}
    for axis in axes:
        wanted = {key: setting(key, question.baseline[key]).value() for key in axis.keys if key in question.baseline}
        fitting = [level for level in axis.levels if _fits(level, {key: [value] for key, value in wanted.items()})]
        if not fitting:
            told = ", ".join(f"{key}={as_text(value)}" for key, value in wanted.items())
            known = "one of " + "; ".join(_told(level) for level in axis.levels)
            composer.problems.append(
                UserError(
                    what=f"{told} is not among the values",
                    where=f"baseline: {axis.name}",
                    remedy=f"give it as well, or name another baseline in the file: {known}",
                )
            )
        found |= next(iter(fitting or axis.levels), {})
    return found


def _combinations(question: Question, axes: list[Axis], start: Combination) -> list[Combination]:
    """Every combination that is run, each once, the baseline first where factors are varied one at a time."""
    whole = _crossed(question, axes, start)
    kept = [item for item in (_conditioned(item, question) for item in whole) if not _excluded(item, question)]
    unique = {repr([(key, item.value()) for key, item in each.items()]): each for each in kept}
    return list(unique.values())


def _crossed(question: Question, axes: list[Axis], start: Combination) -> list[Combination]:
    if question.design == GRID:
        grid = itertools.product(*(axis.levels for axis in axes))
        return [{key: item for level in levels for key, item in level.items()} for levels in grid]
    return [start, *({**start, **level} for axis in axes for level in axis.levels)]


def _conditioned(combination: Combination, question: Question) -> Combination:
    """Without the factors whose condition does not hold: they keep what the configuration says."""
    return {
        key: item
        for key, item in combination.items()
        if key not in question.when or _fits(combination, _values_of(question.when[key]))
    }


def _excluded(combination: Combination, question: Question) -> bool:
    return any(_fits(combination, _values_of(item)) for item in question.exclude)


def _values_of(condition: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """A condition's values as overrides have them, so that 1e-3 and 0.001 are equal."""
    return {key: [setting(key, value).value() for value in values] for key, values in condition.items()}


def _fits(combination: Combination, wanted: dict[str, list[Any]]) -> bool:
    return all(key in combination and combination[key].value() in values for key, values in wanted.items())


def _unused_exclusions(question: Question, axes: list[Axis], start: Combination) -> Iterator[UserError]:
    whole = [_conditioned(item, question) for item in _crossed(question, axes, start)]
    for item in question.exclude:
        if not any(_fits(each, _values_of(item)) for each in whole):
            told = ", ".join(f"{key}: {as_text(values)}" for key, values in item.items())
            yield UserError(what=f"{{{told}}} leaves nothing out", where="exclude", remedy="values that are combined")


def _lost(axes: list[Axis], combinations: list[Combination]) -> Iterator[UserError]:
    """Values that no point has, since conditions or exclusions take all of theirs away."""
    for axis in axes:
        for level in axis.levels:
            if not any(_fits(each, {key: [item.value()] for key, item in level.items()}) for each in combinations):
                yield UserError(
                    what=f"{_told(level)} is at no point", where=f"factors: {axis.name}",
                    remedy="another baseline or condition, or take the value out",
                )  # fmt: skip


def _told(level: Combination) -> str:
    return ", ".join(f"{key}={item.get_value_element_as_str()}" for key, item in level.items())


def _replications(question: Question, given: Sequence[Override], composer: Composer) -> list[Replication]:
    """The question's seeds, or those of the command line."""
    asked = {item.key_or_group: _given(item, composer) for item in given if item.key_or_group in SEED_KEYS}
    for key, found in asked.items():
        composer.problems += _repeated(key, found)
    if question.arms:
        if asked:
            where = ", ".join(asked)
            composer.problems.append(
                UserError(what="the arms have seeds of their own", where=where, remedy="change them in the file")
            )
        return [
            Replication(arm=arm, seeds=_overrides(seeding))
            for arm, replications in question.arms.items()
            for seeding in replications
        ]
    return [Replication(seeds=seeds) for seeds in _together(question, asked, composer)]


def _together(question: Question, asked: dict[str, list[Override]], composer: Composer) -> list[tuple[Override, ...]]:
    """The seeds of each replication: those of the file, with the command line's one after the other in their place.

    Crossing them would repeat each seed: the runs would not be independent, and fewer than they look.
    """
    base = [_overrides(seeding) for seeding in question.seeds] or [()]
    if "seed" in asked:
        held = [item for item in base[0] if item.key_or_group != "seed"] if len(base) > 1 else []
        kept = [item for item in held if all(item.input_line in _lines(seeds) for seeds in base)]
        base = [(item, *kept) for item in asked["seed"]]
    others = {key: found for key, found in asked.items() if key != "seed" and found}
    lengths = {"seeds of the question" if "seed" not in asked else "seed": len(base)}
    lengths |= {key: len(found) for key, found in others.items()}
    count = max(lengths.values())
    if wrong := {name: length for name, length in lengths.items() if length not in (1, count)}:
        told = ", ".join(f"{name} has {length}" for name, length in wrong.items())
        composer.problems.append(
            UserError(
                what=f"{told} of {count} values: seeds are taken together, one after the other",
                where=", ".join(asked),
                remedy=f"as many for each, or one, or seed={','.join(map(str, range(count)))}",
            )
        )
        return []
    rows = [
        (
            *(item for item in base[place % len(base)] if item.key_or_group not in others),
            *(found[place % len(found)] for found in others.values()),
        )
        for place in range(count)
    ]
    return list({repr(_lines(row)): row for row in rows}.values())


def _lines(seeds: Iterable[Override]) -> list[str | None]:
    return [item.input_line for item in seeds]


def _overrides(seeding: Seeding) -> tuple[Override, ...]:
    return tuple(setting(key, seed) for key, seed in seeding.items())


def levels_along(combinations: Iterable[dict[str, Any]], axis: Axis) -> Iterator[list[int]]:
    """Groups of places whose combinations differ in this axis alone."""
    groups: dict[str, list[int]] = {}
    for place, combination in enumerate(combinations):
        rest = {key: value for key, value in combination.items() if key not in axis.keys}
        groups.setdefault(repr(sorted(rest.items())), []).append(place)
    yield from (places for places in groups.values() if len(places) > 1)
