from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alpaca.config import Teacher
from alpaca.errors import TeacherError, UserError
from alpaca.teachers import open_teacher
from alpaca.teachers.base import Cause, Completion, Request, RetryableError
from alpaca.teachers.chat import Endpoint, connected
from alpaca.teachers.openai import KEY_VARIABLE, NO_KEY, OpenAI, url_problem
from alpaca.teachers.programmatic import MODEL
from alpaca.teachers.programmatic.writer import Style, write
from alpaca.teachers.queue import Answer, ask
from alpaca.teachers.redaction import redacted
from tests.unit.fault_server import HEALING, FaultServer, faulty
from tests.unit.teacher_fakes import PROMPT, Requests, collect, policy, request, session

ROOT = Path(__file__).resolve().parents[2]


def ask_server(server: FaultServer, count: int, notes: list[str] | None = None, **changes: Any) -> list[Answer]:
    rules = policy(**changes)

    async def talk() -> list[Answer]:
        endpoint = Endpoint(base_url=server.base_url, model=MODEL, key="sk-secret", timeout=rules.timeout)
        async with connected(endpoint) as client:
            return await collect(client, Requests(count), rules, notes)

    return asyncio.run(talk())


def expected_text(seed: int) -> str:
    return write(PROMPT, seed=seed, style=Style(), max_tokens=500).text


# --- the queue and the client against a server that goes wrong


def test_mixed_faults_lose_and_double_nothing() -> None:
    with faulty(lambda seed, attempt: HEALING[seed % len(HEALING)] if attempt == 1 and seed % 2 else None) as server:
        answers = ask_server(server, 60, timeout=1.0, in_flight=16)
    assert sorted(answer.request.id for answer in answers) == sorted(f"r{number}" for number in range(60))
    assert all(answer.completion.text == expected_text(answer.request.seed or 0) for answer in answers)
    assert all(server.tries[answer.request.seed or 0] <= answer.attempts for answer in answers)
    assert all(answer.attempts > 1 for answer in answers if (answer.request.seed or 0) % 2)


@pytest.mark.parametrize("fault", HEALING)
def test_each_fault_that_may_heal_is_tried_again(fault: str) -> None:
    notes: list[str] = []
    with faulty(lambda seed, attempt: fault if attempt < 3 else None) as server:
        (answer,) = ask_server(server, 1, notes, timeout=0.3 if fault == "hang" else 10.0)
    assert answer.attempts == 3
    assert server.tries[0] == 3
    assert len(notes) == 2
    assert answer.completion.text == expected_text(0)


@pytest.mark.parametrize(
    ("fault", "words", "where"),
    [
        ("unauthorised", "Incorrect key", "OPENAI_API_KEY"),
        ("forbidden", "not for you", "OPENAI_API_KEY"),
        ("no_model", "no such model", "teacher.model"),
        ("quota", "exceeded your current quota", "add credit"),
        ("no_balance", "Insufficient Balance", "add credit"),
        ("bad_request", "temperature must be 1", "data_gen.temperature"),
        ("bad_bias", "invalid token", "data_gen.logit_bias"),
    ],
)
def test_what_cannot_heal_stops_at_once(fault: str, words: str, where: str) -> None:
    with faulty(lambda seed, attempt: fault) as server, pytest.raises(TeacherError) as caught:
        ask_server(server, 50, in_flight=4)
    assert words in str(caught.value)
    assert where in str(caught.value)
    assert set(server.tries.values()) == {1}
    assert len(server.tries) <= 4
    assert "sk-secret" not in str(caught.value)


KEY = "sk-a-key-that-nobody-may-see"


@pytest.mark.parametrize("fault", ["key_in_an_error", "key_in_html", "key_cut_off", "key_in_a_refusal", "unauthorised"])
def test_whatever_a_server_quotes_no_error_tells_the_key(fault: str) -> None:
    async def talk(url: str) -> None:
        async with connected(Endpoint(base_url=url, model=MODEL, key=KEY, timeout=5.0)) as client:
            await client.complete(request(0))

    with faulty(lambda seed, attempt: fault) as server, pytest.raises((RetryableError, TeacherError)) as caught:
        asyncio.run(talk(server.base_url))
    told = f"{caught.value} {getattr(caught.value, 'reason', '')} {getattr(caught.value, 'what', '')}"
    assert "[key]" in told
    assert KEY[:8] not in told


def test_a_key_is_found_whole_and_cut_and_an_ordinary_word_is_none() -> None:
    assert redacted(f"a {KEY} b {KEY}", KEY) == "a [key] b [key]"
    assert redacted(f"a {KEY[:9]} ...", KEY) == "a [key] ..."
    assert redacted(f"a {KEY[:9]}", KEY) == "a [key]"
    assert redacted("none is a word", NO_KEY) == "none is a word"
    assert redacted("x marks it", "x") == "x marks it"


def test_attempts_are_bounded_and_the_answers_in_flight_still_arrive() -> None:
    received: list[str] = []

    async def talk(server: FaultServer) -> None:
        endpoint = Endpoint(base_url=server.base_url, model=MODEL, key="x", timeout=5.0)
        async with connected(endpoint) as client, aclosing(ask(client, Requests(6), policy(in_flight=6))) as answers:
            async for answer in answers:
                received.append(answer.request.id)

    with (
        faulty(lambda seed, attempt: "server_error" if seed == 3 else None) as server,
        pytest.raises(TeacherError, match=r"r3 failed 4 times.*the engine is on fire"),
    ):
        asyncio.run(talk(server))
    assert server.tries[3] == 4
    assert sorted(received) == ["r0", "r1", "r2", "r4", "r5"]


def test_unreachable_server_names_the_address() -> None:
    with faulty() as server:
        url = server.base_url

    async def talk() -> None:
        async with connected(Endpoint(base_url=url, model=MODEL, key="x", timeout=1.0)) as client:
            await collect(client, Requests(1), policy(max_attempts=2))

    with pytest.raises(TeacherError, match=r"connection to http://127\.0\.0\.1"):
        asyncio.run(talk())


def test_missing_usage_is_estimated_and_marked() -> None:
    with faulty(lambda seed, attempt: "no_usage") as server:
        (answer,) = ask_server(server, 1)
    assert answer.completion.usage_estimated
    assert answer.completion.completion_tokens > 0


def test_half_a_surrogate_pair_can_be_written() -> None:
    with faulty(lambda seed, attempt: "surrogate") as server:
        (answer,) = ask_server(server, 1)
    assert answer.completion.text.encode() == "half \ufffd a pair".encode()


def test_a_rejected_answer_carries_what_it_is_billed_for() -> None:
    source = Requests(1)

    async def talk(server: FaultServer) -> None:
        async with connected(Endpoint(base_url=server.base_url, model=MODEL, key="x", timeout=5.0)) as client:
            await collect(client, source, policy())

    faults = {1: "empty", 2: "rate_limit", 3: "cut_json"}
    with faulty(lambda seed, attempt: faults.get(attempt)) as server:
        asyncio.run(talk(server))
    empty, limited, broken = source.faults
    assert empty.usage is not None
    assert empty.usage.completion_tokens == write(PROMPT, seed=0, style=Style(), max_tokens=500).tokens
    assert (limited.usage, limited.may_be_billed) == (None, False)
    assert (broken.usage, broken.may_be_billed) == (None, True)


@pytest.mark.parametrize(
    ("fault", "cause", "after"),
    [
        ("rate_limit", Cause.TURNED_AWAY, 0.01),
        ("overloaded", Cause.TURNED_AWAY, 0.03),
        ("hang", Cause.TIMEOUT, None),
        ("server_error", Cause.BROKEN, None),
        ("reset", Cause.BROKEN, None),
        ("empty", Cause.EMPTY, None),
    ],
)
def test_a_fault_says_its_cause_and_how_long_to_wait(fault: str, cause: Cause, after: float | None) -> None:
    async def talk(url: str) -> None:
        async with connected(Endpoint(base_url=url, model=MODEL, key="x", timeout=0.3)) as client:
            await client.complete(request(0))

    with faulty(lambda seed, attempt: fault) as server, pytest.raises(RetryableError) as caught:
        asyncio.run(talk(server.base_url))
    assert (caught.value.cause, caught.value.after) == (cause, after)


def test_a_connection_that_never_stood_cost_nothing() -> None:
    with faulty() as server:
        url = server.base_url

    async def talk() -> None:
        async with connected(Endpoint(base_url=url, model=MODEL, key="x", timeout=1.0)) as client:
            await client.complete(request(0))

    with pytest.raises(RetryableError) as caught:
        asyncio.run(talk())
    assert not caught.value.may_be_billed


def test_more_than_a_hundred_in_flight_have_a_connection_each() -> None:
    gate = threading.Barrier(121, timeout=10)

    def wait_for_all(seed: int, attempt: int) -> None:
        gate.wait()

    with faulty(wait_for_all) as server:
        assert len(ask_server(server, 121, in_flight=121, timeout=20.0)) == 121


# --- opening teachers


def test_openai_without_a_key_stops_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)

    async def talk() -> None:
        async with open_teacher(OpenAI(model="m"), session()):
            pytest.fail("opened without a key")

    with pytest.raises(TeacherError, match=KEY_VARIABLE):
        asyncio.run(talk())


@pytest.mark.parametrize(
    "url",
    [
        "http://me:s3cret@host/v1",
        "https://s3cret@host/v1",
        "https://host/v1?key=s3cret",
        "https://host/v1#s3cret",
        "host/v1",
        "ftp://host/v1",
        "http://",
        "http://host:s3cret/v1",
    ],
)
def test_urls_with_secrets_are_refused_before_anything_is_sent(url: str) -> None:
    async def talk() -> None:
        async with open_teacher(OpenAI(model="m", base_url=url), session()):
            pytest.fail("opened")

    with pytest.raises(TeacherError, match=r"teacher\.base_url") as caught:
        asyncio.run(talk())
    assert "s3cret" not in str(caught.value)
    assert url_problem(url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1", "https://api.openai.com/v1", "http://[::1]:8000/v1"])
def test_ordinary_urls_have_no_problem(url: str) -> None:
    assert url_problem(url) is None


def test_without_a_key_messages_stay_as_the_server_said_them() -> None:
    async def talk(url: str) -> None:
        async with connected(Endpoint(base_url=url, model=MODEL, key=NO_KEY, timeout=5.0)) as client:
            await client.complete(request(1))

    with faulty(lambda seed, attempt: "unauthorised") as server, pytest.raises(TeacherError, match="key: Bearer none"):
        asyncio.run(talk(server.base_url))


@pytest.mark.parametrize("key", [None, "sk-of-the-environment"])
def test_own_server_gets_the_key_of_the_environment_or_a_dummy(
    monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    if key:
        monkeypatch.setenv(KEY_VARIABLE, key)

    async def talk(url: str) -> Completion:
        async with open_teacher(OpenAI(model=MODEL, base_url=url, timeout=5.0), session()) as client:
            return await client.complete(request(1))

    with faulty() as server:
        assert asyncio.run(talk(server.base_url)).text == expected_text(1)
    assert server.headers_seen[0]["authorization"] == f"Bearer {key or 'none'}"
    assert server.bodies[0]["max_tokens"] == 500
    assert "stop" not in server.bodies[0]


ALL = replace(
    request(1), stop=("20.",), presence_penalty=0.5, logit_bias={"50256": -100.0}, schema={"type": "object"}, top_p=0.5
)


def sent(options: dict[str, Any], what: Request = ALL) -> dict[str, Any]:
    """The body that a server gets, and that its answer comes back."""

    async def talk(url: str) -> Completion:
        teacher = OpenAI(model=MODEL, base_url=url, timeout=5.0, **options)
        async with open_teacher(teacher, session()) as client:
            return await client.complete(what)

    with faulty() as server:
        completion = asyncio.run(talk(server.base_url))
    assert completion.text
    assert completion.server_request_id == "req-of-the-test"
    (body,) = server.bodies
    return body


def test_the_chat_endpoint_gets_all_that_is_wanted() -> None:
    body = sent({"reasoning_effort": "low", "service_tier": "flex"})
    schema = body.pop("response_format")["json_schema"]
    assert (schema["strict"], schema["schema"]) == (True, {"type": "object"})
    assert body == {
        "model": MODEL,
        "messages": [{"role": "user", "content": PROMPT}],
        "temperature": 1.0,
        "top_p": 0.5,
        "max_tokens": 500,
        "seed": 1,
        "stop": ["20."],
        "presence_penalty": 0.5,
        "logit_bias": {"50256": -100.0},
        "reasoning_effort": "low",
        "service_tier": "flex",
    }


def test_the_completions_endpoint_gets_one_bare_prompt() -> None:
    body = sent({"endpoint": "completions", "send_seed": False}, replace(request(1), seed=None))
    assert body == {"model": MODEL, "prompt": PROMPT, "temperature": 1.0, "top_p": 1.0, "max_tokens": 500}


def test_a_seed_is_kept_back_where_the_server_refuses_seeds() -> None:
    assert "seed" not in sent({"send_seed": False})


def test_reasoning_is_of_the_chat_endpoint() -> None:
    async def talk() -> None:
        teacher = OpenAI(model="m", base_url="http://127.0.0.1:9/v1", endpoint="completions", reasoning_effort="low")
        async with open_teacher(teacher, session()):
            pytest.fail("opened")

    with pytest.raises(TeacherError, match=r"teacher\.reasoning_effort"):
        asyncio.run(talk())


def test_unknown_teacher_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match="programmatic, openai"):
        open_teacher(Teacher(kind="oracle"), session())


def test_options_are_importable_without_the_client() -> None:
    heavy = ("openai", "httpx2", "aiohttp", "h11", "numpy")
    code = f"import sys, alpaca.teachers; sys.exit(sum(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
