"""The candidates of a pool: tasks parsed out of a teacher's responses, or examples that the sample stage wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alpaca.artifacts import read_json
from alpaca.curation.parsing import TEXT_FORM, ParsedTask, parse_tasks
from alpaca.errors import ArtifactError
from alpaca.records import Example, read_jsonl

SHORT_DIGEST = 12
SHOWN = 5  # ids named in one message

_AGAIN = "delete this folder and run the same command again"


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One step of curation: examples dropped by it and kept after it."""

    name: str
    dropped: int
    kept: int


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
    """What parsing dropped, or whatever the sample stage left out."""


def read_pool(folder: Path) -> Pool:
    """The pool of a finished sample folder. Raises ArtifactError when it holds no candidate, or two of one id."""
    for name, read in _READERS.items():
        if (folder / name).exists():
            pool = read(folder, read_json(folder / "pool.json"))
            break
    else:
        raise ArtifactError(what=f"none of {', '.join(_READERS)} in it", where=str(folder), remedy=_AGAIN)
    if not pool.examples:
        raise ArtifactError(
            what="no candidate examples in it",
            where=str(folder),
            remedy="look at the responses; the teacher may not answer in the asked form",
        )
    counts = Counter(example.id for example in pool.examples)
    if twice := [id for id, count in counts.items() if count > 1]:
        raise ArtifactError(
            what=f"{len(twice):,} ids more than once: {', '.join(twice[:SHOWN])}", where=str(folder), remedy=_AGAIN
        )
    return pool


def _published(folder: Path, summary: dict[str, Any]) -> Pool:
    """Published data sets, one or several, as they are."""
    examples = [Example(**row) for row in read_jsonl(folder / "examples.jsonl")]
    sources = summary.get("sources")
    digest = str(summary["source_sha256"])[:SHORT_DIGEST]
    names = f"{len(sources)} published data sets ({', '.join(sources)})" if sources else "a published file"
    return Pool(
        source=f"{names} (sha256 {digest}…)" if not sources else names,
        teacher="as published with the data",
        examples=examples,
        candidates=len(examples),
    )


def _prepared(folder: Path, summary: dict[str, Any]) -> Pool:
    """Examples that the sample stage made in several steps, with what it left out on the way."""
    examples = [Example(**row) for row in read_jsonl(folder / "candidates.jsonl")]
    dropped = {str(name).replace("_", " "): int(count) for name, count in summary["dropped"].items()}
    total = len(examples) + sum(dropped.values())
    return Pool(
        source=f"{summary['requests']:,} responses",
        teacher=", ".join(sorted({str(example.provenance.get("teacher", "")) for example in examples})),
        examples=examples,
        candidates=total,
        seed_instructions=summary["seed_instructions"],
        steps=_parsing_steps(total, dropped),
    )


def _answered(folder: Path, summary: dict[str, Any]) -> Pool:
    """Tasks of every response in request order; ids are the request's and the task's number."""
    examples, teachers = list[Example](), set[str]()
    lost = Counter({"malformed": 0, "cut off": 0, "beyond the list": 0})
    for row in read_jsonl(folder / "responses.jsonl"):
        asked = row["request"]
        parsed = parse_tasks(
            row["text"],
            form=asked.get("form", TEXT_FORM),
            first_number=asked["first_number"],
            finish_reason=row["finish_reason"],
        )
        wanted = [task for task in parsed.tasks if task.number <= asked["last_number"]]
        lost["malformed"] += parsed.malformed
        lost["cut off"] += parsed.cut
        lost["beyond the list"] += len(parsed.tasks) - len(wanted)
        examples += [_example(row, task) for task in wanted]
        teachers.add(row["model"])
    total = len(examples) + lost.total()
    return Pool(
        source=f"{summary['requests']:,} responses",
        teacher=", ".join(sorted(teachers)),
        examples=examples,
        candidates=total,
        seed_instructions=summary["seed_instructions"],
        steps=_parsing_steps(total, lost),
    )


_READERS = {"examples.jsonl": _published, "candidates.jsonl": _prepared, "responses.jsonl": _answered}


def _parsing_steps(total: int, dropped: Mapping[str, int]) -> list[Step]:
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
