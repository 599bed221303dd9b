from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, GenerationConfig

from alpaca import generation
from alpaca.errors import TeacherError, UserError
from alpaca.generation import Generator
from alpaca.teachers import local_model, open_teacher
from alpaca.teachers.base import Completion, Message, RefusedRequestError, Request, RetryableError, Session
from alpaca.teachers.local import Local
from alpaca.teachers.local_model import LocalModel
from tests.unit import training_world as world


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny random Llama: it writes nonsense of different lengths, which is all that is needed here."""
    torch.set_num_threads(1)
    return str(world.make_base(tmp_path_factory.mktemp("teacher")) / "model")


def request(number: int, **changes: Any) -> Request:
    message = Message(role="user", content=" ".join(world.WORDS[: 2 + number % 9]))
    made = Request(id=f"r{number}", messages=(message,), temperature=1.0, top_p=0.95, max_tokens=12, seed=number)
    return replace(made, **changes)


def ask(weights: str, requests: Sequence[Request], said: list[str] | None = None, **options: Any) -> list[Any]:
    """Completions, or the errors in their place, of requests that are all sent at once."""

    async def session() -> list[Any]:
        heard = Session(work=Path(weights), say=(said if said is not None else []).append)
        async with open_teacher(Local(path=weights, **options), heard) as client:
            return await asyncio.gather(*(client.complete(each) for each in requests), return_exceptions=True)

    return asyncio.run(session())


def counted(monkeypatch: pytest.MonkeyPatch, before: Callable[[list[Any]], None] = lambda _: None) -> list[int]:
    """The sizes of the batches that are generated from now on."""
    sizes, real = list[int](), Generator.generate

    def generate(self: Generator, requests: Sequence[generation.Request], *rest: Any) -> list[Any]:
        sizes.append(len(requests))
        before(list(requests))
        return real(self, requests, *rest)

    monkeypatch.setattr(Generator, "generate", generate)
    return sizes


def test_answers_depend_on_their_requests_alone(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = counted(monkeypatch)
    requests = [request(number, max_tokens=5 + number) for number in range(7)]
    together = ask(weights, requests, batch=4)
    assert sizes == [4, 3]
    assert together == ask(weights, requests[::-1], batch=1)[::-1]
    assert len({answer.text for answer in together}) == 7
    assert ask(weights, [request(3, max_tokens=8, seed=99)])[0].text != together[3].text


def test_usage_model_and_reason_are_real(weights: str) -> None:
    (answer,) = ask(weights, [request(4)])
    tokenizer = AutoTokenizer.from_pretrained(weights)
    assert isinstance(answer, Completion)
    assert answer.prompt_tokens == len(tokenizer(request(4).messages[0].content).input_ids)
    assert not answer.usage_estimated
    assert answer.model == "model"
    assert (answer.finish_reason, answer.completion_tokens) == ("length", 12)


def test_only_what_is_decoded_alike_shares_a_batch(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = counted(monkeypatch)
    hot = [request(number) for number in range(3)]
    cold = [request(number, temperature=0.0) for number in range(3)]
    assert all(isinstance(each, Completion) for each in ask(weights, [*hot[:2], *cold, hot[2]]))
    assert sizes == [3, 3]


def test_the_loop_stays_alive_while_the_model_writes(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alive = threading.Event()
    counted(monkeypatch, lambda _: alive.wait(10) or pytest.fail("the loop stood still"))

    async def session() -> Completion:
        async with open_teacher(Local(path=weights), Session(work=Path(weights), say=lambda _: None)) as client:
            answer = asyncio.create_task(client.complete(request(1)))
            await asyncio.sleep(0.05)
            alive.set()
            return await answer

    assert asyncio.run(session()).text


def test_an_answer_ends_before_its_own_stop_string(weights: str) -> None:
    common = "".join(each.text for each in ask(weights, [request(number) for number in range(4)]))[0:200]
    letters = tuple(sorted(set(common), key=common.count)[-8:])
    answers = ask(weights, [request(0, stop=letters, max_tokens=60), request(1, max_tokens=60)])
    assert isinstance(answers[0], RetryableError) or not any(letter in answers[0].text for letter in letters)
    assert answers[1] == ask(weights, [request(1, max_tokens=60)])[0]


def test_a_chat_template_is_used_where_there_is_one(weights: str) -> None:
    generator = local_model.load(Local(path=weights))
    generator.tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}"
    )
    client = LocalModel(Local(path=weights), generator, bench())
    chat = request(0, messages=(Message(role="system", content="be red"), Message(role="user", content="sun")))
    asked = client._asked(chat, "x")
    assert asked.prompt == "<bos>[system] be red[user] sun"
    ids = generator.prompt_ids([asked])[0]
    assert ids.count(generator.tokenizer.bos_token_id) == 1
    generator.tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(RefusedRequestError, match="no system role"):
        client._asked(chat, "x")
    generator.tokenizer.chat_template = None
    assert client._asked(chat, "x").prompt == "be red\n\nsun"


def bench() -> local_model.Bench:
    from concurrent.futures import ThreadPoolExecutor

    return local_model.Bench(thread=ThreadPoolExecutor(1), halt=threading.Event(), say=lambda _: None)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"logit_bias": {"5": -100.0}}, "logit_bias"), ({"schema": {"type": "object"}}, "schema"),
     ({"max_tokens": 10_000}, "context"), ({"messages": (Message(role="user", content=""),)}, "empty prompt")],
)  # fmt: skip
def test_what_it_cannot_do_is_refused_before_anything_is_written(
    change: dict[str, Any], words: str, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = counted(monkeypatch)
    (error,) = ask(weights, [request(1, **change)])
    assert isinstance(error, RefusedRequestError), "others go on without it"
    assert words in str(error)
    assert error.remedy
    assert sizes == []


def test_a_blank_answer_is_tried_again_with_another_stream(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    streams, real = list[str](), Generator.generate

    def generate(self: Generator, requests: Sequence[generation.Request], *rest: Any) -> list[Any]:
        streams.extend(each.id for each in requests)
        made = real(self, requests, *rest)
        return [replace(made[0], text="")] if len(streams) == 1 else made

    monkeypatch.setattr(Generator, "generate", generate)

    async def session() -> Completion:
        async with open_teacher(Local(path=weights), Session(work=Path(weights), say=lambda _: None)) as client:
            with pytest.raises(RetryableError, match="blank") as caught:
                await client.complete(request(1))
            assert caught.value.usage is not None
            assert caught.value.usage.completion_tokens == 12
            return await client.complete(request(1))

    assert asyncio.run(session()).text
    assert streams[1] == f"{streams[0]}:1"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")])
def test_without_memory_a_batch_is_halved(error: Exception, weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    requests, said = [request(number) for number in range(6)], list[str]()
    expected = ask(weights, requests)

    def too_many(batch: list[Any]) -> None:
        if len(batch) > 2:
            raise error

    sizes = counted(monkeypatch, too_many)
    assert ask(weights, requests, said, batch=6) == expected
    assert sizes == [6, 3, 1, 2, 3, 1, 2]
    assert any("out of memory" in line for line in said)


def test_a_request_that_does_not_fit_alone_is_told(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(batch: list[Any]) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    counted(monkeypatch, never)
    errors = ask(weights, [request(0), request(1)], batch=2)
    assert all(type(error) is TeacherError and "memory" in error.what for error in errors), "another machine may"


def test_a_defect_reaches_those_who_wait(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(batch: list[Any]) -> None:
        raise RuntimeError("index out of range")

    counted(monkeypatch, broken)
    errors = ask(weights, [request(0)])
    assert [str(error) for error in errors] == ["index out of range"]


def test_closing_ends_the_batch_that_is_being_written(weights: str) -> None:
    context = 100_000

    async def session() -> None:
        async with open_teacher(Local(path=weights), Session(work=Path(weights), say=lambda _: None)) as client:
            client._context = None  # type: ignore[attr-defined]
            answer = asyncio.create_task(client.complete(request(1, max_tokens=context)))
            await asyncio.sleep(0.1)
            answer.cancel()

    asyncio.run(session())  # would take minutes


def test_sampling_defaults_of_the_model_are_not_used_and_its_ends_are(weights: str, tmp_path: Path) -> None:
    generator = local_model.load(Local(path=weights))
    generator.model.generation_config = GenerationConfig(repetition_penalty=9.0, eos_token_id=[3, 4])
    generator.model.save_pretrained(tmp_path)
    generator.tokenizer.save_pretrained(tmp_path)
    changed = local_model.load(Local(path=str(tmp_path)))
    assert changed.ends == (3, 4)
    assert changed.model.generation_config.repetition_penalty is None


def test_missing_and_torn_weights_are_named(weights: str, tmp_path: Path) -> None:
    def opened(**options: Any) -> None:
        async def session() -> None:
            async with open_teacher(Local(**options), Session(work=tmp_path, say=lambda _: None)):
                pass

        asyncio.run(session())

    with pytest.raises(UserError, match=r"teacher\.path: teacher=local has no model"):
        opened()
    with pytest.raises(UserError, match=r"no config\.json"):
        opened(path=str(tmp_path))
    for file in Path(weights).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    torn = tmp_path / "model.safetensors"
    torn.write_bytes(torn.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"teacher\.path: cannot load"):
        opened(path=str(tmp_path))
