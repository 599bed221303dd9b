"""Curation of small pools: what each step drops, what is repaired, which subset is chosen; and the score stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alpaca.artifacts import Context, read_json
from alpaca.config import CurateConfig, Data, DataSeed, ScoreConfig
from alpaca.errors import UserError
from alpaca.records import read_jsonl, write_jsonl
from alpaca.stages import curate, score

FILTERS = ["length", "keywords", "write_a_program", "punctuation", "non_ascii", "empty_output"]


def context(folder: Path, **parents: Path) -> Context:
    (folder / "work").mkdir(parents=True, exist_ok=True)
    return Context(folder=folder, work=folder / "work", parents=parents)


def released_pool(folder: Path, rows: list[tuple[str, str, str]]) -> Path:
    folder.mkdir()
    write_jsonl(
        folder / "examples.jsonl",
        [
            {
                "id": f"released_{index:06d}",
                "instruction": instruction,
                "input": given,
                "output": output,
                "provenance": {},
            }
            for index, (instruction, given, output) in enumerate(rows)
        ],
    )
    (folder / "pool.json").write_text(json.dumps({"source_sha256": "0" * 64}))
    return folder


def curated(
    tmp_path: Path, rows: list[tuple[str, str, str]], **settings: Any
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    pool = released_pool(tmp_path / "pool", rows)
    data = Data(**{"size": None, "filters": FILTERS, "normalise_no_input": True, "dedup_threshold": 0.7, **settings})
    target = context(tmp_path / "out", pool=pool)
    curate.run(CurateConfig(data=data, seeds=DataSeed(data=0)), target)
    return list(read_jsonl(target.folder / "examples.jsonl")), read_json(target.folder / "card.json")


ROWS = [
    ("Name three large rivers of Europe.", "", "Danube, Rhine, Volga"),
    ("Name three large rivers of Africa.", "", "Nile, Congo, Niger"),
    ("Draw a cat with a hat.", "", "-"),
    ("Too short here", "", "x"),
    ("Explain why the sky looks blue.", "No input", "Scattering"),
    ("Translate the greeting into French please.", "Good morning", ""),
]


def test_each_step_counts_what_it_drops(tmp_path: Path) -> None:
    kept, card = curated(tmp_path, ROWS)
    dropped = {step["name"]: step["dropped"] for step in card["steps"] if step["dropped"]}
    assert dropped == {"length": 1, "keywords": 1, "empty_output": 1, "deduplication": 1}
    assert [step["kept"] for step in card["steps"]][-1] == len(kept) == card["size"] == 2
    assert card["repairs"] == {"no_input_spellings": 1}
    assert card["defects"] == {"empty_output": 1, "no_input_spelling": 1}
    assert "families" not in card  # who made a task is nothing that curation knows
    assert {row["input"] for row in kept} == {""}


def test_as_released_changes_nothing(tmp_path: Path) -> None:
    kept, card = curated(tmp_path, ROWS, filters=[], normalise_no_input=False, dedup_threshold=None)
    assert sorted(row["instruction"] for row in kept) == sorted(row[0] for row in ROWS)
    assert card["repairs"] == {"no_input_spellings": 0}
    assert card["defects"]["empty_output"] == 1


def test_more_than_there_is_is_an_error_with_the_number(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="2"):
        curated(tmp_path, ROWS, size=5)


def test_responses_of_a_teacher_are_parsed_with_ids_and_provenance(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    text = (
        " Name two small lakes.\n4. Input:\n<noinput>\n4. Output:\nLaacher See and Eibsee\n###\n"
        "5. Instruction: What is the plural of mouse?\n5. Input:\n<noinput>\n5. Output:\nMice\n###\nbroken"
    )
    write_jsonl(
        pool / "responses.jsonl",
        [
            {
                "id": "request_000000",
                "text": text,
                "finish_reason": "stop",
                "model": "m",
                "request": {"seeds": ["a"], "first_number": 4, "last_number": 5},
            }
        ],
    )
    (pool / "pool.json").write_text(json.dumps({"requests": 1, "seed_instructions": ["Name two small lakes today."]}))
    target = context(tmp_path / "out", pool=pool)
    curate.run(CurateConfig(data=Data(size=None, filters=FILTERS, dedup_threshold=0.7), seeds=DataSeed()), target)
    (row,) = read_jsonl(target.folder / "examples.jsonl")
    assert row["id"] == "request_000000_05"
    assert row["provenance"] == {"teacher": "m", "request": "request_000000", "seeds": ["a"]}
    steps = {step["name"]: step["dropped"] for step in read_json(target.folder / "card.json")["steps"]}
    assert steps["malformed"] == 1
    assert steps["deduplication"] == 1


def test_the_released_file_violates_no_filter_and_its_defects_are_counted(shared: Path, tmp_path: Path) -> None:
    rows = json.loads((shared / "data/alpaca/alpaca_data.json").read_text())
    kept, card = curated(
        tmp_path, [(row["instruction"], row["input"], row["output"]) for row in rows], dedup_threshold=None
    )
    assert card["defects"]["empty_output"] == 28
    assert len(kept) == 52002 - 28
    assert {step["name"]: step["dropped"] for step in card["steps"] if step["dropped"]} == {"empty_output": 28}


def test_scores_are_per_item_and_on_average(tmp_path: Path) -> None:
    answers = tmp_path / "answers"
    answers.mkdir()
    rows = [
        {"id": "a", "family": "f", "reference": "red fox", "response": " red fox ", "exact": True},
        {"id": "b", "family": "f", "reference": "red fox", "response": "red dog", "exact": True},
    ]
    write_jsonl(answers / "responses.jsonl", rows)
    target = context(tmp_path / "out", responses=answers)
    score.run(ScoreConfig(metrics=["exact_match", "rouge_l"]), target)
    assert [row["exact_match"] for row in read_jsonl(target.folder / "scores.jsonl")] == [1.0, 0.0]
    assert read_json(target.folder / "metrics.json") == {"items": 2, "exact_match": 0.5, "rouge_l": 0.75}


def test_exact_match_is_refused_for_free_references(tmp_path: Path) -> None:
    answers = tmp_path / "answers"
    answers.mkdir()
    write_jsonl(
        answers / "responses.jsonl", [{"id": "a", "family": "", "reference": "x", "response": "x", "exact": False}]
    )
    with pytest.raises(UserError, match="1 items"):
        score.run(ScoreConfig(metrics=["exact_match"]), context(tmp_path / "out", responses=answers))
