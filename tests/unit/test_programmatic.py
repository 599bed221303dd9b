"""The teacher of the embedded world: its texts for each kind of request, and its server as openai's client sees it."""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from alpaca.config import AlpacaDataGen, EvolveDataGen, SelfInstructDataGen
from alpaca.curation.parsing import parse_completion
from alpaca.stages.rate import PROMPT as JUDGE_PROMPT
from alpaca.stages.rate import score_of
from alpaca.stages.sample import evolve, self_instruct
from alpaca.stages.sample.plan import RequestPlan
from alpaca.stages.sample.reanswer import answer_request
from alpaca.stages.sample.seeds import load_seed_tasks
from alpaca.teachers.base import Request, Session
from alpaca.teachers.programmatic import MODEL, Programmatic, opened
from alpaca.teachers.programmatic.forms import answer
from alpaca.teachers.programmatic.parameters import Ask, read_ask
from alpaca.teachers.programmatic.process import server_process
from alpaca.teachers.programmatic.refusal import RefusedError
from alpaca.teachers.programmatic.server import BatchRules, complete_chat, serve
from alpaca.teachers.programmatic.steps import UNANSWERABLE
from alpaca.teachers.programmatic.writer import PADDINGS, Style, UnreadablePromptError, Written, count_tokens, write
from alpaca.teachers.wire import Endpoint, request_body
from alpaca.world import (
    EVERY,
    FAMILIES,
    INPUT_FAMILIES,
    LEXICON,
    PLAIN_FAMILIES,
    draw_task,
    family_of,
    is_reserved,
    solve,
)

PROMPT = "List of 8 tasks:\n###\n4. Instruction:"
LONG = "List of 400 tasks:\n###\n1. Instruction:"
ROOT = Path(__file__).resolve().parents[2]


def asked(request: Request, style: Style | None = None) -> Written:
    """The answer to a request as the sampling code builds it, through the body that the client sends."""
    body = request_body(request, Endpoint(base_url="http://x/v1", model=MODEL, key="x", timeout=1.0))
    return answer(read_ask(body, body["messages"][-1]["content"]), style or Style())


def said(prompt: str, style: Style | None = None, **parameters: Any) -> str:
    return answer(Ask(prompt=prompt, **parameters), style or Style()).text


def tasks_of(text: str, first: int = 1, finish_reason: str = "stop") -> list[tuple[str, str, str]]:
    parsed = parse_completion(text, first_number=first, finish_reason=finish_reason)
    assert parsed.malformed == 0
    return [(task.instruction, task.input, task.output) for task in parsed.tasks]


def long_list(style: Style | None = None, **parameters: Any) -> list[tuple[str, str, str]]:
    return tasks_of(said(LONG, style, **{"seed": 5, **parameters}))


# --- lists of tasks


def test_the_list_is_continued_to_its_end() -> None:
    tasks = tasks_of(said(PROMPT, seed=1), 4)
    assert len(tasks) == 5
    assert all(solve(instruction, input) == output for instruction, input, output in tasks)


def test_equal_seeds_write_equal_texts() -> None:
    assert len({said(PROMPT, seed=seed) for seed in (1, 1, 2, None, None)}) == 4
    assert said(PROMPT, seed=1) == write(PROMPT, seed=1, style=Style()).text


def test_error_rate_changes_answers_and_no_tasks() -> None:
    right, some, more = (long_list(Style(error_rate=rate)) for rate in (0.0, 0.25, 0.5))
    wrong = [{number for number in range(400) if right[number][2] != other[number][2]} for other in (some, more)]
    assert [task[:2] for task in right] == [task[:2] for task in more]
    assert 70 <= len(wrong[0]) <= 130
    assert 160 <= len(wrong[1]) <= 240
    assert wrong[0] < wrong[1]


def test_verbosity_wraps_the_right_answer() -> None:
    plain, padded = long_list(), long_list(Style(verbosity=1.0))
    assert all(short[2] in long[2] and len(short[2]) < len(long[2]) for short, long in zip(plain, padded, strict=True))


@pytest.mark.parametrize("narrowed", [{"style": Style(diversity=0.1)}, {"top_p": 0.3}])
def test_diversity_and_top_p_narrow_the_words(narrowed: dict[str, Any]) -> None:
    wide, narrow = (
        {word for task in tasks for word in task[2].split()} for tasks in (long_list(), long_list(**narrowed))
    )
    assert len(narrow) < len(wide) / 2


def test_the_presence_penalty_avoids_words_that_were_used() -> None:
    def repeated(penalty: float) -> int:
        texts = [said("List of 8 tasks:\n1. Instruction:", seed=seed, presence_penalty=penalty) for seed in range(20)]
        words = [re.findall(r"\w+", " ".join(task[0] for task in tasks_of(text))) for text in texts]
        return sum(len(each) - len(set(each)) for each in words)

    assert repeated(2.0) < repeated(1.0) < repeated(0.0)
    assert repeated(2.0) < repeated(0.0) / 2


def test_an_unknown_form_is_no_list() -> None:
    for prompt in ("hello", "List of 5 tasks:", "4. Instruction:"):
        with pytest.raises(UnreadablePromptError):
            write(prompt, seed=1, style=Style())


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_the_wished_share_of_tasks_has_an_input(share: float) -> None:
    options = AlpacaDataGen(input_share=share, tasks_per_request=303, max_tokens=30_000)
    request = RequestPlan(options).request(0).request
    tasks = tasks_of(asked(request).text, 4)
    with_input = [task for task in tasks if task[1]]
    assert len(with_input) == pytest.approx(300 * share, abs=30)
    assert all(solve(*task[:2]) == task[2] for task in tasks)
    if share:
        assert {family_of(task[0]) for task in with_input} == set(INPUT_FAMILIES)


def test_the_json_form_brings_the_tasks_that_are_missing() -> None:
    request = RequestPlan(AlpacaDataGen(form="json_schema")).request(3).request
    tasks = json.loads(asked(request).text)["tasks"]
    assert len(tasks) == 17
    assert all(solve(task["instruction"], task["input"]) == task["output"] for task in tasks)


def test_stop_strings_and_limits_cut_and_say_so() -> None:
    whole, cut = answer(Ask(prompt=PROMPT, seed=1), Style()), answer(Ask(prompt=PROMPT, seed=1, max_tokens=20), Style())
    assert (whole.finish_reason, whole.tokens) == ("stop", count_tokens(whole.text))
    assert cut.finish_reason == "length"
    assert cut.tokens <= 20
    assert whole.text.startswith(cut.text)
    assert cut.text.startswith(" ")
    stopped = answer(Ask(prompt=PROMPT, seed=1, stop=("\n7", "\n6.")), Style())
    assert whole.text.startswith(stopped.text + "\n6.")
    assert stopped.finish_reason == "stop"
    assert answer(Ask(prompt=PROMPT, seed=1, stop=("\n7",), max_tokens=20), Style()) == cut


def test_with_the_end_banned_a_list_ends_at_a_stop_string_or_at_the_limit() -> None:
    options = AlpacaDataGen(stop=["\n20", "20.", "20."], logit_bias={"50256": -100.0})
    text = asked(RequestPlan(options).request(0).request).text
    assert tasks_of(text, 4)[-1] == tasks_of(text.partition("\n###\n19. ")[2].partition("Instruction:")[2], 19)[0]
    assert "20." not in text
    endless = answer(Ask(prompt=PROMPT, seed=1, end_is_banned=True, max_tokens=3072), Style())
    assert endless.finish_reason == "length"
    assert 3000 < endless.tokens <= 3072
    assert endless.text.startswith(said(PROMPT, seed=1))


def test_a_forced_token_leaves_no_other() -> None:
    found = chat(logit_bias={"50256": -100, "50": 100}, max_tokens=7)
    assert found["choices"][0]["message"]["content"] == "SSSSSSS"
    assert found["choices"][0]["finish_reason"] == "length"
    assert found["usage"]["completion_tokens"] == 7


def test_at_temperature_zero_the_seed_changes_nothing() -> None:
    assert len({said(PROMPT, seed=seed, temperature=0.0) for seed in (1, 2, None)}) == 1
    assert said(PROMPT, temperature=0.0) != said(PROMPT.replace("8", "9"), temperature=0.0)[: len(said(PROMPT))]
    assert said(PROMPT, seed=1, temperature=0.3) == said(PROMPT, seed=1, temperature=1.7)


# --- single instructions


@pytest.mark.parametrize("family", tuple(EVERY))
def test_an_instruction_is_answered_rightly(family: str) -> None:
    task = draw_task(random.Random(family), families=[family])
    planned = answer_request(AlpacaDataGen(), "answer_000001", task.instruction, task.input)
    assert asked(planned.request).text == task.output
    assert asked(planned.request, Style(error_rate=1.0)).text != task.output
    assert task.output in asked(planned.request, Style(verbosity=1.0)).text


def test_the_wrong_answers_of_a_small_error_rate_are_among_those_of_a_larger_one() -> None:
    rng = random.Random(0)
    tasks = [draw_task(rng, families=PLAIN_FAMILIES) for _ in range(300)]
    wrong = [
        {i for i, task in enumerate(tasks) if said(task.instruction, Style(error_rate=rate), seed=i) != task.output}
        for rate in (0.2, 0.5)
    ]
    assert 35 < len(wrong[0]) < 90
    assert wrong[0] < wrong[1]


def test_what_is_not_of_the_world_gets_an_honest_word() -> None:
    assert said("Name the capital of France.") == UNANSWERABLE
    assert said("Name it.\n\nInput:\nParis") == UNANSWERABLE


# --- the steps of self-instruct, evolving, judging


def test_self_instruct_gets_its_list_of_instructions() -> None:
    options = SelfInstructDataGen()
    step = self_instruct.Instructions(options, load_seed_tasks(None), 100)
    planned = step.planned(0)
    assert planned is not None
    found = list(self_instruct._listed(asked(planned.request).text, cut=False))
    assert len(found) == options.tasks_per_request - options.seeds_per_prompt
    assert all(family_of(instruction) for instruction in found)


def pipeline(seed: int = 0) -> self_instruct.Pipeline:
    return self_instruct.Pipeline(SelfInstructDataGen(seed=seed), load_seed_tasks(None))


@pytest.mark.parametrize("family", tuple(EVERY))
def test_self_instruct_gets_right_instances_of_every_family(family: str) -> None:
    instruction = draw_task(random.Random(family), families=[family]).instruction
    kind = asked(pipeline()._classification(1, instruction).request).text.strip()
    assert kind == ("Yes" if family in ("match", "missing", "tally") else "No")
    for is_class in {kind == "Yes", False}:
        text = asked(pipeline()._filling(1, instruction, is_class).request).text
        read = (self_instruct._output_first if is_class else self_instruct._input_first)(text, cut=False)
        found = self_instruct._usable(list(read))
        assert len(found) > 1 if family in INPUT_FAMILIES else len(found) == 1
        assert all(solve(instruction, instance.input) == instance.output for instance in found)
        if is_class:
            assert len({instance.output for instance in found}) == len(found)


def test_self_instruct_gets_an_honest_word_for_other_instructions() -> None:
    assert asked(pipeline()._classification(1, "Name a town.").request).text.strip() == "No"
    for is_class in (True, False):
        assert UNANSWERABLE in asked(pipeline()._filling(1, "Name a town.", is_class).request).text


def evolved(given: str, breadth: float, seed: int = 0) -> str:
    evolution = evolve.Evolution(EvolveDataGen(breadth_share=breadth, seed=seed), [given])
    return asked(evolution._rewriting(0, evolve.Chain(base=0, text=given)).request).text


def test_in_depth_an_instruction_grows_by_a_word() -> None:
    for family in ("sort", "copy", "pick"):
        task = draw_task(random.Random(7), families=[family])
        longer = task.instruction
        for _ in range(3):
            longer = evolved(longer, 0.0)
            assert family_of(longer) == family
            assert solve(longer) is not None
        assert len(words_of(longer)) == len(words_of(task.instruction)) + 3


def words_of(text: str) -> list[str]:
    return [word for word in re.findall(r"\w+", text) if word in LEXICON]


def test_in_breadth_and_from_elsewhere_any_instruction_without_an_input_follows() -> None:
    found = {evolved("Name a town.", share, seed) for share in (0.0, 1.0) for seed in range(20)}
    assert len(found) == 40
    assert len({family_of(text) for text in found}) > 4
    assert all(solve(text) is not None for text in found)


def test_nothing_evolves_into_an_item_of_the_evaluation_set() -> None:
    for seed in range(200):
        text = evolved(f"Repeat: {LEXICON[seed % 100]}", 0.0, seed)
        assert not is_reserved(family_of(text) or "", words_of(text))


@pytest.mark.parametrize(
    ("change", "score"),
    [
        (lambda right: right, 5),
        (lambda right: f"Certainly: {right}", 3),
        (lambda right: f"{right} {right}", 1),
        (lambda right: "I do not know", 1),
    ],
)
def test_the_judge_knows_the_right_answer(change: Any, score: float) -> None:
    for family in EVERY:
        task = draw_task(random.Random(family), families=[family])
        text = said(JUDGE_PROMPT.format(
            instruction=task.instruction, input=task.input or "<noinput>", output=change(task.output)
        ), Style(error_rate=0.9, verbosity=0.9), temperature=0.0)  # fmt: skip
        assert score_of(text) == score


def test_the_judge_says_when_it_cannot_tell() -> None:
    text = said(JUDGE_PROMPT.format(instruction="Name a town.", input="<noinput>", output="Paris"))
    assert score_of(text) == 0


def test_each_padding_of_verbosity_is_told_from_other_answers() -> None:
    task = draw_task(random.Random(1), families=["first"])
    texts = {said(task.instruction, Style(verbosity=1.0), seed=seed) for seed in range(30)}
    assert len(texts) == len(PADDINGS)
    for text in texts:
        prompt = JUDGE_PROMPT.format(instruction=task.instruction, input="<noinput>", output=text)
        assert score_of(said(prompt)) == 3


# --- parameters


def chat(**change: Any) -> dict[str, Any]:
    body = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}], "seed": 1, "max_tokens": 500}
    return complete_chat(body | change, Programmatic())


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"model": "gpt-4"}, 404, "does not exist"),
        ({"messages": []}, 400, "messages"),
        ({"stop": ["a", "b", "c", "d", "e"]}, 400, "up to 4"),
        ({"stop": [""]}, 400, "stop"),
        ({"n": 2}, 400, "only 1 is supported"),
        ({"stream": True}, 400, "stream"),
        ({"logprobs": True}, 400, "logprobs"),
        ({"frequency_penalty": 0.5}, 400, "frequency_penalty"),
        ({"presence_penalty": -1}, 400, "0 to 2"),
        ({"temperature": 3}, 400, "temperature"),
        ({"top_p": "high"}, 400, "top_p"),
        ({"logit_bias": [50256]}, 400, "logit_bias"),
        ({"logit_bias": {"50256": 5}}, 400, "logit_bias"),
        ({"logit_bias": {"50": 100, "51": 100}}, 400, "logit_bias"),
        ({"logit_bias": {"50": 99}}, 400, "logit_bias"),
        ({"logit_bias": {"11": -100}}, 400, "logit_bias"),
        ({"response_format": {"type": "json_schema"}}, 400, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"anyOf": []}}}}, 400, "plain type"),
        ({"service_tier": "first_class"}, 400, "service_tier"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"seed": "one"}, 400, "seed"),
        ({"reasoning_effort": "high"}, 400, "unsupported parameter 'reasoning_effort'"),
    ],
)
def test_what_cannot_be_honoured_is_refused(change: dict[str, Any], status: int, words: str) -> None:
    with pytest.raises(RefusedError) as caught:
        chat(**change)
    assert caught.value.status == status
    assert words in caught.value.body["error"]["message"]
    assert set(caught.value.body["error"]) == {"message", "type", "param", "code"}


def test_what_asks_for_nothing_is_accepted() -> None:
    neutral = {
        "n": 1, "stream": False, "frequency_penalty": 0, "stop": None, "logit_bias": {}, "tools": [], "user": "me",
        "response_format": {"type": "text"},
    }  # fmt: skip
    assert chat(**neutral) == chat()


def test_any_schema_of_plain_types_is_filled() -> None:
    schema = {
        "type": "object",
        "properties": {
            "text": {"type": "string"}, "count": {"type": "integer"}, "is_sure": {"type": ["boolean", "null"]},
            "kind": {"enum": ["a", "b"]}, "parts": {"type": "array", "items": {"type": "number"}, "minItems": 2},
        },
    }  # fmt: skip
    given = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    content = chat(messages=[{"role": "user", "content": "Hello"}], response_format=given)["choices"][0]["message"]
    assert json.loads(content["content"]) == {
        "text": UNANSWERABLE, "count": 0, "is_sure": False, "kind": "a", "parts": [0.0, 0.0]
    }  # fmt: skip


def test_an_answer_carries_what_openais_carry() -> None:
    found = chat(service_tier="auto")
    assert found["service_tier"] == "default"
    assert "service_tier" not in chat()
    assert found["system_fingerprint"].startswith("fp_")
    other = complete_chat({"model": MODEL, "messages": [{"content": "x"}]}, Programmatic(error_rate=0.1))
    assert found["system_fingerprint"] != other["system_fingerprint"]
    usage = found["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]
    assert usage["completion_tokens"] == count_tokens(found["choices"][0]["message"]["content"])


# --- the server


@contextmanager
def client(rules: BatchRules | None = None) -> Iterator[openai.OpenAI]:
    with serve(Programmatic(), batches=rules) as url, openai.OpenAI(api_key="x", base_url=url, max_retries=0) as api:
        yield api


def lines(count: int, **change: Any) -> list[dict[str, Any]]:
    body = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}]}
    return [
        {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": {**body, "seed": number},
         **change}
        for number in range(count)
    ]  # fmt: skip


def sent(api: openai.OpenAI, rows: list[dict[str, Any]]) -> Any:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    file = api.files.create(file=("batch.jsonl", content), purpose="batch")
    return api.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")


def waited(api: openai.OpenAI, id: str) -> Any:
    while (batch := api.batches.retrieve(id)).status in ("validating", "in_progress"):
        time.sleep(0.01)
    return batch


def rows_of(api: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    return [json.loads(line) for line in api.files.content(file_id).text.splitlines()] if file_id else []


def test_a_batch_answers_what_single_requests_get() -> None:
    with client() as api:
        batch = sent(api, lines(5))
        assert batch.status == "validating"
        batch = waited(api, batch.id)
        found = {row["custom_id"]: row["response"]["body"] for row in rows_of(api, batch.output_file_id)}
    assert batch.status == "completed"
    assert batch.error_file_id is None
    assert found == {row["custom_id"]: complete_chat(row["body"], Programmatic()) for row in lines(5)}
    assert batch.request_counts.completed == 5
    assert batch.usage.output_tokens == sum(body["usage"]["completion_tokens"] for body in found.values())


def test_requests_that_expire_or_fail_stand_in_the_error_file() -> None:
    with client(BatchRules(seconds=0.05, expired_share=0.4)) as api:
        rows = [*lines(50), *lines(51, body={"model": "other", "messages": []})[50:]]
        first, second = sent(api, rows), sent(api, rows)
        assert api.batches.retrieve(first.id).status == "in_progress"
        first, second = waited(api, first.id), waited(api, second.id)
        good, bad = rows_of(api, first.output_file_id), rows_of(api, first.error_file_id)
        again = {row["custom_id"] for row in rows_of(api, second.error_file_id)}
    assert first.status == "expired"
    assert {row["custom_id"] for row in [*good, *bad]} == {row["custom_id"] for row in rows}
    expired = {row["custom_id"] for row in bad if row["error"]}
    assert 8 < len(expired) < 32
    assert all(row["error"]["code"] == "batch_expired" for row in bad if row["error"])
    assert {row["response"]["status_code"] for row in bad if row["response"]} <= {404}
    assert expired != again, "another batch leaves other requests undone"


def test_a_cancelled_batch_keeps_what_it_had_done() -> None:
    with client(BatchRules(seconds=0.4)) as api:
        batch = sent(api, lines(40))
        time.sleep(0.1)
        assert api.batches.cancel(batch.id).status == "cancelling"
        batch = api.batches.retrieve(batch.id)
        assert batch.status == "cancelled"
        assert 0 < len(rows_of(api, batch.output_file_id)) < 40
        with pytest.raises(openai.BadRequestError, match="cancelled"):
            api.batches.cancel(batch.id)


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([*lines(2), *lines(1)], "duplicate_custom_id"),
        (lines(1, url="/v1/moderations"), "mismatched_endpoint"),
        (lines(1, method="GET"), "invalid_method"),
        (lines(1, body=None), "missing_required_parameter"),
    ],
)
def test_a_broken_file_fails_the_whole_batch_and_names_the_line(rows: list[dict[str, Any]], code: str) -> None:
    with client() as api:
        batch = api.batches.retrieve(sent(api, rows).id)
    assert batch.status == "failed"
    assert [problem.code for problem in batch.errors.data] == [code]
    assert batch.errors.data[0].line == len(rows)


def test_batches_are_listed_page_by_page_newest_first() -> None:
    with client() as api:
        ids = [sent(api, lines(1)).id for _ in range(5)]
        assert [batch.id for batch in api.batches.list(limit=2)] == ids[::-1]


def test_files_are_kept_byte_by_byte_until_deleted() -> None:
    content = b'{"a": "\\u00e4"}\r\n\n--x\r\n' + "ä\u2028".encode()
    with client() as api:
        file = api.files.create(file=("ä.jsonl", content), purpose="batch")
        assert (api.files.retrieve(file.id).bytes, api.files.content(file.id).read()) == (len(content), content)
        assert api.files.delete(file.id).deleted
        for look in (api.files.retrieve, api.files.content, api.files.delete):
            with pytest.raises(openai.NotFoundError):
                look(file.id)
        with pytest.raises(openai.BadRequestError, match="purpose"):
            api.files.create(file=("x", b"x"), purpose="fine-tune")
        with pytest.raises(openai.NotFoundError):
            api.batches.create(input_file_id="file-0", endpoint="/v1/chat/completions", completion_window="24h")


def test_moderation_flags_whole_words_of_its_list() -> None:
    with client() as api:
        results = api.moderations.create(input=["a murder of crows", "a stable", "Porn"]).results
        assert [result.flagged for result in results] == [True, False, True]
        assert results[0].categories.violence
        assert not results[0].categories.sexual
        assert results[0].category_scores.violence > 0.5 > results[1].category_scores.violence > 0
        assert api.moderations.create(input="fine").results[0].flagged is False
        with pytest.raises(openai.BadRequestError, match="input"):
            api.moderations.create(input=[])


def test_legacy_completions_continue_one_prompt() -> None:
    with client() as api:
        found = api.completions.create(model=MODEL, prompt=PROMPT, seed=1, max_tokens=500)
        assert found.choices[0].text == said(PROMPT, seed=1)
        with pytest.raises(openai.BadRequestError, match="lists of prompts"):
            api.completions.create(model=MODEL, prompt=[PROMPT, PROMPT])


def test_every_answer_has_a_request_id_of_its_own() -> None:
    with client() as api:
        ids = [api.models.list()._request_id for _ in range(2)]
        with pytest.raises(openai.NotFoundError) as caught:
            api.models.retrieve("gpt-4")
    assert len({*ids, caught.value.request_id}) == 3
    assert all(id and id.startswith("req_") for id in ids)


def exchange(url: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(url.removeprefix("http://").removesuffix("/v1"), timeout=10)
    connection.request(method, path, json.dumps(body) if body is not None else None)
    response = connection.getresponse()
    found = response.status, json.loads(response.read())
    connection.close()
    return found


def test_server_answers_paths_methods_and_broken_bodies() -> None:
    with serve(Programmatic()) as url:
        assert exchange(url, "GET", "/v1/models")[1]["data"][0]["id"] == MODEL
        assert exchange(url, "GET", f"/v1/models/{MODEL}/")[1]["id"] == MODEL
        assert exchange(url, "GET", "/v1/chat/completions")[0] == 405
        assert exchange(url, "DELETE", "/v1/batches/x")[0] == 405
        assert exchange(url, "GET", "/v2/nothing")[0] == 404
        assert exchange(url, "POST", "/v1/chat/completions")[0] == 400
        assert exchange(url, "POST", "/v1/chat/completions", ["a"])[0] == 400
        assert exchange(url, "POST", "/v1/files", {})[0] == 400


def test_garbage_instead_of_http_gets_a_400_and_the_server_lives_on() -> None:
    with serve(Programmatic()) as url:
        host, _, port = url.removeprefix("http://").removesuffix("/v1").partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as raw:
            raw.sendall(b"\x00\x01 this is no HTTP\r\n\r\n")
            assert raw.recv(1000).startswith(b"HTTP/1.1 400")
        assert exchange(url, "GET", "/v1/models")[0] == 200


def test_a_fault_of_the_server_is_told_and_the_connection_lives_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alpaca.teachers.programmatic.server.moderate", lambda body: 1 / 0)
    with serve(Programmatic()) as url:
        status, body = exchange(url, "POST", "/v1/moderations", {})
    assert (status, body["error"]["message"]) == (500, "ZeroDivisionError: division by zero")


def test_the_server_is_gone_afterwards_even_with_open_connections() -> None:
    with serve(Programmatic()) as url:
        connection = http.client.HTTPConnection(url.removeprefix("http://").removesuffix("/v1"), timeout=10)
        connection.request("GET", "/v1/models")
        connection.getresponse().read()
    with pytest.raises(OSError):
        exchange(url, "GET", "/v1/models")
    connection.close()


# --- the process


def test_the_stage_asks_a_process_of_its_own(tmp_path: Path) -> None:
    async def session() -> str:
        async with opened(Programmatic(error_rate=0.5), Session(work=tmp_path)) as teacher:
            request = RequestPlan(AlpacaDataGen()).request(0).request
            text = (await teacher.complete(request)).text
            assert text == asked(request, Style(error_rate=0.5)).text
        return text

    assert asyncio.run(session())


def test_the_process_ends_with_its_use() -> None:
    async def session() -> str:
        async with server_process({"latency": 0.0}) as url:
            assert exchange(url, "GET", "/v1/models")[0] == 200
        return url

    with pytest.raises(OSError):
        exchange(asyncio.run(session()), "GET", "/v1/models")


def test_a_killed_parent_leaves_no_orphan() -> None:
    code = (
        "import asyncio, time\n"
        "from alpaca.teachers.programmatic.process import server_process\n"
        "async def main():\n"
        "    async with server_process({}) as url:\n"
        "        print(url, flush=True)\n"
        "        time.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().strip()
        assert exchange(url, "GET", "/v1/models")[0] == 200
        parent.send_signal(signal.SIGKILL)
    until = time.monotonic() + 10
    while is_up(url):
        assert time.monotonic() < until, "the server outlives the process that started it"
        time.sleep(0.02)


def is_up(url: str) -> bool:
    try:
        return exchange(url, "GET", "/v1/models")[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def test_standing_alone_it_says_where_it_is_and_keeps_its_knobs() -> None:
    command = [sys.executable, "-m", "alpaca.teachers.programmatic", "--error-rate", "0.99", "--batch-seconds", "60"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().partition(" at ")[2].partition(" ")[0]
        with openai.OpenAI(api_key="x", base_url=url, max_retries=0) as api:
            assert api.batches.retrieve(sent(api, lines(1)).id).status == "in_progress"
    finally:
        process.terminate()
        assert process.wait(timeout=10) == 0


def test_the_server_needs_no_numerics() -> None:
    heavy = ("openai", "numpy", "torch", "aiohttp", "omegaconf")
    code = f"import sys, alpaca.teachers.programmatic.server; sys.exit(sum(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_default_families_are_those_that_were_measured() -> None:
    assert len(FAMILIES) == 10
    assert {family_of(task[0]) for task in long_list()} == set(FAMILIES)
