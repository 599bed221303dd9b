"""The two stages that look at a pool's examples: the judge's scores and the moderation endpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alpaca.artifacts import Context
from alpaca.config import AlpacaDataGen, ModerateConfig, RateConfig, SampleConfig
from alpaca.errors import TeacherError
from alpaca.records import read_jsonl
from alpaca.stages import moderate, rate, sample
from alpaca.stages.rate import score_of
from alpaca.teachers.moderation import read_moderation
from alpaca.teachers.programmatic import Programmatic
from alpaca.teachers.programmatic.server import serve


def context(folder: Path, **parents: Path) -> Context:
    (folder / "work").mkdir(parents=True, exist_ok=True)
    return Context(folder=folder, work=folder / "work", parents=parents)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    folder = tmp_path / "pool"
    teacher = Programmatic(error_rate=0.3)
    sample.run(SampleConfig(data_gen=AlpacaDataGen(num_examples=60), teacher=teacher), context(folder))
    return folder


@pytest.fixture
def server() -> Iterator[str]:
    with serve(Programmatic()) as base_url:
        yield base_url


def rows(path: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(path))


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("4", 4.0), ("4.5\nGood.", 4.5), ("Score: 3/5 because", 3.0), ("**5** fine", 5.0), ("0", 0.0),
        ("Rating unclear", None), ("7", None), ("", None), ("about 4", None),
    ],
)  # fmt: skip
def test_the_score_is_what_the_answer_starts_with(text: str, score: float | None) -> None:
    assert score_of(text) == score


def test_the_judge_finds_the_wrong_answers(tmp_path: Path, pool: Path) -> None:
    rate.run(RateConfig(teacher=Programmatic()), context(tmp_path / "rate", pool=pool))
    found = rows(tmp_path / "rate" / "ratings.jsonl")
    scores = [row["score"] for row in found]
    assert set(scores) == {1.0, 5.0}
    assert 0.15 < scores.count(1.0) / len(scores) < 0.45
    assert len({row["id"] for row in found}) == len(found) == 60


def test_ratings_are_asked_once(tmp_path: Path, pool: Path) -> None:
    for _ in range(2):
        where = context(tmp_path / "rate", pool=pool)
        rate.run(RateConfig(teacher=Programmatic()), where)
    assert where.cost["requests"] == 60
    assert len(rows(tmp_path / "rate" / "raw.jsonl")) == 60


def test_moderation_goes_over_the_endpoint(tmp_path: Path, pool: Path, server: str) -> None:
    config = ModerateConfig(kind="openai", model="omni-moderation-latest", base_url=server)
    moderate.run(config, context(tmp_path / "moderate", pool=pool))
    found = rows(tmp_path / "moderate" / "moderation.jsonl")
    assert len(found) == 60
    assert all(set(row) == {"id", "flagged", "categories"} for row in found)
    assert not any(row["flagged"] for row in found)


def test_a_moderation_without_a_key_is_told_before_anything_is_sent(
    tmp_path: Path, pool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    config = ModerateConfig(kind="openai", model="omni-moderation-latest")
    with pytest.raises(TeacherError, match="OPENAI_API_KEY"):
        moderate.run(config, context(tmp_path / "moderate", pool=pool))


def test_flagged_categories_are_named_in_order() -> None:
    result = {"flagged": True, "categories": {"violence": True, "hate": True, "sexual": False}}
    text = read_moderation({"model": "m", "results": [result]}).text
    assert json.loads(text) == {"flagged": True, "categories": ["hate", "violence"]}


@pytest.mark.parametrize("answer", [None, "x", {}, {"results": []}, {"results": [{"flagged": "no"}]}])
def test_an_answer_without_a_result_is_tried_again(answer: object) -> None:
    from alpaca.teachers.base import RetryableError

    with pytest.raises(RetryableError, match="no moderation result"):
        read_moderation(answer)
