"""The evaluation sets and their loaders. `SETS` is the table: name in `eval.NAME.set` -> loader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from alpaca import world
from alpaca.config import RespondConfig
from alpaca.errors import UserError
from alpaca.records import EvalItem, read_jsonl
from alpaca.runtime.download import fetch

EMBEDDED_ITEMS = 400


def load(config: RespondConfig) -> list[EvalItem]:
    """The items of an evaluation set in their fixed order, the first `size` of them.

    Raises UserError for a file that is missing or broken, or when fewer than `size` items are there.
    """
    items = SETS[config.set](config)
    if config.size is not None and config.size > len(items):
        raise UserError(
            what=f"{config.size} items wanted, the set {config.set!r} has {len(items)}",
            where="eval.*.size",
            remedy=f"give at most {len(items)}, or null for all",
        )
    return items[: config.size]


def embedded(config: RespondConfig) -> list[EvalItem]:
    """Held-out tasks of the embedded world; every reference is the one right answer."""
    tasks = world.held_out(config.size or EMBEDDED_ITEMS)
    return [
        EvalItem(
            id=f"embedded_{index:05d}",
            instruction=task.instruction,
            input=task.input,
            reference=task.output,
            family=task.family,
            exact=True,
        )
        for index, task in enumerate(tasks)
    ]


def user_oriented(config: RespondConfig) -> list[EvalItem]:
    """Self-instruct's 252 user-oriented instructions (Wang et al., arXiv 2212.10560), one instance each."""
    path = (
        Path(config.path).expanduser()
        if config.path
        else fetch(config.url, config.sha256, "the evaluation set user_oriented_252")
    )
    return [_user_item(row, path, number) for number, row in enumerate(read_jsonl(path), 1)]


def _user_item(row: dict[str, Any], path: Path, number: int) -> EvalItem:
    try:
        instance = row["instances"][0]
        return EvalItem(
            id=row["id"],
            instruction=row["instruction"],
            input=instance["input"],
            reference=instance["output"],
            family=row.get("motivation_app", ""),
        )
    except (KeyError, IndexError, TypeError) as error:
        raise UserError(
            what=f"not an item of this set ({type(error).__name__}: {error})",
            where=f"{path}:{number}",
            remedy="each line needs id, instruction and instances[0] with input and output",
        ) from error


SETS: dict[str, Callable[[RespondConfig], list[EvalItem]]] = {"embedded": embedded, "user_oriented": user_oriented}
