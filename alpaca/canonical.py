"""Identity: the canonical encoding behind every key, and the walk over marked configuration leaves."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpaca.artifacts import sha256_file
from alpaca.config import CONTENT, EXECUTION
from alpaca.errors import UserError
from alpaca.runtime.download import cache_folder

LARGE_FILE = 2**26


@dataclass(frozen=True, slots=True)
class Leaf:
    """One configuration value: dotted path, its mark and rules (dataclass field metadata), the value."""

    path: str
    value: Any
    rules: Any

    @property
    def mark(self) -> str | None:
        found: str | None = self.rules.get("mark")
        return found


def leaves(node: Any, prefix: str = "") -> Iterator[Leaf]:
    """Every leaf of a configuration dataclass in the order of its fields; dictionaries of dataclasses are walked."""
    for item in dataclasses.fields(node):
        value, path = getattr(node, item.name), f"{prefix}{item.name}"
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{path}.")
        elif isinstance(value, dict) and not item.metadata:
            for name, child in value.items():
                yield from leaves(child, f"{path}.{name}.")
        elif value is not None or item.metadata:
            yield Leaf(path, value, item.metadata)


def identity(node: Any, promoted: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The nested identity projection of a stage's configuration.

    promoted: dotted paths of execution leaves that a sweep made its factor, so that they count as identity.
    An input file enters as the sha256 of its content; a `path` that is null beside a `sha256` enters as that digest,
    so that a local copy and the download of one file are the same work.
    """
    found: dict[str, Any] = {}
    for leaf in leaves(node):
        if leaf.mark == CONTENT:
            _put(found, leaf.path, file_digest(leaf.value, leaf.path))
        elif leaf.mark != EXECUTION or leaf.path in promoted:
            _put(found, leaf.path, leaf.value)
    _join_path_and_digest(found)
    return found


def _put(target: dict[str, Any], path: str, value: Any) -> None:
    *groups, name = path.split(".")
    for group in groups:
        target = target.setdefault(group, {})
    target[name] = value


def _join_path_and_digest(node: dict[str, Any]) -> None:
    for child in node.values():
        if isinstance(child, dict):
            _join_path_and_digest(child)
    if "path" in node and "sha256" in node:
        given, expected = node.pop("path"), node.pop("sha256")
        node["content"] = given or expected or None


def file_digest(path: str | None, key: str) -> str | None:
    """sha256 of an input file, or of what identifies a folder of weights; None for None."""
    if path is None:
        return None
    place = Path(path).expanduser()
    if not place.exists():
        raise UserError(what=f"no such file or folder: {path!r}", where=key, remedy="give an existing path")
    return _folder_digest(str(place)) if place.is_dir() else _digest(str(place), place.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _digest(path: str, mtime_ns: int) -> str:
    """Content digest; that of a large file is kept in the cache, so that weights are not read at every plan."""
    status = Path(path).stat()
    if status.st_size < LARGE_FILE:
        return sha256_file(Path(path))
    name = hashlib.sha256(f"{Path(path).resolve()}\0{status.st_size}\0{mtime_ns}\0{status.st_ino}".encode()).hexdigest()
    memo = cache_folder() / "digests" / name
    if memo.exists():
        return memo.read_text(encoding="ascii")
    found = sha256_file(Path(path))
    memo.parent.mkdir(parents=True, exist_ok=True)
    memo.write_text(found, encoding="ascii")
    return found


def _folder_digest(path: str) -> str:
    """Of the names and contents of all files below a folder."""
    digest = hashlib.sha256()
    for file in sorted(place for place in Path(path).rglob("*") if place.is_file()):
        mark = _digest(str(file), file.stat().st_mtime_ns)
        digest.update(f"{file.relative_to(path).as_posix()}\0{mark}\0".encode())
    return digest.hexdigest()


def encode(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, finite numbers only.

    Raises UserError on a value with no canonical form (a set, an object, a NaN) rather than hash its repr.
    """
    _require_canonical(value, "")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _require_canonical(value: Any, path: str) -> None:
    if isinstance(value, dict):
        for name, child in value.items():
            if not isinstance(name, str):
                raise _no_form(name, path or "a key")
            _require_canonical(child, f"{path}.{name}".lstrip("."))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            _require_canonical(child, f"{path}[{index}]")
    elif not _is_canonical_scalar(value):
        raise _no_form(value, path)


def _is_canonical_scalar(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, (str, int))


def _no_form(value: Any, path: str) -> UserError:
    return UserError(
        what=f"{value!r} ({type(value).__name__}) has no canonical encoding",
        where=path,
        remedy="use a finite number, a string, a boolean, null, or lists and string-keyed maps of these",
    )


def key_of(stage: str, version: int, identity_: dict[str, Any], parents: dict[str, str]) -> str:
    """sha256 (hex) of stage, version, identity projection and the parents' keys by role."""
    text = encode({"stage": stage, "version": version, "identity": identity_, "parents": parents})
    return hashlib.sha256(text.encode()).hexdigest()
