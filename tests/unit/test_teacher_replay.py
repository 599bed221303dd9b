from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alpaca.errors import TeacherError, UserError
from alpaca.teachers import open_teacher
from alpaca.teachers.base import Completion, Message, RefusedRequestError, Request, Session
from alpaca.teachers.digest import request_digest
from alpaca.teachers.replay import Replay


def request(number: int, **changes: Any) -> Request:
    message = Message(role="user", content=f"question {number}")
    made = Request(id=f"r{number}", messages=(message,), temperature=1.0, top_p=0.9, max_tokens=50, seed=number)
    return replace(made, **changes)


def row(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"r{number}", "request_sha256": request_digest(request(number)), "text": f" answer {number}",
        "finish_reason": "stop", "model": "m-1", "prompt_tokens": 7, "completion_tokens": 3, "usage_estimated": True,
        "cached_tokens": 2, "reasoning_tokens": 1, "service_tier": "flex", "server_request_id": "q",
        "system_fingerprint": "f", "attempts": 1, "seconds": 0.5, **changes,
    }  # fmt: skip


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")
    return str(path)


def answers(cassette: str, *requests: Request, said: list[str] | None = None) -> list[Completion]:
    async def session() -> list[Completion]:
        heard = Session(work=Path(cassette).parent, say=(said if said is not None else []).append)
        async with open_teacher(Replay(cassette=cassette), heard) as client:
            return [await client.complete(each) for each in requests]

    return asyncio.run(session())


def test_a_recorded_answer_comes_back_whole_whatever_the_id_of_its_request(tmp_path: Path) -> None:
    said: list[str] = []
    cassette = write(tmp_path / "raw.jsonl", row(1), row(2))
    (answer,) = answers(cassette, request(2, id="another"), said=said)
    assert answer == Completion(
        text=" answer 2", finish_reason="stop", model="m-1", prompt_tokens=7, completion_tokens=3,
        usage_estimated=True, cached_tokens=2, reasoning_tokens=1, service_tier="flex", server_request_id="q",
        system_fingerprint="f",
    )  # fmt: skip
    assert "2 recorded answers" in said[0]
    assert "nothing is paid" in said[0]


def test_rows_of_older_runs_say_nothing_about_cached_tokens(tmp_path: Path) -> None:
    old = {name: value for name, value in row(1).items() if name not in ("cached_tokens", "service_tier")}
    (answer,) = answers(write(tmp_path / "raw.jsonl", old), request(1))
    assert (answer.cached_tokens, answer.service_tier) == (0, None)


def test_a_request_without_a_recording_names_request_file_and_way_out(tmp_path: Path) -> None:
    cassette = write(tmp_path / "raw.jsonl", row(1))
    with pytest.raises(TeacherError) as caught:
        answers(cassette, request(3))
    assert "r3" in caught.value.what
    assert cassette in caught.value.what
    assert request_digest(request(3))[:12] in caught.value.what
    assert caught.value.where == "teacher.cassette"
    assert "data_gen" in caught.value.remedy


def test_several_cassettes_are_a_folder_and_the_first_answer_counts(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", row(1, text="later"), row(2))
    write(tmp_path / "a.jsonl", row(1, text="first"), row(1, text="second"))
    write(tmp_path / "failed.jsonl", {"id": "r1", "reason": "429"})
    assert [answer.text for answer in answers(str(tmp_path), request(1), request(2))] == ["first", " answer 2"]


def test_of_a_sample_folder_only_the_raw_answers_are_read(tmp_path: Path) -> None:
    write(tmp_path / "raw.jsonl", row(1))
    write(tmp_path / "responses.jsonl", {"id": "r1"})
    assert [answer.text for answer in answers(str(tmp_path), request(1))] == [" answer 1"]


@pytest.mark.parametrize(("tail", "count"), [('{"id": "r2", "req', 1), (json.dumps(row(2)), 2)])
def test_a_torn_last_line_is_left_out_and_a_whole_one_without_newline_is_not(
    tail: str, count: int, tmp_path: Path
) -> None:
    said: list[str] = []
    path = tmp_path / "raw.jsonl"
    write(path, row(1))
    path.write_text(path.read_text() + tail)
    answers(str(path), request(1), said=said)
    assert f"{count} recorded" in said[0]


def test_all_broken_lines_are_told_at_once_with_their_places(tmp_path: Path) -> None:
    path = tmp_path / "raw.jsonl"
    broken = [
        row(2, request_sha256="short"), row(3, text="  "), row(4, text=None), row(5, model=None),
        row(6, finish_reason=3), row(7, prompt_tokens=-1), row(8, completion_tokens=1.5), [1],
    ]  # fmt: skip
    write(path, row(1), *broken)
    path.write_bytes(path.read_bytes() + b"{no json}\n" + b'{"text": "\xff"}\n')
    with pytest.raises(UserError) as caught:
        answers(str(path))
    told = str(caught.value)
    assert "10 broken lines" in told
    for number, words in enumerate(
        ["hex digits", "text", "text", "model", "finish_reason", "prompt_tokens", "completion_tokens", "object",
         "not JSON", "not JSON"], 2,
    ):  # fmt: skip
        assert any(f"raw.jsonl:{number}:" in line and words in line for line in told.splitlines()), number


def refusal(number: int, **changes: Any) -> dict[str, Any]:
    counts = {"prompt_tokens": 0, "completion_tokens": 0}
    return {
        "id": f"r{number}", "request_sha256": request_digest(request(number)), "text": "", "finish_reason": "refused",
        "model": "", **counts, "attempts": 1, "reason": "400 not this text", **changes,
    }  # fmt: skip


def test_a_recorded_refusal_is_a_refusal_again(tmp_path: Path) -> None:
    cassette = write(tmp_path / "raw.jsonl", row(1), refusal(2))
    with pytest.raises(RefusedRequestError, match="400 not this text"):
        answers(cassette, request(2))
    assert [answer.text for answer in answers(cassette, request(1))] == [" answer 1"]


def test_an_answer_counts_more_than_a_refusal_before_or_behind_it(tmp_path: Path) -> None:
    cassette = write(tmp_path / "raw.jsonl", refusal(1), row(1), row(2), refusal(2))
    assert [answer.text for answer in answers(cassette, request(1), request(2))] == [" answer 1", " answer 2"]


def test_a_blank_answer_that_is_no_refusal_is_a_broken_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"raw\.jsonl:1: text is missing or blank"):
        answers(write(tmp_path / "raw.jsonl", refusal(1, finish_reason="stop"), row(2)), request(2))


def test_of_very_many_broken_lines_twenty_are_shown(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        answers(write(tmp_path / "raw.jsonl", *[{}] * 30))
    assert str(caught.value).count("raw.jsonl:") == 20
    assert "and 10 more" in str(caught.value)


@pytest.mark.parametrize("name", ["missing.jsonl", "empty.jsonl", "."])
def test_a_cassette_that_holds_nothing_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(UserError, match=r"teacher\.cassette"):
        answers(str(tmp_path / name))


# --- the digest


def test_the_digest_is_of_all_that_is_sent_and_of_nothing_else() -> None:
    base = request(1)
    assert request_digest(replace(base, id="other")) == request_digest(base)
    changes: list[dict[str, Any]] = [
        {"messages": (Message(role="user", content="x"),)},
        {"messages": (Message(role="system", content="question 1"),)},
        {"temperature": 0.5}, {"top_p": 1.0}, {"max_tokens": 51}, {"seed": 2}, {"seed": None}, {"stop": ("a",)},
        {"stop": ("b",)}, {"presence_penalty": 2.0}, {"logit_bias": {"5": -100.0}}, {"schema": {"type": "object"}},
        {"schema": {}},
    ]  # fmt: skip
    digests = {request_digest(replace(base, **change)) for change in changes}
    assert len(digests | {request_digest(base)}) == len(changes) + 1


def test_spellings_of_one_request_have_one_digest() -> None:
    whole, real = request(1, temperature=1, top_p=1), request(1, temperature=1.0, top_p=1.0)
    assert request_digest(whole) == request_digest(real)
    one, other = {"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}
    assert request_digest(request(1, schema=one)) == request_digest(request(1, schema=other))
    assert request_digest(request(1, logit_bias={})) == request_digest(request(1))


def test_the_digest_of_a_request_never_changes() -> None:
    # Recorded answers of years are found by it.
    assert request_digest(request(1)) == "5bcc361ad4bc9cbc6f2996aaefc7e5cfc654a12c860982d0da6ea84930efc931"
