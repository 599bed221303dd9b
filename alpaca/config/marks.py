"""What a leaf of the configuration is: its mark, its default and its rules."""

from __future__ import annotations

from dataclasses import field
from typing import Any

IDENTITY, EXECUTION, CONTENT = "identity", "execution", "content"
MISSING = "???"  # OmegaConf's mark for a mandatory value


def what(
    default: Any = None,
    *,
    choices: tuple[str, ...] = (),
    least: float | None = None,
    below: float | None = None,
    factory: Any = None,
) -> Any:
    """An identity leaf. choices: the allowed strings; least / below: inclusive lower and upper bound of a number."""
    return _leaf(IDENTITY, default, factory, {"choices": choices, "least": least, "most": below})


def how(
    default: Any = None,
    *,
    choices: tuple[str, ...] = (),
    least: float | None = None,
    factory: Any = None,
    is_path: bool = False,
) -> Any:
    """An execution leaf. is_path: a file that the worker reads; a relative path starts at the folder of the launch."""
    return _leaf(EXECUTION, default, factory, {"choices": choices, "least": least, "most": None, "is_path": is_path})


def content(default: Any = None, *, takes: str = "file") -> Any:
    """The path of an input file, hashed by what it holds; null means the built-in one.

    takes: "file", "folder" (of weights, in the transformers format) or "either".
    """
    return _leaf(CONTENT, default, None, {"takes": takes})


def _leaf(mark: str, default: Any, factory: Any, rules: dict[str, Any]) -> Any:
    metadata = {"mark": mark, **rules}
    return field(default_factory=factory, metadata=metadata) if factory else field(default=default, metadata=metadata)
