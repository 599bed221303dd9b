"""The files that curation writes beside card.json; equal examples give equal bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alpaca.curation.contamination import Found
from alpaca.curation.novelty import Neighbours
from alpaca.records import Example, as_row, encode, well_formed, write_jsonl

EXAMPLES, PARQUET = "examples.jsonl", "examples.parquet"
CONTAMINATION, NEIGHBOURS = "contamination.jsonl", "neighbours.jsonl"
TEXTS = ("id", "instruction", "input", "output")


def write_examples(folder: Path, examples: Sequence[Example]) -> None:
    """examples.jsonl, and the same as examples.parquet with `provenance` as JSON text.

    As text, because sources differ in what they tell of a record and a column of Parquet has one type.
    """
    write_jsonl(folder / EXAMPLES, (as_row(example) for example in examples))
    # Halves of surrogate pairs, which Arrow refuses, become what they become in the JSONL.
    columns = {name: [well_formed(getattr(example, name)) for example in examples] for name in TEXTS}
    columns["provenance"] = [encode(example.provenance) for example in examples]
    _write_parquet(folder / PARQUET, columns)


def _write_parquet(path: Path, columns: dict[str, list[str]]) -> None:
    # Half a second, which only a stage that runs should pay.
    import datasets

    features = datasets.Features({name: datasets.Value("string") for name in columns})
    temporary = path.with_name(path.name + ".part")
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        datasets.Dataset.from_dict(columns, features=features).to_parquet(temporary)
    finally:
        if shown:
            datasets.enable_progress_bars()
    temporary.replace(path)


def write_contamination(path: Path, found: Iterable[Found]) -> None:
    """One row per hit: the example, the item, its evaluation, the method and the score."""
    write_jsonl(path, (asdict(hit) for one in found for hits in one.hits.values() for hit in hits))


def write_neighbours(path: Path, rows: Iterable[tuple[str, Neighbours]], texts: Sequence[str]) -> None:
    """One row per example with the fields of stanford_alpaca's regen.json. texts: what the neighbours' indices mean."""
    write_jsonl(path, (_as_released(id, neighbours, texts) for id, neighbours in rows))


def _as_released(id: str, neighbours: Neighbours, texts: Sequence[str]) -> dict[str, Any]:
    similar: dict[str, float] = {}
    for index, score in zip(neighbours.indices, neighbours.scores, strict=True):
        similar.setdefault(texts[index], score)
    return {"id": id, "most_similar_instructions": similar, "avg_similarity_score": neighbours.mean}
