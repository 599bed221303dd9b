"""The exported model: verified whatever names its weights are stored under; its chat template is Alpaca's prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from jinja2.exceptions import TemplateError
from safetensors.torch import load_file, save_file
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from alpaca.errors import UserError
from alpaca.prompts import RESPONSE_MARK, prompt
from alpaca.stages.train import export as module
from alpaca.stages.train.export import compare, export
from alpaca.stages.train.tokens import token_ids
from tests.unit import training_world as world

HIDDEN = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
GROUPED = {**HIDDEN, "num_key_value_heads": 1}
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {**GROUPED, "tie_word_embeddings": True},
    "gpt_neox": HIDDEN,  # renamed
    "mixtral": {**GROUPED, "num_local_experts": 4},  # split and renamed
    "granitemoe": {**GROUPED, "num_local_experts": 4, "tie_word_embeddings": True},  # renamed
}
INSTRUCTIONS = ["red sun", 'Say "it\'s" {{ x }}\n\n  twice ', "", "### Response: <eos>"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def make(kind: str, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    shape = AutoConfig.for_model(kind, vocab_size=300, bos_token_id=0, eos_token_id=1, pad_token_id=2, **SHAPES[kind])
    return AutoModelForCausalLM.from_config(shape, dtype=dtype)


def exported(folder: Path, model: Any, tokenizer: Any = None, **options: Any) -> Path:
    """The folder that the model was exported to."""
    context = world.make_context(folder)
    export(context, model.config, tokenizer or world.make_tokenizer(), dict(model.state_dict()), **options)
    return folder / "model"


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shard", ["5GB", "20KB"])
def test_every_architecture_loads_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, dtype: torch.dtype, shard: str
) -> None:
    monkeypatch.setattr(module, "SHARD", shard)
    model = make(kind, dtype)
    folder = exported(tmp_path, model)
    assert (len(list(folder.glob("*.safetensors"))) > 1) == (shard == "20KB")
    loaded, weights = AutoModelForCausalLM.from_pretrained(folder).state_dict(), model.state_dict()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], weight) and loaded[name].dtype == dtype for name, weight in weights.items())


def test_only_what_is_split_or_merged_for_the_disk_takes_a_second_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = list[str]()
    plain = module._compare_loaded
    for kind in SHAPES:
        monkeypatch.setattr(module, "_compare_loaded", lambda *given, kind=kind: (loaded.append(kind), plain(*given)))
        exported(tmp_path / kind, make(kind))
    assert loaded == ["mixtral"]
    stored = load_file(tmp_path / "gpt_neox/model/model.safetensors")
    assert stored.keys() != make("gpt_neox").state_dict().keys()  # the names do differ


def change_a_byte(path: Path) -> None:
    weights = load_file(path)
    renamed = [name for name in weights if "embed_out" in name or "experts.0" in name or "block_sparse_moe" in name]
    name = (renamed or sorted(weights))[0]
    weights[name].view(torch.uint8).view(-1)[-1] ^= 1
    save_file(weights, path, metadata={"format": "pt"})


def leave_a_tensor_out(path: Path) -> None:
    weights = load_file(path)
    del weights[sorted(weights)[-1]]
    save_file(weights, path, metadata={"format": "pt"})


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def empty_the_configuration(path: Path) -> None:
    (path.parent / "config.json").write_text("{")


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("damage", [change_a_byte, leave_a_tensor_out, cut_off, empty_the_configuration, Path.unlink])
def test_no_damage_is_accepted(tmp_path: Path, kind: str, damage: Any) -> None:
    model = make(kind)
    folder, weights = exported(tmp_path, model), dict(model.state_dict())
    if model.config.tie_word_embeddings:
        del weights["lm_head.weight"]
    compare(folder, weights)
    damage(folder / "model.safetensors")
    with pytest.raises(UserError, match=r"model: reading back what was written gives other weights"):
        compare(folder, weights)


@pytest.mark.parametrize("lost", ["shard", "entry", "index"])
def test_a_lost_shard_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    monkeypatch.setattr(module, "SHARD", "20KB")
    model = make("gpt_neox")
    folder = exported(tmp_path, model)
    index = folder / "model.safetensors.index.json"
    if lost == "shard":
        sorted(folder.glob("*.safetensors"))[0].unlink()
    elif lost == "index":
        index.unlink()
    else:
        entries = json.loads(index.read_text())
        first = sorted(set(entries["weight_map"].values()))[0]
        entries["weight_map"] = {name: file for name, file in entries["weight_map"].items() if file != first}
        index.write_text(json.dumps(entries))
    with pytest.raises(UserError, match=r"reading back"):
        compare(folder, dict(model.state_dict()))


def test_a_damaged_export_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = module._write

    def torn(folder: Path, *given: Any) -> None:
        write(folder, *given)
        cut_off(folder / "model.safetensors")

    monkeypatch.setattr(module, "_write", torn)
    with pytest.raises(UserError, match=r"reading back"):
        exported(tmp_path, make("gpt_neox"))
    assert not (tmp_path / "model").exists()


def test_weights_that_are_no_numbers_are_compared_too(tmp_path: Path) -> None:
    model = make("llama")
    model.model.norm.weight.data[0] = torch.nan
    folder = exported(tmp_path, model)
    assert AutoModelForCausalLM.from_pretrained(folder).model.norm.weight[0].isnan()


# --- chat template ----------------------------------------------------------------------------------------------------


def with_bos(tokenizer: Any) -> Any:
    """The tokenizer, putting its BOS before every text."""
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", tokenizer.bos_token_id)]
    )
    return tokenizer


TOKENIZERS = {
    "byte-level": world.make_tokenizer,
    "merging": world.make_merging_tokenizer,
    "spacing": world.make_spacing_tokenizer,
    "byte-level with bos": lambda: with_bos(world.make_tokenizer()),
    "spacing with bos": lambda: with_bos(world.make_spacing_tokenizer()),
}


def chat_ids(tokenizer: Any, *messages: tuple[str, str]) -> list[int]:
    chat = [{"role": role, "content": content} for role, content in messages]
    found: list[int] = tokenizer.apply_chat_template(chat, tokenize=True, add_generation_prompt=True, return_dict=False)
    return found


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_chat_is_encoded_as_the_prompt_that_was_trained(tmp_path: Path, kind: str) -> None:
    base = TOKENIZERS[kind]()
    base.chat_template = "{{ 'the template of the base model' }}"
    tokenizer = AutoTokenizer.from_pretrained(exported(tmp_path, make("llama"), base))
    for instruction in INSTRUCTIONS:
        expected = tokenizer(prompt(instruction)).input_ids
        assert (expected[0] == tokenizer.bos_token_id) == ("with bos" in kind)
        assert chat_ids(tokenizer, ("user", instruction)) == expected


def test_answers_follow_directly_and_end(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(exported(tmp_path, make("llama"), TOKENIZERS["byte-level with bos"]()))
    turns = [("user", "Repeat red"), ("assistant", "red"), ("user", "Repeat sun")]
    chat = [{"role": role, "content": content} for role, content in turns]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == f"<bos>{prompt('Repeat red')}red<eos>{prompt('Repeat sun')}"
    assert text.endswith(RESPONSE_MARK)


@pytest.mark.parametrize("role", ["system", "tool"])
def test_roles_that_were_not_trained_are_refused(tmp_path: Path, role: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(exported(tmp_path, make("llama")))
    with pytest.raises(TemplateError, match=f"know no role {role}"):
        chat_ids(tokenizer, (role, "Be brief."), ("user", "Repeat red"))


def test_a_model_that_was_not_trained_on_prompts_gets_no_template(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(exported(tmp_path, make("llama"), chat=False))
    assert tokenizer.chat_template is None


def test_a_template_that_cannot_give_the_trained_ids_is_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = world.make_tokenizer()
    space = tokenizer.convert_tokens_to_ids("Ġ")  # as text, this character becomes two tokens of its bytes
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="Ġ $A", special_tokens=[("Ġ", space)])
    assert token_ids(["x"], tokenizer)[0][0] == space
    assert module.chat_of(tokenizer, world.make_context(tmp_path)) is None
    assert "without a chat template" in "".join(capsys.readouterr())
