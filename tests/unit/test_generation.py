"""Decoding and the respond stage: batches, stopping, sampling, resuming."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from alpaca import config, evalsets
from alpaca.errors import UserError
from alpaca.generation import Decoding, Draw, Generator, Presence, Request
from alpaca.prompts import prompt
from alpaca.records import EvalItem
from alpaca.stages import train
from alpaca.stages.respond import run
from tests.unit import training_world as world

GREEDY = Decoding(max_new_tokens=12)
SAMPLED = Decoding(max_new_tokens=12, temperature=1.0, top_p=0.9, seed=3)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained for a moment, so that its answers differ and some of them end."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("base")
    context = world.make_context(
        folder / "trained",
        base=world.make_base(folder / "base"),
        data=world.make_data(folder / "data", world.examples(30)),
    )
    train.run(world.train_config(budget="60 steps"), context)
    return context.folder


@pytest.fixture(scope="module")
def generator(base: Path) -> Generator:
    return Generator.load(base / "model")


def requests(count: int) -> list[Request]:
    return [
        Request(id=example.id, prompt=prompt(example.instruction, example.input)) for example in world.examples(count)
    ]


def step_by_step(generator: Generator, text: str, length: int) -> list[int]:
    """Greedy decoding by the definition: no cache, no padding, one whole forward pass per token."""
    ids = generator.tokenizer(text).input_ids
    for _ in range(length):
        logits = generator.model(input_ids=torch.tensor([ids])).logits[0, -1]
        ids = [*ids, int(logits.argmax())]
        if ids[-1] == generator.tokenizer.eos_token_id:
            break
    return list(ids[-length:])


def test_greedy_equals_decoding_one_token_at_a_time_without_a_cache(generator: Generator) -> None:
    answers = generator.generate(requests(5), GREEDY)
    assert {answer.finish_reason for answer in answers} == {"stop", "length"}
    for request, answer in zip(requests(5), answers, strict=True):
        expected = step_by_step(generator, request.prompt, 12)
        assert answer.text == generator.tokenizer.decode(expected, skip_special_tokens=True).strip()


@pytest.mark.parametrize("decoding", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_answers_do_not_depend_on_the_batch_and_come_in_order(generator: Generator, decoding: Decoding) -> None:
    alone = [generator.generate([request], decoding)[0] for request in requests(7)]
    assert generator.generate_all(requests(7), decoding, size=3) == alone
    assert generator.generate_all(requests(7)[::-1], decoding, size=7) == alone[::-1]
    assert len({answer.text for answer in alone}) > 1


def test_sampling_follows_the_seed(generator: Generator) -> None:
    other = Decoding(max_new_tokens=12, temperature=1.0, top_p=0.9, seed=4)
    assert generator.generate(requests(3), SAMPLED) == generator.generate(requests(3), SAMPLED)
    assert generator.generate(requests(3), SAMPLED) != generator.generate(requests(3), other)


def test_draws_follow_the_distribution_and_never_leave_its_support() -> None:
    probabilities = [0.1, 0.0, 0.6, 0.3]
    draw, counts = Draw([random.Random(7)]), Counter[int]()
    scores = torch.tensor([probabilities]).log()
    for _ in range(4000):
        left = draw(torch.zeros(1, 1), scores)
        assert int((left > -torch.inf).sum()) == 1
        counts[int(left.argmax())] += 1
    for token, share in enumerate(probabilities):
        # Five standard deviations of a binomial share.
        assert abs(counts[token] / 4000 - share) <= 5 * (share * (1 - share) / 4000) ** 0.5


def test_the_end_of_sequence_stops_and_is_not_shown(generator: Generator) -> None:
    tokenizer = generator.tokenizer
    stopped = generator._read([*tokenizer(" red sun ").input_ids, tokenizer.eos_token_id, tokenizer.pad_token_id])
    assert (stopped.text, stopped.finish_reason) == ("red sun", "stop")
    assert stopped.new_tokens == len(tokenizer(" red sun ").input_ids) + 1
    assert generator._read(tokenizer("red").input_ids).finish_reason == "length"


def test_a_stop_string_ends_its_answer_alone(generator: Generator) -> None:
    whole = generator.generate(requests(5), SAMPLED)
    row = max(range(5), key=lambda index: len(whole[index].text))
    stop = whole[row].text[4:6]
    asked = [replace(each, stop=("nowhere", stop)) if index == row else each for index, each in enumerate(requests(5))]
    cut = generator.generate(asked, SAMPLED)
    assert cut[row].text == whole[row].text[: whole[row].text.index(stop)].strip()
    assert cut[row].finish_reason == "stop"
    assert 0 < cut[row].new_tokens < whole[row].new_tokens
    assert [*cut[:row], *cut[row + 1 :]] == [*whole[:row], *whole[row + 1 :]]


def test_each_answer_has_its_own_length(generator: Generator) -> None:
    limits = [3, 12, 1, 7, 5]
    asked = [replace(each, max_new_tokens=limit) for each, limit in zip(requests(5), limits, strict=True)]
    alone = [
        generator.generate([each], replace(SAMPLED, max_new_tokens=limit))[0]
        for each, limit in zip(requests(5), limits, strict=True)
    ]
    assert generator.generate(asked, SAMPLED) == alone
    assert {answer.finish_reason for answer in alone} >= {"length"}


def test_a_halted_batch_ends_at_once(generator: Generator) -> None:
    count = iter(range(100))
    answers = generator.generate(requests(2), SAMPLED, lambda: next(count) >= 4)
    assert {answer.new_tokens for answer in answers} == {5}


def test_the_presence_penalty_falls_on_what_was_written_and_not_on_the_prompt() -> None:
    prompt_and_answer = torch.tensor([[1, 1, 2, 3, 3], [0, 0, 4, 4, 4]])
    changed = Presence(2.0, 2)(prompt_and_answer, torch.zeros(2, 5))
    assert changed.tolist() == [[0, 0, -2, -2, 0], [0, 0, 0, 0, -2]]


def test_more_than_one_token_can_end_an_answer(generator: Generator) -> None:
    (whole,) = generator.generate(requests(1), GREEDY)
    written = step_by_step(generator, requests(1)[0].prompt, 12)
    other = Generator(model=generator.model, tokenizer=generator.tokenizer, ends=(written[1], 299))
    (cut,) = other.generate(requests(1), GREEDY)
    assert (cut.new_tokens, cut.finish_reason) == (written.index(written[1]) + 1, "stop")
    assert whole.text.startswith(cut.text[:-1])


def test_batches_are_of_similar_length_and_hold_every_request_once(generator: Generator) -> None:
    batches = generator.batches(requests(7), 3)
    lengths = [len(generator.tokenizer(requests(7)[index].prompt).input_ids) for batch in batches for index in batch]
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert lengths == sorted(lengths, reverse=True)
    assert sorted(index for batch in batches for index in batch) == list(range(7))


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{tmp_path}: cannot load the model"):
        Generator.load(tmp_path)


# --- the stage --------------------------------------------------------------------------------------------------------


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> config.RespondConfig:
    items = [
        EvalItem(
            id=f"i{index}",
            instruction=example.instruction,
            input=example.input,
            reference=example.output,
            family="copy",
            exact=True,
        )
        for index, example in enumerate(world.examples(7))
    ]
    monkeypatch.setattr(evalsets, "load", lambda _: items)
    return config.RespondConfig(set="any", responses=config.Responses(max_new_tokens=6, batch=3))


def test_responses_stand_in_the_order_of_the_items(
    base: Path, settings: config.RespondConfig, tmp_path: Path, generator: Generator
) -> None:
    context = world.make_context(tmp_path, model=base)
    run(settings, context)
    rows = [json.loads(line) for line in (tmp_path / "responses.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"i{index}" for index in range(7)]
    assert list(rows[0]) == [
        "id",
        "instruction",
        "input",
        "reference",
        "family",
        "exact",
        "response",
        "new_tokens",
        "finish_reason",
    ]
    expected = generator.generate_all(requests(7), Decoding(max_new_tokens=6), size=3)
    assert [(row["response"], row["new_tokens"]) for row in rows] == [(each.text, each.new_tokens) for each in expected]
    assert context.cost["completion_tokens"] == sum(row["new_tokens"] for row in rows)


@pytest.mark.parametrize("done", [1, 2])
def test_an_interrupted_stage_ends_with_the_same_bytes_and_answers_nothing_twice(
    base: Path, settings: config.RespondConfig, tmp_path: Path, done: int
) -> None:
    whole, broken = (world.make_context(tmp_path / name, model=base) for name in ("whole", "broken"))
    run(settings, whole)
    with pytest.raises(world.Interrupted):
        run(settings, world.interrupt_at(broken, done))
    partial = broken.work / "partial.jsonl"
    assert len(partial.read_text().splitlines()) == 3 * done
    with partial.open("a") as file:
        file.write('{"index":6,"te')  # what a killed process leaves
    again = world.make_context(broken.folder, model=base)  # a new process knows no costs of the one before
    context = world.interrupt_at(again, 3 - done)  # one more batch than what is missing would raise
    run(settings, context)
    assert (broken.folder / "responses.jsonl").read_bytes() == (whole.folder / "responses.jsonl").read_bytes()
    assert context.cost["completion_tokens"] == whole.cost["completion_tokens"] > 0
