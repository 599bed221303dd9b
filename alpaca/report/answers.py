"""What a question's page has said so far: answers.jsonl in its folder, which outlives every remaking of the page.

A row is added when the answer or the hypothesis is another one than before, and none is ever changed. Dates of answers
are those of the last stage behind them, not of the page, so that equal inputs give equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alpaca.errors import UserError
from alpaca.records import encode, write_jsonl
from alpaca.records.reading import NotJson, decode, read_lines

FILE = "answers.jsonl"
REQUIRED, FIELDS = ("recorded", "hypothesis"), ("recorded", "hypothesis", "answer", "runs", "design")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What was held or found at a time. `answer`: "" for a hypothesis that was written down before any result."""

    recorded: str
    hypothesis: str
    answer: str = ""
    runs: str = ""
    """ "9 of 9 runs"."""
    design: str = ""
    """A digest of what was asked beside seeds and values: the metric, what is held equal, the settings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """The hypothesis as it was first written down, what it was changed to later, and the answers before this one."""

    hypothesis: Row | None
    changed: list[Row]
    earlier: list[Row]
    answered_before: bool = False
    """Whether the page had an answer before the hypothesis was first written down."""
    foretold: str = ""
    """In words, when the hypothesis was written down."""
    design: str = ""
    """Of the present answer."""

    def told(self, row: Row) -> str:
        """How many runs an earlier answer rests on, and whether the same was asked."""
        return f"{row.runs}{', with another metric, other controls or settings' if self._asks_other(row) else ''}"

    def fewer(self, done: int) -> int:
        """Runs of an earlier answer to the same question, where they are more than now; else 0."""
        same = [row.runs for row in self.earlier if row.runs[:1].isdigit() and not self._asks_other(row)]
        most = max((int(runs.split()[0].replace(",", "")) for runs in same), default=0)
        return most if most > done else 0

    def _asks_other(self, row: Row) -> bool:
        return bool(row.design and self.design and row.design != self.design)


def read(folder: Path) -> list[Row]:
    """Every row, oldest first. Fields that are not known here are passed over; UserError for what is no row."""
    path = folder / FILE
    return [_row(path, number, found) for number, found in _objects(path)]


def add(folder: Path, row: Row) -> None:
    """Adds the row where it says something new: another hypothesis, or another answer than the last."""
    rows = read(folder)
    said = [one for one in rows if one.answer] if row.answer else rows
    if said and (said[-1].hypothesis, said[-1].answer if row.answer else "") == (row.hypothesis, row.answer):
        return
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{FILE}.part"
    earlier = [found for _, found in _objects(folder / FILE)]  # with the fields that are not known here
    write_jsonl(part, [*earlier, asdict(row)])
    part.replace(folder / FILE)


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number of the line and its object."""
    if not path.is_file():
        return
    for number, line in read_lines(path):
        try:
            found = decode(line)
        except NotJson as error:
            raise _unreadable(path, number, str(error), line) from error
        if not isinstance(found, dict):
            raise _unreadable(path, number, "no JSON object", line)
        yield number, found


def _row(path: Path, number: int, found: dict[str, Any]) -> Row:
    for name in REQUIRED:
        if name not in found:
            raise _unreadable(path, number, f"no field {name!r}", encode(found))
    given = {name: found[name] for name in FIELDS if name in found}
    for name, value in given.items():
        if not isinstance(value, str):
            raise _unreadable(path, number, f"the field {name!r} is no text", encode(found))
    return Row(**given)


def _unreadable(path: Path, number: int, problem: str, line: str) -> UserError:
    return UserError(
        what=f"{problem}: {line.strip()[:80]!r}",
        where=f"{path}:{number}",
        remedy="mend or delete this line: it is an earlier answer or hypothesis of the page, and no result is in it",
    )


def history(folder: Path, answer: str) -> History:
    """What the page shows beside its present answer."""
    rows = read(folder)
    held: list[Row] = []
    for row in rows:
        if row.hypothesis and (not held or held[-1].hypothesis != row.hypothesis):
            held.append(row)
    answered = [row for row in rows if row.answer]
    # The same answer again, as under another hypothesis, is no earlier one.
    following = [*(row.answer for row in answered[1:]), answer]
    return History(
        hypothesis=held[0] if held else None,
        changed=held[1:],
        earlier=[row for row, after in zip(answered, following, strict=False) if row.answer != after],
        answered_before=bool(held and any(row.answer for row in rows[: rows.index(held[0])])),
    )
