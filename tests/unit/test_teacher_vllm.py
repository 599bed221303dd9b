from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from alpaca import canonical
from alpaca.errors import TeacherError, UserError
from alpaca.teachers import keeper, open_teacher, vllm, vllm_server
from alpaca.teachers.base import Completion, Message, Request, Session
from alpaca.teachers.vllm import VLLM

FAKE = Path(__file__).with_name("fake_vllm.py")
ROOT = FAKE.parents[2]
REQUEST = Request(
    id="r0", messages=(Message(role="user", content="hi"),), temperature=0.5, top_p=0.9, max_tokens=7, seed=3
)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `vllm` on the PATH; the folder where its processes leave their numbers."""
    program, pids = tmp_path / "bin" / "vllm", tmp_path / "pids"
    for folder in (program.parent, pids):
        folder.mkdir()
    program.write_text(f"#!{sys.executable}\n{FAKE.read_text()}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    monkeypatch.setenv("FAKE_VLLM_PIDS", str(pids))
    return pids


def weights(tmp_path: Path) -> str:
    folder = tmp_path / "my-model"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    return str(folder)


def ask(tmp_path: Path, said: list[str] | None = None, **options: Any) -> Completion:
    async def session() -> Completion:
        heard = Session(work=tmp_path, say=(said if said is not None else []).append)
        async with open_teacher(VLLM(path=weights(tmp_path), **options), heard) as client:
            return await client.complete(REQUEST)

    return asyncio.run(session())


def alive(pids: Path, name: str = "") -> list[int]:
    """The processes of the fake that still run."""
    found = []
    for place in pids.glob(f"{name}*"):
        pid = int(place.name.rpartition("-")[2])
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
            found.append(pid)
    return found


def wait_until(condition: Any) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_server_is_started_asked_through_the_chat_client_and_stopped(fake: Path, tmp_path: Path) -> None:
    said: list[str] = []
    answer = ask(tmp_path, said, tensor_parallel=2, gpu_memory=0.5, dtype="bf16", arguments=["--max-model-len", "99"])
    seen = json.loads(answer.text)
    assert seen["path"] == "/v1/chat/completions"
    assert {**seen["body"], "messages": None} == {
        "model": "my-model", "messages": None, "temperature": 0.5, "top_p": 0.9, "max_tokens": 7, "seed": 3,
    }  # fmt: skip
    port = seen["argv"][seen["argv"].index("--port") + 1]
    assert seen["argv"] == [
        "serve", weights(tmp_path), "--host", "127.0.0.1", "--port", port, "--served-model-name", "my-model",
        "--dtype", "bfloat16", "--tensor-parallel-size", "2", "--gpu-memory-utilization", "0.5",
        "--generation-config", "vllm", "--max-model-len", "99",
    ]  # fmt: skip
    assert (answer.model, answer.prompt_tokens, answer.completion_tokens) == ("my-model", 3, 5)
    assert "ready" in said[-1]
    assert len(list(fake.iterdir())) == 1
    assert alive(fake) == []


def test_a_model_of_the_hub_has_its_revision_and_a_base_model_its_own_endpoint(fake: Path, tmp_path: Path) -> None:
    async def session() -> Completion:
        options = VLLM(id="org/model", revision="abc", quantization="awq", endpoint="completions")
        async with open_teacher(options, Session(work=tmp_path, say=lambda _: None)) as client:
            return await client.complete(REQUEST)

    seen = json.loads(asyncio.run(session()).text)
    assert seen["path"] == "/v1/completions"
    assert seen["body"]["prompt"] == "hi"
    assert seen["argv"][1] == "org/model"
    assert seen["argv"][-4:] == ["--revision", "abc", "--quantization", "awq"]


def test_a_server_that_dies_at_its_start_shows_its_last_words(
    fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM", "dies")
    with pytest.raises(TeacherError) as caught:
        ask(tmp_path)
    assert "status 7 before it was ready" in caught.value.what
    assert "No available memory for the cache blocks" in caught.value.what
    assert "teacher.gpu_memory" in caught.value.remedy


def test_a_server_that_never_gets_healthy_is_given_up_and_stopped(
    fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM", "never")
    with pytest.raises(TeacherError, match="not ready within 1 s") as caught:
        ask(tmp_path, start_timeout=1.0)
    assert "loading weights" in caught.value.what
    assert caught.value.where == "teacher.start_timeout"
    assert len(list(fake.iterdir())) == 1
    assert alive(fake) == []


def test_a_server_that_dies_while_it_is_asked_ends_the_stage_with_its_log(
    fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM", "dies_when_asked")
    with pytest.raises(TeacherError, match="illegal memory access") as caught:
        ask(tmp_path)
    assert "while it was asked" in caught.value.what


@pytest.mark.parametrize("mode", ["stubborn", "workers"])
def test_what_does_not_want_to_go_is_killed(
    mode: str, fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM", mode)
    # The keeper is a program of its own, so its patience is shortened in its text.
    short = tmp_path / "keeper.py"
    short.write_text(Path(keeper.__file__).read_text().replace("GRACE = 15.0", "GRACE = 0.3"))
    monkeypatch.setattr(keeper, "__file__", str(short))
    assert ask(tmp_path).text
    assert len(list(fake.iterdir())) == (2 if mode == "workers" else 1)
    assert alive(fake) == []


SCRIPT = """
import asyncio, sys
from pathlib import Path
from alpaca.teachers import open_teacher
from alpaca.teachers.base import Session
from alpaca.teachers.vllm import VLLM

async def main():
    async with open_teacher(VLLM(path=sys.argv[1]), Session(work=Path(sys.argv[2]))):
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("mode", ["", "never"])
def test_no_server_outlives_the_process_that_asked_for_it(
    mode: str, number: signal.Signals, fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM", mode)
    asking = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, weights(tmp_path), str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert asking.stdout is not None
    wait_until(lambda: alive(fake, "server"))
    if not mode:
        while b"ready" not in asking.stdout.readline():
            pass
    asking.send_signal(number)
    asking.wait(10)
    wait_until(lambda: not alive(fake))


def test_a_killed_keeper_takes_the_server_along(fake: Path, tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux tells a child that its parent has died")
    server = vllm_server.Server.start(
        vllm_server.command(VLLM(path=weights(tmp_path)), vllm.executable() or "", vllm_server.free_port()),
        "http://127.0.0.1:1/health",
        tmp_path / "log",
    )
    wait_until(lambda: alive(fake, "server"))
    server.process.kill()
    wait_until(lambda: not alive(fake))
    server.stop()


def test_without_vllm_nothing_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "executable", lambda: None)
    (problem,) = vllm.lacks(vllm.VLLM())
    assert "not installed" in problem.what
    with pytest.raises(UserError, match="vLLM is not installed here"):
        ask(tmp_path)
    assert not (tmp_path / "vllm.log").exists()


def test_the_program_is_found_on_the_path(fake: Path) -> None:
    assert vllm.executable() == str(fake.parent / "bin" / "vllm")
    assert list(vllm.lacks(vllm.VLLM())) == []


@pytest.mark.parametrize(
    ("options", "where", "words"),
    [
        ({"arguments": ["--port", "80"]}, "teacher.arguments", "--port"),
        ({"arguments": ["--dtype=half"]}, "teacher.arguments", "teacher.dtype"),
        ({"answer_arguments": ["--dtype=half"]}, "teacher.answer_arguments", "teacher.dtype"),
        ({"arguments": ["--served_model_name", "x"]}, "teacher.arguments", "set by this program"),
        ({"gpu_memory": 1.5}, "teacher.gpu_memory", "at most|most allowed"),
        ({"path": None}, "teacher.path", "no model"),
        ({"path": "/nowhere"}, "teacher.path", r"config\.json"),
    ],
)
def test_options_that_do_not_fit_are_told_before_the_start(
    options: dict[str, Any], where: str, words: str, fake: Path, tmp_path: Path
) -> None:
    async def session() -> None:
        wanted = VLLM(**{"path": weights(tmp_path), **options})
        async with open_teacher(wanted, Session(work=tmp_path, say=lambda _: None)):
            pass

    with pytest.raises(UserError, match=words) as caught:
        asyncio.run(session())
    assert caught.value.where == where
    assert list(fake.iterdir()) == []


@pytest.mark.parametrize(
    "argument",
    ["--chat-template=other.jinja", "--chat_template", "--seed", "--hf-overrides", "--tokenizer", "--enable-lora",
     "--override-generation-config", "--speculative-config", "--kv-cache-dtype", "--hf-overrides.rope_theta", "-O3"],
)  # fmt: skip
def test_an_argument_that_may_change_answers_is_part_of_what_a_result_is_identified_by(argument: str) -> None:
    (problem,) = vllm.problems(VLLM(id="org/model", arguments=[argument, "7"]))
    assert problem.where == "teacher.arguments"
    assert "teacher.answer_arguments" in problem.remedy
    moved = VLLM(id="org/model", answer_arguments=[argument, "7"])
    assert list(vllm.problems(moved)) == []
    assert canonical.identity(moved) != canonical.identity(VLLM(id="org/model"))
    assert vllm_server.command(moved, "vllm", 1)[-2:] == [argument, "7"]


def test_an_argument_that_leaves_answers_as_they_are_is_not() -> None:
    options = VLLM(
        id="org/model", arguments=["--max-model-len", "-1", "--max_num_seqs=8", "--no-enable-prefix-caching"]
    )
    assert list(vllm.problems(options)) == []
    assert canonical.identity(options) == canonical.identity(VLLM(id="org/model"))
