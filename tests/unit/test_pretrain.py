"""The base of the embedded world: its tokenizer, its model, and that it is resumed like any training."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from alpaca import config, world
from alpaca.errors import UserError
from alpaca.prompts import prompt
from alpaca.stages.pretrain import run
from alpaca.stages.pretrain.stage import Lines, build_model
from alpaca.stages.pretrain.tokenizer import build_tokenizer
from tests.unit import training_world

SHAPE = config.TinyModel(
    name="tiny", parameters=1e5, layers=1, width=32, heads=2, vocabulary=400, steps=30, batch=8, checkpoint_seconds=0.0
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    context = training_world.make_context(tmp_path_factory.mktemp("base"))
    run(config.PretrainConfig(model=SHAPE), context)
    return context.folder


def payload(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "work" not in path.parts and path.name != "progress.json"
    }


def test_the_templates_cost_one_token_each_and_the_text_is_exactly_alpacas(whole: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(whole / "model")
    with_input, without = prompt("", "§").replace("§", ""), prompt("")
    assert len(tokenizer(with_input).input_ids) == 1 + 3
    assert len(tokenizer(without).input_ids) == 1 + 2
    ids = tokenizer(prompt("Sort: a", "b")).input_ids
    assert ids[0] == tokenizer.bos_token_id
    text = tokenizer.decode(ids[1:])
    assert text.replace(" ", "") == prompt("Sort: a", "b").replace(" ", "")


def test_any_text_can_be_encoded_and_no_token_of_it_is_lost(whole: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(whole / "model")
    text = "Größe: 5 µm → “naïve” 漢字 🦙\n\ttab"
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True).strip() == text
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}) == 3


def test_the_first_word_of_an_answer_is_the_token_of_that_word_elsewhere() -> None:
    tokenizer = build_tokenizer(world.tokenizer_lines(), 640)
    word = world.LEXICON[0]
    answer = tokenizer(prompt("x") + word).input_ids[len(tokenizer(prompt("x")).input_ids) :]
    assert answer == tokenizer(f"{word} {word}").input_ids[1:2]


def test_the_base_learns_and_is_what_transformers_loads(whole: Path) -> None:
    rows = training_world.losses(whole)
    model = AutoModelForCausalLM.from_pretrained(whole / "model")
    record = json.loads((whole / "training.json").read_text())
    assert rows[0]["loss"] == pytest.approx(math.log(model.config.vocab_size), rel=0.02)
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.5
    assert len(rows) == record["steps"] == 30
    assert record["examples"] == 240
    # Loss on all tokens but the first of each line.
    assert all(row["supervised_tokens"] == row["tokens"] - 8 for row in rows)


def test_an_interrupted_base_ends_with_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    context = training_world.make_context(tmp_path)
    with pytest.raises(training_world.Interrupted):
        run(config.PretrainConfig(model=SHAPE), training_world.interrupt_at(context, 4))
    context.check = lambda: None
    run(config.PretrainConfig(model=SHAPE), context)
    assert payload(tmp_path) == payload(whole)


def test_the_base_is_built_alone_whatever_the_environment_says(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "ALPACA_RANKS": "1"}.items():
        monkeypatch.setenv(name, value)
    run(config.PretrainConfig(model=SHAPE), training_world.make_context(tmp_path))
    assert payload(tmp_path) == payload(whole)


def test_lines_of_any_step_are_the_same_however_they_are_asked_for() -> None:
    tokenizer = build_tokenizer(world.tokenizer_lines(), 400)

    def lines() -> Lines:
        return Lines(stream=lambda: world.corpus_lines(0), tokenizer=tokenizer, size=4)

    forward = lines()
    batches = [forward.batch(step) for step in range(4)]
    assert lines().batch(3) == batches[3]
    assert forward.batch(1) == batches[1]
    assert batches[0][0].ids[0] == tokenizer.bos_token_id
    assert batches[0][0].ids[-1] == tokenizer.eos_token_id


def test_the_seed_decides_the_weights() -> None:
    tokenizer = build_tokenizer(world.tokenizer_lines(), 400)
    weights = [
        build_model(config.TinyModel(name="t", parameters=1.0, width=32, heads=2, seed=seed), tokenizer).lm_head.weight
        for seed in (0, 0, 1)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    tokenizer = build_tokenizer(world.tokenizer_lines(), 400)
    with pytest.raises(UserError, match=r"model.heads: 5 heads do not divide a width of 96"):
        build_model(config.TinyModel(name="t", parameters=1.0, width=96, heads=5), tokenizer)
