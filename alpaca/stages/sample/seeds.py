"""What the teacher is shown: the seed tasks and the text of the generation prompt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alpaca.errors import UserError
from alpaca.records import TEXT, SeedTask, is_text

SEED_TASKS = Path(__file__).with_name("seed_tasks.jsonl")
PROMPT = Path(__file__).with_name("prompt.txt")
SHOWN = 20  # problems listed in one message


def load_seed_tasks(path: str | Path | None) -> list[SeedTask]:
    """The tasks of a JSONL file in self-instruct's form, the first instance of each; None: those of this project.

    Raises one UserError that lists up to 20 problems with their lines.
    """
    source = Path(path) if path is not None else SEED_TASKS
    tasks, problems, lines = [], [], dict[str, int]()
    for number, line in enumerate(read_text(source, "data_gen.seeds").split("\n"), 1):
        if not line.strip():
            continue
        found = list(_problems(line))
        if not found:
            task = _task(json.loads(line), number)
            tasks.append(task)
            if (first := lines.setdefault(task.id, number)) != number:
                found = [f'"id" is {task.id!r}, as on line {first}']
        problems += [f"line {number}: {each}" for each in found]
    if problems or not tasks:
        raise UserError(
            what="\n    ".join(problems[:SHOWN] or ["no tasks in this file"]),
            where=f"data_gen.seeds={source}",
            remedy='one object a line: {"id", "name", "instruction", "instances": [{"input", "output"}], '
            '"is_classification"}',
        )
    return tasks


def load_prompt(path: str | Path | None) -> str:
    """The text of the generation prompt; None: that of this project."""
    source = Path(path) if path is not None else PROMPT
    text = read_text(source, "data_gen.prompt")
    if not text.strip():
        raise UserError(
            what="the prompt is empty", where=f"data_gen.prompt={source}", remedy="write what the teacher should do"
        )
    return text


def read_text(path: Path, key: str) -> str:
    """The UTF-8 text of a file; UserError names the configuration key where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            what=f"cannot read {path}: {error}", where=key, remedy=f"set {key} to a UTF-8 text file"
        ) from error


def _problems(line: str) -> Iterator[str]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        yield f"not JSON ({error.msg} at column {error.colno})"
        return
    if not isinstance(row, dict):
        yield f"a JSON {type(row).__name__}, expected an object"
        return
    if not is_text(row.get("instruction")) or not row["instruction"].strip():
        yield f'"instruction" is {row.get("instruction")!r}, expected {TEXT}'
    instances = row.get("instances")
    first = instances[0] if isinstance(instances, list) and instances else None
    if not isinstance(first, dict):
        yield '"instances" is no list with an object in it'
        return
    for name in ("input", "output"):
        if not is_text(first.get(name)):
            yield f'"instances"[0]["{name}"] is {first.get(name)!r}, expected {TEXT}'


def _task(row: dict[str, Any], number: int) -> SeedTask:
    return SeedTask(
        id=str(row.get("id", f"line_{number}")),
        name=str(row.get("name", "")),
        instruction=row["instruction"],
        input=row["instances"][0]["input"],
        output=row["instances"][0]["output"],
        is_classification=bool(row.get("is_classification", False)),
    )
