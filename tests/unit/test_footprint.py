"""What training needs, counted before it runs: shapes, memory, operations; against what PyTorch really keeps."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from alpaca import config, footprint, sweep
from alpaca.config import HubModel, Precision, Run, Train
from alpaca.footprint import GIB, Lengths, Settings, Shape, fullest, gpus, memory, shape_of, speed, step
from alpaca.footprint.memory import saved
from alpaca.footprint.work import distinct
from alpaca.runtime import provenance
from alpaca.stages.train import batches, packing
from alpaca.stages.train.objective import Objective
from alpaca.stages.train.tokens import Row

HUB_MODELS = ("llama7b", "llama13b", "llama3_2_1b", "opt6_7b", "qwen3_0_6b", "smollm3_3b")
SMALL = Shape(
    layers=2, width=64, feed_forward=176, heads=4, kv_heads=2, head_size=16, vocabulary=512, tied=False, gated=True
)


def one(*overrides: str) -> Run:
    return sweep.expand(list(overrides), multirun=False).runs[0]


def shape_in(*overrides: str) -> Shape:
    shape = shape_of(one(*overrides).model)
    assert shape is not None
    return shape


def kept(*overrides: str, on_gpu: bool = True) -> footprint.Memory:
    found = footprint.peak(one(*overrides), on_gpu=on_gpu)
    assert found is not None
    return found


# --- shapes


@pytest.mark.parametrize("name", [*HUB_MODELS, "tiny"])
def test_the_published_shape_has_the_published_number_of_parameters(name: str) -> None:
    run = one(f"model={name}")
    assert shape_in(f"model={name}").parameters == pytest.approx(run.model.parameters, rel=0.01)


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_those_of_transformers_llama(tied: bool, tmp_path: Path) -> None:
    module = LlamaForCausalLM(llama(replace(SMALL, tied=tied)))
    module.config.save_pretrained(tmp_path)
    run = one("model=llama7b")
    assert isinstance(run.model, HubModel)
    run.model.path = str(tmp_path)
    shape = shape_of(run.model)
    assert shape == replace(SMALL, tied=tied)
    assert shape is not None
    assert shape.parameters == sum(each.numel() for each in module.parameters())


def test_a_config_json_wins_over_the_facts_and_is_found_in_the_hub_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--huggyllama--llama-7b"
    (cached / "snapshots" / "abc").mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    told = {"num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16}
    (cached / "snapshots" / "abc" / "config.json").write_text(json.dumps({**told, "vocab_size": 10}))
    assert shape_in("model=llama7b").layers == 2


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"num_local_experts": 8}', '{"model_type": "mamba", "hidden_size": 64}']
)  # fmt: skip
def test_what_is_no_dense_decoder_has_no_shape(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    model = HubModel(name="x", parameters=1.0, id="a/b", path=str(tmp_path))
    assert shape_of(model) is None


def test_gpt2s_words_are_understood(tmp_path: Path) -> None:
    told = {"model_type": "gpt2", "n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257, "n_inner": None}
    (tmp_path / "config.json").write_text(json.dumps(told))
    shape = shape_of(HubModel(name="x", parameters=1.0, id="a/b", path=str(tmp_path)))
    assert shape is not None
    assert shape.parameters == pytest.approx(124e6, rel=0.01)  # its 786 thousand learnt positions are left out


# --- memory: the figures of a calculation by hand


def test_seven_billion_parameters_take_sixteen_bytes_each_in_fp32_and_eight_with_stochastic_rounding() -> None:
    whole = kept("model=llama7b")
    assert (whole.parameters + whole.gradients + whole.states) / GIB == pytest.approx(100.4, abs=0.1)
    half = kept("model=llama7b", "precision=bf16_sr")
    assert (half.parameters + half.gradients + half.states) / GIB == pytest.approx(50.2, abs=0.1)


@pytest.mark.parametrize(
    ("overrides", "bytes_each"),
    [
        (["optimizer=adamw"], 8.0),
        (["optimizer=adamw", "precision.states=bf16"], 4.0),
        (["optimizer=adamw8bit"], 2.03 + 6 * 0.0389),  # embedding and head, 3.9 % of all, keep theirs in fp32
        (["optimizer=muon"], 4 + 4 * 0.0389),
        (["optimizer=sgd"], 4.0),
        (["optimizer=sgd", "optimizer.momentum=0"], 0.0),
        (["optimizer=adafactor"], 0.0),
    ],
)
def test_states_of_each_optimizer(overrides: list[str], bytes_each: float) -> None:
    shape = shape_in("model=llama7b")
    assert kept("model=llama7b", *overrides).states / shape.parameters == pytest.approx(bytes_each, abs=0.01)


def test_sharding_divides_what_it_shards() -> None:
    alone = kept("model=llama7b")
    for mode, shards in (("full_shard", 8), ("shard_grad_op", 8), ("hybrid_shard", 4)):
        found = kept("model=llama7b", f"fsdp={mode}", "fsdp.world_size=8")
        assert found.parameters == alone.parameters / shards
        assert found.states == alone.states / shards
        assert found.gathered > 0
    whole, layers = (kept("model=llama7b", f"fsdp={mode}").gathered for mode in ("shard_grad_op", "full_shard"))
    assert whole > 2 * layers
    assert kept("model=llama7b", "fsdp=ddp").parameters == alone.parameters


def test_offloading_moves_shards_to_the_host() -> None:
    found = kept("model=llama7b", "fsdp=full_shard", "fsdp.world_size=8", "fsdp.offload=true")
    assert found.parameters == found.states == found.gradients == 0
    assert found.host["offloaded"] / GIB == pytest.approx(100.4 / 8, abs=0.1)
    assert found.host_total == found.host["offloaded"] + found.host["staging"]


def staged(*overrides: str) -> float:
    """Bytes per parameter of LLaMA-7B beside a GPU."""
    return kept("model=llama7b", *overrides).host["staging"] / shape_in("model=llama7b").parameters


def test_checkpoints_are_written_from_a_copy_of_weights_and_states_in_host_memory() -> None:
    assert kept("model=llama7b").host_total == pytest.approx(80.9e9, rel=0.01)
    assert staged() == 12
    assert staged("precision=bf16_sr") == 6
    assert staged("optimizer=sgd", "optimizer.momentum=0") == 4


@pytest.mark.parametrize(
    ("overrides", "bytes_each"),
    [
        (["train.holdout=10", "train.patience=2"], 12 + 4),
        (["train.on_spike=rollback"], 12 + 12),
        (["train.on_nonfinite=rollback"], 12 + 12),
        (["train.on_nonfinite=rollback", "train.on_spike=rollback", "train.holdout=10", "train.patience=2"], 28),
        (["train.on_nonfinite=skip", "train.on_spike=stop", "train.holdout=10"], 12),
    ],
)
def test_best_weights_and_rollback_points_have_copies_of_their_own(overrides: list[str], bytes_each: float) -> None:
    assert staged(*overrides) == bytes_each


def test_copies_stage_everything_and_shards_their_part() -> None:
    assert staged("fsdp=ddp", "fsdp.world_size=8") == 12
    assert staged("fsdp=full_shard", "fsdp.world_size=8") == 12 / 8
    assert staged("fsdp=hybrid_shard", "fsdp.world_size=8") == 12 / 4


@pytest.mark.parametrize("adapter", ["lora", "qlora"])
def test_of_an_adapter_only_what_is_trained_is_staged(adapter: str) -> None:
    found = kept("model=llama7b", f"train.adapter={adapter}")
    assert found.host["staging"] == pytest.approx(12 * 19_988_480)


def test_staging_is_a_part_of_a_process_on_a_cpu_and_none_of_a_gpus() -> None:
    here, gpu = kept("model=llama7b", on_gpu=False), kept("model=llama7b")
    assert here.parts()["staging"] == gpu.host["staging"]
    assert here.host == {}
    assert "staging" not in gpu.parts()
    twice = kept("model=llama7b", "train.on_spike=rollback", on_gpu=False)
    assert twice.total == pytest.approx(here.total + here.staging)
    assert kept("model=llama7b", "train.on_spike=rollback").total == gpu.total


def test_an_adapter_has_few_gradients_and_a_base_in_four_bits_is_small() -> None:
    lora, qlora = (kept("model=llama7b", f"train.adapter={name}", "precision=bf16_sr") for name in ("lora", "qlora"))
    # Rank 8 on the seven linear layers of LLaMA-7B: 20 million numbers (peft prints 19,988,480).
    assert lora.gradients / 2 == pytest.approx(19_988_480)
    assert lora.parameters / GIB == pytest.approx(12.6, abs=0.1)
    assert qlora.parameters / GIB == pytest.approx(3.64, abs=0.02)
    chosen = kept("model=llama7b", "train.adapter=lora", "train.lora_targets=[q_proj,v_proj]", "precision=bf16_sr")
    assert chosen.gradients / 2 == pytest.approx(4_194_304)


def test_a_cpu_keeps_kernels_for_products_in_bf16_alone() -> None:
    found = {name: kept(f"precision={name}", on_gpu=False).overhead / GIB for name in ("fp32", "bf16", "fp16")}
    assert found["bf16"] > 0.27 > 0.2 > max(found["fp32"], found["fp16"])
    assert kept("model=llama7b", "precision=bf16").overhead < kept("model=llama7b", "precision=fp32").overhead


def test_recomputation_keeps_less_of_each_token() -> None:
    none, selective, full = (
        kept("model=llama7b", "precision=bf16_sr", f"train.recompute={way}").activations
        for way in ("none", "selective", "full")
    )
    assert none > 1.5 * selective > 3 * full
    run = one("model=llama7b", "precision=bf16_sr", "train.recompute=full", "train.pack_tokens=16384")
    work = fullest(run.train, Lengths())
    settings = Settings(train=run.train, optimizer=run.optimizer, precision=run.precision, fsdp=run.fsdp, on_gpu=True)
    # A layer's input in bf16 for each of 32 layers is 0.25 MiB a token; one layer is whole beside them.
    assert saved(shape_in("model=llama7b"), work, settings) / work.tokens / 2**20 == pytest.approx(0.47, abs=0.05)


def test_more_passes_over_shards_keep_no_more_gradients() -> None:
    """They are exchanged after each pass, so that no process ever holds whole ones."""
    single = kept("model=llama7b", "fsdp=full_shard", "train.global_batch=32", "fsdp.world_size=4")
    several = kept("model=llama7b", "fsdp=full_shard", "train.global_batch=1024", "fsdp.world_size=4")
    assert several.gathered == single.gathered < 5 * GIB


# --- memory: against what PyTorch saves for the backward pass


def llama(shape: Shape) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        tie_word_embeddings=shape.tied,
    )


def made_rows(count: int, lengths: Lengths) -> tuple[list[Row], tuple[tuple[int, ...], ...]]:
    """Examples whose lengths are the quantiles of the distribution that is assumed, with one of two beginnings."""
    draw = random.Random(0)
    starts = tuple(tuple(range(10 + size, 10 + 2 * size)) for size in lengths.shared)
    rows = []
    for index in range(count):
        factor = draw.lognormvariate(-(lengths.spread**2) / 2, lengths.spread)
        own = max(8, round((lengths.mean - lengths.shared_mean) * factor))
        ids = [*starts[index % 5 < 2], *(draw.randrange(100, 500) for _ in range(own))]
        rows.append(Row(ids, round(len(ids) * (1 - lengths.supervised))))
    return rows, starts[::-1]


def bytes_saved(shape: Shape, precision: Precision, form: batches.Form, rows: list[Row]) -> tuple[int, int, int]:
    """Of one pass over the rows: bytes of the storages kept, without the weights; tokens; positions with loss."""
    torch.manual_seed(0)
    low = precision.compute == "bf16"
    module = LlamaForCausalLM(llama(shape)).to(torch.bfloat16 if precision.parameters == "bf16" else torch.float32)
    objective = Objective(module, 1024)
    objective.set_attention(packed=form.batching == "packed")
    weights = {each.untyped_storage().data_ptr() for each in module.parameters()}
    seen: dict[int, torch.Tensor] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        seen.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    batch = batches.collate(rows, form, torch.device("cpu"))
    cast = torch.autocast("cpu", torch.bfloat16, enabled=low and precision.parameters == "fp32")
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), cast:
        objective(batch)
    total = sum(each.untyped_storage().nbytes() for place, each in seen.items() if place not in weights)
    return total, batch.ids.numel(), len(batch.chosen)


@pytest.mark.parametrize("shape", [SMALL, replace(SMALL, layers=3, width=128, feed_forward=344, head_size=32)])
@pytest.mark.parametrize("form", ["packed", "alone", "padded"])
@pytest.mark.parametrize(
    "precision", [Precision(), Precision(compute="bf16", parameters="bf16"), Precision(compute="bf16")],
    ids=["fp32", "bf16", "mixed"],
)  # fmt: skip
def test_what_is_kept_for_the_backward_pass_is_forecast(shape: Shape, form: str, precision: Precision) -> None:
    lengths = Lengths() if form == "packed" else Lengths(shared=(), shared_mean=0.0)
    rows, shared = made_rows(24, Lengths())
    train = Train(global_batch=24, batching="padded" if form == "padded" else "packed", micro_batch=24)
    how = batches.Form(batching=train.batching, pad=0, shared=shared if form == "packed" else ())
    found, tokens, chosen = bytes_saved(shape, precision, how, rows)
    settings = Settings(train=train, optimizer=config.AdamW(), precision=precision, fsdp=config.Fsdp(), on_gpu=False)
    work = step(train, lengths)
    work = replace(work, tokens=tokens, keys=work.keys * tokens / work.tokens, masks=work.masks)
    parts = memory(shape, work, settings)
    # The loss keeps the gradients of head (fp32) and hidden states from its forward pass on.
    loss = 4 * shape.embedding + (2 if precision.compute == "bf16" else 4) * chosen * shape.width
    assert saved(shape, work, settings) + parts.copies + loss == pytest.approx(found, rel=0.15)


# --- work


def test_a_step_is_cut_into_passes_as_packing_cuts_it() -> None:
    lengths, train = Lengths(), Train(global_batch=96, batching="packed", pack_tokens=2048)
    rows, shared = made_rows(96, lengths)
    parts = packing.bins(rows, train.pack_tokens, shared, 0, 1)
    layouts = [packing.lay_out(part, shared).layout for part in parts]
    work = step(train, lengths)
    assert work.passes == len(parts)
    assert work.tokens == pytest.approx(sum(each.tokens for each in layouts) / len(layouts), rel=0.1)
    runs = sum(len(each.runs) + len(each.prefixes) for each in layouts) / len(layouts)
    assert work.runs == pytest.approx(runs, rel=0.15)


def test_the_fullest_pass_is_no_larger_than_the_budget_and_no_smaller_than_the_mean() -> None:
    for examples in (8, 32, 64, 128, 500):
        train = Train(global_batch=examples)
        mean, most = step(train, Lengths()), fullest(train, Lengths())
        assert mean.tokens <= most.tokens <= train.pack_tokens
    padded = Train(batching="padded", micro_batch=4)
    assert step(padded, Lengths()).tokens == pytest.approx(4 * 128 * 1.52, rel=0.1)  # measured on the released lengths
    assert fullest(padded, Lengths()).tokens <= 4 * padded.max_length


def test_a_batch_in_tokens_and_a_batch_over_processes() -> None:
    assert step(Train(batch_unit="tokens", global_batch=16384), Lengths()).examples == pytest.approx(32)
    alone, shared = step(Train(), Lengths(), 1), step(Train(), Lengths(), 4)
    assert shared.passes * shared.examples == pytest.approx(alone.passes * alone.examples / 4)


def test_few_examples_have_different_lengths_and_many_share_them() -> None:
    assert distinct(2, 100) == pytest.approx(2, abs=0.1)
    assert distinct(2000, 100) < 400


# --- operations and GPUs


def test_the_whole_recipe_is_eight_times_ten_to_the_seventeen_operations() -> None:
    found = speed.flops(shape_in("model=llama7b"), 19.98e6, 128)
    assert found == pytest.approx(7.95e17, rel=0.01)


@pytest.mark.parametrize(
    ("gpu", "tokens_per_second", "share"),
    [("A100-80GB", 231, 0.029), ("A100-80GB", 1053, 0.134), ("H200", 14_900, 0.60), ("H200", 12_400, 0.50)],
)
def test_utilisation_of_what_people_measured(gpu: str, tokens_per_second: float, share: float) -> None:
    found = gpus.named(gpu)
    assert found is not None
    assert speed.mfu(shape_in("model=llama7b"), tokens_per_second, 128, found) == pytest.approx(share, rel=0.02)


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100-80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("Tesla V100-SXM2-16GB", "V100-16GB"),
        ("Tesla T4", "T4"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090"),
        ("NVIDIA GeForce GTX 1080", None),
        ("NVIDIA L40", None),
    ],
)
def test_a_drivers_name_is_found_in_the_table(told: str, name: str | None) -> None:
    found = gpus.of_driver(told)
    assert (found.name if found else None) == name


def test_what_gpus_can_multiply_in() -> None:
    low = {gpu.name for gpu in gpus.GPUS if not gpu.has_bf16}
    assert low == {"V100-16GB", "V100-32GB", "T4"}
    eight = {gpu.name for gpu in gpus.GPUS if gpu.has_fp8}
    assert eight == {"L4", "L40S", "H100-80GB", "H200", "B200", "RTX-4090"}
    assert all((gpu.fp8_tflops is not None) == gpu.has_fp8 for gpu in gpus.GPUS)


def test_the_driver_is_asked_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_from_smi", lambda: "")
    monkeypatch.setattr(provenance, "PROC", tmp_path)
    provenance.gpu_name.cache_clear()
    assert gpus.here() is None
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0" / "information").write_text("Model: \t\t NVIDIA H200\nIRQ: 1\n")
    provenance.gpu_name.cache_clear()
    found = gpus.here()
    provenance.gpu_name.cache_clear()
    assert found is not None
    assert found.name == "H200"


# --- seconds


RATES = speed.Rates(
    widths=[128, 256], flops=[1e9, 3e9], call=1e-3, pair=1e-9, logit=1e-9, logit_width=1e-10, update=1e-9
)


def cpu(run: Run) -> float:
    settings = Settings(train=run.train, optimizer=run.optimizer, precision=run.precision, fsdp=run.fsdp, on_gpu=False)
    return speed.cpu_seconds(SMALL, step(run.train, Lengths()), settings, RATES)


def test_rates_between_the_measured_widths_are_on_a_line() -> None:
    assert [RATES.layer(width) for width in (64, 128, 192, 256, 999)] == [1e9, 1e9, 2e9, 3e9, 3e9]
    assert speed.line([(1, 3.0), (3, 7.0)]) == (1.0, 2.0)
    assert speed.line([(1, 1.0), (2, 4.0)]) == (0.0, 2.0)


def test_seconds_grow_with_the_batch_and_with_recomputation() -> None:
    assert cpu(one("train.global_batch=128")) == pytest.approx(2 * cpu(one("train.global_batch=64")), rel=0.1)
    assert 1.1 < cpu(one("train.recompute=full")) / cpu(one()) < 4 / 3


def test_a_gpu_is_quicker_packed_than_padded_and_slower_in_fp32() -> None:
    gpu = gpus.named("H200")
    assert gpu is not None

    def took(*overrides: str) -> float:
        run = one("model=llama7b", *overrides)
        settings = Settings(
            train=run.train, optimizer=run.optimizer, precision=run.precision, fsdp=run.fsdp, on_gpu=True
        )
        return speed.gpu_seconds(shape_in("model=llama7b"), step(run.train, Lengths()), settings, gpu, Lengths())

    assert took("train.batching=padded") > 3 * took()
    assert took("precision=fp32") > took("precision=tf32") > took() > took("precision=fp8")
    # The whole recipe at half the peak with shared beginnings: 20 minutes, and the optimizer's traffic beside.
    assert 1219 * took("precision=bf16_sr") / 60 == pytest.approx(20.5, abs=1.5)


def test_what_was_measured_is_kept_and_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALPACA_CACHE", str(tmp_path))
    monkeypatch.setenv(speed.SWITCH, "0")
    speed.rates.cache_clear()
    assert speed.rates(1) is None
    speed.keep(RATES, 1)
    speed.rates.cache_clear()
    assert speed.rates(1) == RATES
    assert speed.rates(2) is None
    speed.record(1).write_text("{")
    speed.rates.cache_clear()
    assert speed.rates(1) is None
    speed.rates.cache_clear()


def test_a_processor_is_measured_in_numbers_above_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    from alpaca.stages.train import calibrate

    for name, value in {"WIDTHS": (32, 64), "TOKENS": 64, "REPEATS": 1, "VOCABULARY": 64, "POSITIONS": 32}.items():
        monkeypatch.setattr(calibrate, name, value)
    found = calibrate.calibrate()
    assert found.widths == [32, 64]
    assert min([*found.flops, found.call + found.pair, found.logit + found.logit_width, found.update]) > 0
