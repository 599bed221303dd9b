"""Rows of the JSONL files that stages exchange, and the one way to read, write and append them.

reading: text files read strictly and in bounded memory; given: the small files that a user gives beside a data set.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from alpaca.errors import UserError
from alpaca.records.reading import NotJson, decode, read_lines

# What `is_text` wants, for messages.
TEXT = "a text (without halves of surrogate pairs)"
# JSON may hold "\ud83d" without its other half; no UTF-8 file can.
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(kw_only=True, slots=True)
class Example:
    """One instruction-following example; `provenance` says which teacher, request and seeds made it."""

    id: str
    instruction: str
    input: str
    output: str
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True, slots=True)
class SeedTask:
    """A human-written task shown to the teacher; one instance of self-instruct's seed_tasks.jsonl."""

    id: str
    name: str
    instruction: str
    input: str
    output: str
    is_classification: bool


@dataclass(kw_only=True, slots=True)
class EvalItem:
    """One item of an evaluation set. `exact` is true where the reference is the one right answer."""

    id: str
    instruction: str
    input: str
    reference: str
    family: str = ""
    exact: bool = False


def is_well_formed(text: str) -> bool:
    """Whether a text can be written as UTF-8: it holds no half of a surrogate pair."""
    return _LONE_SURROGATE.search(text) is None


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether it is a number of JSON; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_text(value: object) -> bool:
    """Whether a value of a JSON file is a text that can be written again."""
    return isinstance(value, str) and is_well_formed(value)


def well_formed(text: str) -> str:
    """The text with U+FFFD for every half of a surrogate pair."""
    return _LONE_SURROGATE.sub("\ufffd", text)


def encode(row: Any) -> str:
    """One JSON line without its newline: readable UTF-8, keys in the given order, so equal rows are equal bytes.

    Halves of surrogate pairs, which UTF-8 cannot hold, become U+FFFD.
    """
    return well_formed(json.dumps(row, ensure_ascii=False, separators=(",", ":"), allow_nan=False))


def as_row(record: Any) -> dict[str, Any]:
    """A dataclass record as a JSON object."""
    return asdict(record)


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file; a broken line, NaN or wrong encoding is an error that names file and line."""
    for number, line in read_lines(path):
        try:
            row = decode(line)
        except NotJson as error:
            raise _unreadable(str(error), line, path, number) from error
        if not isinstance(row, dict):
            raise _unreadable(f"a JSON {type(row).__name__}, expected an object", line, path, number)
        yield row


def write_jsonl(path: Path, rows: Iterable[Any]) -> int:
    """Writes all rows and returns their number; the file appears whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    count = 0
    with temporary.open("w", encoding="utf-8", newline="\n") as out:
        for count, row in enumerate(rows, 1):  # noqa: B007 - returned below
            out.write(encode(row) + "\n")
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)
    return count


def drop_torn_tail(path: Path) -> int:
    """Cuts the half-written last line that a killed process leaves; returns the number of bytes cut."""
    if not path.exists():
        return 0
    with path.open("rb+") as file:
        content = file.read()
        keep = content.rfind(b"\n") + 1
        if keep < len(content):
            file.truncate(keep)
        return len(content) - keep


def _unreadable(problem: str, line: str, path: Path, number: int) -> UserError:
    return UserError(
        what=f"{problem}: {line.strip()[:80]!r}",
        where=f"{path}:{number}",
        remedy="each line must be one JSON object",
    )
