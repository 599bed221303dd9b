from __future__ import annotations

import asyncio
import http.client
import json
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import aclosing
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alpaca.config import Teacher
from alpaca.errors import TeacherError, UserError
from alpaca.teachers import open_teacher
from alpaca.teachers.base import Completion, Message, Request, RetryableError
from alpaca.teachers.chat import Endpoint, connected, read_completion, retry_after
from alpaca.teachers.openai import KEY_VARIABLE, NO_KEY, OpenAI, url_problem
from alpaca.teachers.programmatic import MODEL, Programmatic
from alpaca.teachers.programmatic.server import serve
from alpaca.teachers.programmatic.writer import Style, UnreadablePromptError, count_tokens, write
from alpaca.teachers.queue import Answer, Policy, ask, back_off
from alpaca.world import FAMILIES
from tests.unit.fault_server import HEALING, FaultServer, faulty

PROMPT = "List of 8 tasks:\n###\n4. Instruction:"
ROOT = Path(__file__).resolve().parents[2]


def request(number: int) -> Request:
    message = Message(role="user", content=PROMPT)
    return Request(id=f"r{number}", messages=(message,), temperature=1.0, top_p=1.0, max_tokens=500, seed=number)


class Requests:
    """A source of so many requests."""

    def __init__(self, count: int) -> None:
        self.left = [request(number) for number in reversed(range(count))]
        self.closed = False
        self.faults: list[RetryableError] = []

    def next_request(self) -> Request | None:
        return self.left.pop() if self.left else None

    def wants_more(self) -> bool:
        return not self.closed

    def failed(self, request: Request, fault: RetryableError) -> bool:
        self.faults.append(fault)
        return True


def policy(**changes: Any) -> Policy:
    return Policy(**{"in_flight": 8, "max_attempts": 4, "timeout": 5.0, "first_delay": 0.005, "drain": 1.0, **changes})


async def collect(client: Any, source: Requests, rules: Policy, notes: list[str] | None = None) -> list[Answer]:
    async with aclosing(ask(client, source, rules, (notes if notes is not None else []).append)) as answers:
        return [answer async for answer in answers]


def ask_server(server: FaultServer, count: int, notes: list[str] | None = None, **changes: Any) -> list[Answer]:
    rules = policy(**changes)

    async def session() -> list[Answer]:
        endpoint = Endpoint(base_url=server.base_url, model=MODEL, key="sk-secret", timeout=rules.timeout)
        async with connected(endpoint) as client:
            return await collect(client, Requests(count), rules, notes)

    return asyncio.run(session())


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


def test_attempts_are_bounded_and_the_answers_in_flight_still_arrive() -> None:
    received: list[str] = []

    async def session(server: FaultServer) -> None:
        endpoint = Endpoint(base_url=server.base_url, model=MODEL, key="x", timeout=5.0)
        async with connected(endpoint) as client, aclosing(ask(client, Requests(6), policy(in_flight=6))) as answers:
            async for answer in answers:
                received.append(answer.request.id)

    with (
        faulty(lambda seed, attempt: "server_error" if seed == 3 else None) as server,
        pytest.raises(TeacherError, match=r"r3 failed 4 times.*the engine is on fire"),
    ):
        asyncio.run(session(server))
    assert server.tries[3] == 4
    assert sorted(received) == ["r0", "r1", "r2", "r4", "r5"]


def test_unreachable_server_names_the_address() -> None:
    with faulty() as server:
        url = server.base_url

    async def session() -> None:
        async with connected(Endpoint(base_url=url, model=MODEL, key="x", timeout=1.0)) as client:
            await collect(client, Requests(1), policy(max_attempts=2))

    with pytest.raises(TeacherError, match=r"connection to http://127\.0\.0\.1"):
        asyncio.run(session())


def test_missing_usage_is_estimated_and_marked() -> None:
    with faulty(lambda seed, attempt: "no_usage") as server:
        (answer,) = ask_server(server, 1)
    assert answer.completion.usage_estimated
    assert answer.completion.completion_tokens > 0


def test_half_a_surrogate_pair_can_be_written() -> None:
    with faulty(lambda seed, attempt: "surrogate") as server:
        (answer,) = ask_server(server, 1)
    assert answer.completion.text.encode() == "half \ufffd a pair".encode()


class Slow:
    """A client whose first request waits for the others; counts what runs side by side."""

    def __init__(self) -> None:
        self.running = self.most = 0
        self.order: list[str] = []
        self.failures: Counter[str] = Counter()

    async def complete(self, request: Request) -> Completion:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0.001)
            if request.id == "r0" and not self.failures["r0"]:
                self.failures["r0"] += 1
                raise RetryableError("not yet", after=0.02)
            self.order.append(request.id)
            return Completion(text="x", finish_reason="stop", model="m", prompt_tokens=1, completion_tokens=1)
        finally:
            self.running -= 1


def test_a_waiting_request_gives_its_place_to_the_next() -> None:
    client = Slow()
    answers = asyncio.run(collect(client, Requests(5), policy(in_flight=1)))
    assert client.most == 1
    assert len(answers) == 5
    assert client.order == ["r1", "r2", "r3", "r4", "r0"]


class Endless:
    """A client that never answers and never gives up by itself, as behind a server that drips one byte a second."""

    async def complete(self, request: Request) -> Completion:
        await asyncio.sleep(3600)
        raise AssertionError(request.id)


def test_a_try_ends_after_its_time_whatever_the_client_does() -> None:
    with pytest.raises(TeacherError, match=r"r0 failed 2 times.*no answer within 0\.01 s \(teacher\.timeout\)"):
        asyncio.run(collect(Endless(), Requests(1), policy(timeout=0.01, max_attempts=2)))


@pytest.mark.parametrize("in_flight", [1, 3])
def test_no_more_in_flight_than_allowed(in_flight: int) -> None:
    client = Slow()
    asyncio.run(collect(client, Requests(12), policy(in_flight=in_flight)))
    assert client.most == in_flight


def test_nothing_is_asked_once_no_more_is_wanted() -> None:
    client, source = Slow(), Requests(100)

    async def session() -> int:
        received = 0
        async with aclosing(ask(client, source, policy(in_flight=2))) as answers:
            async for _ in answers:
                received += 1
                source.closed = True
        return received

    assert asyncio.run(session()) <= 4
    assert len(source.left) >= 96
    assert client.running == 0


class Late:
    """The first request is answered at once, every other one only after a while, or it fails."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault

    async def complete(self, request: Request) -> Completion:
        if request.id != "r0":
            await asyncio.sleep(0.05)
            if self.fault is not None:
                raise self.fault
        return Completion(text="x", finish_reason="stop", model="m", prompt_tokens=1, completion_tokens=1)


async def close_after_the_first(client: Any, rules: Policy, notes: list[str]) -> list[str]:
    source, received = Requests(3), []
    async with aclosing(ask(client, source, rules, notes.append)) as answers:
        async for answer in answers:
            received.append(answer.request.id)
            source.closed = True
    return received


@pytest.mark.parametrize("fault", [TeacherError(what="gone for good"), RetryableError("the engine is on fire")])
def test_surplus_that_fails_does_not_spoil_what_is_full(fault: Exception) -> None:
    notes: list[str] = []
    assert asyncio.run(close_after_the_first(Late(fault), policy(max_attempts=1), notes)) == ["r0"]
    assert notes == ["waiting for 2 answers already paid for"]


def test_surplus_answers_are_waited_for_as_long_as_any_answer() -> None:
    rules = Policy.of(Teacher(timeout=77.0))
    assert rules.drain == 77.0
    assert sorted(asyncio.run(close_after_the_first(Late(), rules, []))) == ["r0", "r1", "r2"]


def test_an_interruption_cuts_the_waiting_for_surplus() -> None:
    class Stuck:
        async def complete(self, request: Request) -> Completion:
            client = Late() if request.id == "r0" else Endless()
            return await client.complete(request)

    async def session() -> None:
        await asyncio.wait_for(close_after_the_first(Stuck(), policy(drain=3600.0, timeout=3600.0), []), 0.1)

    with pytest.raises(TimeoutError):
        asyncio.run(session())


def test_a_rejected_answer_carries_what_it_is_billed_for() -> None:
    source = Requests(1)

    async def session(server: FaultServer) -> None:
        async with connected(Endpoint(base_url=server.base_url, model=MODEL, key="x", timeout=5.0)) as client:
            await collect(client, source, policy())

    faults = {1: "empty", 2: "rate_limit", 3: "cut_json"}
    with faulty(lambda seed, attempt: faults.get(attempt)) as server:
        asyncio.run(session(server))
    empty, limited, broken = source.faults
    assert empty.usage is not None
    assert empty.usage.completion_tokens == write(PROMPT, seed=0, style=Style(), max_tokens=500).tokens
    assert (limited.usage, limited.may_be_billed) == (None, False)
    assert (broken.usage, broken.may_be_billed) == (None, True)


def test_a_try_that_got_no_answer_in_time_may_be_billed() -> None:
    source = Requests(1)
    with pytest.raises(TeacherError):
        asyncio.run(collect(Endless(), source, policy(timeout=0.01, max_attempts=1)))
    assert [fault.may_be_billed for fault in source.faults] == [True]


def test_closing_early_cancels_what_is_in_flight() -> None:
    client = Slow()

    async def session() -> None:
        async with aclosing(ask(client, Requests(100), policy(in_flight=8))) as answers:
            async for _ in answers:
                break

    asyncio.run(session())
    assert client.running == 0


def test_back_off_doubles_stays_bounded_and_repeats() -> None:
    rules = policy(first_delay=1.0, longest_delay=8.0)
    for attempt, full in enumerate([1.0, 2.0, 4.0, 8.0, 8.0], 1):
        delay = back_off("r0", attempt, rules)
        assert full / 2 <= delay <= full
        assert delay == back_off("r0", attempt, rules)
    assert back_off("r0", 1, rules) != back_off("r1", 1, rules)
    assert 20.0 <= back_off("r0", 1, rules, after=20.0) <= 21.0
    assert back_off("r0", 1, rules, after=1e9) <= 601.0


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


# --- opening teachers


def test_openai_without_a_key_stops_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)

    async def session() -> None:
        async with open_teacher(OpenAI(model="m")):
            pytest.fail("opened without a key")

    with pytest.raises(TeacherError, match=KEY_VARIABLE):
        asyncio.run(session())


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
    async def session() -> None:
        async with open_teacher(OpenAI(model="m", base_url=url)):
            pytest.fail("opened")

    with pytest.raises(TeacherError, match=r"teacher\.base_url") as caught:
        asyncio.run(session())
    assert "s3cret" not in str(caught.value)
    assert url_problem(url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1", "https://api.openai.com/v1", "http://[::1]:8000/v1"])
def test_ordinary_urls_have_no_problem(url: str) -> None:
    assert url_problem(url) is None


def test_without_a_key_messages_stay_as_the_server_said_them() -> None:
    async def session(url: str) -> None:
        async with connected(Endpoint(base_url=url, model=MODEL, key=NO_KEY, timeout=5.0)) as client:
            await client.complete(request(1))

    with faulty(lambda seed, attempt: "unauthorised") as server, pytest.raises(TeacherError, match="key: Bearer none"):
        asyncio.run(session(server.base_url))


@pytest.mark.parametrize("key", [None, "sk-of-the-environment"])
def test_own_server_gets_the_key_of_the_environment_or_a_dummy(
    monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    if key:
        monkeypatch.setenv(KEY_VARIABLE, key)

    async def session(url: str) -> Completion:
        async with open_teacher(OpenAI(model=MODEL, base_url=url, timeout=5.0)) as client:
            return await client.complete(request(1))

    with faulty() as server:
        assert asyncio.run(session(server.base_url)).text == expected_text(1)
    assert server.headers_seen[0]["authorization"] == f"Bearer {key or 'none'}"
    assert server.bodies[0]["max_tokens"] == 500
    assert "stop" not in server.bodies[0]


def test_unknown_teacher_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match="programmatic, openai"):
        open_teacher(Teacher(kind="oracle"))


def test_options_are_importable_without_the_client() -> None:
    heavy = ("openai", "httpx2", "h11", "numpy")
    code = f"import sys, alpaca.teachers; sys.exit(sum(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# --- the programmatic teacher


def tasks_of(text: str, first: int) -> list[tuple[str, str, str]]:
    blocks = f"{first}. Instruction:{text}".split("\n###\n")
    found = []
    for number, block in enumerate(blocks, first):
        head, _, output = block.partition(f"\n{number}. Output:\n")
        instruction, _, input = head.removeprefix(f"{number}. Instruction: ").partition(f"\n{number}. Input:\n")
        found.append((instruction, input, output))
    return found


def long_list(style: Style, seed: int = 5) -> list[tuple[str, str, str]]:
    return tasks_of(write("List of 400 tasks:\n###\n1. Instruction:", seed=seed, style=style).text, 1)


def test_the_list_is_continued_to_its_end() -> None:
    tasks = tasks_of(write(PROMPT, seed=1, style=Style()).text, 4)
    assert len(tasks) == 5
    assert all(instruction and input and output for instruction, input, output in tasks)


def test_equal_seeds_write_equal_texts() -> None:
    texts = {write(PROMPT, seed=seed, style=Style()).text for seed in (1, 1, 2, None, None)}
    assert len(texts) == 4


def test_error_rate_changes_answers_and_no_tasks() -> None:
    right, some, more = (long_list(Style(error_rate=rate)) for rate in (0.0, 0.25, 0.5))
    wrong = [{number for number in range(400) if right[number][2] != other[number][2]} for other in (some, more)]
    assert [task[:2] for task in right] == [task[:2] for task in more]
    assert 70 <= len(wrong[0]) <= 130
    assert 160 <= len(wrong[1]) <= 240
    assert wrong[0] < wrong[1]


def test_verbosity_wraps_the_right_answer() -> None:
    plain, padded = long_list(Style()), long_list(Style(verbosity=1.0))
    assert all(short[2] in long[2] and len(short[2]) < len(long[2]) for short, long in zip(plain, padded, strict=True))


def test_diversity_narrows_words_and_families() -> None:
    wide, narrow = (
        {word for task in long_list(Style(diversity=share)) for word in task[2].split()} for share in (1, 0.1)
    )
    assert len(FAMILIES) > 4
    assert len(narrow) < len(wide) / 2


def test_token_limit_cuts_and_says_so() -> None:
    whole = write(PROMPT, seed=1, style=Style())
    cut = write(PROMPT, seed=1, style=Style(), max_tokens=20)
    assert whole.finish_reason == "stop"
    assert whole.tokens == count_tokens(whole.text)
    assert cut.finish_reason == "length"
    assert cut.tokens <= 20
    assert whole.text.startswith(cut.text)
    assert cut.text.startswith(" ")


@pytest.mark.parametrize("prompt", ["hello", "List of 5 tasks:", "4. Instruction:"])
def test_other_prompts_are_refused(prompt: str) -> None:
    with pytest.raises(UnreadablePromptError):
        write(prompt, seed=1, style=Style())


def exchange(url: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(url.removeprefix("http://").removesuffix("/v1"), timeout=10)
    connection.request(method, path, json.dumps(body) if body is not None else None)
    response = connection.getresponse()
    answer = response.status, json.loads(response.read())
    connection.close()
    return answer


CHAT = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}], "seed": 1, "max_tokens": 500}


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"model": "gpt-4"}, 404, "does not exist"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "user", "content": "hi"}]}, 400, "continues lists"),
        ({"stop": ["20."]}, 400, "unsupported parameter"),
        ({"n": 2}, 400, "n = 1"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"seed": "one"}, 400, "seed"),
    ],
)
def test_bad_requests_get_an_error_of_openais_form(change: dict[str, Any], status: int, words: str) -> None:
    with serve(Programmatic()) as url:
        found, answer = exchange(url, "POST", "/v1/chat/completions", CHAT | change)
    assert found == status
    assert words in answer["error"]["message"]
    assert set(answer["error"]) == {"message", "type", "param", "code"}


def test_server_answers_paths_methods_and_broken_bodies() -> None:
    with serve(Programmatic()) as url:
        assert exchange(url, "GET", "/v1/models")[1]["data"][0]["id"] == MODEL
        assert exchange(url, "GET", f"/v1/models/{MODEL}")[1]["id"] == MODEL
        assert exchange(url, "GET", "/v1/chat/completions")[0] == 405
        assert exchange(url, "GET", "/v2/nothing")[0] == 404
        assert exchange(url, "POST", "/v1/chat/completions")[0] == 400
        assert exchange(url, "POST", "/v1/chat/completions", ["a"])[0] == 400


def test_one_connection_carries_many_requests_and_survives_a_refusal() -> None:
    with serve(Programmatic()) as url:
        connection = http.client.HTTPConnection(url.removeprefix("http://").removesuffix("/v1"), timeout=10)
        statuses = []
        for model in (MODEL, "other", MODEL):
            connection.request("POST", "/v1/chat/completions", json.dumps(CHAT | {"model": model}))
            response = connection.getresponse()
            response.read()
            statuses.append((response.status, connection.sock is not None))
        connection.close()
    assert statuses == [(200, True), (404, True), (200, True)]


def test_garbage_instead_of_http_gets_a_400_and_the_server_lives_on() -> None:
    with serve(Programmatic()) as url:
        host, _, port = url.removeprefix("http://").removesuffix("/v1").partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as raw:
            raw.sendall(b"\x00\x01 this is no HTTP\r\n\r\n")
            assert raw.recv(1000).startswith(b"HTTP/1.1 400")
        assert exchange(url, "GET", "/v1/models")[0] == 200


def test_the_server_is_gone_afterwards_even_with_open_connections() -> None:
    with serve(Programmatic()) as url:
        connection = http.client.HTTPConnection(url.removeprefix("http://").removesuffix("/v1"), timeout=10)
        connection.request("GET", "/v1/models")
        connection.getresponse().read()
    with pytest.raises(OSError):
        exchange(url, "GET", "/v1/models")
    connection.close()


def test_the_whole_way_through_the_client() -> None:
    async def session() -> list[Answer]:
        async with open_teacher(Programmatic(timeout=10.0)) as client:
            return await collect(client, Requests(5), policy())

    answers = asyncio.run(session())
    assert {answer.request.seed: answer.completion.text for answer in answers} == {
        n: expected_text(n) for n in range(5)
    }
    assert all(answer.completion.model == MODEL and not answer.completion.usage_estimated for answer in answers)


def test_standing_alone_it_says_where_it_is() -> None:
    command = [sys.executable, "-m", "alpaca.teachers.programmatic", "--error-rate", "0.5"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        url = line.partition(" at ")[2].partition(" ")[0]
        assert exchange(url, "POST", "/v1/chat/completions", CHAT)[0] == 200
    finally:
        process.terminate()
        assert process.wait(timeout=10) == 0


def test_answers_without_the_client_types_are_no_completions() -> None:
    with pytest.raises(RetryableError, match="no chat completion"):
        read_completion(SimpleNamespace(choices=[]), request(1))
