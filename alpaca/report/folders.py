"""The stage folders that a report reads: payload, bookkeeping and the link that the page shows."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from alpaca.config import Point
from alpaca.errors import ArtifactError, UserError
from alpaca.records import read_jsonl

STAGES = ("sample", "curate", "pretrain", "train", "respond", "score")
"""In the order of work."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Folder:
    """One stage folder. `path` is None where the stage did not finish; then every document is empty."""

    name: str
    """Below the output folder, such as "train/tiny-1a2b3c4d"."""
    path: Path | None
    link: str
    """Relative URL, "" where the folder is missing."""

    @property
    def stage(self) -> str:
        return self.name.split("/")[0]

    def document(self, file: str) -> dict[str, Any]:
        """A JSON object of the folder; empty where there is no such file."""
        if self.path is None or not (self.path / file).is_file():
            return {}
        try:
            content = json.loads((self.path / file).read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(
                what=f"not JSON ({error})",
                where=str(self.path / file),
                remedy="the folder was changed after it was finished; remove it and run again",
            ) from error
        return content if isinstance(content, dict) else {}

    def rows(self, file: str) -> list[dict[str, Any]]:
        """The rows of a JSONL file of the folder; empty where there is no such file."""
        if self.path is None or not (self.path / file).is_file():
            return []
        return list(read_jsonl(self.path / file))

    def first_row(self, file: str) -> dict[str, Any]:
        """The first row of a JSONL file of the folder, however long that is; empty where there is none."""
        if self.path is None or not (self.path / file).is_file():
            return {}
        return next(iter(read_jsonl(self.path / file)), {})

    def rows_by_id(self, file: str) -> dict[str, dict[str, Any]]:
        """The rows of a JSONL file by their "id". Raises ArtifactError where two share one: results are kept by id."""
        rows: dict[str, dict[str, Any]] = {}
        for row in self.rows(file):
            if row["id"] in rows:
                raise ArtifactError(
                    what=f"two rows have the id {row['id']!r}",
                    where=f"{self.path}/{file}",
                    remedy="give each item of the evaluation set an id of its own, remove the folder and run again",
                )
            rows[row["id"]] = row
        return rows

    def link_to(self, file: str) -> str:
        """Relative URL of a file in the folder; "" where it does not exist."""
        return f"{self.link}{quote(file)}" if self.path is not None and (self.path / file).exists() else ""

    def setting(self, *keys: str) -> Any:
        """A leaf of the frozen configuration in stage.json, None where there is none."""
        value: Any = self.document("stage.json").get("config", {})
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value


@dataclass(kw_only=True, slots=True)
class Library:
    """Folders by name, each made once; `home` is the folder that holds the page."""

    parents: dict[str, Path]
    home: Path
    _known: dict[str, Folder] = field(default_factory=dict)

    def folder(self, name: str) -> Folder:
        if name not in self._known:
            path = self.parents.get(name)
            path = path if path is not None and path.is_dir() else None
            link = quote(Path(os.path.relpath(path, self.home)).as_posix()) + "/" if path else ""
            self._known[name] = Folder(name=name, path=path, link=link)
        return self._known[name]

    def of_points(self, points: list[Point]) -> list[Folder]:
        """Every folder that the points name, once, in the order of work and then of first mention."""
        names = dict.fromkeys(name for point in points for name in point.stages.values())
        folders = [self.folder(name) for name in names]
        return sorted(folders, key=lambda folder: _place(folder.stage))


def _place(stage: str) -> int:
    return STAGES.index(stage) if stage in STAGES else len(STAGES)
