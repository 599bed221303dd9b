"""Low-rank updates: trained alone, exported merged into the weights and by themselves, however a layer is stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from alpaca import config
from alpaca.errors import UserError
from alpaca.stages.train import run
from tests.unit import training_world as world
from tests.unit.test_training import payload, train

FAST = config.AdamW(lr=5e-2, warmup_ratio=0.0)
STILL = config.AdamW(lr=0.0, warmup_ratio=0.0)
HELD_OUT = {"holdout": 6, "holdout_steps": 1}
IDS = torch.tensor([[1, 20, 30, 40]])


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base and 30 examples."""
    folder = tmp_path_factory.mktemp("adapters")
    world.make_base(folder / "base")
    world.make_data(folder / "data", world.examples(30))
    return folder


def save_base(folder: Path, model: Any, tokenizer: Any) -> Path:
    """A place with this model as base, and 30 examples."""
    model.save_pretrained(folder / "base/model")
    tokenizer.save_pretrained(folder / "base/model")
    world.make_data(folder / "data", world.examples(30))
    return folder


def make_gpt2(folder: Path) -> Path:
    """Its linear layers store their weights transposed, among them square ones."""
    torch.manual_seed(0)
    tokenizer = world.make_tokenizer()
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    shape = GPT2Config(vocab_size=len(tokenizer), n_positions=512, n_embd=64, n_layer=2, n_head=2, **special)
    return save_base(folder, GPT2LMHeadModel(shape), tokenizer)


def make_llama(folder: Path, *, tied: bool, **special: str) -> Path:
    torch.manual_seed(0)
    tokenizer = world.make_tokenizer(**special)
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return save_base(folder, LlamaForCausalLM(shape), tokenizer)


def column(folder: Path, name: str) -> list[float]:
    return [row[name] for row in world.losses(folder)]


def adapted(kind: str, **settings: Any) -> config.TrainConfig:
    return world.train_config(adapter=kind, optimizer=FAST, budget="20 steps", **HELD_OUT, **settings)


def held_out_loss(place: Path, name: str, base: Path) -> float:
    """Of a finished model, as it is."""
    settings = world.train_config(budget="1 steps", optimizer=STILL, **HELD_OUT)
    return column(train(place, name, settings, base=base), "holdout_loss")[0]


def assert_the_exported_weights_are_the_trained_ones(place: Path, folder: Path) -> None:
    """The held-out loss of the exported model is the last one that was measured in training, with the adapter."""
    trained = column(folder, "holdout_loss")[-1]
    assert held_out_loss(place, "exported", folder) == pytest.approx(trained, abs=1e-5)
    assert abs(held_out_loss(place, "untrained", place / "base") - trained) > 1e-2


def adapter_over_base(place: Path, folder: Path) -> Any:
    base = AutoModelForCausalLM.from_pretrained(place / "base/model")
    return PeftModel.from_pretrained(base, folder / "adapter")


# --- llama ------------------------------------------------------------------------------------------------------------


def test_lora_trains_the_adapter_alone_and_exports_merged_weights(place: Path) -> None:
    settings = world.train_config(adapter="lora", lora_rank=4, optimizer=FAST)
    folder = train(place, "lora", settings)
    assert column(folder, "loss")[-1] < column(folder, "loss")[0] - 0.1
    base = AutoModelForCausalLM.from_pretrained(place / "base/model")
    merged = AutoModelForCausalLM.from_pretrained(folder / "model")
    changed = {name for name, weight in merged.named_parameters() if not torch.equal(weight, base.get_parameter(name))}
    assert changed == {name for name, _ in base.named_parameters() if "_proj" in name}
    assert torch.allclose(adapter_over_base(place, folder)(IDS).logits, merged(IDS).logits, atol=1e-4)


def test_lora_resumes_to_the_same_bytes_and_takes_named_layers(place: Path, tmp_path: Path) -> None:
    settings = world.train_config(adapter="lora", lora_targets=["q_proj"], checkpoint_seconds=0.0)
    whole, broken = (world.make_context(tmp_path / n, base=place / "base", data=place / "data") for n in ("a", "b"))
    run(settings, whole)
    with pytest.raises(world.Interrupted):
        run(settings, world.interrupt_at(broken, 3))
    broken.check = lambda: None
    run(settings, broken)
    assert payload(broken.folder) == payload(whole.folder)
    assert json.loads((whole.folder / "adapter/adapter_config.json").read_text())["target_modules"] == ["q_proj"]


@pytest.mark.parametrize("tied", [True, False])
def test_tied_and_untied_heads_are_exported_as_they_were(tmp_path: Path, tied: bool) -> None:
    place = make_llama(tmp_path, tied=tied)
    folder = train(place, "lora", adapted("lora"))
    assert_the_exported_weights_are_the_trained_ones(place, folder)
    with safe_open(folder / "model/model.safetensors", framework="pt") as file:
        assert ("lm_head.weight" in file.keys()) != tied  # noqa: SIM118 - safe_open is no mapping
    assert AutoModelForCausalLM.from_pretrained(folder / "model").config.tie_word_embeddings == tied


@pytest.mark.parametrize("tied", [True, False])
def test_an_added_token_is_exported_with_the_merged_weights(tmp_path: Path, tied: bool) -> None:
    place = make_llama(tmp_path, tied=tied, bos_token="<bos>", eos_token="<eos>")
    folder = train(place, "lora", adapted("lora", vocabulary_multiple=8))
    assert_the_exported_weights_are_the_trained_ones(place, folder)
    base, merged = (AutoModelForCausalLM.from_pretrained(each / "model") for each in (place / "base", folder))
    old = base.get_input_embeddings().weight
    for head, start in ((merged.get_input_embeddings(), old), (merged.lm_head, base.lm_head.weight)):
        assert len(head.weight) % 8 == 0
        assert len(head.weight) > len(old)
        assert torch.equal(head.weight[: len(old)], start)
        assert torch.allclose(head.weight[len(old) :], start.mean(dim=0))
    assert AutoTokenizer.from_pretrained(folder / "model").pad_token_id == len(old)
    known = adapter_over_base(place, folder)(IDS).logits  # the base as published: without the row of the added token
    assert torch.allclose(known, merged(IDS).logits[..., : len(old)], atol=1e-4)


# --- weights that are stored transposed -------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", [None, ["c_attn"], ["attn.c_proj"]], ids=str)
def test_updates_of_transposed_layers_are_exported_transposed(tmp_path: Path, targets: list[str] | None) -> None:
    place = make_gpt2(tmp_path)
    folder = train(place, "lora", adapted("lora", lora_targets=targets))
    assert_the_exported_weights_are_the_trained_ones(place, folder)
    assert json.loads((folder / "adapter/adapter_config.json").read_text())["fan_in_fan_out"]
    merged = AutoModelForCausalLM.from_pretrained(folder / "model")
    assert torch.allclose(adapter_over_base(place, folder)(IDS).logits, merged(IDS).logits, atol=1e-4)


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (["query_key_value"], "has no layer query_key_value"),
        (["q_proj", "query"], "has no layer query"),
        (["q_proj", "lm_head"], "lm_head is the output head"),
        (["embed_tokens"], "embed_tokens is the output head or not linear"),
        (["self_attn"], r"layers.0.self_attn is the output head or not linear"),
        (["norm"], r"model.norm is the output head or not linear"),
    ],
)
@pytest.mark.parametrize("tied", [True, False])
def test_what_no_update_can_train_is_refused_with_the_names_that_can(
    tmp_path: Path, tied: bool, targets: list[str], words: str
) -> None:
    place = make_llama(tmp_path, tied=tied)
    with pytest.raises(UserError, match=rf"train.lora_targets: .*{words}(.|\n)*: down_proj, .*v_proj$"):
        train(place, "refused", world.train_config(adapter="lora", lora_targets=targets))


def test_embeddings_of_positions_are_no_linear_layers(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"wpe is the output head or not linear(.|\n)*: c_attn, c_fc, c_proj$"):
        train(make_gpt2(tmp_path), "refused", world.train_config(adapter="lora", lora_targets=["c_attn", "wpe"]))


# --- a base in four bits ----------------------------------------------------------------------------------------------


def test_qlora_trains_an_adapter_over_a_base_in_four_bits(tmp_path: Path) -> None:
    world.make_base(tmp_path / "base", width=64)
    world.make_data(tmp_path / "data", world.examples(30))
    folder = train(tmp_path, "qlora", adapted("qlora"))
    merged = AutoModelForCausalLM.from_pretrained(folder / "model")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base/model")
    assert getattr(merged.config, "quantization_config", None) is None
    for name, weight in merged.named_parameters():
        assert weight.dtype == torch.float32
        distance = (weight - base.get_parameter(name)).norm() / base.get_parameter(name).norm()
        assert distance > 0.01 if "_proj" in name else distance == 0, name
    assert_the_exported_weights_are_the_trained_ones(tmp_path, folder)


def test_transposed_layers_in_four_bits_are_exported_as_they_are_stored(tmp_path: Path) -> None:
    place = make_gpt2(tmp_path)
    assert_the_exported_weights_are_the_trained_ones(place, train(place, "qlora", adapted("qlora")))
