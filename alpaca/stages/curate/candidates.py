"""The candidates of a pool: tasks parsed out of a teacher's responses, or the records of a released file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alpaca.artifacts import read_json
from alpaca.curation.parsing import ParsedTask, continuation, parse_completion
from alpaca.errors import ArtifactError
from alpaca.records import Example, read_jsonl
from alpaca.stages.curate.card import Step


@dataclass(kw_only=True, slots=True)
class Pool:
    """What curation starts from, in pool order."""

    source: str
    """Where the data comes from, in words."""
    teacher: str
    examples: list[Example]
    candidates: int
    """Tasks before anything was dropped, malformed ones included."""
    seed_instructions: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    """What parsing dropped."""


def read_pool(folder: Path) -> Pool:
    """The pool of a finished sample folder. Raises ArtifactError when it holds no candidate."""
    pool = _released(folder) if (folder / "examples.jsonl").exists() else _generated(folder)
    if not pool.examples:
        raise ArtifactError(
            what="no candidate examples in it",
            where=str(folder),
            remedy="look at the responses; the teacher may not answer in the asked form",
        )
    return pool


def _released(folder: Path) -> Pool:
    examples = [Example(**row) for row in read_jsonl(folder / "examples.jsonl")]
    digest = str(read_json(folder / "pool.json")["source_sha256"])
    return Pool(
        source=f"a published file (sha256 {digest[:12]}…)",
        teacher="as published with the data",
        examples=examples,
        candidates=len(examples),
    )


def _generated(folder: Path) -> Pool:
    """Tasks of every response in request order; ids are the request's and the task's number."""
    summary = read_json(folder / "pool.json")
    examples, malformed, cut, beyond, teachers = [], 0, 0, 0, set()
    for row in read_jsonl(folder / "responses.jsonl"):
        asked = row["request"]
        text = continuation(row["text"], asked["first_number"])
        parsed = parse_completion(text, first_number=asked["first_number"], finish_reason=row["finish_reason"])
        wanted = [task for task in parsed.tasks if task.number <= asked["last_number"]]
        malformed, cut, beyond = (
            malformed + parsed.malformed,
            cut + parsed.cut,
            beyond + len(parsed.tasks) - len(wanted),
        )
        examples += [_example(row, task) for task in wanted]
        teachers.add(row["model"])
    total = len(examples) + malformed + cut + beyond
    return Pool(
        source=f"{summary['requests']:,} responses",
        teacher=", ".join(sorted(teachers)),
        examples=examples,
        candidates=total,
        seed_instructions=summary["seed_instructions"],
        steps=_parsing_steps(total, {"malformed": malformed, "cut off": cut, "beyond the list": beyond}),
    )


def _parsing_steps(total: int, dropped: dict[str, int]) -> list[Step]:
    steps = []
    for name, count in dropped.items():
        total -= count
        steps.append(Step(name=name, dropped=count, kept=total))
    return steps


def _example(row: dict[str, Any], task: ParsedTask) -> Example:
    provenance = {"teacher": row["model"], "request": row["id"], "seeds": row["request"]["seeds"]}
    return Example(
        id=f"{row['id']}_{task.number:02d}",
        instruction=task.instruction,
        input=task.input,
        output=task.output,
        provenance=provenance,
    )
