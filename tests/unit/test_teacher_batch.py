from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alpaca.errors import TeacherError
from alpaca.teachers import open_teacher
from alpaca.teachers.base import Completion, Message, Request, RetryableError, Session, TeacherClient
from alpaca.teachers.batch_journal import JOURNAL, Journal
from alpaca.teachers.digest import request_digest
from alpaca.teachers.openai_batch import OpenAIBatch
from alpaca.teachers.programmatic import MODEL, Programmatic
from alpaca.teachers.programmatic.server import BatchRules, serve
from alpaca.teachers.queue import Answer, Policy, ask
from tests.unit.batch_server import BatchServer, Ending, batch_server, good_row, row
from tests.unit.fault_server import faulty

ROOT = Path(__file__).resolve().parents[2]
EVENTS = ("upload", "create", "look", "content")


@pytest.fixture
def server() -> Iterator[BatchServer]:
    with batch_server() as running:
        yield running


def request(number: int, text: str = "question") -> Request:
    message = Message(role="user", content=f"{text} {number}")
    return Request(id=f"r{number}", messages=(message,), temperature=0.7, top_p=0.9, max_tokens=50, seed=number)


def requests(count: int) -> list[Request]:
    return [request(number) for number in range(count)]


def options(base_url: str, **changes: Any) -> OpenAIBatch:
    return OpenAIBatch(**{"model": "m", "base_url": base_url, "gather": 0.02, "poll": 0.01, **changes})


def ask_all(
    server: BatchServer, work: Path, asked: Sequence[Request], said: list[str] | None = None, **changes: Any
) -> list[Any]:
    """Completions, or the errors in their place, of requests that are all asked at once."""

    async def session() -> list[Any]:
        heard = Session(work=work, say=(said if said is not None else []).append)
        async with open_teacher(options(server.base_url, **changes), heard) as client:
            return await asyncio.gather(*(client.complete(each) for each in asked), return_exceptions=True)

    return asyncio.run(session())


class Source:
    """Requests for the queue, each wanted once."""

    def __init__(self, asked: Sequence[Request]) -> None:
        self.left, self.missing, self.faults = list(asked)[::-1], len(asked), list[RetryableError]()

    def next_request(self) -> Request | None:
        return self.left.pop() if self.left else None

    def wants_more(self) -> bool:
        return self.missing > 0

    def failed(self, request: Request, fault: RetryableError) -> bool:
        self.faults.append(fault)
        return True

    def gave_up(self, request: Request, reason: str) -> bool:
        return False


def queued(base_url: str, work: Path, source: Source, **changes: Any) -> list[Answer]:
    """Answers of all requests through the queue, which asks again what a batch left open."""

    async def session() -> list[Answer]:
        wanted = options(base_url, **changes)
        policy = replace(Policy.of(wanted), first_delay=0.01)
        async with open_teacher(wanted, Session(work=work, say=lambda _: None)) as client:
            found = []
            async with aclosing(ask(client, source, policy)) as answers:
                async for answer in answers:
                    source.missing -= 1
                    found.append(answer)
            return found

    return asyncio.run(session())


def texts(answers: Sequence[Any]) -> list[str]:
    return [getattr(answer, "completion", answer).text for answer in answers]


def expected(asked: Sequence[Request]) -> list[str]:
    return [f"answer to {each.messages[0].content} ({each.seed})" for each in asked]


# --- one batch


def test_requests_that_come_together_are_one_batch(server: BatchServer, tmp_path: Path) -> None:
    said: list[str] = []
    answers = ask_all(server, tmp_path, requests(40), said)
    assert texts(answers) == expected(requests(40))
    assert server.calls["upload"] == server.calls["create"] == 1
    line = server.sent[0][7]
    assert line == {
        "custom_id": request_digest(request(7)), "method": "POST", "url": "/v1/chat/completions",
        "body": {
            "model": "m", "messages": [{"role": "user", "content": "question 7"}], "temperature": 0.7, "top_p": 0.9,
            "max_tokens": 50, "seed": 7,
        },
    }  # fmt: skip
    assert answers[7] == Completion(
        text="answer to question 7 (7)", finish_reason="stop", model="m-dated", prompt_tokens=10, completion_tokens=20,
        cached_tokens=4, reasoning_tokens=5, service_tier="batch",
        server_request_id=f"req_{request_digest(request(7))[:6]}",
    )  # fmt: skip
    assert "40 requests sent" in said[0]
    assert "completed" in said[-1]


def test_the_legacy_endpoint_has_batches_too(server: BatchServer, tmp_path: Path) -> None:
    (answer,) = ask_all(server, tmp_path, requests(1), endpoint="completions")
    assert server.sent[0][0]["url"] == "/v1/completions"
    assert answer.text == "answer to question 0 (0)"


def test_a_batch_has_no_more_requests_and_bytes_than_it_may(server: BatchServer, tmp_path: Path) -> None:
    assert texts(ask_all(server, tmp_path, requests(7), batch_requests=3)) == expected(requests(7))
    assert sorted(map(len, server.sent)) == [1, 3, 3]
    size = len(next(iter(server.files.values()))[1].splitlines()[0]) + 1
    more = [request(number, "other") for number in range(4)]
    ask_all(server, tmp_path, more, batch_bytes=2 * size)
    assert sorted(map(len, server.sent)) == [1, 2, 2, 3, 3]
    (error,) = ask_all(server, tmp_path, [request(9, "x" * 1000)], batch_bytes=2 * size)
    assert isinstance(error, TeacherError)
    assert error.where == "teacher.batch_bytes"


def test_the_same_request_asked_twice_is_paid_once(server: BatchServer, tmp_path: Path) -> None:
    twice = [request(1), replace(request(1), id="again")]
    assert texts(ask_all(server, tmp_path, twice)) == expected(twice)
    assert sum(server.paid.values()) == 1


def test_a_slow_batch_is_looked_at_with_growing_pauses(
    server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.looks = 9
    pauses, real = list[float](), asyncio.sleep

    async def sleep(seconds: float, *rest: Any) -> None:
        pauses.append(seconds)
        await real(0, *rest)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    said: list[str] = []
    ask_all(server, tmp_path, requests(2), said)
    assert len(pauses) == 9
    assert pauses[:3] == pytest.approx([0.01, 0.015, 0.0225])
    assert max(pauses) <= 0.2
    assert sum("in_progress" in line for line in said) == 1


# --- batches and lines that go wrong


@pytest.mark.parametrize("status", ["expired", "cancelled", "completed"])
def test_what_a_batch_answered_counts_and_the_rest_is_asked_again(
    status: str, server: BatchServer, tmp_path: Path
) -> None:
    def ending(number: int, lines: list[dict[str, Any]]) -> Ending:
        answered = {line["custom_id"] for line in lines[:: 2 if number < 2 else 1]}
        return Ending(status=status if number < 2 else "completed", answered=answered)

    server.ending = ending
    source = Source(requests(20))
    answers = queued(server.base_url, tmp_path, source)
    assert sorted(texts(answers)) == sorted(expected(requests(20)))
    assert [len(lines) for lines in server.sent] == [20, 10, 5]
    assert set(server.paid.values()) == {1}
    assert {(fault.usage, fault.may_be_billed) for fault in source.faults} == {(None, False)}
    assert "batch_expired" in source.faults[0].reason


def test_each_line_is_read_as_an_online_answer(server: BatchServer, tmp_path: Path) -> None:
    def ending(number: int, lines: list[dict[str, Any]]) -> Ending:
        bad = [
            good_row(lines[1], choices=None), good_row(lines[2], choices=[{"message": {"content": " "}}]),
            row(lines[3], 500, {"error": {"message": "the engine is on fire"}}),
            row(lines[4], 400, {"error": {"message": "Unsupported value: 'temperature'", "param": "temperature"}}),
        ]  # fmt: skip
        return Ending(rows={each["custom_id"]: each for each in bad})

    server.ending = ending
    good, null, blank, broken, refused = ask_all(server, tmp_path, requests(5))
    assert good.text == "answer to question 0 (0)"
    assert all(isinstance(each, RetryableError) for each in (null, blank, broken))
    assert null.usage.prompt_tokens == blank.usage.prompt_tokens == 10
    assert "on fire" in broken.reason
    assert broken.usage is None
    assert isinstance(refused, TeacherError)
    assert refused.where == "data_gen.temperature"


def test_an_answer_of_no_use_is_not_attached_to_again(server: BatchServer, tmp_path: Path) -> None:
    def ending(number: int, lines: list[dict[str, Any]]) -> Ending:
        blank = good_row(lines[0], choices=[{"message": {"content": ""}}])
        return Ending(rows={} if number else {blank["custom_id"]: blank})

    server.ending = ending
    (first,) = ask_all(server, tmp_path, requests(1))
    assert isinstance(first, RetryableError)
    assert texts(ask_all(server, tmp_path, requests(1))) == expected(requests(1))
    assert len(server.sent) == 2


@pytest.mark.parametrize(
    ("code", "line", "kind"),
    [("model_not_found", None, TeacherError), ("invalid_json_line", 3, TeacherError),
     ("insufficient_quota", None, TeacherError), ("internal_error", None, RetryableError)],
)  # fmt: skip
def test_a_batch_that_is_refused_says_why(
    code: str, line: int | None, kind: type[Exception], server: BatchServer, tmp_path: Path
) -> None:
    problem = {"code": code, "message": "so it is", "line": line}
    server.ending = lambda number, lines: Ending(status="failed", problems=[problem])
    errors = ask_all(server, tmp_path, requests(2))
    assert [type(error) for error in errors] == [kind, kind]
    assert code in str(errors[0])
    assert "so it is" in str(errors[0])


KEY = "sk-a-key-that-nobody-may-see"


@pytest.mark.parametrize("event", EVENTS)
def test_whatever_a_server_quotes_nobody_is_told_the_key(
    event: str, server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    said: list[str] = []
    server.hook = lambda name, number: "tells_key" if name == event and number == 0 else None
    ask_all(server, tmp_path, requests(1), said)
    assert server.calls[event]
    assert KEY not in "".join(said)
    assert event == "content" or "[key]" in "".join(said)


def test_an_upload_that_never_succeeds_does_not_tell_the_key(
    server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.hook = lambda name, number: "tells_key"
    (error,) = ask_all(server, tmp_path, requests(1))
    assert isinstance(error, RetryableError)
    assert "[key]" in error.reason
    assert KEY not in f"{error.reason} {error}"


@pytest.mark.parametrize("code", ["model_not_found", "internal_error"])
def test_a_refused_batch_and_a_bad_line_do_not_tell_the_key(
    code: str, server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def ending(number: int, lines: list[dict[str, Any]]) -> Ending:
        if number:
            return Ending(status="failed", problems=[{"code": code, "message": f"not for {KEY}"}])
        wrong = [row(lines[0], 400, {"error": {"message": f"not {KEY}"}}), good_row(lines[1], choices=KEY),
                 {**row(lines[2], 0, {}), "response": None, "error": {"message": KEY}}]  # fmt: skip
        return Ending(rows={each["custom_id"]: each for each in wrong})

    server.ending = ending
    errors = [*ask_all(server, tmp_path, requests(3)), *ask_all(server, tmp_path, requests(1))]
    assert len(errors) == 4
    assert all("[key]" in str(error) and KEY not in str(error) for error in errors)


def test_without_room_a_batch_is_sent_in_halves(server: BatchServer, tmp_path: Path) -> None:
    full = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}

    def ending(number: int, lines: list[dict[str, Any]]) -> Ending:
        return Ending(status="failed", problems=[full]) if len(lines) > 3 else Ending()

    server.ending = ending
    assert texts(ask_all(server, tmp_path, requests(10))) == expected(requests(10))
    assert [len(lines) for lines in server.sent] == [10, 5, 2, 3, 5, 2, 3]
    server.ending = lambda number, lines: Ending(status="failed", problems=[full])
    (error,) = ask_all(server, tmp_path, [request(99)])
    assert isinstance(error, TeacherError)
    assert "not even one request" in error.what


def test_without_room_beside_another_batch_it_waits_for_that_one(server: BatchServer, tmp_path: Path) -> None:
    full = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}
    server.looks = 8
    server.ending = lambda number, lines: Ending(status="failed", problems=[full]) if number == 1 else Ending()
    said: list[str] = []
    assert texts(ask_all(server, tmp_path, requests(4), said, batch_requests=2)) == expected(requests(4))
    assert [len(lines) for lines in server.sent] == [2, 2, 2]
    assert any("waiting for one of 1 other" in line for line in said)


# --- calls that go wrong


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("fault", ["500", "429", "reset", "html", "lost"])
def test_a_call_that_fails_is_repeated_and_nothing_paid_twice(
    event: str, fault: str, server: BatchServer, tmp_path: Path
) -> None:
    server.hook = lambda name, number: fault if name == event and number < 2 else None
    assert texts(ask_all(server, tmp_path, requests(3))) == expected(requests(3))
    assert len(server.batches) == 1
    assert set(server.paid.values()) == {1}


def test_a_batch_whose_creation_was_not_heard_of_is_found_on_a_later_page(server: BatchServer, tmp_path: Path) -> None:
    file_id = server.add("old.jsonl", b"")
    for _ in range(5):
        server.create({"input_file_id": file_id, "metadata": None})
    server.hook = lambda name, number: "lost" if (name, number) == ("create", 0) else None
    ask_all(server, tmp_path, requests(2))
    assert server.calls["create"] == 1
    assert len(server.batches) == 6


def test_a_download_that_was_cut_is_repeated(server: BatchServer, tmp_path: Path) -> None:
    server.hook = lambda name, number: "cut" if name == "content" and number < 2 else None
    assert texts(ask_all(server, tmp_path, requests(3))) == expected(requests(3))
    assert server.calls["content"] == 3


def test_a_batch_that_the_server_forgot_is_sent_again(server: BatchServer, tmp_path: Path) -> None:
    server.hook = lambda name, number: "404" if (name, number) == ("look", 0) else None
    answers = queued(server.base_url, tmp_path, source := Source(requests(2)))
    assert sorted(texts(answers)) == expected(requests(2))
    assert "no longer has batch_1" in source.faults[0].reason


def test_answers_whose_file_is_gone_are_asked_again(server: BatchServer, tmp_path: Path) -> None:
    server.hook = lambda name, number: "404" if (name, number) == ("content", 0) else None
    answers = queued(server.base_url, tmp_path, source := Source(requests(2)))
    assert sorted(texts(answers)) == expected(requests(2))
    assert "without an answer" in source.faults[0].reason


@pytest.mark.parametrize(
    ("event", "status", "words"),
    [("upload", "404", "no Batch API"), ("upload", "401", "OPENAI_API_KEY"), ("create", "402", "used up"),
     ("look", "401", "OPENAI_API_KEY"), ("create", "400", "refuses")],
)  # fmt: skip
def test_what_cannot_heal_ends_it_with_the_way_out(
    event: str, status: str, words: str, server: BatchServer, tmp_path: Path
) -> None:
    server.hook = lambda name, number: status if name == event else None
    (error,) = ask_all(server, tmp_path, requests(1))
    assert isinstance(error, TeacherError)
    assert words in str(error)


def test_a_server_that_takes_no_file_gives_the_request_back(server: BatchServer, tmp_path: Path) -> None:
    server.hook = lambda name, number: "500"
    (error,) = ask_all(server, tmp_path, requests(1))
    assert isinstance(error, RetryableError)
    assert not error.may_be_billed
    assert server.calls["upload"] == 5


# --- another start


def test_a_batch_that_is_out_is_attached_to(server: BatchServer, tmp_path: Path) -> None:
    server.looks = 1000

    async def first() -> None:
        async with open_teacher(options(server.base_url), Session(work=tmp_path, say=lambda _: None)) as client:
            waiting = [asyncio.create_task(client.complete(each)) for each in requests(4)]
            while server.calls["look"] < 2:
                await asyncio.sleep(0.01)
            for task in waiting:
                task.cancel()

    asyncio.run(first())
    server.looks = server.batches["batch_1"]["hidden"]["looks"] = 3
    said: list[str] = []
    assert texts(ask_all(server, tmp_path, requests(6), said)) == expected(requests(6))
    assert [len(lines) for lines in server.sent] == [4, 2]
    assert "attached to batch_1 with 4 requests" in said[0]


def test_answers_that_came_and_were_not_taken_are_not_paid_again(server: BatchServer, tmp_path: Path) -> None:
    ask_all(server, tmp_path, requests(4))
    before = dict(server.calls)
    assert texts(ask_all(server, tmp_path, requests(4)[::-1])) == expected(requests(4)[::-1])
    assert dict(server.calls) == before


def test_a_try_that_was_given_up_attaches_to_its_batch(server: BatchServer, tmp_path: Path) -> None:
    server.looks = 12
    answers = queued(server.base_url, tmp_path, source := Source(requests(3)), timeout=0.4)
    assert sorted(texts(answers)) == expected(requests(3))
    assert len(server.batches) == 1
    assert any("teacher.timeout" in fault.reason for fault in source.faults)


CLIENT = """
import asyncio, sys
from pathlib import Path
from alpaca.teachers import open_teacher
from alpaca.teachers.base import Session
from tests.unit.test_teacher_batch import options, requests

async def main(url, work):
    async with open_teacher(options(url, batch_requests=3), Session(work=Path(work))) as client:
        await asyncio.gather(*(client.complete(each) for each in requests(5)))

asyncio.run(main(*sys.argv[1:]))
"""


def start(server: BatchServer, work: Path) -> int:
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, server.base_url, str(work)], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    server.victim = client.pid
    return client.wait(30)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("event", "fault"),
    [("upload", "kill_after"), ("create", "kill"), ("create", "kill_after"), ("look", "kill"), ("content", "kill")],
)
def test_kill_9_loses_nothing_and_pays_nothing_twice(
    event: str, fault: str, server: BatchServer, tmp_path: Path
) -> None:
    server.hook = lambda name, number: fault if name == event and number == 1 else None
    assert start(server, tmp_path) == -9
    answers = ask_all(server, tmp_path, requests(5), batch_requests=3)
    assert texts(answers) == expected(requests(5))
    assert list(server.paid.values()) == [1] * 5


def test_half_a_line_in_the_journal_is_cut(server: BatchServer, tmp_path: Path) -> None:
    ask_all(server, tmp_path, requests(2))
    journal = tmp_path / JOURNAL
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [each["event"] for each in rows] == ["planned", "uploaded", "created", "ended"]
    journal.write_text("".join(json.dumps(each) + "\n" for each in rows[:2]) + '{"event": "crea')
    (sent,) = Journal(tmp_path).sent.values()
    assert (sent.file_id, sent.batch_id, sent.status) == ("file-0", None, None)
    assert texts(ask_all(server, tmp_path, requests(2))) == expected(requests(2))
    assert len(server.batches) == 1


def test_an_upload_that_became_no_batch_is_sent_anew(server: BatchServer, tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.uploaded(journal.planned("old", {request_digest(request(0)): "r0"}), "file-9")
    (answer,) = ask_all(server, tmp_path, requests(1))
    assert answer.text == "answer to question 0 (0)"
    assert server.calls["list"] == 2
    assert "old" not in Journal(tmp_path).sent


def test_where_a_batch_cannot_be_looked_for_nothing_is_sent(server: BatchServer, tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.uploaded(journal.planned("old", {request_digest(request(0)): "r0"}), "file-9")
    server.hook = lambda name, number: "500" if name == "list" else None
    with pytest.raises(TeacherError, match="paid twice"):
        ask_all(server, tmp_path, requests(1))
    assert server.calls["upload"] == 0


# --- options, and the embedded server


def test_a_service_tier_is_refused_before_anything_is_sent(server: BatchServer, tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"teacher\.service_tier"):
        ask_all(server, tmp_path, requests(1), service_tier="flex")
    assert not server.calls


def test_the_queue_waits_a_day_for_a_batch_and_not_for_surplus_ones() -> None:
    policy = Policy.of(OpenAIBatch(model="m"))
    assert policy.in_flight == 50_000
    assert policy.timeout > 24 * 3600
    assert policy.drain == 5.0


def test_the_embedded_server_answers_in_batches(tmp_path: Path) -> None:
    text = "List of 8 tasks:\n###\n4. Instruction:"
    asked = [replace(request(number), messages=(Message(role="user", content=text),)) for number in range(12)]
    with serve(Programmatic(), batches=BatchRules(seconds=0.05, expired_share=0.4)) as base_url:
        answers = queued(base_url, tmp_path, source := Source(asked), model=MODEL)
    assert sorted(answer.request.id for answer in answers) == sorted(each.id for each in asked)
    assert source.faults
    assert all("5. Instruction" in answer.completion.text for answer in answers)


def test_the_look_at_a_teacher_is_no_batch_and_has_the_tier_that_the_server_says(tmp_path: Path) -> None:
    async def session(url: str, work: Path) -> Completion:
        async with open_teacher(options(url), Session(work=work, say=lambda _: None)) as client:
            online: TeacherClient = client.online  # type: ignore[attr-defined]
            return await online.complete(request(0))

    with faulty() as server:
        assert asyncio.run(session(server.base_url, tmp_path)).service_tier is None
