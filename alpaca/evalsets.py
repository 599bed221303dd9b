"""The evaluation sets and their loaders. `SETS` is the table: name in `eval.NAME.set` -> loader."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alpaca import world
from alpaca.config import EvalSource
from alpaca.errors import UserError
from alpaca.records import TEXT, EvalItem, is_text, well_formed
from alpaca.runtime.download import fetch

EMBEDDED_ITEMS = 400
USER_ORIENTED_KEY = "eval.user_oriented_252.path"
SHOWN = 20  # problems listed in one message


def load(config: EvalSource) -> list[EvalItem]:
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


def embedded(config: EvalSource) -> list[EvalItem]:
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


def user_oriented(config: EvalSource) -> list[EvalItem]:
    """Self-instruct's 252 user-oriented instructions (Wang et al., arXiv 2212.10560), one instance each."""
    path = (
        Path(config.path).expanduser()
        if config.path
        else fetch(config.url, config.sha256, "the evaluation set user_oriented_252", key=USER_ORIENTED_KEY)
    )
    return load_user_items(path)


def load_user_items(path: Path) -> list[EvalItem]:
    """The items of a JSONL file in the form of that set; one UserError lists up to 20 problems with their lines."""
    lines, problems, places = _numbered_lines(path), list[str](), dict[str, int]()
    for number, line in lines:
        found, id = _problems(line)
        if id is not None and (first := places.setdefault(id, number)) != number:
            found.append(f'"id" is {id!r}, as on line {first}')
        problems += [f"{path}:{number}: {each}" for each in found]
    if problems or not lines:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise UserError(
            what="\n    ".join([*problems[:SHOWN], *more] or [f"no items in {path}"]),
            where=USER_ORIENTED_KEY,
            remedy="each line needs id, instruction and instances[0] with input and output, all of them texts",
        )
    return [_user_item(json.loads(line)) for _, line in lines]


def _numbered_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a file that are not blank, with their numbers from 1."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            what=f"cannot read {path}: {error}",
            where=USER_ORIENTED_KEY,
            remedy=f"set {USER_ORIENTED_KEY} to a UTF-8 text file, or leave it out to have the set downloaded",
        ) from error
    return [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _problems(line: str) -> tuple[list[str], str | None]:
    """What is wrong with a line, and its id as far as it has one."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return [f"not JSON ({error.msg} at column {error.colno})"], None
    if not isinstance(row, dict):
        return [f"a JSON {type(row).__name__}, expected an object"], None
    instances = row.get("instances")
    first = instances[0] if isinstance(instances, list) and instances else None
    values = {'"id"': row.get("id"), '"instruction"': row.get("instruction")}
    if isinstance(first, dict):
        values |= {f'"instances"[0]["{name}"]': first.get(name) for name in ("input", "output")}
    found = [f"{name} is {value!r}, expected {TEXT}" for name, value in values.items() if not is_text(value)]
    if not isinstance(first, dict):
        found.append('"instances" is no list with an object in it')
    return found, row["id"] if is_text(row.get("id")) else None


def _user_item(row: dict[str, Any]) -> EvalItem:
    instance = row["instances"][0]
    return EvalItem(
        id=row["id"],
        instruction=row["instruction"],
        input=instance["input"],
        reference=instance["output"],
        family=well_formed(str(row.get("motivation_app") or "")),
    )


SETS: dict[str, Callable[[EvalSource], list[EvalItem]]] = {"embedded": embedded, "user_oriented": user_oriented}
