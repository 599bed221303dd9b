"""Rules of single leaves: ranges, choices, paths and addresses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from alpaca import canonical
from alpaca.checks.words import nearest
from alpaca.config import Run
from alpaca.errors import UserError
from alpaca.records import given
from alpaca.teachers.openai import OPENAI_URL, url_problem

KINDS_OF_PATH = {"file": "a file", "folder": "a folder in the transformers format"}


def single(run: Run) -> Iterator[UserError]:
    """Everything that can be said of one leaf by itself."""
    yield from _leaf_rules(run)
    yield from _sources(run)


def _leaf_rules(run: Run) -> Iterator[UserError]:
    for leaf in canonical.leaves(run):
        choices, least, most = (leaf.rules.get(rule) for rule in ("choices", "least", "most"))
        value = leaf.value
        if choices and value not in choices:
            yield UserError(
                what=f"{value!r} is not one of its values", where=leaf.path, remedy=nearest(str(value), choices)
            )
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield from _bounds(leaf.path, value, least, most)
        if leaf.mark == "content" and value is not None and not Path(value).expanduser().exists():
            yield UserError(
                what=f"no such file or folder: {value!r}",
                where=leaf.path,
                remedy="give an existing path (relative paths start at the current folder)",
            )


def _bounds(path: str, value: float, least: float | None, most: float | None) -> Iterator[UserError]:
    if not (value == value and abs(value) != float("inf")):
        yield UserError(what=f"{value} is no finite number", where=path, remedy="give a finite number")
    elif least is not None and value < least:
        yield UserError(
            what=f"{value} is below the least allowed, {least:g}", where=path, remedy=f"give at least {least:g}"
        )
    elif most is not None and value > most:
        yield UserError(
            what=f"{value} is above the most allowed, {most:g}", where=path, remedy=f"give at most {most:g}"
        )


def _sources(run: Run) -> Iterator[UserError]:
    """Input files that are folders, weights that are a file, downloads without a digest, addresses with a secret."""
    if not run.output_dir.strip():
        yield UserError(what="empty path", where="output_dir", remedy="give a folder, for example output_dir=outputs")
    for leaf in canonical.leaves(run):
        place = Path(leaf.value).expanduser() if leaf.mark == "content" and leaf.value else None
        if leaf.mark == "content" and leaf.value == "":
            yield UserError(what="empty path", where=leaf.path, remedy=f"give a path, or {leaf.path}=null")
        elif place is not None and place.exists() and leaf.rules["takes"] == ("file" if place.is_dir() else "folder"):
            kind = KINDS_OF_PATH[leaf.rules["takes"]]
            remedy = f"give {kind}"
            if given.is_data_set(leaf.path):
                remedy += f", or the folder of a finished stage that made {given.EXAMPLES}"
            yield UserError(what=f"{leaf.value!r} is not {kind}", where=leaf.path, remedy=remedy)
        elif place is not None and place.exists() and (wrong := given.problem_of(leaf.path, place)):
            yield wrong
    problem = url_problem(getattr(run.teacher, "base_url", None) or OPENAI_URL)
    if problem:
        yield UserError(
            what=problem,
            where="teacher.base_url",
            remedy="for example http://127.0.0.1:8000/v1; keys come from OPENAI_API_KEY",
        )
