"""What the teachers that run a model of one's own share: which weights, in which precision, and are they there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alpaca.config import Teacher, content, what
from alpaca.errors import UserError

FOLDER = "a folder in the transformers format: config.json, *.safetensors and the tokenizer's files"


@dataclass(kw_only=True, slots=True)
class WeightsTeacher(Teacher):
    """Base of the teachers whose weights are given: by a local folder, or by id and revision on the hub."""

    id: str | None = what(None)
    """Hub id; not read where `path` is given."""
    revision: str = what("main")
    """Commit, tag or branch on the hub; a commit makes the run reproducible."""
    path: str | None = content(takes="folder")
    """A local folder in the transformers format, used instead of the hub id."""
    dtype: str = what("auto", choices=("auto", "fp32", "bf16", "fp16"))
    """Precision of weights and computation; auto: as the weights are stored."""

    def name(self) -> str:
        """The model as raw.jsonl names it: the hub id, or the last part of the path."""
        return self.id or "" if self.path is None else Path(self.path).expanduser().resolve().name

    def location(self) -> str:
        """What the loaders of transformers and vLLM take: folder or hub id."""
        return self.id or "" if self.path is None else str(Path(self.path).expanduser().resolve())


def problems(options: WeightsTeacher) -> Iterator[UserError]:
    """What is wrong with the choice of weights; looks at the folder, never at the hub."""
    if options.path is None and not options.id:
        yield UserError(
            what=f"teacher={options.kind} has no model",
            where="teacher.path",
            remedy="set teacher.path to a local folder, or teacher.id (and teacher.revision) to a model on the hub",
        )
    elif options.path is not None and not (Path(options.location()) / "config.json").is_file():
        yield UserError(what=f"there is no config.json in {options.path}", where="teacher.path", remedy=FOLDER)


def require(options: WeightsTeacher) -> None:
    """Raises the first of `problems`."""
    for problem in problems(options):
        raise problem
