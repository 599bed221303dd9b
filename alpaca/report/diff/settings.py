"""What was asked for and by what it was made: configuration, code, packages and machines of two chains."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpaca.report.diff.sides import Chain, Side, Stage, roles

ABSENT = "\N{EN DASH}"
Values = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Leaf:
    """A value that differs; `roles`: the stages in which it does."""

    key: str
    values: tuple[Any, Any]
    roles: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """A source file that differs: "added" to the second, "removed" from it, or "changed"."""

    name: str
    change: str
    plus: int
    minus: int
    patch: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Code:
    """Two snapshots that differ and the stages that ran on them; `missing`: those that are no longer there."""

    snapshots: tuple[str, str]
    commits: tuple[str, str]
    roles: list[str]
    files: list[File]
    missing: list[str]


def identity(one: Chain, other: Chain) -> list[Leaf]:
    """The leaves that can change the result."""
    return _collect(one, other, lambda stage: {"(version of the stage)": stage.frozen.get("version")} | _asked(stage))


def execution(one: Chain, other: Chain) -> list[Leaf]:
    """The leaves that must not."""
    return _collect(one, other, _how)


def packages(one: Chain, other: Chain) -> list[Leaf]:
    """Versions that differ, None where a package is missing; only of stages that are finished on both sides."""
    return _collect(one, other, lambda stage: dict(stage.record.get("packages") or {}))


def machines(one: Chain, other: Chain) -> list[Leaf]:
    """Hardware and system that differ."""
    return _collect(one, other, lambda stage: dict(stage.record.get("hardware") or {}))


def _collect(one: Chain, other: Chain, values: Callable[[Stage], Values]) -> list[Leaf]:
    """Equal differences of several stages are one row."""
    found: dict[str, Leaf] = {}
    for role in roles(one, other):
        if role not in one.stages or role not in other.stages:
            continue
        pair = values(one.stages[role]), values(other.stages[role])
        if not all(pair):
            continue
        for key, before, after in _differing(*pair):
            leaf = Leaf(key=key, values=(before, after), roles=[])
            found.setdefault(f"{key}\0{before!r}\0{after!r}", leaf).roles.append(role)
    return list(found.values())


def _differing(before: Values, after: Values) -> Iterator[tuple[str, Any, Any]]:
    for key in dict.fromkeys([*before, *after]):
        if before.get(key, ABSENT) != after.get(key, ABSENT):
            yield key, before.get(key, ABSENT), after.get(key, ABSENT)


def _asked(stage: Stage) -> Values:
    return flat(stage.frozen["identity"])


def _how(stage: Stage) -> Values:
    asked = _asked(stage)
    found = {key: value for key, value in flat(stage.frozen["config"]).items() if key not in asked}
    return found | {"threads": stage.frozen.get("threads")}


def flat(node: Any, prefix: str = "") -> Values:
    """Dotted leaves of nested dictionaries; lists are leaves."""
    if not isinstance(node, dict) or not node:
        return {prefix.rstrip("."): node}
    found: Values = {}
    for name, child in node.items():
        found |= flat(child, f"{prefix}{name}.")
    return found


def code(one: Side, other: Side, chains: tuple[Chain, Chain]) -> list[Code]:
    """Each pair of different snapshots that made a stage of both."""
    pairs: dict[tuple[str, str], list[str]] = {}
    for role in roles(*chains):
        if all(role in chain.stages for chain in chains):
            before, after = (chain.stages[role] for chain in chains)
            if before.code != after.code:
                pairs.setdefault((before.code, after.code), []).append(role)
    return [_code((one.output, other.output), pair, found, chains) for pair, found in pairs.items()]


def _code(outputs: tuple[Path, Path], pair: tuple[str, str], found: list[str], chains: tuple[Chain, Chain]) -> Code:
    before, after = (output / name for output, name in zip(outputs, pair, strict=True))
    missing = [name for name, path in zip(pair, (before, after), strict=True) if not name or not path.is_dir()]
    commits = _commit(chains[0].stages[found[0]]), _commit(chains[1].stages[found[0]])
    files = [] if missing else compared_trees(before, after)
    return Code(snapshots=pair, commits=commits, roles=found, files=files, missing=missing)


def _commit(stage: Stage) -> str:
    git = stage.record.get("git") or stage.frozen.get("git") or {}
    sha = str(git.get("sha") or "")[:12]
    return f"{sha} with uncommitted changes" if sha and git.get("dirty") else sha


@functools.cache
def compared_trees(before: Path, after: Path) -> list[File]:
    """The files that two snapshots have not in common, without the recorded uncommitted differences."""
    there = {_relative(path, root) for root in (before, after) for path in root.rglob("*") if _is_source(path)}
    return [found for name in sorted(there) if (found := _file(before / name, after / name, name))]


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _is_source(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts and path.suffix != ".diff"


def _file(before: Path, after: Path, name: str) -> File | None:
    old, new = (path.read_bytes() if path.is_file() else None for path in (before, after))
    if old == new:
        return None
    texts = [(data or b"").decode("utf-8", errors="replace").splitlines() for data in (old, new)]
    lines = list(difflib.unified_diff(texts[0], texts[1], f"a/{name}", f"b/{name}", lineterm=""))
    counts = [sum(line.startswith(mark) for line in lines[2:]) for mark in ("+", "-")]
    change = "added" if old is None else "removed" if new is None else "changed"
    return File(name=name, change=change, plus=counts[0], minus=counts[1], patch="\n".join(lines))
