"""What the stage writes for data sets in other forms than Alpaca's, and the chain from one data set to the next."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from alpaca.artifacts import Context
from alpaca.config import CurateConfig, Data, DataSeed, ReleasedDataGen, SampleConfig
from alpaca.errors import UserError
from alpaca.records import read_jsonl
from alpaca.stages.curate import run as curate
from alpaca.stages.sample import run


def released(folder: Path, path: Path, **options: Any) -> tuple[list[dict[str, Any]], dict[str, Any], Context]:
    folder.mkdir(parents=True)
    context = Context(folder=folder, work=folder, parents={})
    run(SampleConfig(data_gen=ReleasedDataGen(path=str(path), **options)), context)
    return list(read_jsonl(folder / "examples.jsonl")), json.loads((folder / "pool.json").read_text()), context


def test_conversations_of_several_turns_are_counted_and_told(tmp_path: Path) -> None:
    path = tmp_path / "lima.jsonl"
    rows = [["Why?", "So."], ["How?", "Thus.", "Sure?", "Yes."], ["When?", "Now.", "And?"]]
    path.write_text("".join(json.dumps({"conversations": turns}) + "\n" for turns in rows))
    found, pool, context = released(tmp_path / "out", path)
    assert [(row["instruction"], row["output"]) for row in found] == [(turns[0], turns[1]) for turns in rows]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert pool == {"examples": 3, "with_input": 0, "source_sha256": digest, "multi_turn": 2}
    assert "2 conversations of which only the first turn is used" in context.said


def test_dolly_keeps_the_category(tmp_path: Path) -> None:
    path = tmp_path / "dolly.jsonl"
    path.write_text(json.dumps({"instruction": "a", "context": "b", "response": "c", "category": "open_qa"}))
    (row,), pool, _ = released(tmp_path / "out", path)
    assert (row["input"], row["output"], row["provenance"]["category"]) == ("b", "c", "open_qa")
    assert pool["with_input"] == 1


def test_a_curated_data_set_is_data_again(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps([{"instruction": f"Name {n} rivers", "input": "", "output": f"{n}"} for n in range(8)]))
    released(tmp_path / "first", path)
    target = tmp_path / "curated"
    target.mkdir()
    config = CurateConfig(data=Data(size=3, dedup_threshold=None), seeds=DataSeed(data=0))
    curate(config, Context(folder=target, work=target, parents={"pool": tmp_path / "first"}))
    chosen = list(read_jsonl(target / "examples.jsonl"))
    (target / "stage.json").write_text("{}")
    with pytest.raises(UserError, match="is a folder"):
        released(tmp_path / "early", target)
    (target / "_SUCCESS").write_text("{}")
    again, _, _ = released(tmp_path / "second", target)
    assert [row["instruction"] for row in again] == [row["instruction"] for row in chosen]
    assert [row["provenance"]["id"] for row in again] == [row["id"] for row in chosen]
