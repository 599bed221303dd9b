"""stage.json and back: the typed configuration as plain JSON, read again by the worker without Hydra."""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any

from alpaca import config, groups
from alpaca.artifacts import read_json
from alpaca.errors import ArtifactError
from alpaca.plan import VERSIONS, Node

CONFIGS: dict[str, type] = {
    "sample": config.SampleConfig,
    "rate": config.RateConfig,
    "moderate": config.ModerateConfig,
    "curate": config.CurateConfig,
    "pretrain": config.PretrainConfig,
    "train": config.TrainConfig,
    "respond": config.RespondConfig,
    "score": config.ScoreConfig,
    "report": config.ReportConfig,
}


def freeze_node(node: Node, parents: dict[str, str], extra: dict[str, Any]) -> dict[str, Any]:
    """What stage.json holds. parents: role -> folder in the output; extra: code snapshot, git, tracking, argv."""
    plain = dataclasses.asdict(_absolute(node.config))
    return {
        "stage": node.stage,
        "name": node.slug,
        "key": node.key,
        "version": VERSIONS[node.stage],
        "identity": node.identity,
        "config": plain,
        "parents": parents,
        "promoted": list(node.promoted),
        **extra,
    }


def _absolute(node: Any) -> Any:
    """A copy in which input files are absolute paths: the worker runs in another folder."""
    changes: dict[str, Any] = {}
    for item in dataclasses.fields(node):
        value = getattr(node, item.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            changes[item.name] = _absolute(value)
        elif isinstance(value, dict):
            changes[item.name] = {
                name: _absolute(child) if dataclasses.is_dataclass(child) else child for name, child in value.items()
            }
        elif value is not None and (item.metadata.get("mark") == config.CONTENT or item.metadata.get("is_path")):
            changes[item.name] = str(Path(value).expanduser().resolve())
    return dataclasses.replace(node, **changes)


def load(folder: Path) -> tuple[dict[str, Any], Any]:
    """stage.json and its typed configuration; a file that does not fit the schema is an ArtifactError."""
    path = folder / "stage.json"
    if not path.exists():
        raise ArtifactError(
            what="no stage.json: not a stage folder", where=str(folder), remedy="give a folder that launch.py made"
        )
    frozen = read_json(path)
    try:
        return frozen, typed(CONFIGS[frozen["stage"]], frozen["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            what=f"does not fit the schema ({type(error).__name__}: {error})",
            where=str(path),
            remedy="it was written by another version; delete the folder and launch again",
        ) from error


def typed(kind: Any, value: Any) -> Any:
    """A value of the annotated type from plain JSON; `kind` fields choose the variant of a group."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(kind) if option is not type(None)]
        return None if value is None else typed(options[0], value)
    if dataclasses.is_dataclass(kind):
        return _typed_dataclass(_variant(typing.cast(type, kind), value), value)
    if typing.get_origin(kind) is dict:
        return {name: typed(typing.get_args(kind)[1], child) for name, child in value.items()}
    if typing.get_origin(kind) is list:
        return [typed(typing.get_args(kind)[0], child) for child in value]
    return float(value) if kind is float else value


def _typed_dataclass(kind: type, value: dict[str, Any]) -> Any:
    hints = typing.get_type_hints(kind)
    return kind(**{name: typed(hints[name], child) for name, child in value.items()})


def _variant(kind: type, value: dict[str, Any]) -> type:
    for variants in groups.VARIANTS.values():
        for name, variant in variants.items():
            if issubclass(variant, kind) and value.get("kind") == name:
                return variant
    return kind
