"""The marker of a checkpoint: which files it has, whether they are as they were written, and of what model."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from alpaca.artifacts import read_json, sha256_file, write_json
from alpaca.errors import UserError

NOTES = "notes.json"
Digests = dict[str, dict[str, Any]]
"""File name to {"bytes", "sha256"}."""


def fingerprint(state: dict[str, Any]) -> dict[str, str]:
    """Name to dtype and whole shape, "float32[4096, 4096]", or "value" where there is no tensor.

    Equal for any number of processes; another model or another optimizer has another one.
    """
    return {
        name: f"{str(leaf.dtype).removeprefix('torch.')}{list(leaf.shape)}" if torch.is_tensor(leaf) else "value"
        for name, leaf in _leaves(state)
    }


def _leaves(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Leaves as DCP takes them apart: of lists, those that hold dictionaries or tensors."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(value, (*path, str(key)))
    elif isinstance(node, list) and any(isinstance(item, dict | list) or torch.is_tensor(item) for item in node):
        for index, item in enumerate(node):
            yield from _leaves(item, (*path, str(index)))
    else:
        yield ".".join(path), node


def refuse_other_model(path: Path, saved: dict[str, str], present: dict[str, str]) -> None:
    """UserError unless the checkpoint of marker `path` is of the model and the optimizer of this run."""
    if saved == present:
        return
    names = [name for name in {**saved, **present} if saved.get(name) != present.get(name)]
    first = names[0]
    raise UserError(
        what=f"this checkpoint is of another model or optimizer: it has {_size(saved)}, this run has {_size(present)}; "
        f"{len(names)} entries differ, the first is {first}: {saved.get(first, 'absent')} in the checkpoint, "
        f"{present.get(first, 'absent')} in this run",
        where=str(path),
        remedy=f"the configuration that it was made with, or remove {path.parent} to start afresh",
    )


def _size(entries: dict[str, str]) -> str:
    tensors = [entry for entry in entries.values() if entry != "value"]
    numbers = sum(math.prod(json.loads(entry[entry.index("[") :])) for entry in tensors)
    return f"{len(tensors)} tensors of {numbers:,} numbers"


def digests(paths: Iterable[Path]) -> Digests:
    """Size and sha256 of each file."""
    return {path.name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)} for path in paths}


def write(path: Path, record: dict[str, Any]) -> None:
    """Writes the marker, atomically and to the disk. It holds its own sha256 too."""
    write_json(path, {**record, "sha256": _own_digest(record)})


def read(path: Path) -> dict[str, Any] | str:
    """The marker without its sha256, or what is wrong with it."""
    if not path.exists():
        return "was not finished"
    try:
        record = read_json(path)
        digest = record.pop("sha256")
    except (UserError, UnicodeDecodeError, AttributeError, KeyError, TypeError):
        return "has a torn record"
    return record if digest == _own_digest(record) else "has a changed record"


def _own_digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def damage(folder: Path, files: Digests) -> str | None:
    """How the files in `folder` differ from what was written, None if they do not. Sizes first: they cost nothing."""
    for name, recorded in files.items():
        path = folder / name
        if not path.exists():
            return f"has lost {name}"
        if path.stat().st_size != recorded["bytes"]:
            return f"has {path.stat().st_size:,} bytes instead of {recorded['bytes']:,} in {name}"
    changed = [name for name, recorded in files.items() if sha256_file(folder / name) != recorded["sha256"]]
    return f"has another sha256 than recorded for {changed[0]}" if changed else None
