"""Stages to do -> units (what one array element runs) -> job arrays with their dependencies. Pure: no SLURM, no disk.

A stage that costs next to nothing rides in the job of its only parent (`cluster.together`). Units of one kind with the
same resources become one array. An array whose elements each follow the element of the same index of another array
depends on it by `aftercorr`; one whose elements all follow the same elements depends on these by `afterok`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from alpaca.dispatch.slurm.resources import Asked


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One stage of a submission. labels are folders below the output folder."""

    label: str
    role: str
    """"train", "respond:NAME", ..."""
    parents: tuple[str, ...]
    processes: int = 1

    @property
    def kind(self) -> str:
        return self.label.partition("/")[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """What one array element runs: a stage, and those that ride with it, in order."""

    stages: tuple[Stage, ...]
    parents: frozenset[str]
    """Labels that must be finished before and are not yet."""

    @property
    def first(self) -> Stage:
        return self.stages[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a stage is queued. array: "#3" for the third array of this submission, or the number of a SLURM job."""

    array: str
    index: int


@dataclass(kw_only=True, slots=True)
class Array:
    """One call of sbatch. units: array index -> unit; after: places of which all must succeed, and arrays to follow."""

    number: int
    asked: Asked
    units: dict[int, Unit]
    corresponding: tuple[str, ...] = ()
    """Arrays to follow element by element (aftercorr)."""
    after: tuple[Place, ...] = field(default=())
    """Single elements to follow (afterok)."""

    @property
    def kind(self) -> str:
        return next(iter(self.units.values())).first.kind


def units(todo: Iterable[Stage], together: Collection[str], waits: Collection[str]) -> list[Unit]:
    """Units of the stages to do, given in an order where parents stand first. waits: labels done by other jobs."""
    chains: dict[str, list[Stage]] = {}
    head: dict[str, str] = {}
    for stage in todo:
        open_parents = [label for label in stage.parents if label in head or label in waits]
        host = head.get(open_parents[0]) if len(stage.parents) == 1 and open_parents else None
        if host and stage.kind in together and stage.processes == chains[host][0].processes == 1:
            chains[host].append(stage)
            head[stage.label] = host
        else:
            chains[stage.label] = [stage]
            head[stage.label] = stage.label
    known = head.keys() | set(waits)
    return [
        Unit(stages=tuple(chain), parents=frozenset(label for label in chain[0].parents if label in known))
        for chain in chains.values()
    ]


def arrays(
    found: list[Unit], live: dict[str, Place], ask: Callable[[Stage], Asked], max_size: int = 1000
) -> list[Array]:
    """The arrays in an order in which every array stands behind those it follows. live: stages queued by other jobs."""
    places, made, waiting = dict(live), list[Array](), list(found)
    while waiting:
        ready = [unit for unit in waiting if unit.parents <= places.keys()]
        if not ready:
            raise ValueError(f"no order for {[unit.first.label for unit in waiting]}")
        waiting = [unit for unit in waiting if not unit.parents <= places.keys()]
        for group in _alike(ready, places, ask):
            for array in _shaped(group, places, ask(group[0].first), max_size):
                array.number = len(made) + 1
                made.append(array)
                for index, unit in array.units.items():
                    places |= {stage.label: Place(array=f"#{array.number}", index=index) for stage in unit.stages}
    return made


def _alike(ready: list[Unit], places: dict[str, Place], ask: Callable[[Stage], Asked]) -> list[list[Unit]]:
    """Units of the same role and resources that follow the same arrays."""
    groups: dict[object, list[Unit]] = defaultdict(list)
    for unit in ready:
        follows = frozenset(places[label].array for label in unit.parents)
        groups[unit.first.role, ask(unit.first), follows].append(unit)
    return list(groups.values())


def _shaped(group: list[Unit], places: dict[str, Place], asked: Asked, max_size: int) -> list[Array]:
    """One array where one dependency holds for all its elements, else one for each set of parents."""
    indices = [_indices(unit, places) for unit in group]
    varying = [name for name in indices[0] if len({each[name] for each in indices}) > 1]
    shared = [name for name in indices[0] if name not in varying]
    after = tuple(Place(array=name, index=index) for name in sorted(shared) for index in indices[0][name])
    if not varying:
        return _chunks(group, asked, after, max_size)
    first = [each[varying[0]] for each in indices]
    aligned = all([each[name] for each in indices] == first for name in varying)
    if aligned and len(set(first)) == len(first) and all(len(own) == 1 for own in first):
        numbered = {own[0]: unit for own, unit in zip(first, group, strict=True)}
        return [Array(number=0, asked=asked, units=numbered, corresponding=tuple(sorted(varying)), after=after)]
    exact: dict[frozenset[Place], list[Unit]] = defaultdict(list)
    for unit in group:
        exact[frozenset(places[label] for label in unit.parents)].append(unit)
    return [array for part in exact.values() for array in _shaped(part, places, asked, max_size)]


def _indices(unit: Unit, places: dict[str, Place]) -> dict[str, tuple[int, ...]]:
    found: dict[str, set[int]] = defaultdict(set)
    for label in unit.parents:
        found[places[label].array].add(places[label].index)
    return {name: tuple(sorted(own)) for name, own in sorted(found.items())}


def _chunks(group: list[Unit], asked: Asked, after: tuple[Place, ...], max_size: int) -> list[Array]:
    parts = [group[start : start + max_size] for start in range(0, len(group), max_size)]
    return [Array(number=0, asked=asked, units=dict(enumerate(part)), after=after) for part in parts]
