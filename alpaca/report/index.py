"""The list of all sweeps and runs of an output folder: index.html, made anew by whoever finishes a page."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from alpaca import artifacts
from alpaca.report import html, wording

NAME = "index.html"
_KINDS = ("sweeps", "runs")
_FILES = (("report.html", "report"), ("results.csv", "CSV"), ("results.json", "JSON"))
_MOST_ROUNDS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A page as the list shows it. label: below the output folder; when: as it was recorded, "" where it was not.

    made: whether the page stands; without it the folder is named, and why there is nothing to read.
    old: whether it stands as it was made for other stages or settings than its folder names now.
    """

    label: str
    question: str
    answer: str
    metric: str
    when: str
    points: int
    command: str
    links: list[tuple[str, str]]
    made: bool
    old: bool

    @property
    def name(self) -> str:
        return self.label.partition("/")[2]

    @property
    def facts(self) -> str:
        """What is measured, by how many runs, when."""
        runs = wording.plural(self.points, "run") if self.points else ""
        return ", ".join(part for part in (self.metric, runs, wording.moment(self.when)) if part)


def renew(output: Path) -> Path:
    """Writes the list and returns its path.

    Two pages may be finished at once, and the one that lists first may write last: so it is looked again after writing,
    until what was written is what is there.
    """
    path = output / NAME
    for _ in range(_MOST_ROUNDS):
        text = render(output)
        _write(path, text)
        if render(output) == text:
            break
    return path


def _write(path: Path, text: str) -> None:
    """By a name of its own: another process may be writing the same list."""
    temporary = path.with_name(f".{NAME}.{uuid.uuid4().hex}")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    temporary.replace(path)


def render(output: Path) -> str:
    """The list as HTML; equal folders give equal bytes."""
    found = entries(output)
    others = sorted(path.name for path in output.glob("*.html") if path.name != NAME)
    return html.rendered(
        "index.html",
        lead=_lead(found),
        groups=[(kind, [one for one in found if _is_current(one) and _is_of(one, kind)]) for kind in _KINDS],
        old=[one for one in found if one.made and one.old],
        unfinished=[one for one in found if not one.made],
        others=[(name, quote(name)) for name in others],
    )


def _lead(found: list[Entry]) -> str:
    made = [one for one in found if _is_current(one)]
    if not made:
        return "Every page here is an old one." if any(one.made for one in found) else "No page has been made here yet."
    counts = [sum(_is_of(one, kind) for one in made) for kind in _KINDS]
    told = [wording.plural(count, kind[:-1]) for count, kind in zip(counts, _KINDS, strict=True) if count]
    last = max(one.when for one in made)
    return f"{wording.listing(told)}" + (f"; the latest page was made at {wording.moment(last)}." if last else ".")


def _is_current(entry: Entry) -> bool:
    return entry.made and not entry.old


def _is_of(entry: Entry, kind: str) -> bool:
    return entry.label.startswith(f"{kind}/")


def entries(output: Path) -> list[Entry]:
    """All pages, the latest first. What is torn or foreign is never an error: it is named, or left out."""
    found = [entry for kind in _KINDS for path in _folders(output / kind) if (entry := _entry(output, path))]
    return sorted(sorted(found, key=lambda one: one.label), key=lambda one: one.when, reverse=True)


def _folders(parent: Path) -> Iterator[Path]:
    try:
        yield from sorted(path for path in parent.iterdir() if path.is_dir())
    except OSError:  # not there, or not ours to read
        return


def _entry(output: Path, folder: Path) -> Entry | None:
    """None for a folder that is no page."""
    frozen, results = _object(folder / "stage.json"), _object(folder / "results.json")
    if frozen.get("stage") != "report" and not results:
        return None
    config = frozen.get("config") if isinstance(frozen.get("config"), dict) else {}
    label = folder.relative_to(output).as_posix()
    points = results.get("points")
    there = [(text, f"{quote(label)}/{file}") for file, text in _FILES if (folder / file).is_file()]
    return Entry(
        label=label,
        question=_text(results, "question") or _text(config, "question"),
        answer=_text(results, "answer"),
        metric=wording.metric_in_full(metric) if (metric := _text(results, "metric")) else "",
        when=_text(_object(folder / "provenance.json"), "ended"),
        points=len(points) if isinstance(points, list) else 0,
        command=_text(config, "command"),
        links=there,
        made=artifacts.is_finished(folder) and bool(results) and "report" in dict(there),
        old=_is_old(folder, _text(frozen, "key")),
    )


def _is_old(folder: Path, key: str) -> bool:
    """Whether the marker is that of another key; a record or a marker that cannot be read tells nothing."""
    marked = _text(_object(folder / "_SUCCESS"), "key")
    return bool(key and marked) and key != marked


def _object(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one for whatever else is there."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(record: Any, name: str) -> str:
    value = record.get(name) if isinstance(record, dict) else None
    return value if isinstance(value, str) else ""
