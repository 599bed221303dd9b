"""What earlier stages said of each example of the pool: ratings.jsonl of a judge, moderation.jsonl of a moderator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpaca.errors import ArtifactError
from alpaca.records import Example, read_jsonl

RATINGS, MODERATION = "ratings.jsonl", "moderation.jsonl"
SHOWN = 5  # ids named in one message


@dataclass(kw_only=True, slots=True, frozen=True)
class Moderated:
    """A moderation model's verdict on one example."""

    flagged: bool
    categories: tuple[str, ...]


def read_ratings(folder: Path, examples: Sequence[Example]) -> dict[str, float | None]:
    """The judge's score of each example by id, 0 to 5, None where its answer held none.

    Raises ArtifactError when an example has no row.
    """
    rows = _rows(folder / RATINGS, examples)
    return {id: None if row["score"] is None else float(row["score"]) for id, row in rows.items()}


def read_moderation(folder: Path, examples: Sequence[Example]) -> dict[str, Moderated]:
    """The verdict on each example by id. Raises ArtifactError when an example has no row."""
    rows = _rows(folder / MODERATION, examples)
    return {
        id: Moderated(flagged=bool(row["flagged"]), categories=tuple(row["categories"])) for id, row in rows.items()
    }


def _rows(path: Path, examples: Sequence[Example]) -> dict[str, dict[str, Any]]:
    rows = {str(row["id"]): row for row in read_jsonl(path)}
    if missing := [example.id for example in examples if example.id not in rows]:
        raise ArtifactError(
            what=f"no row for {len(missing):,} of {len(examples):,} examples: {', '.join(missing[:SHOWN])}",
            where=str(path),
            remedy=f"delete {path.parent} and run the same command again",
        )
    return {example.id: rows[example.id] for example in examples}
