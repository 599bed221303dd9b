"""The online teacher against real servers: `transformers serve` with a tiny model, and faults before the embedded one.

REQUIRE_SERVERS=1 makes a missing server a failure instead of a skip.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alpaca.errors import TeacherError
from alpaca.teachers import open_teacher
from alpaca.teachers.openai import OpenAI
from alpaca.teachers.preflight import Preflight, preflight
from alpaca.teachers.programmatic import MODEL
from alpaca.teachers.queue import Answer, Policy
from tests.unit.teacher_fakes import Requests, collect, request, session

ROOT = Path(__file__).resolve().parents[2]
STARTING_SECONDS = 120
pytestmark = pytest.mark.slow


def require(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        word = f'{package} is missing: pip install "transformers[serving]"'
        pytest.fail(word) if os.environ.get("REQUIRE_SERVERS") == "1" else pytest.skip(word)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_model(folder: Path) -> Path:
    """A tiny random Llama that samples, with a tokenizer and a chat template."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    from tests.unit.training_world import make_tokenizer

    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=2048, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(shape)
    # Without do_sample this server takes the likeliest token whatever temperature is asked for.
    model.generation_config = GenerationConfig(
        do_sample=True, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The base URL of `transformers serve` and the name of its model."""
    for package in ("fastapi", "uvicorn"):
        require(package)
    folder = make_model(tmp_path_factory.mktemp("served"))
    port, log = free_port(), tmp_path_factory.mktemp("log") / "serve.log"
    command = [Path(sys.executable).with_name("transformers"), "serve", folder, "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(log.parent / "none")}
    with log.open("w") as output, subprocess.Popen(
        [*map(str, command), "--host", "127.0.0.1", "--port", str(port)], env=environment, stdout=output, stderr=output
    ) as process:  # fmt: skip
        try:
            wait_until_up(f"http://127.0.0.1:{port}/health", process, log)
            yield f"http://127.0.0.1:{port}/v1", str(folder)
        finally:
            process.terminate()
            process.wait(timeout=30)


QUICK = Policy(in_flight=1, max_attempts=6, timeout=60.0, drain=1.0, first_delay=0.01, longest_pause=0.05)


def wait_until_up(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    ends = time.monotonic() + STARTING_SECONDS
    while time.monotonic() < ends and process.poll() is None:
        try:
            opener.open(url, timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"transformers serve did not start:\n{log.read_text()[-3000:]}")


def teacher(serving: tuple[str, str], in_flight: int = 1, **options: Any) -> OpenAI:
    # One at a time: this server seeds a generator that all its requests share.
    return OpenAI(base_url=serving[0], model=serving[1], timeout=60.0, in_flight=in_flight, **options)


def asked(options: OpenAI, count: int) -> list[Answer]:
    async def talk() -> list[Answer]:
        source = Requests(count)
        source.left = [replace(each, max_tokens=12) for each in source.left]
        async with open_teacher(options, session()) as client:
            return await collect(client, source, Policy.of(options))

    return sorted(asyncio.run(talk()), key=lambda answer: answer.request.id)


def looked(options: OpenAI, **wanted: Any) -> Preflight:
    async def talk() -> Preflight:
        async with open_teacher(options, session()) as client:
            return await preflight(client, replace(request(3), **wanted), n=2, policy=QUICK)

    return asyncio.run(talk())


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_transformers_serve_answers_at_both_endpoints(serving: tuple[str, str], endpoint: str) -> None:
    options = teacher(serving, endpoint=endpoint)
    first, second = asked(options, 4), asked(options, 4)
    assert [answer.completion.text for answer in first] == [answer.completion.text for answer in second]
    assert len({answer.completion.text for answer in first}) == 4, "each seed its own text"
    assert len(asked(teacher(serving, endpoint=endpoint, in_flight=8), 16)) == 16
    for answer in first:
        assert answer.completion.model.startswith(serving[1])
        assert 0 < answer.completion.completion_tokens <= 12
        assert answer.completion.prompt_tokens > 0
        assert not answer.completion.usage_estimated


def test_the_preflight_finds_what_transformers_serve_ignores(serving: tuple[str, str]) -> None:
    found = looked(
        teacher(serving), temperature=0.5, stop=("20.",), schema={"type": "object", "properties": {"tasks": {}}}
    ).as_row()
    assert found["honoured"] == {
        "seed": "honoured",
        "temperature": "honoured",
        "stop": "honoured",
        "json_schema": "ignored",
        "n": "ignored",
    }
    assert found["shutdown_date"] is None, "GET /v1/models fails without a hub cache"
    assert found["probe"]["completion_tokens"] > 0


def test_the_preflight_names_the_knob_on_which_transformers_serve_breaks(serving: tuple[str, str]) -> None:
    biased = r"data_gen\.logit_bias=\{'50256': -100\.0\}: no answer whenever it is set: 500"
    with pytest.raises(TeacherError, match=biased):
        looked(teacher(serving), logit_bias={"50256": -100.0})
    with pytest.raises(TeacherError, match=r"data_gen\.form=json_schema: .* 422"):
        looked(teacher(serving, endpoint="completions"), schema={"type": "object"})


@contextmanager
def printing(command: list[str]) -> Iterator[str]:
    """A process and the first line it prints."""
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_faults_before_the_embedded_server_lose_and_double_nothing(tmp_path: Path) -> None:
    log = tmp_path / "attempts.jsonl"
    server = ["-m", "alpaca.teachers.programmatic", "--latency", "0.05"]
    with printing(server) as line:
        upstream = line.partition(" at ")[2].partition(" ")[0]
        options = {"upstream": upstream, "log": log, "share": 0.5, "retry-after": 0.1}
        with printing(["benchmarks/_fault_proxy.py", *(f"--{name}={value}" for name, value in options.items())]) as url:
            answers = asked(OpenAI(model=MODEL, base_url=url, timeout=0.5, in_flight=20, max_attempts=20), 80)
    rows = [json.loads(row) for row in log.read_text().splitlines()]
    assert [answer.request.id for answer in answers] == sorted(f"r{number}" for number in range(80))
    whole = [row["request"] for row in rows if row["fault"] is None and row["status"] == 200]
    assert len(whole) == len(set(whole)) == 80
    assert len({row["fault"] for row in rows}) == 9, "all eight kinds and none"
    assert len(rows) == sum(answer.attempts for answer in answers)
    assert all(0 <= row["end"] - row["start"] < 5 for row in rows)
