"""The small files that a user gives beside a data set: seed tasks, a prompt, topics, positions in a pool.

Read whole and checked in milliseconds, so that planning finds what is wrong with them before a teacher is paid.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from alpaca.errors import UserError
from alpaca.records import TEXT, SeedTask, is_text
from alpaca.records.reading import NotJson, Problems, check_is_text, decode, read_lines, read_text

SEEDS_KEY, PROMPT_KEY, TOPICS_KEY, INDICES_KEY = "data_gen.seeds", "data_gen.prompt", "data_gen.topics", "data.indices"
EXAMPLES = "examples.jsonl"
PARQUET, PARQUET_MARK = ".parquet", b"PAR1"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""Of a data set on the hub."""
SEED_FORM = 'one object a line: {"id", "name", "instruction", "instances": [{"input", "output"}], "is_classification"}'


def problem_of(key: str, path: Path) -> UserError | None:
    """What is wrong with the file that this configuration key names; None for good files and for other keys.

    Of a data set, which may be large, only its first bytes are looked at: the rest is checked when its stage runs.
    """
    try:
        if key in READERS:
            READERS[key](path)
        elif is_data_set(key):
            check_start(path, f"{key}={path}")
    except UserError as error:
        return error
    return None


def is_data_set(key: str) -> bool:
    """Whether a configuration key holds the path of a data set."""
    return key.startswith("data_gen.") and key.endswith(".path")


def is_parquet(path: Path) -> bool:
    """By its name or its first bytes."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return path.suffix.lower() == PARQUET or file.read(len(PARQUET_MARK)) == PARQUET_MARK


def check_start(path: Path, where: str) -> None:
    """Raises UserError for a data set that is empty, or neither text nor Parquet."""
    if path.is_file() and path.stat().st_size == 0:
        raise UserError(what=f"{str(path)!r} is empty: no records", where=where, remedy="give a file with records")
    if not is_parquet(path):
        check_is_text(path, where)


def data_file(path: str | Path) -> Path:
    """The file that the path of a data set stands for: itself, or the examples.jsonl of a finished stage's folder."""
    place = Path(path).expanduser()
    finished = (place / "_SUCCESS").exists() or not (place / "stage.json").exists()
    return place / EXAMPLES if finished and (place / EXAMPLES).is_file() else place


def seed_tasks(path: Path) -> list[SeedTask]:
    """The tasks of a JSONL file in self-instruct's form, the first instance of each.

    Raises one UserError that lists up to 20 problems with their lines.
    """
    check_is_text(path, SEEDS_KEY)
    tasks, problems, lines = [], Problems(), dict[str, int]()
    for number, line in read_lines(path):
        row, found = _seed_row(line)
        if not found:
            task = _seed_task(row, number)
            tasks.append(task)
            if (first := lines.setdefault(task.id, number)) != number:
                found = [f'"id" is {task.id!r}, as on line {first}']
        for each in found:
            problems.add(f"line {number}: {each}")
    if not tasks and not problems.count:
        problems.add("no tasks in this file")
    problems.raise_if_any(f"{SEEDS_KEY}={path}", SEED_FORM)
    return tasks


def prompt(path: Path) -> str:
    """The text of a generation prompt."""
    text = read_text(path, PROMPT_KEY)
    if not text.strip():
        raise UserError(
            what="the prompt is empty", where=f"{PROMPT_KEY}={path}", remedy="write what the teacher should do"
        )
    return text


def topics(path: Path) -> list[str]:
    """The lines of a text file that are not blank. Raises UserError for a file without any."""
    found = [line.strip() for line in read_text(path, TOPICS_KEY).split("\n") if line.strip()]
    if not found:
        raise UserError(what="no topics in this file", where=f"{TOPICS_KEY}={path}", remedy="write one topic a line")
    return found


def indices(path: Path) -> list[int]:
    """A JSON list of positions from 0, each once."""
    where, remedy = f"{INDICES_KEY}={path}", "a JSON list of positions in the pool, from 0: [0, 5, 17]"
    try:
        found = decode(read_text(path, INDICES_KEY))
    except NotJson as error:
        raise UserError(what=str(error), where=where, remedy=remedy) from error
    if not isinstance(found, list) or not found:
        what = "an empty list" if found == [] else f"a JSON {type(found).__name__}, expected a list"
        if isinstance(found, dict) and (lists := [name for name, value in found.items() if isinstance(value, list)]):
            what += f"; it holds the lists {', '.join(lists)}"
            copied = f"json.dump(json.load(open('{path}'))['{lists[0]}'], open('indices.json', 'w'))"
            remedy = f'write one of them to a file of its own: python -c "import json; {copied}"'
        raise UserError(what=what, where=where, remedy=remedy)
    problems, places = Problems(), dict[int, int]()
    for place, index in enumerate(found):
        if type(index) is not int or index < 0:  # True is an int too
            problems.add(f"entry {place} is {index!r}, expected a whole number from 0")
        elif (first := places.setdefault(index, place)) != place:
            problems.add(f"entry {place} is {index}, as entry {first}")
    problems.raise_if_any(where, remedy)
    return found


READERS: dict[str, Callable[[Path], Any]] = {
    SEEDS_KEY: seed_tasks, PROMPT_KEY: prompt, TOPICS_KEY: topics, INDICES_KEY: indices,
}  # fmt: skip
"""Configuration key -> the reader of its file."""


def _seed_row(line: str) -> tuple[Any, list[str]]:
    try:
        row = decode(line)
    except NotJson as error:
        return None, [str(error)]
    return row, list(_seed_problems(row))


def _seed_problems(row: Any) -> Iterator[str]:
    if not isinstance(row, dict):
        yield f"a JSON {type(row).__name__}, expected an object"
        return
    if not is_text(row.get("instruction")) or not row["instruction"].strip():
        yield f'"instruction" is {_short(row.get("instruction"))}, expected {TEXT}'
    if not isinstance(row.get("id", ""), (str, int)):
        yield f'"id" is {_short(row["id"])}, expected a text'
    if not isinstance(row.get("is_classification", False), bool):
        yield f'"is_classification" is {_short(row["is_classification"])}, expected true or false'
    instances = row.get("instances")
    first = instances[0] if isinstance(instances, list) and instances else None
    if not isinstance(first, dict):
        yield '"instances" is no list with an object in it'
        return
    for name in ("input", "output"):
        if not is_text(first.get(name)):
            yield f'"instances"[0]["{name}"] is {_short(first.get(name))}, expected {TEXT}'


def _short(value: object) -> str:
    return "null or missing" if value is None else repr(value)[:60]


def _seed_task(row: dict[str, Any], number: int) -> SeedTask:
    return SeedTask(
        id=str(row.get("id", f"line_{number}")),
        name=str(row.get("name", "")),
        instruction=row["instruction"],
        input=row["instances"][0]["input"],
        output=row["instances"][0]["output"],
        is_classification=row.get("is_classification", False),
    )
