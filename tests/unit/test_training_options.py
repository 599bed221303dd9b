"""What a run may be told beyond the plain recipe: guards, held-out examples, number formats, memory."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from alpaca import config
from alpaca.errors import PreemptedError, UserError
from alpaca.runtime.budget import Budget
from alpaca.runtime.distributed import Ranks
from alpaca.stages.train import fp8, gradient, guard, loop, models, order, run, stage
from alpaca.stages.train.guard import KEEP, ROLLBACK, SKIP, Guard
from alpaca.stages.train.precision import FIRST_SCALE, GROWS_AFTER, LossScale
from tests.unit import training_world as world
from tests.unit.test_training import payload, train

STEADY = config.AdamW(lr=1e-2, schedule="constant", warmup_ratio=0.0)
WEIGHTS = "model/model.safetensors"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base and 30 examples."""
    folder = tmp_path_factory.mktemp("options")
    world.make_base(folder / "base")
    world.make_data(folder / "data", world.examples(30))
    return folder


def with_precision(name: str, **train: Any) -> config.TrainConfig:
    formats = {
        "fp16": config.Precision(compute="fp16"),
        "bf16": config.Precision(compute="bf16"),
        "bf16_sr": config.Precision(compute="bf16", parameters="bf16", states="bf16", rounding="stochastic"),
        "bf16_plain": config.Precision(compute="bf16", parameters="bf16", states="bf16"),
    }
    return replace(world.train_config(**train), precision=formats[name])


def record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "training.json").read_text())
    return found


def column(folder: Path, name: str) -> list[float]:
    return [row[name] for row in world.losses(folder)]


# --- guards -----------------------------------------------------------------------------------------------------------


def judged(rules: config.Train, losses: list[float]) -> tuple[list[str], list[str], Guard]:
    said: list[str] = []
    watch = Guard(rules=rules, say=said.append)
    return [watch.judge(step, loss, 1.0) for step, loss in enumerate(losses)], said, watch


QUIET = [2.0 + 0.01 * (-1) ** step for step in range(guard.LEAST_WINDOW)]


def test_a_spike_is_what_stands_far_above_the_last_losses() -> None:
    verdicts, said, watch = judged(config.Train(), [*QUIET, 2.05, 2.5, 1.0])
    assert verdicts == [KEEP] * 23
    assert len(said) == watch.spikes == 1
    assert "spiked at step 22: loss 2.500 is" in said[0]
    assert judged(config.Train(), [*QUIET[:-1], 9.0])[1] == []  # too few to compare with


def test_what_follows_a_spike_or_a_loss_that_is_no_number_is_as_configured() -> None:
    assert judged(config.Train(on_nonfinite="skip"), [2.0, math.nan, 2.0])[0] == [KEEP, SKIP, KEEP]
    assert judged(config.Train(on_nonfinite="rollback"), [math.inf])[0] == [ROLLBACK]
    assert judged(config.Train(on_spike="rollback"), [*QUIET, 9.0])[0][-1] == ROLLBACK
    with pytest.raises(UserError, match=r"training spiked at step 21: loss 9.000(.|\n)*a lower optimizer.lr"):
        judged(config.Train(on_spike="stop"), [*QUIET, 9.0])
    with pytest.raises(UserError, match=r"diverged at step 6: loss nan, gradient norm 1.0 \(after going back 5 times"):
        judged(config.Train(on_nonfinite="rollback"), [math.nan] * 6)


def test_a_model_without_a_usable_gradient_ends_with_an_error() -> None:
    rules = config.Train(on_nonfinite="skip")
    watch = Guard(rules=rules, say=lambda text: None)
    for step, norm in enumerate([0.0, math.inf] * 4 + [0.0]):
        watch.judge(step, 2.0, norm)
    with pytest.raises(UserError, match=r"came to nothing: no usable gradient in 10 batches in a row up to step 10"):
        watch.judge(9, 2.0, 0.0)
    watch = Guard(rules=rules, say=lambda text: None)
    assert [watch.judge(step, 2.0, float(step % 9 == 8)) for step in range(40)] == [KEEP] * 40


def poisoned(monkeypatch: pytest.MonkeyPatch, calls: set[int]) -> None:
    """These passes of the run (from 0) give a loss that is no number."""
    plain, count = loop.accumulate, iter(range(1000))

    def accumulate(*arguments: Any, **options: Any) -> torch.Tensor:
        loss = plain(*arguments, **options)
        return loss * math.nan if next(count) in calls else loss

    monkeypatch.setattr(loop, "accumulate", accumulate)


def test_a_batch_that_is_left_out_changes_nothing_but_itself(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = train(place, "two", world.train_config(budget="2 steps", optimizer=STEADY))
    poisoned(monkeypatch, {2})
    skipped = train(place, "skipped", world.train_config(budget="3 steps", on_nonfinite="skip", optimizer=STEADY))
    assert [row.get("left_out", 0) for row in world.losses(skipped)] == [0, 0, 1]
    assert column(skipped, "loss") == [*column(two, "loss"), None]
    assert record(skipped)["left_out_steps"] == record(skipped)["nonfinite_steps"] == 1
    assert record(skipped)["final_loss"] == column(two, "loss")[-1]
    assert payload(skipped)[WEIGHTS] == payload(two)[WEIGHTS]


def test_going_back_restores_weights_and_leaves_out_the_batches_since(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = train(place, "one", world.train_config(optimizer=STEADY, budget="1 steps"))
    poisoned(monkeypatch, {3})
    back = train(place, "back", world.train_config(on_nonfinite="rollback", optimizer=STEADY, budget="4 steps"))
    assert [row.get("left_out", 0) for row in world.losses(back)] == [0, 1, 1, 1]
    assert record(back)["rollbacks"] == 1
    assert payload(back)[WEIGHTS] == payload(one)[WEIGHTS]


@pytest.mark.parametrize("stop", [None, 4], ids=["in one go", "stopped and resumed"])
@pytest.mark.parametrize("seconds", [0.0, 1e9], ids=["saved each step", "never saved"])
def test_what_a_rollback_leaves_out_does_not_depend_on_the_clock(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, stop: int | None
) -> None:
    poisoned_step(monkeypatch, 6)
    settings = world.train_config(
        budget="8 steps", on_nonfinite="rollback", rollback_steps=3, optimizer=STEADY, checkpoint_seconds=seconds
    )
    context = world.make_context(tmp_path / "run", base=place / "base", data=place / "data")
    if stop is not None:
        world.interrupt_at(context, stop, lambda: os.kill(os.getpid(), signal.SIGUSR2))
        with pytest.raises(PreemptedError):
            run(settings, context)
        context.check = lambda: None
    run(settings, context)
    assert [row.get("left_out", 0) for row in world.losses(context.folder)] == [0, 0, 0, 0, 0, 0, 1, 0]


def poisoned_step(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Step `step` (from 0) has a loss that is no number, in every start of the run."""
    plain = loop._step

    def made(run: Any) -> None:
        with monkeypatch.context() as patched:
            if run.done == step:
                patched.setattr(loop, "accumulate", lambda *_, **__: torch.tensor(math.nan))
                patched.setattr("alpaca.stages.train.gradient.norm", lambda model: math.nan)
            plain(run)

    monkeypatch.setattr(loop, "_step", made)


def test_a_run_whose_first_steps_were_left_out_is_resumed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned_step(monkeypatch, 0)
    settings = world.train_config(on_nonfinite="skip", checkpoint_seconds=0.0, budget="4 steps")
    whole = train(place, "late", settings)
    context = world.make_context(place / "late and stopped", base=place / "base", data=place / "data")
    world.interrupt_at(context, 0, lambda: os.kill(os.getpid(), signal.SIGUSR2))
    with pytest.raises(PreemptedError, match=r"after step 1 of 4; no batch had been used yet, so nothing is saved"):
        run(settings, context)
    assert not list(context.work.glob("step-*"))
    context.check = lambda: None
    run(settings, context)
    assert payload(context.folder) == payload(whole)


def test_a_run_in_which_every_batch_was_left_out_is_an_error(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned(monkeypatch, set(range(10)))
    with pytest.raises(UserError, match=r"train.on_nonfinite: all 5 batches were left out"):
        train(place, "nothing", world.train_config(on_nonfinite="skip"))


def test_going_back_before_there_is_a_checkpoint_is_an_error(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned(monkeypatch, {0})
    with pytest.raises(UserError, match=r"step 1 is to go back, and there is no point to go back to"):
        train(place, "nowhere", world.train_config(on_nonfinite="rollback"))


# --- held-out examples ------------------------------------------------------------------------------------------------


def test_held_out_examples_are_never_trained_on_and_looked_at_when_due(place: Path) -> None:
    settings = world.train_config(holdout=6, holdout_steps=2)
    folder = train(place, "held", settings)
    assert [("holdout_loss" in row) for row in world.losses(folder)] == [False, True, False, True, True]
    facts = record(folder)
    assert (facts["examples"], facts["held_out_examples"]) == (24, 6)
    seen = [row["holdout_loss"] for row in world.losses(folder) if "holdout_loss" in row]
    assert facts["best_holdout_loss"] == min(seen)
    kept, held = order.hold_out(30, 6, seed=0)
    assert sorted([*kept, *held]) == list(range(30))
    assert order.hold_out(30, 6, seed=1)[1] != held
    with pytest.raises(UserError, match=r"train.holdout: 30 of 30 examples held out"):
        train(place, "all", world.train_config(holdout=30))


def test_early_stopping_exports_the_best_weights(place: Path) -> None:
    wild = config.AdamW(lr=0.3, schedule="constant", warmup_ratio=0.0)
    settings = world.train_config(budget="40 steps", optimizer=wild, holdout=8, holdout_steps=1, patience=3)
    folder = train(place, "early", settings)
    facts, rows = record(folder), world.losses(folder)
    assert len(rows) == facts["best_step"] + 3 < 40
    best = train(place, "best", world.train_config(budget="40 steps", optimizer=wild, holdout=8, holdout_steps=1))
    assert column(best, "holdout_loss")[: len(rows)] == column(folder, "holdout_loss")
    # A look at the exported weights gives the best loss, not the last one.
    again = world.make_context(place / "look", base=folder, data=place / "data")
    still = config.AdamW(lr=0.0, warmup_ratio=0.0)
    run(world.train_config(budget="1 steps", optimizer=still, holdout=8, holdout_steps=1), again)
    assert column(again.folder, "holdout_loss")[0] == pytest.approx(facts["best_holdout_loss"], rel=1e-5)


def test_the_best_weights_are_those_of_the_record_or_there_are_none(place: Path, tmp_path: Path) -> None:
    wild = config.AdamW(lr=0.3, schedule="constant", warmup_ratio=0.0)
    settings = world.train_config(
        budget="40 steps", optimizer=wild, holdout=8, holdout_steps=1, patience=3, checkpoint_seconds=0.0
    )
    whole, broken = (world.make_context(tmp_path / n, base=place / "base", data=place / "data") for n in ("a", "b"))
    run(settings, whole)
    best, stopped = record(whole.folder)["best_step"], record(whole.folder)["steps"]
    with pytest.raises(world.Interrupted):
        run(settings, world.interrupt_at(broken, stopped - 1))
    # An earlier start had gone further, to other weights, and had ended before it could say so.
    shutil.copytree(broken.work / f"best/step-{best}", broken.work / "best/step-99")
    shutil.copy(broken.work / f"best/step-{best}.json", broken.work / "best/step-99.json")
    broken.check = lambda: None
    run(settings, broken)
    assert payload(broken.folder) == payload(whole.folder)
    lost = world.make_context(tmp_path / "c", base=place / "base", data=place / "data")
    with pytest.raises(world.Interrupted):
        run(settings, world.interrupt_at(lost, stopped - 1))
    shutil.rmtree(lost.work / f"best/step-{best}")
    lost.check = lambda: None
    with pytest.raises(UserError, match=rf"the weights of step {best}, the best on held-out examples, are not there"):
        run(settings, lost)


def test_a_held_out_loss_that_is_no_number_is_recorded_as_none(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alpaca.stages.train.holdout.loss_of", lambda *_: math.nan)
    folder = train(place, "nan", world.train_config(holdout=6, holdout_steps=2, checkpoint_seconds=0.0))
    assert [row["holdout_loss"] for row in world.losses(folder) if "holdout_loss" in row] == [None] * 3
    assert "best_step" not in record(folder)


# --- signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_a_signal_saves_a_checkpoint_and_the_run_goes_on_to_the_same_bytes(place: Path, number: signal.Signals) -> None:
    whole = train(place, f"uninterrupted-{number.name}", world.train_config())
    context = world.make_context(place / f"warned-{number.name}", base=place / "base", data=place / "data")
    before = signal.getsignal(number)
    world.interrupt_at(context, 2, lambda: os.kill(os.getpid(), number))
    with pytest.raises(PreemptedError, match=rf"stopped by {number.name} after step 3 of 5(.|\n)*goes on from there"):
        run(world.train_config(), context)
    assert signal.getsignal(number) is before
    assert PreemptedError.exit_status == 75
    run(world.train_config(), world.interrupt_at(context, 2))  # a step more than are left would raise
    assert payload(context.folder) == payload(whole)


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_a_signal_while_loading_stops_after_the_first_step(
    place: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    plain = models.load_model
    monkeypatch.setattr(models, "load_model", lambda *a, **o: (os.kill(os.getpid(), number), plain(*a, **o))[1])
    with pytest.raises(PreemptedError, match=rf"stopped by {number.name} after step 1 of 5; a checkpoint of that step"):
        train(place, f"loading-{number.name}", world.train_config())


def test_a_signal_while_writing_lets_the_stage_finish(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = stage.export
    monkeypatch.setattr(stage, "export", lambda *a: (os.kill(os.getpid(), signal.SIGUSR2), plain(*a))[1])
    assert (train(place, "writing", world.train_config()) / "model/config.json").exists()


def test_ranks_of_another_number_than_configured_are_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    four = Ranks(rank=0, world_size=4, device=torch.device("cpu"), grouped=True)
    monkeypatch.setattr(stage, "setup", lambda: four)
    monkeypatch.setattr(Ranks, "close", lambda self: None)
    with pytest.raises(UserError, match=r"fsdp.world_size: started as one of 4 processes, and the configuration"):
        train(place, "four", world.train_config())


# --- number formats ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "tolerance"), [("fp16", 0.02), ("bf16", 0.05), ("bf16_sr", 0.1), ("bf16_plain", 0.1)])
def test_formats_follow_fp32_and_export_what_they_store(place: Path, name: str, tolerance: float) -> None:
    exact, folder = (train(place, f"{name}-{each}", settings) for each, settings in (
        ("fp32", world.train_config()), ("low", with_precision(name))
    ))
    assert column(folder, "loss") == pytest.approx(column(exact, "loss"), abs=tolerance)
    assert column(folder, "loss") != column(exact, "loss")
    stored = torch.float32 if name in ("fp16", "bf16") else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    assert {parameter.dtype for parameter in model.parameters()} == {stored}
    assert model.config.dtype == stored


def test_stochastic_rounding_resumes_to_the_same_bytes(place: Path, tmp_path: Path) -> None:
    settings = with_precision("bf16_sr", checkpoint_seconds=0.0)
    whole, broken = (world.make_context(tmp_path / n, base=place / "base", data=place / "data") for n in ("a", "b"))
    run(settings, whole)
    with pytest.raises(world.Interrupted):
        run(settings, world.interrupt_at(broken, 3))
    broken.check = lambda: None
    run(settings, broken)
    assert payload(broken.folder) == payload(whole.folder)


def test_the_loss_scale_falls_at_an_overflow_and_the_step_is_left_out(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scale = LossScale.of(config.Precision(compute="fp16"))
    scale.update(finite=False)
    assert (scale.scale, scale.exhausted()) == (FIRST_SCALE / 2, False)
    for _ in range(GROWS_AFTER):
        scale.update(finite=True)
    assert scale.scale == FIRST_SCALE
    assert LossScale.of(config.Precision()).exhausted()
    monkeypatch.setattr("alpaca.stages.train.precision.FIRST_SCALE", 2.0**40)  # beyond what fp16 can hold
    folder = train(place, "overflow", with_precision("fp16", budget="30 steps"))
    left_out = [row.get("left_out", 0) for row in world.losses(folder)]
    assert left_out[0] == 1
    assert left_out[-1] == 0
    assert record(folder)["nonfinite_steps"] == 0  # the scale's fault, not the training's


def test_a_scale_that_grows_does_not_change_the_step_in_which_it_does(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = config.SGD(lr=0.5, clip=None, momentum=0.0, warmup_ratio=0.0)
    monkeypatch.setattr("alpaca.stages.train.precision.FIRST_SCALE", 2.0**10)
    steady = train(place, "steady scale", with_precision("fp16", optimizer=plain))
    monkeypatch.setattr("alpaca.stages.train.precision.GROWS_AFTER", 2)
    growing = train(place, "growing scale", with_precision("fp16", optimizer=plain))
    assert column(growing, "loss") == pytest.approx(column(steady, "loss"), abs=2e-3)
    assert column(steady, "loss")[-1] < column(steady, "loss")[0] - 0.1


@pytest.mark.parametrize("compute", ["tf32", "fp8"])
def test_formats_of_gpus_are_refused_without_one(place: Path, compute: str) -> None:
    settings = replace(world.train_config(), precision=config.Precision(compute=compute))
    with pytest.raises(UserError, match=rf"precision.compute: {compute} is a format of GPUs"):
        train(place, compute, settings)


def test_linear_layers_in_eight_bits_keep_outputs_and_gradients_within_their_rounding() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 16), nn.Linear(16, 5))
    low = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 16), nn.Linear(16, 5))
    low.load_state_dict(plain.state_dict())
    assert fp8.replace_linear(low, kept=low[2]) == 1  # the head is kept, and 5 is no multiple of 16
    inputs = torch.randn(3, 7, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low(inputs).float().square().sum().backward()
    plain(inputs).square().sum().backward()
    for (name, exact), (_, rounded) in zip(plain.named_parameters(), low.named_parameters(), strict=True):
        assert exact.grad is not None
        assert rounded.grad is not None
        distance = (exact.grad - rounded.grad).norm() / exact.grad.norm()
        assert 0 < distance < 0.1, name


# --- memory and speed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["selective", "full"])
def test_recomputation_changes_nothing(place: Path, how: str) -> None:
    kept, again = (train(place, f"{how}-{each}", world.train_config(recompute=each)) for each in ("none", how))
    assert payload(again) == payload(kept)


@pytest.mark.parametrize("how", ["selective", "full"])
def test_recomputation_keeps_less(place: Path, how: str) -> None:
    from alpaca.stages.train import surgery

    def kept(how: str) -> int:
        model = AutoModelForCausalLM.from_pretrained(place / "base/model").train()
        surgery.recompute(model, how)
        sizes = list[int]()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: (sizes.append(t.numel()), t)[1], lambda t: t):
            model(torch.arange(64).view(1, 64), use_cache=False).logits.sum()
        return sum(sizes)

    assert kept(how) < 0.8 * kept("none")


@pytest.mark.slow
def test_compiled_layers_train_alike_and_are_compiled_once(place: Path) -> None:
    from torch._dynamo.utils import counters

    counters.clear()
    plain, compiled = (train(place, f"compile-{on}", world.train_config(compile=on)) for on in (False, True))
    assert column(compiled, "loss") == pytest.approx(column(plain, "loss"), abs=1e-4)
    graphs = counters["stats"]["unique_graphs"]
    longer = train(place, "compile-longer", world.train_config(compile=True, budget="20 steps"))
    assert len(column(longer, "loss")) == 20
    assert counters["stats"]["unique_graphs"] <= 2 * graphs  # of the second model, and none for any new layout


def test_a_profile_is_a_trace_and_a_table_and_no_content(place: Path) -> None:
    folder = train(place, "profile", world.train_config(budget="7 steps", profile=True))
    assert (folder / "profile/trace.json.gz").stat().st_size > 1000
    assert "aten::mm" in (folder / "profile/table.txt").read_text()


# --- batches and vocabulary -------------------------------------------------------------------------------------------


def test_a_batch_in_tokens_holds_as_many_whole_examples_as_fit() -> None:
    lengths = [10, 20, 30, 40, 100]
    plan = order.plan(Budget.parse("2 epochs"), lengths, 60, seed=0, unit="tokens")
    batches = [plan.batch(step) for step in range(plan.steps)]
    assert sorted(index for batch in batches for index in batch) == sorted([*range(5), *range(5)])
    for batch, following in itertools.pairwise(batches):
        held = sum(lengths[index] for index in batch)
        assert held <= 60 or len(batch) == 1
        assert held + lengths[following[0]] > 60  # the next one did not fit
    assert order.plan(Budget.parse("3 steps"), lengths, 60, seed=0, unit="tokens").steps == 3
    spent = order.plan(Budget.parse("500 tokens"), lengths, 60, seed=0, unit="tokens")
    used = [sum(lengths[index] for index in spent.batch(step)) for step in range(spent.steps)]
    assert sum(used[:-1]) < 500 <= sum(used)


def test_the_stage_takes_batches_in_tokens(place: Path) -> None:
    folder = train(place, "tokens", world.train_config(global_batch=700, batch_unit="tokens"))
    assert all(400 < row["tokens"] <= 700 for row in world.losses(folder))


def test_the_vocabulary_is_filled_up_with_the_mean(place: Path, tmp_path: Path) -> None:
    still = config.AdamW(lr=0.0, warmup_ratio=0.0)
    folder = train(place, "filled", world.train_config(budget="1 steps", optimizer=still, vocabulary_multiple=64))
    old = AutoModelForCausalLM.from_pretrained(place / "base/model").get_input_embeddings().weight
    new = AutoModelForCausalLM.from_pretrained(folder / "model").get_input_embeddings().weight
    assert len(old) % 64
    assert len(new) == math.ceil(len(old) / 64) * 64
    assert torch.equal(new[: len(old)], old)
    assert torch.allclose(new[len(old) :], old.mean(dim=0).expand(len(new) - len(old), -1))
    assert len(AutoTokenizer.from_pretrained(folder / "model")) == len(old)


def test_large_models_are_saved_in_shards(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alpaca.stages.train.export.SHARD", "30KB")
    folder = train(place, "shards", world.train_config())
    names = sorted(path.name for path in (folder / "model").glob("*.safetensors*"))
    assert names[-1] == "model.safetensors.index.json"
    assert len(names) > 2
    whole = train(place, "in one", world.train_config())
    left, right = (AutoModelForCausalLM.from_pretrained(each / "model").state_dict() for each in (folder, whole))
    assert all(torch.equal(left[name], right[name]) for name in right)


def test_the_norm_of_bf16_gradients_is_computed_in_fp32() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(300, 300), nn.Linear(300, 300)).to(torch.bfloat16)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    squares = [each.grad.double().square().sum() for each in model.parameters() if each.grad is not None]
    exact = math.sqrt(sum(map(float, squares)))
    assert gradient.norm(model) == pytest.approx(exact, rel=1e-5)
