"""What the moderation client tells of its failures: the keys that a user can change."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from alpaca.config import ModerateConfig, Teacher
from alpaca.errors import TeacherError
from alpaca.teachers.base import Message, RefusedRequestError, Request, RetryableError, Session
from alpaca.teachers.moderation import Moderation, openai_opened, openai_options
from alpaca.teachers.queue import NoAnswerError, Policy
from tests.unit.fault_server import faulty
from tests.unit.teacher_fakes import Requests, collect, policy

REQUEST = Request(id="m0", messages=(Message(role="user", content="hello"),), temperature=0.0, top_p=1.0, max_tokens=1)
OTHERS = ("teacher.", "data_gen.")


def ask(base_url: str | None) -> None:
    async def session() -> None:
        options = openai_options(ModerateConfig(kind="openai", model="mod-1", base_url=base_url))
        async with openai_opened(options, Session(work=Path(), say=lambda _: None)) as client:
            await client.complete(REQUEST)

    asyncio.run(session())


def test_a_missing_key_points_to_the_keys_of_moderation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(TeacherError, match="OPENAI_API_KEY") as caught:
        ask(None)
    assert caught.value.where == "data.moderation"
    assert "data.moderation_url" in caught.value.remedy
    assert not any(name in str(caught.value) for name in OTHERS)


def test_a_url_that_is_none_points_to_its_key() -> None:
    with pytest.raises(TeacherError) as caught:
        ask("ftp://host/v1")
    assert caught.value.where == "data.moderation_url"


@pytest.mark.parametrize(
    ("fault", "where", "way_out"),
    [
        ("unauthorised", "data.moderation", "OPENAI_API_KEY"),
        ("forbidden", "data.moderation_model", "'mod-1'"),
        ("no_model", "data.moderation_model", "data.moderation_url is wrong"),
        ("quota", "data.moderation", "add credit"),
        ("bad_request", "data.moderation_model", "another model"),
    ],
)
def test_what_cannot_heal_points_to_the_keys_of_moderation(fault: str, where: str, way_out: str) -> None:
    with faulty(lambda seed, attempt: fault) as server, pytest.raises(TeacherError) as caught:
        ask(server.base_url)
    assert caught.value.where == where
    assert way_out in caught.value.remedy
    assert not any(name in str(caught.value) for name in OTHERS)
    assert isinstance(caught.value, RefusedRequestError) == (fault == "bad_request")


def test_an_answer_of_no_use_does_not_tell_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-key-that-nobody-may-see")
    with faulty(lambda seed, attempt: "key_in_an_error") as server, pytest.raises(RetryableError) as caught:
        ask(server.base_url)
    assert "no moderation result" in caught.value.reason
    assert "sk-a-key" not in caught.value.reason


class Never:
    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault

    async def complete(self, request: Request) -> None:
        if self.fault is not None:
            raise self.fault
        await asyncio.sleep(3600)


@pytest.mark.parametrize(("fault", "timeout"), [(None, 0.01), (RetryableError("reset"), 5.0)])
def test_the_queue_points_to_them_too(fault: Exception | None, timeout: float) -> None:
    keys = Policy.of(Moderation()).keys
    with pytest.raises(NoAnswerError) as caught:
        asyncio.run(collect(Never(fault), Requests(1), policy(max_attempts=2, timeout=timeout, keys=keys)))
    assert caught.value.where == "data.moderation"
    assert not any(name in str(caught.value) for name in OTHERS)
    assert Policy.of(Teacher()).keys.timeout == "teacher.timeout"
