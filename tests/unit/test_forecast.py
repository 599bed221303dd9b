"""What the plan says of money and of training before anything is asked or started."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from alpaca import plan, sweep
from alpaca.artifacts import find_folder
from alpaca.config import EvalSource
from alpaca.dispatch import asking, expectation, forecast, launch, prepare, training
from alpaca.dispatch.earlier import Earlier
from alpaca.footprint import gpus, speed
from alpaca.runtime import provenance
from alpaca.teachers import moderation, openai
from alpaca.teachers.prices import GpuPrices

OPENAI = ["teacher=openai", "teacher.model=gpt-6-luna", "until=curate"]


def guesses(*overrides: str) -> dict[str, asking.Asked]:
    graph = plan.build(sweep.expand(list(overrides), multirun=False).runs)
    found = {node.stage: asking.asked(node, graph, Path("nowhere")) for node in graph.nodes.values()}
    return {stage: guess for stage, guess in found.items() if guess is not None}


def test_a_pool_as_large_as_alpacas_costs_what_the_prices_say() -> None:
    (guess,) = guesses(*OPENAI, "data_gen.num_examples=52000").values()
    assert guess.requests == pytest.approx(5099)
    # 800 prompt and 17 x 99 completion tokens at $0.10 and $0.50 a million.
    assert guess.usd == pytest.approx(5099 * (800 * 0.10 + 1683 * 0.50) / 1e6)
    assert "$4.70" in guess.told()


def test_the_batch_api_is_half_the_price() -> None:
    online, batch = (
        guesses(f"teacher={kind}", "teacher.model=gpt-6-luna")["sample"].usd for kind in ("openai", "openai_batch")
    )
    assert online is not None
    assert batch == pytest.approx(online / 2)


def test_an_unknown_price_gives_tokens_and_no_money() -> None:
    (guess,) = guesses("teacher=openai", "teacher.model=m", "teacher.base_url=http://127.0.0.1:9/v1").values()
    assert guess.usd is None
    assert guess.told().endswith("price unknown")


def test_the_embedded_teacher_costs_no_money() -> None:
    assert guesses()["sample"].told().endswith("no money")


def test_the_judge_is_paid_for_too() -> None:
    found = guesses(*OPENAI, "data.selection=judge_score")
    assert found["rate"].requests == 4000
    assert found["rate"].usd


@pytest.mark.parametrize(
    ("bound", "words"),
    [("spend.max_usd=1", "above spend.max_usd=1"), ("spend.max_tokens=1000", "above spend.max_tokens=1,000"),
     ("spend.max_usd=100", None)],
)  # fmt: skip
def test_a_guess_above_a_bound_is_said_before_the_start(bound: str, words: str | None) -> None:
    beyond = guesses(*OPENAI, "data_gen.num_examples=52000", bound)["sample"].beyond()
    assert (words in beyond) if words and beyond else beyond is None and words is None


def test_data_from_the_hub_has_no_known_number_of_examples() -> None:
    graph = plan.build(sweep.expand(["data_gen=released", "data_gen.hub=a/b"], multirun=False).runs)
    (pool,) = [node for node in graph.nodes.values() if node.stage == "sample"]
    assert asking.pool_size(pool, Path("nowhere")) is None


def test_the_instructions_to_be_answered_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps([{"instruction": f"Do {n}", "input": "", "output": ""} for n in range(70)], indent=1))
    source = ["data_gen=reanswer", f"data_gen.path={path}", "data.size=null"]
    found = guesses(*source, *OPENAI, "data.selection=judge_score")
    assert (found["sample"].requests, found["rate"].requests) == (70, 70)


ALPACA, LIMA = {"instruction": "Say \"instruction\"", "output": ""}, {"conversations": ["Do", "Done"]}
MESSAGES = {"messages": [{"role": "user", "content": "Do"}, {"role": "assistant", "content": "Done"}]}


@pytest.mark.parametrize("record", [ALPACA, LIMA, MESSAGES])
def test_records_of_every_form_are_counted(record: dict[str, object], tmp_path: Path) -> None:
    array, lines = tmp_path / "data.json", tmp_path / "data.jsonl"
    array.write_text(json.dumps([record] * 70))
    lines.write_text(f"{json.dumps(record)}\n\n" * 70)
    for path in (array, lines):
        assert guesses("data_gen=reanswer", f"data_gen.path={path}", *OPENAI)["sample"].requests == 70
    released = ["data_gen=released", f"data_gen.path={lines}", "data.size=null", "data.selection=judge_score"]
    assert guesses(*released, *OPENAI)["rate"].requests == 70


def test_rows_of_parquet_and_a_finished_folder_are_counted(tmp_path: Path) -> None:
    table = pyarrow.table({"instruction": ["Do"] * 70, "input": [""] * 70, "output": [""] * 70})
    parquet.write_table(table, tmp_path / "data.parquet")
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "examples.jsonl").write_text(f"{json.dumps(ALPACA)}\n" * 70)
    for name in ("data.parquet", "stage"):
        assert guesses("data_gen=reanswer", f"data_gen.path={tmp_path / name}", *OPENAI)["sample"].requests == 70
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(b"PAR1 and no more")
    assert guesses("data_gen=reanswer", f"data_gen.path={torn}", *OPENAI)["sample"].requests is None


def test_a_number_of_requests_that_nobody_knows_is_no_stage_without_requests() -> None:
    hub = ["data_gen=released", "data_gen.hub=a/b", "data.size=null", "data.selection=judge_score"]
    found = guesses(*hub, *OPENAI)
    assert set(found) == {"rate"}
    assert (found["rate"].requests, found["rate"].tokens, found["rate"].usd) == (None, None, None)
    assert "not known" in found["rate"].told()
    assert guesses(*hub, "teacher=programmatic", "until=curate")["rate"].usd == 0.0


def test_a_moderator_that_wants_money_is_paid_for(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*OPENAI, "data_gen.num_examples=1000", "data.size=100", "data.moderation=openai"]
    assert "moderate" not in guesses(*words)
    paid = moderation.Moderator(lambda config: openai.OpenAI(model="gpt-6-luna"), moderation.openai_opened)
    monkeypatch.setitem(moderation.MODERATORS, "openai", paid)
    found = guesses(*words)["moderate"]
    assert found.requests == 1000
    assert found.usd


# --- training


def told(*overrides: str) -> str:
    """The plan's line for training."""
    graph = plan.build(sweep.expand(list(overrides), multirun=False).runs)
    (node,) = [node for node in graph.nodes.values() if node.stage == "train"]
    return forecast.cost(node, graph, Earlier(Path("nowhere")))


@pytest.fixture
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "gpu_count", lambda: 0)
    monkeypatch.setattr(provenance, "memory_bytes", lambda: 16 * 2**30)
    rates = speed.Rates(widths=[96], flops=[5e10], call=1e-4, pair=1e-10, logit=1e-9, logit_width=1e-11, update=1e-9)
    monkeypatch.setattr(speed, "rates", lambda threads: rates)


@pytest.mark.usefixtures("small_machine")
def test_steps_tokens_seconds_and_memory_of_a_cpu_are_told() -> None:
    text = told()
    assert text.startswith("400 steps x 64 examples, 358 k tokens; about ")
    assert "on this processor" in text
    assert "GiB per process (libraries" in text
    assert text.endswith("of 16 in this machine")


@pytest.mark.usefixtures("small_machine")
def test_what_does_not_fit_here_is_told_for_a_usual_gpu() -> None:
    text = told("model=llama7b")
    assert text.startswith("1,219 steps x 128 examples, 20 M tokens, 7.9e+17 FLOP; about ")
    assert "on a GPU H100-80GB (assumed; fsdp.gpu=NAME for another) at 50% of peak (a guess), the template's " in text
    several = told("model=llama7b", "fsdp=full_shard", "fsdp.world_size=4")
    assert "on 4 GPUs H100-80GB (assumed; fsdp.gpu=NAME for others) at 50% of peak (a guess), the " in several
    assert "GiB per process (states 50.2, " in text


@pytest.mark.usefixtures("small_machine")
def test_the_gpu_that_is_named_and_the_processes_count() -> None:
    text = told("model=llama7b", "fsdp=full_shard", "fsdp.world_size=8", "fsdp.gpu=A100-80GB", "train.batching=padded")
    assert "on 8 GPUs A100-80GB at 25% of peak (a guess);" in text
    assert text.endswith("of 80 on a GPU A100-80GB, and 9.41 of host memory (staging 9.41)")
    assert "states 6.28" in text


@pytest.mark.usefixtures("small_machine")
def test_host_memory_is_told_where_it_is_much() -> None:
    assert "host memory" not in told("model=llama7b", "fsdp.gpu=H200", "train.adapter=lora")
    offloaded = told("model=llama7b", "fsdp=full_shard", "fsdp.world_size=8", "fsdp.gpu=A100-80GB", "fsdp.offload=true")
    assert offloaded.endswith(", and 22 of host memory (staging 9.41, offloaded 12.6)")


@pytest.mark.usefixtures("small_machine")
def test_a_batch_in_tokens_and_data_of_unknown_size() -> None:
    text = told("train.batch_unit=tokens", "train.global_batch=6400", "train.budget=1e6 tokens")
    assert text.startswith("157 steps x 6400 tokens, ")
    unknown = told("model=llama7b", "data_gen.hub=a/b", "data.size=null")
    assert unknown.startswith("3 epochs x batch 128 examples; about 1.1 s a step on a GPU H100-80GB (assumed;")
    assert "GiB per process (states 50.2, " in unknown


@pytest.mark.usefixtures("small_machine")
def test_tokens_that_are_computed_once_are_said_where_there_are_any() -> None:
    note, gpu = "the template's tokens computed once per pass", ["model=llama7b", "fsdp.gpu=H200"]
    assert note in told(*gpu)
    assert note not in told(*gpu, "train.shared_prefix=false")
    assert note not in told(*gpu, "train.batching=grouped")
    assert note not in told("fsdp.gpu=H200")


@pytest.mark.usefixtures("small_machine")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_no_seconds_are_told_of_formats_that_a_cpu_was_not_measured_in(precision: str) -> None:
    assert f"; time not known for {precision} on a CPU; " in told(f"precision={precision}")


# --- answers


def answering(*overrides: str) -> tuple[str, expectation.Expectation]:
    """The plan's line for answers, and what is recorded with them."""
    graph = plan.build(sweep.expand(list(overrides), multirun=False).runs)
    (node,) = [node for node in graph.nodes.values() if node.stage == "respond"]
    earlier = Earlier(Path("nowhere"))
    return forecast.cost(node, graph, earlier), expectation.expect(node, graph, earlier, 1, may_measure=False)


@pytest.mark.usefixtures("small_machine")
def test_answers_are_forecast_by_the_bandwidth_of_one_gpu() -> None:
    words = ["model=llama7b", "fsdp=full_shard", "fsdp.world_size=8"]
    text, found = answering(*words, "fsdp.gpu=H200")
    assert text == "252 items, up to 128 new tokens each; about 27 s on a GPU H200 (a guess)"
    decoding, loading = 4 * 128 * 6.607e9 * 4 / (4.8e12 / 2), 8 + 2 * 6.738e9 / 1e9
    assert found.gpu_hours == pytest.approx((decoding + loading) / 3600, rel=0.01)
    kept = found.recorded(GpuPrices(date="2026-01-02", usd_per_hour={"H200": 2.0}))
    assert kept == {"seconds": found.seconds, "gpu": "H200", "gpu_hours": found.gpu_hours, "usd_per_gpu_hour": 2.0}
    large = answering(*words, "fsdp.gpu=H200", "eval.user_oriented_252.responses.batch=252")[1]
    assert large.seconds == pytest.approx(decoding / 4 + loading, rel=0.01)


@pytest.mark.usefixtures("small_machine")
def test_a_training_is_charged_for_its_start_and_its_weights_too() -> None:
    graph, key = planned("model=llama7b", "fsdp=full_shard", "fsdp.gpu=H200", "train.budget=1 steps")
    node = graph.nodes[key]
    steps = training.expected(node, graph, Path("nowhere"), 1, may_measure=False).seconds or 0
    found = expectation.expect(node, graph, Earlier(Path("nowhere")), 1, may_measure=False)
    assert found.seconds == pytest.approx(steps + 8 + 2 * 2 * 6.738e9 / 1e9, rel=0.01)


@pytest.mark.usefixtures("small_machine")
def test_answers_on_a_processor_are_not_guessed() -> None:
    text, found = answering()
    assert text == "400 items, up to 24 new tokens each"
    assert found == expectation.Expectation()


def test_items_are_those_that_are_answered(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text("{}\n\n{}\n{}\n")
    source = {"set": "user_oriented", "items": 252}
    counted = {"size": None}, {"size": 10}, {"path": str(path)}, {"path": str(tmp_path / "none")}, {"items": None}
    assert [expectation.items_of(EvalSource(**source | one)) for one in counted] == [252, 10, 3, None, None]


# --- settings without an effect


def noted(output: Path, *overrides: str) -> list[str]:
    found = sweep.expand([f"output_dir={output}", *overrides], multirun=False)
    session = prepare.open_session(plan.build(found.runs), found.runs[0], None)
    for key, node in session.plan.nodes.items():
        if node.stage == "train":
            session.folders[key].mkdir(parents=True, exist_ok=True)
            (session.folders[key] / "_SUCCESS").write_text("")
    return launch.without_effect(found, session)


def test_a_profile_of_a_finished_training_is_said_to_have_no_effect(tmp_path: Path) -> None:
    (text,) = noted(tmp_path, "train.profile=true")
    assert text.startswith("train.profile=true has no effect: the training is finished")
    (folder,) = (tmp_path / "train").iterdir()
    assert text.endswith(f"delete {folder}")
    assert noted(tmp_path) == []
    (folder / "profile").mkdir()
    assert noted(tmp_path, "train.profile=true") == []


def test_a_profile_of_a_training_to_come_is_no_note(tmp_path: Path) -> None:
    found = sweep.expand([f"output_dir={tmp_path}", "train.profile=true"], multirun=False)
    session = prepare.open_session(plan.build(found.runs), found.runs[0], None)
    assert launch.without_effect(found, session) == []


def test_a_gpu_of_an_unknown_kind_is_not_guessed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "gpu_count", lambda: 1)
    monkeypatch.setattr(gpus, "here", lambda: None)
    assert told("model=llama7b") == "1,219 steps x 128 examples, 20 M tokens, 7.9e+17 FLOP"


@pytest.mark.usefixtures("small_machine")
def test_lengths_are_counted_where_the_data_is_there(tmp_path: Path) -> None:
    run = sweep.expand(["model=llama7b", "data.size=50"], multirun=False).runs[0]
    graph = plan.build([run])
    nodes = {node.stage: node for node in graph.nodes.values()}
    data = nodes["curate"]
    folder = find_folder(tmp_path, data.stage, data.slug, data.key)
    folder.mkdir(parents=True)
    row = {"instruction": "a" * 100, "input": "", "output": "b" * 575}
    (folder / "examples.jsonl").write_text(f"{json.dumps(row)}\n" * 50)
    (folder / "_SUCCESS").write_text("")
    lengths = training.lengths_in(nodes["train"].config, data, tmp_path)
    assert lengths.mean == pytest.approx(840 / 4.2 + 1)
    assert lengths.supervised == pytest.approx(575 / 840)


@pytest.mark.parametrize(("seconds", "words"), [(5, "5 s"), (110, "110 s"), (150, "2.5 min"), (10800, "3 h")])
def test_times_are_told_in_two_digits(seconds: float, words: str) -> None:
    assert training.clock(seconds) == words


@pytest.mark.usefixtures("small_machine")
def test_the_forecast_that_is_kept_for_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def kept(*overrides: str) -> dict[str, float]:
        graph = plan.build(sweep.expand(list(overrides), multirun=False).runs)
        (node,) = [node for node in graph.nodes.values() if node.stage == "train"]
        return training.recorded(node, graph, Path("nowhere"), 1)

    monkeypatch.setattr(speed, "cached_rates", speed.rates)
    found = kept()
    assert found["step_seconds"] > 0
    assert found["peak_memory_gib"] == pytest.approx(0.44, abs=0.05)
    assert kept("model=llama7b") == {}  # it does not fit here, and no GPU is named
    named = kept("model=llama7b", "fsdp.gpu=H200", "precision=bf16_sr")
    assert named["peak_memory_gib"] == pytest.approx(75, abs=5)
    monkeypatch.setattr(speed, "cached_rates", lambda threads: None)
    assert set(kept()) == {"peak_memory_gib"}
    monkeypatch.setattr(speed, "cached_rates", speed.rates)
    assert set(kept("precision=bf16")) == {"peak_memory_gib"}


def place(output: Path, graph: plan.Plan, key: str) -> Path:
    return find_folder(output, graph.nodes[key].stage, graph.nodes[key].slug, key)


def finished(output: Path, graph: plan.Plan, key: str, seconds: float) -> None:
    """A stage of a plan as if it had run."""
    node, folder = graph.nodes[key], place(output, graph, key)
    folder.mkdir(parents=True, exist_ok=True)  # seeds share a base model
    places = {role: place(output, graph, one).relative_to(output).as_posix() for role, one in node.parents.items()}
    settings = {"stage": node.stage, "name": node.slug, "key": key, "config": asdict(node.config), "parents": places}
    (folder / "stage.json").write_text(json.dumps(settings, default=str))
    (folder / "provenance.json").write_text(json.dumps({"seconds": seconds}))
    (folder / "_SUCCESS").write_text("")


def planned(*overrides: str) -> tuple[plan.Plan, str]:
    """A plan and the key of its training."""
    graph = plan.build(sweep.expand(list(overrides), multirun=False).runs)
    return graph, graph.runs[0]["train"]


def test_equal_trainings_that_ran_before_say_how_long_one_takes(tmp_path: Path) -> None:
    for seed, seconds in ((1, 10.0), (2, 30.0), (3, 12.0)):
        graph, _ = planned(f"seed={seed}")
        for key in graph.nodes:
            finished(tmp_path, graph, key, seconds)
    graph, key = planned("seed=4")
    assert Earlier(tmp_path).seconds(graph.nodes[key], graph) == 12.0
    graph, key = planned("seed=4", "data.size=100")  # as many steps
    assert Earlier(tmp_path).seconds(graph.nodes[key], graph) == 12.0
    damaged = tmp_path / "train" / "tiny-00000000"
    damaged.mkdir()
    (damaged / "_SUCCESS").write_text("")
    (damaged / "stage.json").write_text("[")
    assert Earlier(tmp_path).seconds(graph.nodes[key], graph) == 12.0
    graph, key = planned("seed=4", "train.budget=7 steps")
    assert Earlier(tmp_path).seconds(graph.nodes[key], graph) is None


def test_epochs_of_another_data_size_are_another_training(tmp_path: Path) -> None:
    graph, _ = planned("train.budget=3 epochs", "data.size=200")
    for key in graph.nodes:
        finished(tmp_path, graph, key, 10.0)
    graph, key = planned("train.budget=3 epochs", "data.size=200", "seed=4")
    assert Earlier(tmp_path).seconds(graph.nodes[key], graph) == 10.0
    graph, key = planned("train.budget=3 epochs", "data.size=400")
    assert Earlier(tmp_path).seconds(graph.nodes[key], graph) is None
