from __future__ import annotations

import time
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest

from alpaca.teachers.base import Cause, RetryableError, Usage
from alpaca.teachers.waits import retry_after, wait_asked
from alpaca.teachers.wire import Endpoint, decoded, read_answer, request_body
from tests.unit.teacher_fakes import PROMPT, request

CHAT: dict[str, Any] = {
    "id": "1",
    "object": "chat.completion",
    "model": "m-2026",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "length"}],
    "usage": {
        "prompt_tokens": 9,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2},
    },
    "service_tier": "flex",
    "system_fingerprint": "fp",
}


def endpoint(**changes: Any) -> Endpoint:
    return Endpoint(**{"base_url": "http://host/v1", "model": "m", "key": "k", "timeout": 1.0, **changes})


def test_an_answer_carries_all_that_the_server_tells() -> None:
    completion = read_answer(CHAT, request(0), "id-7")
    assert (completion.text, completion.finish_reason, completion.model) == ("hello", "length", "m-2026")
    assert (completion.prompt_tokens, completion.completion_tokens) == (9, 7)
    assert (completion.cached_tokens, completion.reasoning_tokens) == (4, 2)
    assert (completion.service_tier, completion.system_fingerprint) == ("flex", "fp")
    assert completion.server_request_id == "id-7"
    assert not completion.usage_estimated


def test_a_legacy_completion_is_read_alike() -> None:
    assert read_answer({"choices": [{"text": "and on"}], "model": None}, request(0)).text == "and on"


@pytest.mark.parametrize(
    ("text", "kept", "cut"),
    [("one two. 20. x", "one two. ", 5), ("one 19.20.", "one ", 6), ("one", "one", 0), (" 20.", "", None)],
)
def test_stop_strings_that_the_server_left_in_are_cut_off(text: str, kept: str, cut: int | None) -> None:
    payload = CHAT | {"choices": [{"text": text, "finish_reason": "length"}]}
    asked = replace(request(0), stop=("20.", "19."))
    if cut is None:
        with pytest.raises(RetryableError, match="empty text"):
            read_answer(payload, asked)
        return
    completion = read_answer(payload, asked)
    assert (completion.text, completion.cut) == (kept, cut)
    assert completion.finish_reason == ("stop" if cut else "length")


@pytest.mark.parametrize(
    "usage",
    [
        None,
        "many",
        {},
        {"prompt_tokens": 1.5, "completion_tokens": 2},
        {"prompt_tokens": True, "completion_tokens": 2},
        {"prompt_tokens": -1, "completion_tokens": 2},
    ],
)
def test_counts_that_are_none_are_estimated(usage: object) -> None:
    completion = read_answer(CHAT | {"usage": usage}, request(0))
    assert completion.usage_estimated
    assert completion.prompt_tokens == -(-len(PROMPT) // 4)
    assert completion.completion_tokens == 2


def test_details_of_a_wrong_type_count_nothing() -> None:
    used = CHAT["usage"] | {"prompt_tokens_details": [4], "completion_tokens_details": {"reasoning_tokens": "2"}}
    completion = read_answer(CHAT | {"usage": used}, request(0))
    assert (completion.cached_tokens, completion.reasoning_tokens, completion.usage_estimated) == (0, 0, False)


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (None, "no completion"),
        ("<html>", "no completion"),
        ([CHAT], "no completion"),
        ({}, "no choices"),
        (CHAT | {"choices": None}, "no choices"),
        (CHAT | {"choices": []}, "no choices"),
        (CHAT | {"choices": {"0": "x"}}, "no choices"),
        (CHAT | {"choices": ["x"]}, "no choices"),
        ({"error": {"message": "busy"}}, "an error and no choices.*busy"),
        (CHAT | {"choices": [{"message": {"content": None}}]}, "empty text"),
        (CHAT | {"choices": [{"message": {"content": " \n "}}]}, "empty text"),
        (CHAT | {"choices": [{"message": {"content": ["a"]}}]}, "a list where its text should be"),
        (CHAT | {"choices": [{"message": "hello"}]}, "empty text"),
        (CHAT | {"choices": [{"text": 7}]}, "an? int where its text should be"),
        (CHAT | {"choices": [{"text": "half", "finish_reason": "error"}]}, "error of the server"),
        (CHAT | {"choices": [{"message": {"content": ""}, "finish_reason": "length"}]}, "2 of reasoning.*max_tokens"),
    ],
)
def test_what_is_no_answer_counts_as_a_failed_try(payload: object, words: str) -> None:
    with pytest.raises(RetryableError, match=words):
        read_answer(payload, request(0))


def test_an_answer_without_text_says_so_and_what_it_cost() -> None:
    with pytest.raises(RetryableError) as caught:
        read_answer(CHAT | {"choices": [{"message": {"content": ""}}]}, request(0))
    assert caught.value.cause is Cause.EMPTY
    assert caught.value.usage == Usage(prompt_tokens=9, completion_tokens=7, cached_tokens=4, reasoning_tokens=2)


@pytest.mark.parametrize("content", [b"", b'{"choices": [', b"<html>", b"\xff\xfe{", b"[" * 100_000])
def test_a_body_that_is_no_json_is_a_failed_try(content: bytes) -> None:
    with pytest.raises(RetryableError, match="broken JSON") as caught:
        decoded(content)
    assert caught.value.may_be_billed
    assert len(caught.value.reason) < 600


def test_openai_itself_gets_no_neutral_values_and_the_new_name_of_the_limit() -> None:
    body = request_body(request(0), endpoint(base_url="https://api.openai.com/v1"))
    assert set(body) == {"model", "messages", "max_completion_tokens", "seed"}
    old = endpoint(base_url="https://api.openai.com/v1", api="completions")
    legacy = request_body(replace(request(0), top_p=0.5), old)
    assert set(legacy) == {"model", "prompt", "max_tokens", "seed", "top_p"}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": formatdate(0, usegmt=True)}, 0.0),
    ],
)
def test_retry_after_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_retry_after_date_lies_ahead() -> None:
    seconds = retry_after({"retry-after": formatdate(time.time() + 90, usegmt=True)})
    assert seconds is not None
    assert 80 < seconds <= 91


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"x-ratelimit-reset-requests": "20ms"}, 0.02),
        ({"x-ratelimit-reset-tokens": "6m0s", "x-ratelimit-remaining-tokens": "0"}, 360.0),
        ({"x-ratelimit-reset-tokens": "6m0s", "x-ratelimit-remaining-tokens": "12"}, None),
        ({"x-ratelimit-reset-tokens": "1h2m3.5s", "x-ratelimit-reset-requests": "9s"}, 3723.5),
        ({"ratelimit-reset": "7"}, 7.0),
        ({"x-ratelimit-reset": "soon"}, None),
        ({"x-ratelimit-reset": "inf"}, None),
        ({"x-ratelimit-reset": "7", "retry-after": "2"}, 2.0),
    ],
)
def test_resets_of_rate_limits(headers: dict[str, str], seconds: float | None) -> None:
    assert wait_asked(headers) == seconds


def test_a_reset_can_be_a_point_in_time() -> None:
    seconds = wait_asked({"x-ratelimit-reset": str(int(time.time()) + 90)})
    assert seconds is not None
    assert 80 < seconds <= 91
