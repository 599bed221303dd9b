from __future__ import annotations

import functools
import hashlib
import http.server
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from alpaca.artifacts import Context
from alpaca.config import AlpacaDataGen, ReleasedDataGen, SampleConfig, Spend, Teacher
from alpaca.curation.dedup import RougeIndex
from alpaca.curation.filters import dropped_by
from alpaca.curation.parsing import continuation, parse_completion
from alpaca.errors import ArtifactError, TeacherError, UserError
from alpaca.records import read_jsonl
from alpaca.runtime.download import CACHE_VARIABLE, cached_path, fetch
from alpaca.stages.sample import run
from alpaca.stages.sample.judge import Judge
from alpaca.stages.sample.plan import RequestPlan, encode_prompt
from alpaca.stages.sample.seeds import load_prompt, load_seed_tasks
from alpaca.teachers import openai
from alpaca.teachers.programmatic import MODEL, Programmatic
from alpaca.teachers.queue import Policy
from tests.unit.fault_server import HEALING, faulty

ROOT = Path(__file__).resolve().parents[2]
PAYLOAD = ("responses.jsonl", "pool.json")
# What a teacher honours is found out in test_preflight.py; here every request counts.
OpenAI = functools.partial(openai.OpenAI, preflight=False)


def options(**changes: Any) -> AlpacaDataGen:
    return AlpacaDataGen(**{"num_examples": 120, "max_tokens": 2000, "stall_requests": 30, **changes})


def sample(
    folder: Path, teacher: Teacher | None = None, *, spend: int | Spend | None = None, **changes: Any
) -> Context:
    """Runs the stage in this folder as often as it is called."""
    (folder / "work").mkdir(parents=True, exist_ok=True)
    context = Context(folder=folder, work=folder / "work", parents={})
    teacher = teacher or Programmatic(timeout=20.0)
    bounds = spend if isinstance(spend, Spend) else Spend(max_tokens=spend)
    run(SampleConfig(data_gen=options(**changes), teacher=teacher, spend=bounds), context)
    return context


def payload(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in PAYLOAD}


def rows(path: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(path))


def freeze(folder: Path, *, version: int = 1, **identity: Any) -> None:
    """The part of stage.json that adoption looks at."""
    folder.mkdir(parents=True, exist_ok=True)
    data_gen = {"kind": "alpaca", "num_examples": 120, "seed": 0, **identity}
    stage = {"version": version, "identity": {"data_gen": data_gen, "teacher": {"kind": MODEL}}}
    (folder / "stage.json").write_text(json.dumps(stage))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first retry comes after milliseconds."""

    monkeypatch.setattr(
        Policy,
        "of",
        lambda teacher: Policy(
            in_flight=teacher.in_flight,
            max_attempts=teacher.max_attempts,
            timeout=teacher.timeout,
            first_delay=0.005,
            drain=1.0,
        ),
    )


# --- the plan


def test_a_request_is_a_function_of_its_number() -> None:
    first, again, other = (
        [RequestPlan(options(**changes)).request(index) for index in range(20)]
        for changes in ({}, {"num_examples": 9}, {"seed": 1})
    )
    assert [each.digest for each in first] == [each.digest for each in again]
    assert len({each.digest for each in [*first, *other]}) == 40
    assert first[7].request.id == "request_000007"
    assert len(set(first[7].about["seeds"])) == 3


def test_prompt_layout_is_the_released_one() -> None:
    shown = load_seed_tasks(None)[:2]
    shown[0].instruction, shown[0].input, shown[0].output = " Do\n this  now: ", "", "Done."
    shown[1].instruction, shown[1].input, shown[1].output = "Why?", "a\nb", "So."
    assert encode_prompt("List of 9 tasks:\n\n", shown) == (
        "List of 9 tasks:\n"
        "###\n1. Instruction: Do this now\n1. Input:\n<noinput>\n1. Output:\nDone.\n"
        "###\n2. Instruction: Why?\n2. Input:\na\nb\n2. Output:\nSo.\n"
        "###\n3. Instruction:"
    )


def test_the_count_is_filled_in() -> None:
    text = RequestPlan(options(tasks_per_request=11)).request(0).request.messages[0].content
    assert "{count}" not in text
    assert "List of 11 tasks:" in text
    assert text.endswith("###\n4. Instruction:")


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"seeds_per_prompt": 200, "tasks_per_request": 300}, "only 175"), ({"seeds_per_prompt": 20}, "leave none")],
)
def test_impossible_lengths_are_refused(changes: dict[str, int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        RequestPlan(options(**changes))


def test_all_broken_seed_tasks_are_named(tmp_path: Path) -> None:
    path = tmp_path / "seeds.jsonl"
    good = json.dumps({"instruction": "Say it.", "instances": [{"input": "", "output": "\u2028"}]}, ensure_ascii=False)
    path.write_text(f'{good}\n{{"instruction": 3, "instances": []}}\n\nnonsense\n[]\n', encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_seed_tasks(path)
    text = str(caught.value)
    assert all(
        words in text for words in ('line 2: "instruction" is 3', 'line 2: "instances"', "line 4: not JSON", "line 5")
    )
    assert "line 1" not in text
    path.write_text(good, encoding="utf-8")
    assert [task.id for task in load_seed_tasks(path)] == ["line_1"]


def test_seed_tasks_of_one_id_and_halves_of_surrogate_pairs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "seeds.jsonl"
    task = {"id": "a", "instruction": "Say it.", "instances": [{"input": "", "output": "x"}]}
    half = {**task, "id": "b", "instances": [{"input": "\ud83d", "output": "x"}]}
    path.write_text("\n".join(json.dumps(each) for each in (task, task, half)))
    with pytest.raises(UserError) as caught:
        load_seed_tasks(path)
    text = str(caught.value)
    assert "line 2: \"id\" is 'a', as on line 1" in text
    assert 'line 3: "instances"[0]["input"]' in text
    assert text.encode()


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_empty_seeds_and_prompts_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "empty"
    path.write_text(content)
    for load, key in ((load_seed_tasks, "data_gen.seeds"), (load_prompt, "data_gen.prompt")):
        with pytest.raises(UserError, match=key):
            load(path)
        with pytest.raises(UserError, match="cannot read"):
            load(tmp_path / "nowhere")


# --- the judge


def test_judge_counts_each_task_for_its_first_rule() -> None:
    tasks = [
        ("Name three rivers of Europe", "Rhine, Loire, Po"),
        ("Too short", "x"),
        ("Draw a cat in a hat", "x"),
        ("Name three rivers of Europe now", "again"),
        ("Explain why the sky is blue", "Scattering."),
        ("Explain how to bake bread", "beyond the list"),
    ]
    blocks = [
        f"{n}. Instruction: {i}\n{n}. Input:\n<noinput>\n{n}. Output:\n{o}\n" for n, (i, o) in enumerate(tasks, 4)
    ]
    text = "###\n".join(blocks).removeprefix("4. Instruction:")
    judge = Judge(["List four kinds of cheese"], "text", 100)
    candidates, kept = judge.judge(text, "stop", first_number=4, last_number=8)
    assert (candidates, len(kept)) == (6, 2)
    dropped = {name: count for name, count in judge.summary()["dropped"].items() if count}
    assert dropped == {"length": 1, "keywords": 1, "duplicate": 1, "beyond_list": 1}


def test_judge_knows_the_seed_tasks() -> None:
    text = " List four kinds of cheese\n4. Input:\n<noinput>\n4. Output:\nBrie"
    for seeds, reason, kept in ((["List four kinds of cheese"], "stop", 0), ([], "stop", 1), ([], "length", 0)):
        assert len(Judge(seeds, "text", 9).judge(text, reason, first_number=4, last_number=20)[1]) == kept


@pytest.mark.parametrize("said", ["", "4. Instruction:", "\n###\n4. Instruction:", "### 4. Instruction:"])
def test_a_restated_heading_does_not_cost_the_answer(said: str) -> None:
    assert continuation(f"{said} Do it. 5. Instruction:", 4) == " Do it. 5. Instruction:"


# --- the loop


def test_the_pool_is_the_smallest_prefix_that_fills_it(tmp_path: Path) -> None:
    with faulty(lambda seed, attempt: "repeated" if seed % 2 else None) as server:
        context = sample(tmp_path, OpenAI(model=MODEL, base_url=server.base_url, in_flight=4))
    index, kept = RougeIndex(), []
    for task in load_seed_tasks(None):
        index.add(task.instruction)
    for row in rows(tmp_path / "responses.jsonl"):
        parsed = parse_completion(row["text"], first_number=4, finish_reason=row["finish_reason"])
        wanted = [task for task in parsed.tasks if task.number <= row["request"]["last_number"]]
        kept.append(sum(not dropped_by(task) and index.offer(task.instruction) is None for task in wanted))
    assert sum(kept) == 120
    assert kept[-1] > 0
    pool = json.loads((tmp_path / "pool.json").read_text())
    assert pool["kept"] == sum(kept)
    assert pool["requests"] == len(kept)
    surplus = pool["dropped"].pop("beyond_list")
    assert pool["candidates"] - pool["kept"] == sum(pool["dropped"].values()) > 0
    assert surplus < 17
    raw = rows(tmp_path / "raw.jsonl")
    assert context.cost["requests"] == len(raw)
    assert context.cost["completion_tokens"] == sum(row["completion_tokens"] for row in raw)
    assert json.loads((tmp_path / "progress.json").read_text())["done"] >= 120


def test_rows_hold_all_that_was_asked(tmp_path: Path) -> None:
    sample(tmp_path, num_examples=10)
    (row,) = rows(tmp_path / "responses.jsonl")
    plan = RequestPlan(options()).request(0)
    assert row["id"] == "request_000000"
    assert row["model"] == MODEL
    assert row["finish_reason"] == "stop"
    assert row["request"]["messages"] == [{"role": "user", "content": plan.request.messages[0].content}]
    assert row["request"]["seeds"] == plan.about["seeds"]
    assert 13 <= row["request"]["last_number"] < 20
    assert set(row) == {"id", "request", "text", "finish_reason", "model", "prompt_tokens", "completion_tokens"}


def test_concurrency_does_not_change_a_byte_and_surplus_stays_small(tmp_path: Path) -> None:
    found = []
    for in_flight in (1, 4, 16):
        folder = tmp_path / str(in_flight)
        sample(folder, teacher=Programmatic(in_flight=in_flight, latency=0.002), num_examples=300)
        found.append(payload(folder))
        assert len(rows(folder / "raw.jsonl")) <= len(rows(folder / "responses.jsonl")) + 2
    assert found[0] == found[1] == found[2]


@pytest.mark.usefixtures("quick")
def test_faults_lose_and_double_nothing(tmp_path: Path) -> None:
    def fault(seed: int, attempt: int) -> str | None:
        return HEALING[seed % len(HEALING)] if attempt == 1 and seed % 3 else None

    with faulty(fault) as server:
        teacher = OpenAI(model=MODEL, base_url=server.base_url, timeout=1.0, in_flight=8)
        context = sample(tmp_path / "faulty", teacher)
    sample(tmp_path / "clean")
    assert payload(tmp_path / "faulty") == payload(tmp_path / "clean")
    found = rows(tmp_path / "faulty" / "raw.jsonl")
    asked = [row["id"] for row in found]
    assert len(asked) == len(set(asked))
    assert context.cost["retries"] > 0
    attempts = {RequestPlan(options()).request(int(row["id"][-6:])).request.seed: row["attempts"] for row in found}
    assert all(server.tries[seed or 0] <= count for seed, count in attempts.items())


def test_a_chat_model_that_repeats_the_heading_loses_nothing(tmp_path: Path) -> None:
    with faulty(lambda seed, attempt: "restated") as server:
        sample(tmp_path / "chat", OpenAI(model=MODEL, base_url=server.base_url))
    sample(tmp_path / "plain")
    found, plain = (
        [{**row, "text": continuation(row["text"], 4)} for row in rows(tmp_path / name / "responses.jsonl")]
        for name in ("chat", "plain")
    )
    assert found == plain
    assert (tmp_path / "chat" / "pool.json").read_bytes() == (tmp_path / "plain" / "pool.json").read_bytes()
    assert rows(tmp_path / "chat" / "raw.jsonl")[0]["text"].startswith("###")


def test_hopeless_errors_keep_what_was_answered(tmp_path: Path) -> None:
    good = [RequestPlan(options()).request(index).request.seed for index in range(3)]
    with faulty(lambda seed, attempt: None if seed in good else "quota") as server:
        teacher = OpenAI(model=MODEL, base_url=server.base_url, in_flight=2)
        with pytest.raises(TeacherError, match="add credit"):
            sample(tmp_path, teacher)
    kept = len(rows(tmp_path / "raw.jsonl"))
    assert 1 <= kept <= 3
    assert not (tmp_path / "responses.jsonl").exists()
    with faulty() as server:
        sample(tmp_path, OpenAI(model=MODEL, base_url=server.base_url))
    assert len(server.tries) == len(rows(tmp_path / "raw.jsonl")) - kept
    sample(tmp_path / "whole")
    assert payload(tmp_path) == payload(tmp_path / "whole")


def test_a_torn_line_is_cut_and_asked_again(tmp_path: Path) -> None:
    sample(tmp_path)
    before, raw = payload(tmp_path), tmp_path / "raw.jsonl"
    whole = raw.read_bytes()
    raw.write_bytes(whole[: whole.rfind(b"\n", 0, -1) + 50])
    for name in PAYLOAD:
        (tmp_path / name).unlink()
    sample(tmp_path)
    assert payload(tmp_path) == before
    assert len(rows(raw)) == whole.count(b"\n")


def test_a_finished_pool_asks_nothing_again(tmp_path: Path) -> None:
    sample(tmp_path)
    before = (tmp_path / "raw.jsonl").read_bytes(), payload(tmp_path)
    with faulty(lambda seed, attempt: "unauthorised") as server:
        sample(tmp_path, OpenAI(model=MODEL, base_url=server.base_url))
    assert not server.tries
    assert before == ((tmp_path / "raw.jsonl").read_bytes(), payload(tmp_path))


def test_answers_to_another_text_are_refused(tmp_path: Path) -> None:
    sample(tmp_path)
    with pytest.raises(ArtifactError, match="asked with another text"):
        sample(tmp_path, seed=1)


# A shell that starts something in the background has it ignore SIGINT, and what it starts inherits that.
KILLED = """
import signal
import sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
from tests.unit.test_sample import OpenAI, sample
sample(Path(sys.argv[1]), OpenAI(model="programmatic", base_url=sys.argv[2], in_flight=4), num_examples=300)
"""


POLITE = [pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGTERM, signal.SIGINT)]


@pytest.mark.parametrize("number", [signal.SIGKILL, *POLITE])
def test_a_killed_process_goes_on_where_it_was(tmp_path: Path, number: signal.Signals) -> None:
    raw = tmp_path / "killed" / "raw.jsonl"

    told = threading.Event()

    def slow(seed: int, attempt: int) -> None:
        # The process cannot finish before it was told to stop: the server holds back what follows.
        if len(server.tries) > 8:
            told.wait(20)

    with faulty(slow) as server:
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(raw.parent), server.base_url], cwd=ROOT,
                                   stderr=subprocess.DEVNULL)  # fmt: skip
        while process.poll() is None and (not raw.exists() or raw.read_bytes().count(b"\n") < 6):
            time.sleep(0.005)
        process.send_signal(number)
        time.sleep(0.1)
        told.set()
        assert process.wait(timeout=20) != 0
    answered = {row["id"] for row in rows_of_torn(raw)}
    assert 6 <= len(answered) < 20
    assert not (raw.parent / "responses.jsonl").exists()
    with faulty() as second:
        sample(raw.parent, OpenAI(model=MODEL, base_url=second.base_url), num_examples=300)
    asked = {row["id"] for row in rows(raw)} - answered
    assert len(second.tries) == len(asked)
    assert set(second.tries.values()) == {1}
    sample(tmp_path / "whole", num_examples=300)
    assert payload(raw.parent) == payload(tmp_path / "whole")


def rows_of_torn(path: Path) -> list[dict[str, Any]]:
    content = path.read_bytes()
    return [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]


def test_a_lost_claim_stops_the_stage_before_it_writes(tmp_path: Path) -> None:
    def lost() -> None:
        raise ArtifactError(what="claim lost")

    context = Context(folder=tmp_path, work=tmp_path, parents={}, check=lost)
    with pytest.raises(ArtifactError, match="claim lost"):
        run(SampleConfig(data_gen=options(), teacher=Programmatic()), context)
    assert not rows(tmp_path / "raw.jsonl")


# --- refused requests


def refusing(*numbers: int) -> Any:
    """A server that takes none of these requests; `told` counts them."""
    bad = {RequestPlan(options()).request(number).request.seed for number in numbers}
    return faulty(lambda seed, attempt: "bad_request" if seed in bad else None)


def test_a_refused_request_costs_its_tasks_and_nothing_else(tmp_path: Path) -> None:
    found = []
    for in_flight in (1, 16):
        with refusing(3, 11) as server:
            teacher = OpenAI(model=MODEL, base_url=server.base_url, in_flight=in_flight)
            context = sample(tmp_path / str(in_flight), teacher, num_examples=500)
        found.append(payload(tmp_path / str(in_flight)))
        assert context.cost["refused_requests"] == 2
        assert json.loads(found[-1]["pool.json"])["kept"] == 500
        ids = [row["id"] for row in rows(tmp_path / str(in_flight) / "responses.jsonl")]
        assert "request_000003" not in ids
        assert "request_000012" in ids
    assert found[0] == found[1]


def test_refusals_of_a_wrong_configuration_leave_no_trace(tmp_path: Path) -> None:
    with faulty(lambda seed, attempt: "bad_request") as server:
        for _ in range(3):
            with pytest.raises(TeacherError, match="temperature must be 1"):
                sample(tmp_path, OpenAI(model=MODEL, base_url=server.base_url, in_flight=4))
    assert not rows(tmp_path / "raw.jsonl")
    sample(tmp_path)
    sample(tmp_path / "clean")
    assert payload(tmp_path) == payload(tmp_path / "clean")


def test_too_many_refusals_end_the_stage(tmp_path: Path) -> None:
    with refusing(*range(0, 40, 4)) as server, pytest.raises(TeacherError, match="temperature must be 1"):
        sample(tmp_path, OpenAI(model=MODEL, base_url=server.base_url, in_flight=1), num_examples=500)


def test_the_projection_stands_beside_the_final_cost(tmp_path: Path) -> None:
    context = sample(tmp_path, num_examples=2000)
    final = context.cost["prompt_tokens"] + context.cost["completion_tokens"]
    assert abs(context.cost["projected_tokens"] / final - 1) < 0.1


# --- stall and spend


def test_a_teacher_that_repeats_itself_is_stopped(tmp_path: Path) -> None:
    with faulty(lambda seed, attempt: "repeated") as server:
        teacher = OpenAI(model=MODEL, base_url=server.base_url, in_flight=4)
        with pytest.raises(UserError, match="repeats itself") as caught:
            sample(tmp_path, teacher, num_examples=5000, stall_requests=5)
        text, asked = str(caught.value), len(server.tries)
        assert "data_gen.seeds" in text
        assert "85 tasks of which 0 were kept" in text
        assert "of 5,000 examples are kept so far" in text
        assert asked < 20
        with pytest.raises(UserError) as again:
            sample(tmp_path, teacher, num_examples=5000, stall_requests=5)
    assert str(again.value) == text
    assert len(server.tries) == asked


def test_unreadable_answers_count_as_a_stall(tmp_path: Path) -> None:
    # Every task is cut by the limit, so there are no candidates at all.
    with pytest.raises(UserError, match="brought 0 tasks"):
        sample(tmp_path, max_tokens=5, stall_requests=3)


def test_the_token_bound_stops_before_it_is_exceeded_and_a_higher_one_goes_on(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="bound of 6,000 tokens is reached") as caught:
        sample(tmp_path, spend=6000, max_tokens=800)
    used = sum(row["prompt_tokens"] + row["completion_tokens"] for row in rows(tmp_path / "raw.jsonl"))
    assert 3000 < used <= 6000
    assert f"{used:,} are used" in str(caught.value)
    kept = len(rows(tmp_path / "raw.jsonl"))
    context = sample(tmp_path, spend=100_000, max_tokens=800)
    sample(tmp_path / "whole", max_tokens=800)
    assert payload(tmp_path) == payload(tmp_path / "whole")
    assert context.cost["requests"] == len(rows(tmp_path / "raw.jsonl")) > kept


def empty_but_billed(seed: int, attempt: int) -> str | None:
    return "empty" if attempt <= 2 else None


@pytest.mark.usefixtures("quick")
def test_failed_tries_that_are_billed_count(tmp_path: Path) -> None:
    with faulty(empty_but_billed) as server:
        context = sample(tmp_path, OpenAI(model=MODEL, base_url=server.base_url, in_flight=2))
    answered, failed = rows(tmp_path / "raw.jsonl"), rows(tmp_path / "failed.jsonl")
    assert len(failed) == 2 * len(answered) == context.cost["failed_paid_tries"]
    for name in ("prompt_tokens", "completion_tokens"):
        assert context.cost[name] == 3 * sum(row[name] for row in answered)
    sample(tmp_path / "clean")
    assert payload(tmp_path) == payload(tmp_path / "clean")
    assert not (tmp_path / "clean" / "failed.jsonl").exists()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("fault", ["empty", "cut_json"])
def test_the_token_bound_holds_when_billed_tries_fail(tmp_path: Path, fault: str) -> None:
    def used() -> int:
        paid = rows(tmp_path / "raw.jsonl") + rows(tmp_path / "failed.jsonl")
        return sum(row["prompt_tokens"] + row["completion_tokens"] for row in paid)

    with faulty(lambda seed, attempt: fault if seed % 2 and attempt <= 3 else None) as server:
        teacher = OpenAI(model=MODEL, base_url=server.base_url, in_flight=4)
        for bound in (6000, 12_000):  # the second start knows what the first one spent
            with pytest.raises(UserError, match="is reached"):
                sample(tmp_path, teacher, spend=bound, max_tokens=800)
            assert bound / 3 < used() <= bound
        sample(tmp_path, teacher, spend=1_000_000, max_tokens=800)
    sample(tmp_path / "clean", max_tokens=800)
    assert payload(tmp_path) == payload(tmp_path / "clean")


def test_a_bound_below_one_request_sends_nothing(tmp_path: Path) -> None:
    with faulty() as server, pytest.raises(UserError, match="0 are used"):
        sample(tmp_path, OpenAI(model=MODEL, base_url=server.base_url), spend=100)
    assert not server.tries


# --- adoption


def test_a_larger_pool_adopts_the_answers_of_a_smaller_one(tmp_path: Path) -> None:
    small, large = tmp_path / "pool-1", tmp_path / "pool-2"
    freeze(small)
    sample(small)
    freeze(large, num_examples=300)
    with faulty() as server:
        context = sample(large, OpenAI(model=MODEL, base_url=server.base_url), num_examples=300)
    raw = rows(large / "raw.jsonl")
    adopted = [row["id"] for row in raw if row.get("adopted")]
    assert adopted == [row["id"] for row in rows(small / "responses.jsonl")]
    assert len(server.tries) == len(raw) - len(adopted) == context.cost["requests"]
    assert context.cost["adopted_requests"] == len(adopted)
    sample(tmp_path / "alone", num_examples=300)
    assert payload(large) == payload(tmp_path / "alone")


def test_a_smaller_pool_copies_only_what_it_needs_even_from_a_torn_sibling(tmp_path: Path) -> None:
    large, small = tmp_path / "pool-1", tmp_path / "pool-2"
    freeze(large, num_examples=300)
    sample(large, num_examples=300)
    content = (large / "raw.jsonl").read_bytes()
    (large / "raw.jsonl").write_bytes(content + b'not json\n{"id": "request_0000')
    freeze(small)
    with faulty() as server:
        sample(small, OpenAI(model=MODEL, base_url=server.base_url))
    assert not server.tries
    assert len(rows(small / "raw.jsonl")) == len(rows(small / "responses.jsonl"))
    assert (large / "raw.jsonl").read_bytes().startswith(content)


@pytest.mark.parametrize("identity", [{"seed": 1}, {"kind": "other"}])
def test_another_identity_is_not_adopted(tmp_path: Path, identity: dict[str, Any]) -> None:
    freeze(tmp_path / "a", **identity)
    sample(tmp_path / "a")
    freeze(tmp_path / "b")
    assert sample(tmp_path / "b").cost["adopted_requests"] == 0


def test_answers_of_another_version_of_the_stage_are_not_adopted(tmp_path: Path) -> None:
    freeze(tmp_path / "a", version=1)
    sample(tmp_path / "a")
    freeze(tmp_path / "b", version=2)
    assert sample(tmp_path / "b").cost["adopted_requests"] == 0


# --- released data


RECORDS = [
    {"instruction": f"Do task {n}", "input": "x" if n % 2 else "", "output": f"Näher {n}\u2028."} for n in range(3)
]


def released(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    context = Context(folder=folder, work=folder, parents={})
    run(SampleConfig(data_gen=ReleasedDataGen(**changes)), context)
    return folder


@pytest.mark.parametrize("form", ["array", "lines"])
def test_released_examples_in_both_forms(tmp_path: Path, form: str) -> None:
    path = tmp_path / "data"
    lines = "\n".join(json.dumps(record, ensure_ascii=False) for record in RECORDS)
    path.write_text(json.dumps(RECORDS, indent=4) if form == "array" else lines + "\n", encoding="utf-8")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    folder = released(tmp_path / "out", path=str(path))
    found = rows(folder / "examples.jsonl")
    assert [{name: row[name] for name in RECORDS[0]} for row in found] == RECORDS
    assert [row["id"] for row in found] == ["released_000000", "released_000001", "released_000002"]
    assert found[2]["provenance"] == {"source": f"sha256:{digest[:12]}", "index": 2}
    assert json.loads((folder / "pool.json").read_text()) == {"examples": 3, "with_input": 1, "source_sha256": digest}


def test_all_problems_of_a_released_file_are_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps([*RECORDS, {"instruction": "a", "output": None}, 5]))
    with pytest.raises(UserError) as caught:
        released(tmp_path / "out", path=str(path))
    text = str(caught.value)
    assert 'record 3: "input" is missing' in text
    assert 'record 3: "output" is NoneType' in text
    assert "record 4: a JSON int" in text
    assert str(path) in text
    assert not (tmp_path / "out" / "examples.jsonl").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"instruction": "a", "input": "", "output": "b"}\n{"instruction": \n', "line 2"),
        ('[{"instruction": "a"\n "input": ""}]', ":2:2"),
        ("", "no records"),
        ("[]", "no records"),
        (json.dumps([{"instruction": "a", "input": "", "output": "\ud83d"}]), 'record 0: "output"'),
        (json.dumps([{}] * 30), "and 70 more"),
    ],
)
def test_broken_released_files_say_where(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "data"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        released(tmp_path / "out", path=str(path))
    assert words in str(caught.value)


@contextmanager
def web(folder: Path) -> Iterator[str]:
    """A web server over a folder; files that it was asked for are listed in its log."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            return None

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_released_data_is_downloaded_once(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "site").mkdir()
    file = tmp_path / "site" / "data.json"
    file.write_text(json.dumps(RECORDS))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    with web(tmp_path / "site") as address:
        url = f"{address}/data.json"
        first = released(tmp_path / "a", url=url, sha256=digest)
    again = released(tmp_path / "b", url=url, sha256=digest)
    local = released(tmp_path / "c", path=str(file))
    contents = {(folder / "examples.jsonl").read_bytes() for folder in (first, again, local)}
    assert len(contents) == 1
    assert [path.name for path in cache.iterdir()] == [f"{digest[:8]}-data.json"]


def test_a_failed_download_says_what_to_place_where(cache: Path, tmp_path: Path) -> None:
    with web(tmp_path) as address:
        url = f"{address}/data.json"
    digest = "ab" * 32
    with pytest.raises(UserError) as caught:
        released(tmp_path / "out", url=url, sha256=digest)
    text = str(caught.value)
    assert all(words in text for words in (url, digest, str(cached_path(url, digest)), "data_gen.path"))


def test_another_file_than_expected_is_refused_and_not_kept(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text("something else")
    with web(tmp_path) as address, pytest.raises(UserError, match="cannot download the data"):
        fetch(f"{address}/data.json", "ab" * 32, "the data")
    assert not [path for path in cache.rglob("*") if path.is_file()]


@pytest.mark.parametrize(("url", "digest"), [("", "ab" * 32), ("http://127.0.0.1:9/x", "")])
def test_a_download_needs_url_and_digest(cache: Path, url: str, digest: str) -> None:
    with pytest.raises(UserError, match="both its url and its sha256"):
        fetch(url, digest, "the data", key="data_gen.path")
    assert not cache.exists()


def test_unknown_kind_and_missing_teacher_are_named(tmp_path: Path) -> None:
    context = Context(folder=tmp_path, work=tmp_path, parents={})
    with pytest.raises(UserError, match="known: alpaca, self_instruct, reanswer, evolve, released, mixture"):
        run(SampleConfig(data_gen=AlpacaDataGen(kind="other")), context)
    with pytest.raises(UserError, match="needs a teacher"):
        run(SampleConfig(data_gen=options()), context)


def test_the_released_file_is_read_whole(tmp_path: Path) -> None:
    path = ROOT.parent / "shared" / "data" / "alpaca" / "alpaca_data.json"
    if not path.exists():
        pytest.skip("../shared is not beside the project")
    folder = released(tmp_path / "out", path=str(path))
    pool = json.loads((folder / "pool.json").read_text())
    assert pool["examples"] == 52_002
    assert round(pool["with_input"] / pool["examples"], 4) == 0.3977
