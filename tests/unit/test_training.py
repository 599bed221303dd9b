"""Fine-tuning: tokens, order, gradients, schedules, resuming, distribution and what it refuses."""

from __future__ import annotations

import json
import math
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from alpaca import config
from alpaca.errors import UserError
from alpaca.prompts import prompt
from alpaca.records import Example
from alpaca.runtime.budget import Budget
from alpaca.runtime.distributed import Ranks, launch_ranks
from alpaca.stages.train import models, optim, order, parallel, run, schedule, tokens
from alpaca.stages.train.batches import micro_batches, padded
from alpaca.stages.train.export import compare
from alpaca.stages.train.loop import Clock
from alpaca.stages.train.tokens import Row
from tests.unit import training_world as world

CPU = torch.device("cpu")
ALONE = Ranks(rank=0, world_size=1, device=CPU, grouped=False)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base and 30 examples."""
    folder = tmp_path_factory.mktemp("train")
    world.make_base(folder / "base")
    world.make_data(folder / "data", world.examples(30))
    return folder


@pytest.fixture(scope="module")
def reference(place: Path) -> Path:
    """Five steps in one process, uninterrupted."""
    return train(place, "reference", world.train_config())


def train(place: Path, name: str, settings: config.TrainConfig, **parents: Path) -> Path:
    context = world.make_context(place / name, **{"base": place / "base", "data": place / "data", **parents})
    run(settings, context)
    return context.folder


def payload(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "work" not in path.parts and path.name != "progress.json"
    }


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_loss_is_borne_by_the_output_and_the_end_of_sequence_only() -> None:
    tokenizer = world.make_tokenizer()
    example = Example(id="1", instruction="Repeat red", input="cat", output="red sun")
    row = tokens.encode([example], tokenizer, 1000).rows[0]
    assert tokenizer.decode(row.ids[: row.masked]) == prompt("Repeat red", "cat")
    assert tokenizer.decode(row.ids[row.masked : -1]) == "red sun"
    assert row.ids[-1] == tokenizer.eos_token_id
    assert row.supervised == len(row.ids) - row.masked


def test_long_examples_lose_their_end_and_are_counted() -> None:
    tokenizer = world.make_tokenizer()
    short, longer = (
        Example(id="a", instruction="x", input="", output="y"),
        Example(id="b", instruction="x", input="", output="yyyyyyyyyyyyyyyyyyyy"),
    )
    whole = len(tokens.encode([short], tokenizer, 1000).rows[0].ids)
    encoded = tokens.encode([short, longer], tokenizer, whole)
    assert encoded.truncated == 1
    assert encoded.unsupervised == 0
    assert encoded.rows[0].ids[-1] == tokenizer.eos_token_id
    assert len(encoded.rows[1].ids) == whole
    assert encoded.rows[1].ids[-1] != tokenizer.eos_token_id


def test_examples_without_room_for_an_answer_are_left_out_and_counted() -> None:
    tokenizer = world.make_tokenizer()
    rows = [
        Example(id="a", instruction="x", input="", output="y"),
        Example(id="b", instruction="x" * 500, input="", output="y"),
    ]
    encoded = tokens.encode(rows, tokenizer, 300)
    assert (len(encoded.rows), encoded.unsupervised, encoded.truncated) == (1, 1, 0)
    with pytest.raises(UserError, match=r"train.max_length: all 1 examples have prompts of 300 tokens or more"):
        tokens.encode(rows[1:], tokenizer, 300)
    with pytest.raises(UserError, match=r"the training set is empty"):
        tokens.encode([], tokenizer, 300)


@pytest.mark.parametrize("output", ["- a", '"a"', "The", " The", "a"])
def test_no_character_of_the_response_is_merged_into_the_prompt(output: str) -> None:
    tokenizer = world.make_merging_tokenizer()
    example = Example(id="1", instruction="x", input="", output=output)
    encoded = tokens.encode([example], tokenizer, 1000)
    row, alone = encoded.rows[0], tokenizer(prompt("x")).input_ids
    together = tokenizer(prompt("x") + output).input_ids
    assert row.ids[: row.masked] == alone
    assert tokenizer.decode(row.ids[row.masked : -1]) == output
    assert encoded.repaired == (together[: len(alone)] != alone) == (output in ("- a", '"a"', "The"))
    cut = tokens.encode([example], tokenizer, len(alone) + 1).rows[0]
    assert (cut.ids, cut.masked) == (row.ids[: len(alone) + 1], len(alone))


def test_a_repaired_response_gets_no_space_from_a_tokenizer_that_puts_one_before_every_text() -> None:
    tokenizer = world.make_spacing_tokenizer()
    encoded = tokens.encode([Example(id="1", instruction="x", input="", output=") red sun")], tokenizer, 1000)
    row, alone = encoded.rows[0], tokenizer(prompt("x")).input_ids
    assert encoded.repaired == 1
    assert row.ids[: row.masked] == alone
    assert tokenizer.decode(row.ids[:-1]) == prompt("x") + ") red sun"
    plain = tokens.encode([Example(id="1", instruction="x", input="", output="red sun")], tokenizer, 1000)
    assert plain.repaired == 0
    assert plain.rows[0].ids[:-1] == tokenizer(prompt("x") + "red sun").input_ids


def test_a_tokenizer_that_ends_every_text_does_not_end_prompts() -> None:
    tokenizer = world.make_tokenizer()
    plain = tokens.encode(world.examples(3), tokenizer, 1000).rows

    class Ending:
        eos_token_id = tokenizer.eos_token_id

        def __call__(self, texts: list[str]) -> Any:
            output = tokenizer(texts)
            output["input_ids"] = [[*ids, tokenizer.eos_token_id] for ids in output["input_ids"]]
            return output

    assert tokens.encode(world.examples(3), Ending(), 1000).rows == plain


# --- order and batches ------------------------------------------------------------------------------------------------


def test_whole_epochs_show_each_example_exactly_so_often() -> None:
    plan = order.plan(Budget.parse("3 epochs"), [10] * 50, 16, seed=1)
    batches = [plan.batch(step) for step in range(plan.steps)]
    assert [len(batch) for batch in batches] == [16] * 9 + [6]
    assert Counter(index for batch in batches for index in batch) == dict.fromkeys(range(50), 3)
    assert sorted(index for batch in batches for index in batch)[:3] == [0, 0, 0]
    first = [index for batch in batches for index in batch][:50]
    assert sorted(first) == list(range(50))
    assert first != list(range(50))


def test_every_step_of_a_budget_in_steps_is_full_and_any_step_can_be_asked_for_alone() -> None:
    plan = order.plan(Budget.parse("7 steps"), [10] * 5, 16, seed=1)
    forward = [plan.batch(step) for step in range(7)]
    again = order.plan(Budget.parse("7 steps"), [10] * 5, 16, seed=1)
    assert [again.batch(step) for step in reversed(range(7))] == forward[::-1]
    assert all(len(batch) == 16 for batch in forward)
    assert order.plan(Budget.parse("7 steps"), [10] * 5, 16, seed=2).batch(0) != forward[0]


@pytest.mark.parametrize("count", [1, 3, 8, 11])
def test_all_ranks_run_the_same_number_of_passes_and_no_row_is_lost(count: int) -> None:
    rows = [Row(list(range(2 + index)), 1) for index in range(count)]
    shares = [micro_batches(rows, 3, rank, 2) for rank in range(2)]
    assert len(shares[0]) == len(shares[1])
    assert all(1 <= len(each) <= 3 for share in shares for each in share)
    supervised = [row for share in shares for each in share for row in each if row.supervised]
    assert sorted(map(repr, supervised)) == sorted(map(repr, rows))


def test_padding_is_on_the_right_unattended_and_bears_no_loss() -> None:
    batch = padded([Row([5, 6, 7, 8], 2), Row([5, 9], 1)], pad=0, device=CPU)
    assert batch.ids.tolist() == [[5, 6, 7, 8], [5, 9, 0, 0]]
    assert batch.attention is not None
    assert batch.attention.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert (batch.chosen.tolist(), batch.targets.tolist()) == ([1, 2, 4], [7, 8, 9])


# --- optimizers -------------------------------------------------------------------------------------------------------


def test_schedules_at_their_marked_points() -> None:
    for name in ("cosine", "linear", "constant", "wsd"):
        factor = schedule.rate(name, 200, 0.1)
        assert factor(0) == pytest.approx(1 / 20)
        assert factor(19) == 1.0
        assert factor(20) == 1.0
    assert schedule.rate("cosine", 200, 0.1)(110) == pytest.approx(0.5)
    assert schedule.rate("linear", 200, 0.1)(155) == pytest.approx(0.25)
    assert schedule.rate("constant", 200, 0.1)(199) == 1.0
    assert schedule.rate("wsd", 200, 0.1)(120) == 1.0
    assert schedule.rate("wsd", 200, 0.1)(160) == pytest.approx(0.5)
    assert schedule.rate("cosine", 1, 0.0)(0) == 1.0
    assert all(schedule.rate(name, 5, 1.0)(step) > 0 for name in ("cosine", "linear", "wsd") for step in range(5))


def test_muon_gets_the_hidden_matrices_and_adamw_everything_else(place: Path) -> None:
    module = AutoModelForCausalLM.from_pretrained(place / "base/model")
    muon, adamw = optim.build(module, config.Muon())
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    hidden = {names[id(each)] for group in muon.param_groups for each in group["params"]}
    rest = {names[id(each)] for group in adamw.param_groups for each in group["params"]}
    assert len(hidden) == 2 * 7
    assert all("_proj" in name for name in hidden)
    assert rest == {name for name in names.values() if "norm" in name or "embed" in name}


# --- the stage --------------------------------------------------------------------------------------------------------


def test_the_stage_leaves_a_model_that_transformers_loads(place: Path, reference: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(reference / "model")
    tokenizer = AutoTokenizer.from_pretrained(reference / "model")
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id != tokenizer.pad_token_id
    assert model.config.use_cache
    record = json.loads((reference / "training.json").read_text())
    rows = world.losses(reference)
    assert list(rows[0]) == ["step", "loss", "lr", "grad_norm", "tokens", "supervised_tokens"]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.3
    assert record["steps"] == 5
    assert record["examples"] == 30
    assert record["epochs"] == pytest.approx(40 / 30)
    assert record["final_loss"] == rows[-1]["loss"]
    assert record["tokens"] == sum(row["tokens"] for row in rows)
    assert not any(str(place).encode() in content for content in payload(reference).values())


def test_the_same_again_gives_the_same_bytes(place: Path, reference: Path) -> None:
    assert payload(train(place, "again", world.train_config())) == payload(reference)


def test_micro_batch_is_execution(place: Path, reference: Path) -> None:
    other = world.losses(train(place, "micro", world.train_config(micro_batch=8)))
    assert [row["loss"] for row in other] == pytest.approx([row["loss"] for row in world.losses(reference)], abs=1e-5)


def test_dropout_is_off_since_it_would_depend_on_the_split_into_micro_batches(tmp_path: Path) -> None:
    world.make_opt_base(tmp_path / "base", dropout=0.2)
    world.make_data(tmp_path / "data", world.examples(30))
    large, small = (train(tmp_path, f"micro-{size}", world.train_config(micro_batch=size)) for size in (8, 1))
    expected = [row["loss"] for row in world.losses(large)]
    assert [row["loss"] for row in world.losses(small)] == pytest.approx(expected, abs=1e-5)
    assert json.loads((large / "training.json").read_text())["dropout_disabled"] > 0
    shape = AutoModelForCausalLM.from_pretrained(large / "model").config
    assert (shape.dropout, shape.attention_dropout, shape.layerdrop) == (0.0, 0.0, 0.0)


def test_a_failed_export_costs_no_step_again(place: Path, reference: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    context = world.make_context(place / "full", base=place / "base", data=place / "data")
    with monkeypatch.context() as patched:
        patched.setattr("alpaca.stages.train.stage.export", full)
        with pytest.raises(OSError):
            run(world.train_config(), context)
    run(world.train_config(), world.interrupt_at(context, 0))  # a single step more would raise
    assert payload(context.folder) == payload(reference)


def test_the_last_checkpoint_is_left_out_where_it_takes_longer_than_what_it_would_spare() -> None:
    clock = Clock(seconds=1e9)
    assert clock.worth_saving()
    clock.last, clock.saving = time.monotonic(), 1e6
    assert not clock.worth_saving()


def test_bf16_trains_on_a_cpu_over_fp32_weights(place: Path, reference: Path) -> None:
    folder = train(place, "bf16", world.train_config(compute="bf16"))
    rows, exact = world.losses(folder), world.losses(reference)
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in exact], abs=0.02)
    assert [row["loss"] for row in rows] != [row["loss"] for row in exact]
    weights = AutoModelForCausalLM.from_pretrained(folder / "model").parameters()
    assert all(parameter.dtype == torch.float32 for parameter in weights)


@pytest.mark.parametrize("optimizer", [config.AdamW(lr=1e-2), config.Muon()], ids=["adamw", "muon"])
def test_an_interrupted_run_ends_with_the_same_bytes(place: Path, optimizer: config.Optimizer, tmp_path: Path) -> None:
    settings = world.train_config(optimizer=optimizer, checkpoint_seconds=0.0)
    parents = {"base": place / "base", "data": place / "data"}
    whole, broken = (world.make_context(tmp_path / name, **parents) for name in ("whole", "broken"))
    run(settings, whole)
    with pytest.raises(world.Interrupted):
        run(settings, world.interrupt_at(broken, 3))
    assert [path.name for path in sorted(broken.work.iterdir())] == ["step-2", "step-2.json", "step-3", "step-3.json"]
    broken.check = lambda: None
    run(settings, broken)
    assert payload(broken.folder) == payload(whole.folder)


@pytest.mark.slow
def test_a_killed_process_is_resumed_to_the_same_bytes(place: Path, reference: Path) -> None:
    with pytest.raises(UserError, match=r"process 0 of 1 was killed by SIGKILL"):
        launch_ranks([sys.executable, world.__file__, str(place), "kill"], 1)
    context = world.make_context(place / "killed", base=place / "base", data=place / "data")
    assert (context.work / "step-1.json").exists() or (context.work / "step-2.json").exists()
    run(world.train_config(checkpoint_seconds=0.0), context)
    assert payload(context.folder) == payload(reference)


# --- many processes ---------------------------------------------------------------------------------------------------


EXACT = (
    "full_shard",
    "ddp",
    "full_shard+resume",
    "full_shard+warned",
    "shard_grad_op",
    "hybrid_shard",
    "full_shard+padded",
    "ddp+resume",
)
ROUNDED = {"full_shard+muon": 1e-3, "full_shard+bf16": 5e-3, "full_shard+lora": 1e-5, "ddp+lora": 1e-5, "ddp+sr": 0.1}
"""Runs of two processes that round otherwise than one process does, and by how much their losses may differ."""


@pytest.fixture(scope="module")
def two_processes(place: Path) -> Path:
    """The folder with all runs of two processes."""
    begin_alone(place)
    world.make_gemma_base(place / "gemma")
    launch_ranks([sys.executable, world.__file__, str(place), *EXACT, *ROUNDED, *FROM_ONE, *FOR_ONE, REFUSING], 2)
    return place


REFUSING = "full_shard+gemma+resume"
"""A model that refuses to be packed in the middle of a forward pass, its parameters gathered."""
FROM_ONE, FOR_ONE = ("full_shard+one", "ddp+one"), ("full_shard+begun", "ddp+begun", "hybrid_shard+begun")
"""Runs that one process began for two to end, and those that two began for one to end."""


def begin_alone(place: Path) -> None:
    for name in FROM_ONE:
        context = world.make_context(place / name, base=place / "base", data=place / "data")
        with pytest.raises(world.Interrupted):
            run(world.train_config(checkpoint_seconds=0.0), world.interrupt_at(context, 3))


@pytest.mark.slow
def test_a_model_that_refuses_to_be_packed_is_sharded_and_trained_all_the_same(two_processes: Path) -> None:
    expected = world.losses(train(two_processes, "gemma alone", world.train_config(), base=two_processes / "gemma"))
    found = [row["loss"] for row in world.losses(two_processes / REFUSING)]
    assert found == pytest.approx([row["loss"] for row in expected], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FROM_ONE, *FOR_ONE])
def test_a_run_goes_on_with_another_number_of_processes(two_processes: Path, reference: Path, name: str) -> None:
    if name in FOR_ONE:
        context = world.make_context(two_processes / name, base=two_processes / "base", data=two_processes / "data")
        run(world.train_config(checkpoint_seconds=0.0), world.interrupt_at(context, 2))  # a third step would raise
    rows, expected = world.losses(two_processes / name), world.losses(reference)
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in expected], abs=1e-5)
    found, wanted = (AutoModelForCausalLM.from_pretrained(each / "model") for each in (two_processes / name, reference))
    for left, right in zip(found.parameters(), wanted.parameters(), strict=True):
        assert torch.allclose(left, right, atol=1e-4)


@pytest.mark.slow
def test_sharded_and_replicated_training_equal_one_process(two_processes: Path, reference: Path) -> None:
    place, expected = two_processes, world.losses(reference)
    for mode in EXACT:
        rows = world.losses(place / mode)
        for name in ("loss", "grad_norm"):
            assert [row[name] for row in rows] == pytest.approx([row[name] for row in expected], abs=1e-5)
        assert [row["tokens"] for row in rows] == [row["tokens"] for row in expected]
        assert payload(place / mode).keys() == payload(reference).keys()
    for mode in ("full_shard+resume", "full_shard+warned"):
        assert payload(place / mode) == payload(place / "full_shard")
    assert payload(place / "ddp+resume") == payload(place / "ddp")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tolerance"), ROUNDED.items())
def test_sharding_changes_muon_and_bf16_by_rounding_only(two_processes: Path, name: str, tolerance: float) -> None:
    settings = world.train_config(**world.marked(name.split("+")))
    expected = world.losses(train(two_processes, f"alone-{name}", settings))
    found = [row["loss"] for row in world.losses(two_processes / name)]
    assert found == pytest.approx([row["loss"] for row in expected], abs=tolerance)


@pytest.mark.parametrize(
    ("fsdp", "message"),
    [
        (config.Fsdp(world_size=2), "fsdp.mode: 2 processes without a way"),
        (
            config.Fsdp(mode="full_shard", world_size=2, offload=True),
            "fsdp.offload: offload with mode full_shard on cpu",
        ),
        (config.Fsdp(mode="hybrid_shard", world_size=6, shard_size=4), "fsdp.shard_size: 6 processes do not divide"),
    ],
)
def test_impossible_distributions_are_refused(fsdp: config.Fsdp, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parallel.check(fsdp, CPU)


def test_layers_are_read_from_the_model_and_their_absence_is_an_error(place: Path) -> None:
    module = AutoModelForCausalLM.from_pretrained(place / "base/model")
    assert [type(layer).__name__ for layer in parallel.layers(module)] == ["LlamaDecoderLayer"] * 2
    with pytest.raises(UserError, match=r"Linear does not say which of its modules are layers"):
        parallel.layers(torch.nn.Linear(2, 2))


# --- what it refuses --------------------------------------------------------------------------------------------------


def test_divergence_names_the_step_and_a_remedy(place: Path) -> None:
    settings = world.train_config(optimizer=config.AdamW(lr=1e30, warmup_ratio=0.0, clip=None))
    with pytest.raises(UserError, match=r"diverged at step 2: loss .*(nan|inf)(.|\n)*a lower optimizer.lr"):
        train(place, "diverged", settings)


def hub(**fields: Any) -> config.HubModel:
    return config.HubModel(name="m", parameters=1.0, **{"id": "someone/something", **fields})


def test_a_missing_model_folder_or_weights_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model.path: there is no folder"):
        models.source(hub(path=str(tmp_path / "nowhere")), None)
    with pytest.raises(UserError, match=r"model.path: there is no config.json in"):
        models.source(hub(path=str(tmp_path)), None)
    world.make_base(tmp_path)
    (tmp_path / "model/model.safetensors").unlink()
    source = models.source(hub(path=str(tmp_path / "model")), None)
    models.load_tokenizer(source)
    with pytest.raises(UserError, match=r"model.path: cannot load the model(.|\n)*safetensors"):
        models.load_model(source)


def test_a_config_that_does_not_match_the_weights_is_refused(tmp_path: Path) -> None:
    world.make_base(tmp_path)
    path = tmp_path / "model/config.json"
    whole = json.loads(path.read_text())
    for change, words in (
        ({"vocab_size": 317}, r"model.embed_tokens.weight is \[\d+, 32\] in the files and \[317, 32\] by config.json"),
        ({"num_hidden_layers": 3}, r"model.layers.2.\S+ is in no file; .* and \d+ more"),
        ({"num_hidden_layers": 1}, r"model.layers.1.\S+ is in the files and not in the model"),
    ):
        path.write_text(json.dumps({**whole, **change}))
        with pytest.raises(UserError, match=rf"model.path: the weights of \S+ do not fit its config.json: .*{words}"):
            models.load_model(models.source(hub(path=str(tmp_path / "model")), None))


def test_damaged_base_weights_are_refused_in_every_form(tmp_path: Path) -> None:
    world.make_base(tmp_path / "base")
    world.make_data(tmp_path / "data", world.examples(8))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base/model")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 3] = math.nan
    model.save_pretrained(tmp_path / "base/model")
    for batching in ("auto", "packed", "padded"):
        with pytest.raises(UserError, match=r"model: the base model gives numbers that are not finite"):
            train(tmp_path, batching, world.train_config(batching=batching))


def test_torn_weights_are_refused(tmp_path: Path) -> None:
    world.make_base(tmp_path)
    path = tmp_path / "model/model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model.path: cannot load the model"):
        models.load_model(models.source(hub(path=str(tmp_path / "model")), None))


def test_a_tokenizer_of_another_model_is_refused_or_told_of(place: Path) -> None:
    module, tokenizer = AutoModelForCausalLM.from_pretrained(place / "base/model"), world.make_tokenizer()
    module.config.bos_token_id = tokenizer.bos_token_id
    assert models.other_specials(tokenizer, module) == []
    module.config.eos_token_id = [7, 9]
    assert models.other_specials(tokenizer, module) == [
        f"eos_token_id is {tokenizer.eos_token_id} in the tokenizer and [7, 9] in config.json; the tokenizer's is used"
    ]
    module.resize_token_embeddings(2 * len(tokenizer))
    with pytest.raises(UserError, match=rf"has {len(tokenizer)} tokens, the model embeds {2 * len(tokenizer)}"):
        models.check_fit(tokenizer, module, models.Source(name="x", key="model.path"))


def test_examples_that_all_lose_their_end_are_refused() -> None:
    tokenizer = world.make_tokenizer()
    rows = [Example(id=str(index), instruction="x", input="", output="y" * 300) for index in range(3)]
    with pytest.raises(UserError, match=r"train.max_length: all 3 examples are longer than 250 tokens"):
        tokens.refuse_endless(tokens.encode(rows, tokenizer, 250), 250)


def test_without_the_hub_it_says_what_to_place_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"model.id: cannot load the tokenizer of someone/something(.|\n)*model.path="):
        models.load_tokenizer(models.source(hub(), None))


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    world.make_base(tmp_path)
    path = tmp_path / "model/tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token": ""}))
    with pytest.raises(UserError, match=r"has no end of sequence"):
        models.load_tokenizer(models.source(hub(path=str(tmp_path / "model")), None))


def test_a_tokenizer_larger_than_the_embeddings_is_refused(place: Path) -> None:
    module = AutoModelForCausalLM.from_pretrained(place / "base/model")
    tokenizer = world.make_tokenizer()
    tokenizer.add_tokens(["extra"])
    with pytest.raises(UserError, match=rf"has {len(tokenizer)} tokens, the model embeds {len(tokenizer) - 1}"):
        models.check_fit(tokenizer, module, models.Source(name="x", key="model.path"))


@pytest.mark.parametrize(
    "special",
    [{"bos_token": "<bos>", "eos_token": "<eos>"}, {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<eos>"}],
    ids=["no padding", "padding is the end"],
)
def test_a_padding_token_is_added_with_the_mean_of_the_embeddings(tmp_path: Path, special: dict[str, str]) -> None:
    world.make_base(tmp_path / "base", **special)
    world.make_data(tmp_path / "data", world.examples(4))
    settings = world.train_config(budget="1 steps", global_batch=4, optimizer=config.AdamW(lr=0.0))
    folder = train(tmp_path, "out", settings)
    old = AutoModelForCausalLM.from_pretrained(tmp_path / "base/model").get_input_embeddings().weight
    new = AutoModelForCausalLM.from_pretrained(folder / "model").get_input_embeddings().weight
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    assert json.loads((folder / "training.json").read_text())["added_tokens"] == 1
    assert tokenizer.pad_token_id == len(old) != tokenizer.eos_token_id
    assert len(new) == len(old) + 1
    assert torch.equal(new[:-1], old)
    assert torch.allclose(new[-1], old.mean(dim=0))


def test_weights_that_change_on_their_way_to_the_disk_are_noticed(place: Path) -> None:
    folder = place / "base/model"
    weights = dict(AutoModelForCausalLM.from_pretrained(folder).state_dict())
    del weights["lm_head.weight"]  # tied: stored once
    compare(folder, weights)
    with pytest.raises(UserError, match=r"model.norm.weight"):
        compare(folder, {**weights, "model.norm.weight": weights["model.norm.weight"] + 1})
    with pytest.raises(UserError, match=r"extra"):
        compare(folder, {**weights, "extra": torch.zeros(1)})
