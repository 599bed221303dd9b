"""Two results beside each other: where their chains part, and everything that differs from there on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from alpaca import artifacts
from alpaca.report.diff import payload, settings, sides
from alpaca.report.diff.payload import Answers, Data, Loss, Metric
from alpaca.report.diff.settings import Code, Leaf
from alpaca.report.diff.sides import Chain, Side


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A stage of both: its folders ("" where it is missing) and how they differ; `damage`: of its records."""

    role: str
    folders: tuple[str, str]
    state: str
    damage: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class Runs:
    """Two runs: the points of two pages that belong together, or the only ones."""

    name: str
    stages: list[Row]
    identity: list[Leaf]
    execution: list[Leaf]
    code: list[Code]
    packages: list[Leaf]
    machines: list[Leaf]
    data: Data | None
    losses: list[Loss]
    metrics: list[Metric]
    answers: list[Answers]

    @property
    def origins(self) -> list[str]:
        """The stages in which a difference begins, in the order of work: all the others only inherit one."""
        return [row.role for row in self.stages if row.state in (sides.OWN, sides.CONTENT)]

    @property
    def is_equal(self) -> bool:
        return all(row.state == sides.SAME for row in self.stages)


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """All that two results have not in common. `page`: leaves of two pages' question; `alone`: points of one only.

    `files`: names of the pages' own files that differ; `unread`: why these were not compared, or nothing.
    """

    labels: tuple[str, str]
    page: list[Leaf]
    runs: list[Runs]
    alone: tuple[list[str], list[str]] = field(default=([], []))
    files: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    @property
    def is_equal(self) -> bool:
        """Whether both asked for the same, and every stage and both pages hold the same bytes."""
        return self.same_runs and not (self.page or self.files or self.unread)

    @property
    def same_runs(self) -> bool:
        return not any(self.alone) and all(each.is_equal for each in self.runs)

    by_level: bool = False
    """Whether the pages have no seed in common, so that runs of equal factors were compared."""


def compare(one: Side, other: Side) -> Comparison:
    """Points of two pages are compared where factors and seeds are equal, else where factors are; a single run with the
    point nearest to it.
    """
    pairs = _pairs(one, other)
    taken = [{chain.identity for chain in side} for side in zip(*pairs, strict=True)] or [set(), set()]
    alone = [
        [name_of(chain) for chain in side.chains if chain.identity not in known]
        for side, known in zip((one, other), taken, strict=True)
    ]
    return Comparison(
        labels=(one.label, other.label),
        page=_page(one, other),
        runs=[_runs(one, other, *pair) for pair in pairs],
        alone=(alone[0], alone[1]),
        files=_files(one, other),
        unread=_unread(one, other),
        by_level=len(pairs) > 1 and any(before.identity != after.identity for before, after in pairs),
    )


def _pairs(one: Side, other: Side) -> list[tuple[Chain, Chain]]:
    there = {chain.identity: chain for chain in other.chains}
    pairs = [(chain, there[chain.identity]) for chain in one.chains if chain.identity in there]
    if pairs or 1 not in (len(one.chains), len(other.chains)):
        return pairs or _levels(one, other)
    every = [(before, after) for before in one.chains for after in other.chains]
    return [max(every, key=lambda pair: _shared(*pair))] if every else []


def _levels(one: Side, other: Side) -> list[tuple[Chain, Chain]]:
    """The first run of each level that both pages have, where no seed is in both."""
    levels = [{chain.level: chain for chain in reversed(side.chains)} for side in (one, other)]
    return [(chain, levels[1][level]) for level, chain in reversed(levels[0].items()) if level in levels[1]]


def _shared(one: Chain, other: Chain) -> int:
    """Stages that both have."""
    keys = [{stage.frozen["key"] for stage in chain.stages.values()} for chain in (one, other)]
    return len(keys[0] & keys[1])


def _page(one: Side, other: Side) -> list[Leaf]:
    """What two pages of several points ask; their points are compared by themselves."""
    if not one.page or not other.page:
        return []
    asked = [
        {key: value for key, value in page.frozen["config"].items() if key not in _NOT_ASKED}
        for page in (one.page, other.page)
    ]
    keys = dict.fromkeys([*asked[0], *asked[1]])
    return [
        Leaf(key=key, values=(asked[0].get(key), asked[1].get(key)), roles=["report"])
        for key in keys
        if asked[0].get(key) != asked[1].get(key)
    ]


def _files(one: Side, other: Side) -> list[str]:
    """What two pages themselves consist of, beside the runs that they show."""
    if not (one.page and other.page and one.page.finished and other.page.finished):
        return []
    before, after = (artifacts.manifest_of(side.output / side.label) for side in (one, other))
    return [
        name
        for name in sorted({*before, *after})
        if before.get(name, {}).get("sha256") != after.get(name, {}).get("sha256")
    ]


def _unread(one: Side, other: Side) -> list[str]:
    """Where both are pages, those whose files are not what they will stay."""
    pages = [page for page in (one.page, other.page) if page]
    told = [page.damage or f"{page.name} is not finished" for page in pages if not page.finished]
    return list(dict.fromkeys(told)) if len(pages) == 2 else []


_NOT_ASKED = ("points", "command", "notes", "title")
"""What follows from the points, or says how the page was asked for."""


def name_of(chain: Chain) -> str:
    """ "data.size=250, seed 0"."""
    factors = ", ".join(f"{key}={value}" for key, value in chain.factors.items())
    seeds = list(dict.fromkeys(str(seed) for seed in chain.seeds.values()))
    return ", ".join(part for part in (factors, f"seed {'/'.join(seeds)}" if seeds else "") if part)


def _runs(one: Side, other: Side, before: Chain, after: Chain) -> Runs:
    stages = [_row(before, after, role) for role in sides.roles(before, after)]
    unlike = any(row.state != sides.SAME for row in stages)  # else all files are the same, and need not be read
    return Runs(
        name=name_of(before),
        stages=stages,
        identity=settings.identity(before, after),
        execution=settings.execution(before, after),
        code=settings.code(one, other, (before, after)),
        packages=settings.packages(before, after),
        machines=settings.machines(before, after),
        data=payload.data(before, after) if unlike else None,
        losses=payload.losses(before, after) if unlike else [],
        metrics=payload.metrics(before, after),
        answers=payload.answers(before, after) if unlike else [],
    )


def _row(one: Chain, other: Chain, role: str) -> Row:
    before, after = one.stages.get(role), other.stages.get(role)
    names = (before.name if before else "", after.name if after else "")
    damage = dict.fromkeys(stage.damage for stage in (before, after) if stage and stage.damage)
    return Row(role=role, folders=names, state=sides.state(before, after), damage=list(damage))


def as_json(found: Comparison) -> dict[str, Any]:
    """For programs: everything, without the text of patches."""
    plain = asdict(found)
    for made, runs in zip(plain["runs"], found.runs, strict=True):
        made["origins"] = runs.origins
        for code in made["code"]:
            for file in code["files"]:
                del file["patch"]
    return {"equal": found.is_equal, **plain}
