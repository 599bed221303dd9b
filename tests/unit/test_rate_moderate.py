"""The two stages that look at a pool's examples: the judge's scores and the moderation endpoint."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from alpaca.artifacts import Context
from alpaca.config import AlpacaDataGen, ModerateConfig, RateConfig, SampleConfig
from alpaca.errors import TeacherError, UserError
from alpaca.plan import stage_configs
from alpaca.records import read_jsonl
from alpaca.stages import moderate, rate, sample
from alpaca.stages.rate import score_of
from alpaca.sweep import expand
from alpaca.teachers import asking
from alpaca.teachers.base import Completion, RefusedRequestError, Request
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
        ("4", 4.0), ("4.5\nGood.", 4.5), ("\n 0\n", 0.0), ("**5**", 5.0), ("Rating: 4.5/5.0", 4.5),
        ("3 out of 5\nIt stops early.", 3.0), ("**Score:** 4 / 5\nGood.", 4.0), ("### Score: 2.", 2.0),
        ("The answer is fine.\n\nScore: 4", 4.0), ("1. The response is accurate.\nScore: 5", 5.0),
        ("Why not?\nScore: 4\nAs I said,\nscore 4", 4.0),
        ("4/10", None), ("3 out of 10", None), ("-3", None), ("7", None), ("Score: -3", None), ("7\nScore: 5", None),
        ("5 sentences were asked for, only one was given. Score 1", None), ("2 + 2 is 4, so it is right.\n5", None),
        ("1. The response is accurate.", None), ("Score: 5 sentences", None), ("So so.\nScore: 4\nScore: 2", None),
        ("Rating unclear", None), ("", None), ("about 4", None), ("4 5", None), ("**5** fine", None),
    ],
)  # fmt: skip
def test_a_score_stands_alone_on_the_first_line_or_is_called_one(text: str, score: float | None) -> None:
    assert score_of(text) == score


def test_the_judge_finds_the_wrong_answers(tmp_path: Path, pool: Path) -> None:
    rate.run(RateConfig(teacher=Programmatic()), context(tmp_path / "rate", pool=pool))
    found = rows(tmp_path / "rate" / "ratings.jsonl")
    scores = [row["score"] for row in found]
    assert set(scores) == {1.0, 5.0}
    assert 0.15 < scores.count(1.0) / len(scores) < 0.45
    assert len({row["id"] for row in found}) == len(found) == 60


def test_a_judge_without_scores_is_given_up_early(tmp_path: Path, pool: Path) -> None:
    with answering(lambda request: "I would say it is quite good."), pytest.raises(UserError) as caught:
        rate.run(RateConfig(teacher=Programmatic(in_flight=2)), context(tmp_path / "rate", pool=pool))
    assert caught.value.where == "teacher"
    assert "first 50 answers holds a score" in caught.value.what
    assert "quite good" in caught.value.what
    assert 50 <= len(rows(tmp_path / "rate" / "raw.jsonl")) <= 52


def test_a_judge_that_is_late_with_its_first_score_goes_on(tmp_path: Path, pool: Path) -> None:
    with answering(lambda request: "3" if request.id == "rating_000049" else "Good."):
        rate.run(RateConfig(teacher=Programmatic()), context(tmp_path / "rate", pool=pool))
    scores = [row["score"] for row in rows(tmp_path / "rate" / "ratings.jsonl")]
    assert scores.count(None) == 59


def test_a_refused_rating_is_none(tmp_path: Path, pool: Path) -> None:
    def answer(request: Request) -> str:
        if request.id == "rating_000030":
            raise RefusedRequestError(what="400: not this text", where="teacher")
        return "3"

    with answering(answer):
        rate.run(RateConfig(teacher=Programmatic()), context(tmp_path / "rate", pool=pool))
    found = rows(tmp_path / "rate" / "ratings.jsonl")
    assert [row["score"] for row in found].count(None) == 1
    assert (found[30]["score"], found[30]["text"]) == (None, "")


def test_the_judges_temperature_is_a_knob_of_data_and_its_error_says_so(tmp_path: Path, pool: Path) -> None:
    asked: list[Request] = []

    def answer(request: Request) -> str:
        asked.append(request)
        if request.temperature != 1.0:
            raise RefusedRequestError(what="400: no", where="data_gen.temperature", remedy="data_gen.temperature")
        return "3"

    with answering(answer):
        with pytest.raises(TeacherError) as caught:
            rate.run(_judging(), context(tmp_path / "greedy", pool=pool))
        assert caught.value.where == "data.judge_temperature"
        assert {(each.temperature, each.seed) for each in asked} == {(0.0, None)}
        del asked[:]
        rate.run(_judging("data.judge_temperature=1"), context(tmp_path / "free", pool=pool))
    assert len({each.seed for each in asked}) == len(asked) == 60
    assert None not in {each.seed for each in asked}


def _judging(*overrides: str) -> RateConfig:
    run = expand(["data.selection=judge_score", "teacher.preflight=false", *overrides], multirun=False).runs[0]
    found = stage_configs(run)["rate"]
    assert isinstance(found, RateConfig)
    return found


@contextmanager
def answering(answer: Callable[[Request], str]) -> Iterator[None]:
    """Every teacher is this function meanwhile."""

    class Client:
        async def complete(self, request: Request) -> Completion:
            text = answer(request)
            return Completion(text=text, finish_reason="stop", model="m", prompt_tokens=10, completion_tokens=10)

    @asynccontextmanager
    async def opened(options: Any, session: Any) -> AsyncIterator[Client]:
        yield Client()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asking, "open_teacher", opened)
        yield


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
