"""The ways of asking beside Alpaca's text form: JSON, machine-written seeds, self-instruct, re-answering, evolution."""

from __future__ import annotations

import http.server
import json
import random
import re
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from alpaca.artifacts import Context
from alpaca.config import (
    AlpacaDataGen,
    DataGen,
    EvolveDataGen,
    ReanswerDataGen,
    SampleConfig,
    SelfInstructDataGen,
    Spend,
    Teacher,
)
from alpaca.curation.filters import dropped_by
from alpaca.errors import TeacherError, UserError
from alpaca.records import SeedTask, read_jsonl
from alpaca.stages.sample import run
from alpaca.stages.sample.evolve import Evolution
from alpaca.stages.sample.plan import RequestPlan
from alpaca.stages.sample.seeds import load_seed_tasks
from alpaca.stages.sample.self_instruct import Instance, Pipeline, _input_first, _output_first, _usable
from alpaca.teachers.asking import at_desk
from alpaca.teachers.base import Completion, RefusedRequestError, Request
from alpaca.teachers.openai import OpenAI
from alpaca.teachers.programmatic import Programmatic
from alpaca.teachers.programmatic.completions import complete_chat
from alpaca.teachers.watch import Yield
from alpaca.teachers.wire import Endpoint, read_answer, request_body

PRICES = """
date: 2026-01-02
source: a price list
hosts: {127.0.0.1: {models: {m: {input: 1000, output: 1000}}}}
"""


def sample(folder: Path, data_gen: DataGen, teacher: Teacher | None = None, spend: Spend | None = None) -> Context:
    (folder / "work").mkdir(parents=True, exist_ok=True)
    context = Context(folder=folder, work=folder / "work", parents={})
    config = SampleConfig(data_gen=data_gen, teacher=teacher or Programmatic(), spend=spend or Spend())
    run(config, context)
    return context


def rows(path: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(path))


def payload(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.json*") if path.name in
            ("responses.jsonl", "pool.json", "candidates.jsonl")}  # fmt: skip


def text_of(options: AlpacaDataGen, index: int = 0) -> str:
    return RequestPlan(options).request(index).request.messages[0].content


@contextmanager
def chat_server(answer: Callable[[str], str]) -> Iterator[str]:
    """An OpenAI-like server whose answers are a function of the last message."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if "forbidden" in body["messages"][-1]["content"]:
                return self._send(400, {"error": {"message": "this prompt is not allowed", "code": "policy"}})
            message = {"role": "assistant", "content": answer(body["messages"][-1]["content"])}
            usage = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return self._send(200, {"id": "c", "object": "chat.completion", "created": 1, "model": body["model"],
                                    "choices": [choice], "usage": usage})  # fmt: skip

        def _send(self, status: int, answer: dict[str, Any]) -> None:
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: Any) -> None:
            return None

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


Answer = Callable[[Request], str]


def ask_all(folder: Path, flow: Any, answer: Answer) -> list[dict[str, Any]]:
    """Runs a flow of phases with a teacher that is a function; gives raw.jsonl, whatever ended the flow."""

    class Client:
        async def complete(self, request: Request) -> Completion:
            text = answer(request)
            return Completion(text=text, finish_reason="stop", model="m", prompt_tokens=10, completion_tokens=10)

    @asynccontextmanager
    async def opened(options: Any, session: Any) -> AsyncIterator[Client]:
        yield Client()

    (folder / "work").mkdir(parents=True, exist_ok=True)
    context = Context(folder=folder, work=folder / "work", parents={})
    at_desk(Teacher(kind="a function", in_flight=4), Spend(), context, flow, opened=opened)
    return rows(folder / "raw.jsonl")


def of_the_world(request: Request) -> str:
    """What the embedded teacher answers."""
    endpoint = Endpoint(base_url="http://127.0.0.1/v1", model="programmatic", key="none", timeout=5.0)
    return read_answer(complete_chat(request_body(request, endpoint), Programmatic()), request).text


def refuse(request: Request) -> str:
    raise RefusedRequestError(what="400: not this text", where="teacher")


# --- the knobs of the prompt


def test_the_wishes_stand_before_the_heading_of_the_list(tmp_path: Path) -> None:
    topics = tmp_path / "topics.txt"
    topics.write_text("gardening\n\nchess\n")
    text = text_of(AlpacaDataGen(input_share=0.4, language="German", topics=str(topics)))
    before, _, after = text.partition("List of 20 tasks:")
    assert "About 40 % of the tasks have an input." in before
    assert "Write in German." in before
    assert "Write in English" not in text
    assert ("Every task is about: gardening." in before) != ("Every task is about: chess." in before)
    assert after.startswith("\n###\n1. Instruction:")


def test_without_knobs_the_prompt_says_english_and_nothing_about_inputs() -> None:
    text = text_of(AlpacaDataGen())
    assert "Write in English." in text
    assert "% of the tasks" not in text
    assert "{" not in text.partition("List of")[0]


def test_a_prompt_of_the_users_own_gets_the_language_as_a_sentence(tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("Make tasks.\nList of {count} tasks:\n")
    assert "Write in French." in text_of(AlpacaDataGen(prompt=str(prompt), language="French"))
    assert "Write in" not in text_of(AlpacaDataGen(prompt=str(prompt)))


def test_topics_are_spread_and_fixed_by_the_request(tmp_path: Path) -> None:
    topics = tmp_path / "topics.txt"
    topics.write_text("\n".join(f"topic {n}" for n in range(5)))
    plan = RequestPlan(AlpacaDataGen(topics=str(topics)))
    drawn = [plan.request(index).about["topic"] for index in range(60)]
    assert len(set(drawn)) == 5
    assert drawn == [plan.request(index).about["topic"] for index in range(60)]


def test_the_share_of_inputs_is_heard(tmp_path: Path) -> None:
    shares = {}
    for share in (0.0, 0.5, 1.0):
        sample(tmp_path / str(share), AlpacaDataGen(num_examples=150, input_share=share))
        texts = [row["text"] for row in rows(tmp_path / str(share) / "responses.jsonl")]
        empty = sum(text.count("<noinput>") for text in texts)
        shares[share] = 1 - empty / sum(text.count(". Output:") for text in texts)
    assert shares[0.0] == 0.0
    assert 0.3 < shares[0.5] < 0.7
    assert shares[1.0] == 1.0


# --- JSON


def test_the_json_form_fills_the_pool_exactly(tmp_path: Path) -> None:
    sample(tmp_path, AlpacaDataGen(num_examples=100, form="json_schema"))
    found = rows(tmp_path / "responses.jsonl")
    assert json.loads((tmp_path / "pool.json").read_text())["kept"] == 100
    assert all(row["request"]["form"] == "json_schema" for row in found)
    assert len(json.loads(found[0]["text"])["tasks"]) == 17
    assert "schema" not in found[0]["request"]


# --- machine-written seeds


def machine(**changes: Any) -> AlpacaDataGen:
    given = {"num_examples": 400, "seeds_per_prompt": 8, "machine_share": 0.25, "machine_lag": 6}
    return AlpacaDataGen(**{**given, **changes})


def test_machine_written_tasks_are_shown_after_the_lag(tmp_path: Path) -> None:
    sample(tmp_path, machine())
    shown = [row["request"]["seeds"] for row in rows(tmp_path / "responses.jsonl")]
    counts = [sum(seed.startswith("request_") for seed in seeds) for seeds in shown]
    assert counts[:6] == [0] * 6
    assert set(counts[6:]) == {2}
    for number, seeds in enumerate(shown):
        assert all(int(seed.split("_")[1]) <= number - 6 for seed in seeds if seed.startswith("request_"))


def test_machine_written_seeds_do_not_depend_on_concurrency_or_a_second_start(tmp_path: Path) -> None:
    found = []
    for in_flight in (1, 3, 32):
        folder = tmp_path / str(in_flight)
        sample(folder, machine(), Programmatic(in_flight=in_flight, latency=0.002))
        found.append(payload(folder))
    assert found[0] == found[1] == found[2]
    raw = tmp_path / "3" / "raw.jsonl"
    raw.write_text("".join(raw.read_text().splitlines(keepends=True)[:9]))
    for name in found[0]:
        (tmp_path / "3" / name).unlink()
    sample(tmp_path / "3", machine())
    assert payload(tmp_path / "3") == found[0]


def test_machine_tasks_are_drawn_from_what_was_given() -> None:
    plan = RequestPlan(machine(machine_share=0.5))
    pool = [SeedTask(id=f"m{n}", name="", instruction=f"task {n}", input="", output="x", is_classification=False)
            for n in range(10)]  # fmt: skip
    assert sum(id.startswith("m") for id in plan.request(3, pool).about["seeds"]) == 4
    assert sum(id.startswith("m") for id in plan.request(3, pool[:1]).about["seeds"]) == 1


# --- nonsense and money


def test_a_teacher_that_answers_nonsense_is_given_up_early(tmp_path: Path) -> None:
    with chat_server(lambda text: "Sure! I'd love to help you with that.") as url:
        teacher = OpenAI(model="m", base_url=url, in_flight=4, preflight=False)
        with pytest.raises(UserError, match="not one task could be read") as caught:
            sample(tmp_path, AlpacaDataGen(num_examples=100_000), teacher)
    assert "love to help" in str(caught.value)
    assert 50 <= len(rows(tmp_path / "raw.jsonl")) <= 54


def test_a_bound_on_money_stops_cleanly_and_keeps_everything(tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text(PRICES)
    questions = _questions(tmp_path, 30)
    with chat_server(lambda text: f"The answer to {text}") as url:
        teacher = OpenAI(model="m", base_url=url, in_flight=4, preflight=False)
        options = ReanswerDataGen(path=str(questions), max_tokens=60)
        with pytest.raises(UserError, match=r"bound of \$2 is reached"):
            sample(tmp_path / "out", options, teacher, Spend(max_usd=2.0, prices=str(prices)))
        before = len(rows(tmp_path / "out" / "raw.jsonl"))
        assert 10 <= before <= 13  # 150 tokens at $0.001 each, and never one answer beyond the bound
        context = sample(tmp_path / "out", options, teacher, Spend(prices=str(prices)))
    assert context.cost["usd"] == pytest.approx(30 * 0.15)
    assert len(rows(tmp_path / "out" / "candidates.jsonl")) == 30


# --- re-answering


def _questions(folder: Path, count: int) -> Path:
    path = folder / "questions.jsonl"
    lines = [{"instruction": f"What is {n}?", "input": "see here" if n % 3 == 0 else "", "output": "old"}
             for n in range(count)]  # fmt: skip
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


def test_the_same_instructions_are_answered_anew(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    sample(pool, AlpacaDataGen(num_examples=40))
    tasks = [{"instruction": "Sort: bela mira cato", "input": "", "output": "x"},
             {"instruction": "Reverse: one two three", "input": "", "output": "x"}]  # fmt: skip
    path = tmp_path / "frozen.jsonl"
    path.write_text("\n".join(json.dumps(task) for task in tasks))
    good = sample(tmp_path / "good", ReanswerDataGen(path=str(path)))
    found = rows(tmp_path / "good" / "candidates.jsonl")
    assert [row["instruction"] for row in found] == [task["instruction"] for task in tasks]
    assert good.cost["requests"] == 2
    assert found[0]["provenance"]["source_index"] == 0


def test_inputs_are_asked_too_and_cut_answers_left_out(tmp_path: Path) -> None:
    asked = []

    def answer(text: str) -> str:
        asked.append(text)
        return "Fine."

    with chat_server(answer) as url:
        sample(tmp_path / "out", ReanswerDataGen(path=str(_questions(tmp_path, 4)), num_examples=3),
               OpenAI(model="m", base_url=url, preflight=False))  # fmt: skip
    assert sorted(asked) == ["What is 0?\n\nInput:\nsee here", "What is 1?", "What is 2?"]
    pool = json.loads((tmp_path / "out" / "pool.json").read_text())
    assert (pool["kept"], pool["requests"]) == (3, 3)


def test_a_few_refused_texts_do_not_end_a_run_and_many_do(tmp_path: Path) -> None:
    for name, forbidden in (("few", {7}), ("many", set(range(3, 30)))):
        path = tmp_path / f"{name}.jsonl"
        lines = [{"instruction": f"What is {n}? {'forbidden' if n in forbidden else ''}", "input": "", "output": ""}
                 for n in range(30)]  # fmt: skip
        path.write_text("\n".join(json.dumps(line) for line in lines))
    with chat_server(lambda text: "Fine.") as url:
        teacher = OpenAI(model="m", base_url=url, preflight=False, in_flight=2)
        sample(tmp_path / "a", ReanswerDataGen(path=str(tmp_path / "few.jsonl")), teacher)
        pool = json.loads((tmp_path / "a" / "pool.json").read_text())
        assert (pool["kept"], pool["dropped"]["cut_or_empty"]) == (29, 1)
        (reason,) = [row["reason"] for row in rows(tmp_path / "a" / "raw.jsonl") if "reason" in row]
        assert reason.endswith("not allowed")
        with pytest.raises(TeacherError, match="not allowed"):
            sample(tmp_path / "b", ReanswerDataGen(path=str(tmp_path / "many.jsonl")), teacher)


def test_more_answers_than_instructions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has 3 instructions"):
        sample(tmp_path / "out", ReanswerDataGen(path=str(_questions(tmp_path, 3)), num_examples=4))


# --- self-instruct


def test_self_instruct_runs_its_three_steps(tmp_path: Path) -> None:
    context = sample(tmp_path, SelfInstructDataGen(num_examples=60))
    found = rows(tmp_path / "candidates.jsonl")
    assert len(found) == 60
    assert len({row["id"] for row in found}) == 60
    stems = {row["id"].rpartition("_")[0] for row in rows(tmp_path / "raw.jsonl")}
    assert stems == {"request", "class", "instance"}
    assert {row["provenance"]["is_classification"] for row in found} == {True, False}
    assert context.cost["requests"] == json.loads((tmp_path / "pool.json").read_text())["requests"]


def test_self_instruct_does_not_depend_on_concurrency(tmp_path: Path) -> None:
    for in_flight in (1, 16):
        sample(tmp_path / str(in_flight), SelfInstructDataGen(num_examples=40), Programmatic(in_flight=in_flight))
    assert payload(tmp_path / "1") == payload(tmp_path / "16")


def test_instances_are_read_in_both_orders() -> None:
    text = "Example 1\nInput: a b\nOutput: b a\n\nExample 2\nOutput: alone\nwith two lines\nExample 3\nInput: cut"
    assert list(_input_first(text, cut=False)) == [
        Instance(input="a b", output="b a"), Instance(input="", output="alone\nwith two lines")]  # fmt: skip
    assert len(list(_input_first(text.replace("cut", "c\nOutput: d"), cut=True))) == 2
    text = "Class label: good\nInput: It works.\nClass label: bad\nInput: It\nbroke."
    assert list(_output_first(text, cut=False)) == [
        Instance(input="It works.", output="good"), Instance(input="It\nbroke.", output="bad")]  # fmt: skip


def test_a_label_must_be_called_one() -> None:
    prose = "Certainly, here is what you asked for:\nThe first example is a good one.\n\nAnd so is the second."
    assert list(_output_first(prose, cut=False)) == []
    assert list(_output_first("Positive", cut=False)) == []
    good = Instance(input="It works.", output="good")
    assert list(_output_first("good\nInput: It works.", cut=False)) == [good]
    text = "Here you are:\nClass label: good\nInput: It works."
    assert list(_output_first(text, cut=False)) == [good]
    assert list(_output_first(text, cut=True)) == []


def self_instruct(**changes: Any) -> Pipeline:
    return Pipeline(SelfInstructDataGen(**changes), load_seed_tasks(None))


def steps(pipeline: Pipeline) -> list[Request]:
    return [pipeline._classification(3, "Sort.").request, pipeline._filling(3, "Sort.", False).request]


def test_the_later_steps_are_greedy_and_can_be_told_otherwise() -> None:
    assert [(each.temperature, each.seed) for each in steps(self_instruct())] == [(0.0, None)] * 2
    assert [each.presence_penalty for each in steps(self_instruct())] == [0.0, 1.5]
    free = {"step_temperature": 1.0, "step_presence_penalty": 0.0}
    found = steps(self_instruct(**free))
    assert [(each.temperature, each.presence_penalty) for each in found] == [(1.0, 0.0)] * 2
    assert found == steps(self_instruct(**free))
    assert len({each.seed for each in [*found, *steps(self_instruct(**free, seed=1))]} - {None}) == 4


def takes_only_temperature_1(request: Request) -> str:
    if request.temperature != 1.0:
        raise RefusedRequestError(what="400: no", where="data_gen.temperature", remedy="change data_gen.temperature")
    return of_the_world(request)


def test_a_refused_temperature_of_a_later_step_names_its_own_key(tmp_path: Path) -> None:
    first = {"num_examples": 30, "temperature": 1.0, "top_p": 1.0, "presence_penalty": 0.0}
    with pytest.raises(TeacherError) as caught:
        ask_all(tmp_path / "greedy", self_instruct(**first).fill, takes_only_temperature_1)
    assert caught.value.where == "data_gen.step_temperature"
    pipeline = self_instruct(**first, step_temperature=1.0)
    ask_all(tmp_path / "free", pipeline.fill, takes_only_temperature_1)
    assert len(pipeline.examples) >= 30


def test_a_request_of_each_step_is_tried_before_anything_is_paid() -> None:
    found = [each.request.temperature for each in self_instruct(step_temperature=0.5).later()]
    assert found == [0.5, 0.5]
    assert [each.keys["temperature"] for each in self_instruct().later()] == ["data_gen.step_temperature"] * 2


def junk_after(good: int) -> Answer:
    """A teacher whose requests for instances are of use only the first so many times."""
    asked = iter(range(10**6))

    def answer(request: Request) -> str:
        if not request.id.startswith("instance"):
            return of_the_world(request)
        number = next(asked)
        assert number < good + 500, "asked without end"
        return of_the_world(request) if number < good else "Certainly, here is what you asked for:"

    return answer


def instance_requests(folder: Path) -> int:
    return Counter(row["id"].partition("_")[0] for row in rows(folder / "raw.jsonl"))["instance"]


def test_instances_that_are_of_no_use_end_self_instruct_early(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"first 50 requests for instances .*\(no instance 50\).*Certainly") as caught:
        ask_all(tmp_path, self_instruct(num_examples=2_000).fill, junk_after(0))
    assert caught.value.where == "teacher"
    assert 50 <= instance_requests(tmp_path) <= 54


def test_instances_that_are_of_use_no_more_end_self_instruct(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="last 60 requests for instances brought") as caught:
        ask_all(tmp_path, self_instruct(num_examples=2_000, stall_requests=60).fill, junk_after(30))
    assert "examples are kept so far" in caught.value.what
    assert 88 <= instance_requests(tmp_path) <= 94


def test_an_instruction_whose_kind_is_refused_is_left_out(tmp_path: Path) -> None:
    pipeline = self_instruct(num_examples=60)
    ask_all(tmp_path, pipeline.fill, lambda each: refuse(each) if each.id == "class_000005" else of_the_world(each))
    assert pipeline.dropped["no classification"] == 1
    assert 5 not in {example.provenance["instruction"] for example in pipeline.examples}
    assert pipeline.requests == len(rows(tmp_path / "raw.jsonl"))


def test_refused_instances_are_counted_as_none(tmp_path: Path) -> None:
    pipeline = self_instruct(num_examples=60)
    ask_all(tmp_path, pipeline.fill, lambda each: refuse(each) if each.id == "instance_000005" else of_the_world(each))
    assert pipeline.dropped["no instance"] == 1


def test_a_yield_says_when_it_is_hopeless() -> None:
    rules = SelfInstructDataGen(nonsense_requests=3, stall_requests=5, stall_keep_rate=0.5)

    def told(brought: list[int]) -> str:
        found = Yield(rules, "answers", "instance")
        for count in brought:
            found.add(count, "so")
        try:
            found.check(7, Counter(cut=2))
        except UserError as error:
            return error.where
        return ""

    assert told([0, 0]) == ""
    assert told([0, 0, 0]) == "teacher"
    assert told([1, 0, 0, 0]) == ""
    assert told([0, 0, 1, 0, 0]) == told([9, 0, 0, 1, 1, 0]) == "data_gen.num_examples"
    assert told([0, 0, 0, 0, 0, 3, 0]) == ""


def test_instances_that_self_instruct_drops() -> None:
    good = Instance(input="a", output="b")
    bad = [Instance(input="c", output="c"), Instance(input="d", output=""), Instance(input="e", output="f:")]
    assert _usable([good, *bad, good]) == [good]
    assert _usable([good, Instance(input="a", output="other")]) == []


# --- evolution


def test_evolution_goes_in_rounds_and_fills_exactly(tmp_path: Path) -> None:
    pool = tmp_path / "base.jsonl"
    tasks = [{"instruction": text, "input": "", "output": ""} for text in ("Sort: bela mira", "Reverse: cato dume")]
    pool.write_text("\n".join(json.dumps(task) for task in tasks))
    with chat_server(_evolver) as url:
        teacher = OpenAI(model="m", base_url=url, preflight=False)
        sample(tmp_path / "out", EvolveDataGen(path=str(pool), num_examples=7, rounds=2), teacher)
    found = rows(tmp_path / "out" / "candidates.jsonl")
    assert len(found) == 7
    assert [row["provenance"]["depth"] for row in found][:4] == [1, 1, 2, 2]
    assert {row["provenance"]["base"] for row in found} == {0, 1}
    assert len({row["instruction"] for row in found}) == 7


_made = iter(range(1000))


def _evolver(text: str) -> str:
    given = text.partition("#Given Prompt#:\n")[2].partition("\n\n#")[0]
    return f"{given} and more ({next(_made)})" if given else "An answer."


@pytest.mark.parametrize(
    ("rewriting", "reason"),
    [("{given}", "unchanged"), ("A #Rewritten Prompt# of it", "repeats the request"), ("...", "empty")],
)
def test_rewritings_that_bring_nothing_end_the_stage(tmp_path: Path, rewriting: str, reason: str) -> None:
    def answer(text: str) -> str:
        return rewriting.format(given=text.partition("#Given Prompt#:\n")[2].partition("\n\n#")[0])

    with chat_server(answer) as url, pytest.raises(UserError, match=f"first 50 rewritings brought no .*{reason}"):
        sample(tmp_path, EvolveDataGen(num_examples=20), OpenAI(model="m", base_url=url, preflight=False))


def evolution(count: int, bases: int = 175, **changes: Any) -> Evolution:
    return Evolution(EvolveDataGen(num_examples=count, **changes), [f"Task number {n}." for n in range(bases)])


def rewriter(usable: float, seed: int = 0) -> Answer:
    """A teacher whose rewritings are all new, and of whose answers so many are no apologies."""

    def answer(request: Request) -> str:
        assert int(request.id.split("_")[1]) < 10, "asked without end"
        rng = random.Random(f"{seed} {request.id}")
        if request.id.startswith("evolve"):
            return f"A new task, number {rng.random()}"
        return "A fine answer." if rng.random() < usable else "Sorry, I cannot do that."

    return answer


@pytest.mark.parametrize("seed", range(4))
def test_a_mediocre_teacher_fills_the_last_places_too(tmp_path: Path, seed: int) -> None:
    found = evolution(60)
    ask_all(tmp_path, found.fill, rewriter(0.3, seed))
    assert len(found.examples) >= 60
    assert found.requests == len(rows(tmp_path / "raw.jsonl"))


def test_a_teacher_whose_answers_are_nearly_all_apologies_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"last 200 rewritings brought \d+ usable example .*answer \d+"):
        ask_all(tmp_path, evolution(400, nonsense_requests=10_000).fill, rewriter(0.01))
    with pytest.raises(UserError, match=r"first \d+ rewritings brought no usable example .*Sorry, I cannot"):
        ask_all(tmp_path / "none", evolution(400).fill, rewriter(0.0))


def test_further_waves_go_on_with_the_next_instructions_and_then_begin_again(tmp_path: Path) -> None:
    found = evolution(40, bases=12)
    ask_all(tmp_path, found.fill, rewriter(0.5))
    ids = [example.id for example in found.examples]
    assert len(set(ids)) == len(ids)
    assert {example.provenance["base"] for example in found.examples} == set(range(12))
    assert {id.split("_")[1] for id in ids} >= {"0000", "0001"}
    assert len({row["request_sha256"] for row in rows(tmp_path / "raw.jsonl")}) == found.requests


def test_a_larger_pool_begins_with_the_requests_of_a_smaller_one(tmp_path: Path) -> None:
    paid = {}
    for count in (40, 80):
        found = ask_all(tmp_path / str(count), evolution(count).fill, rewriter(0.6))
        paid[count] = {row["request_sha256"] for row in found}
    assert paid[40] < paid[80]


def test_a_refused_rewriting_is_eliminated_and_a_refused_answer_no_example(tmp_path: Path) -> None:
    found = evolution(60)
    refused = re.compile("evolve_0000_000003_000|answer_0000_000004_000")
    ask_all(tmp_path, found.fill, lambda each: refuse(each) if refused.match(each.id) else rewriter(1.0)(each))
    assert found.dropped == {"rewriting empty or cut": 1, "answer": 1}
    assert not {"answer_0000_000003_000", "answer_0000_000004_000"} & {example.id for example in found.examples}


def test_evolution_in_the_embedded_world(tmp_path: Path) -> None:
    for in_flight in (1, 8):
        sample(tmp_path / str(in_flight), EvolveDataGen(num_examples=30), Programmatic(in_flight=in_flight))
    assert payload(tmp_path / "1") == payload(tmp_path / "8")
    assert not any(dropped_by(_task(row)) == "punctuation" for row in rows(tmp_path / "1" / "candidates.jsonl"))


def _task(row: dict[str, Any]) -> SeedTask:
    return SeedTask(id=row["id"], name="", instruction=row["instruction"], input="", output=row["output"],
                    is_classification=False)  # fmt: skip
