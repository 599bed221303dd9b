"""A teacher that vLLM serves: the stage starts the server on a port of its own, asks it, and stops it at the end.

vLLM is no dependency of this project: it is started as a program (`vllm serve`) and asked over HTTP.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from alpaca.config import how, what
from alpaca.errors import UserError
from alpaca.teachers.base import Session, TeacherClient
from alpaca.teachers.weights import WeightsTeacher, require
from alpaca.teachers.weights import problems as weights_problems

SET_HERE = {
    "--host": "nothing", "--port": "nothing", "--served-model-name": "nothing", "--generation-config": "nothing",
    "--model": "teacher.id or teacher.path", "--revision": "teacher.revision", "--dtype": "teacher.dtype",
    "--quantization": "teacher.quantization", "-q": "teacher.quantization",
    "--tensor-parallel-size": "teacher.tensor_parallel", "-tp": "teacher.tensor_parallel",
    "--gpu-memory-utilization": "teacher.gpu_memory",
}  # fmt: skip
"""Arguments of `vllm serve` that have a key of their own -> that key."""
HARMLESS = frozenset({
    "--max-model-len", "--max-num-seqs", "--max-num-batched-tokens", "--max-seq-len-to-capture", "--block-size",
    "--swap-space", "--cpu-offload-gb", "--num-gpu-blocks-override", "--enforce-eager", "--enable-prefix-caching",
    "--enable-chunked-prefill", "--disable-custom-all-reduce", "--pipeline-parallel-size", "-pp",
    "--data-parallel-size", "-dp", "--distributed-executor-backend", "--max-parallel-loading-workers",
    "--download-dir", "--disable-log-requests", "--enable-log-requests", "--disable-log-stats",
    "--uvicorn-log-level", "--disable-uvicorn-access-log",
})  # fmt: skip
"""Arguments that say how the server works, not what it answers (up to rounding; a prompt that is too long fails)."""


@dataclass(kw_only=True, slots=True)
class VLLM(WeightsTeacher):
    """A model served by vLLM on this machine's GPUs, for the time of the stage."""

    kind: str = what("vllm", choices=("vllm",))
    endpoint: str = what("chat", choices=("chat", "completions"))
    """chat: through the model's chat template; completions: the bare text is continued, as for base models."""
    quantization: str | None = what(None)
    """As vLLM names it ("awq", "fp8"); null: as the weights say."""
    tensor_parallel: int = how(1, least=1)
    """GPUs that share the model."""
    gpu_memory: float = how(0.9, least=0.01)
    """Share of each GPU's memory that vLLM takes."""
    answer_arguments: list[str] = what(factory=list)
    """Further arguments of `vllm serve` that can change answers, such as ["--reasoning-parser", "qwen3"].

    A file that one of them names counts by its path, not by its content."""
    arguments: list[str] = how(factory=list)
    """Further ones that cannot (those of `HARMLESS`), such as ["--max-model-len", "8192"]."""
    start_timeout: float = how(1800.0, least=1.0)
    """Seconds until the server must answer; the first start downloads and compiles."""
    in_flight: int = how(256, least=1)
    """Requests sent at the same time; vLLM batches them."""
    timeout: float = how(600.0, least=0.001)
    """Seconds that one try may take."""


@asynccontextmanager
async def opened(options: VLLM, session: Session) -> AsyncIterator[TeacherClient]:
    """A client of a server that runs as long as the client is open.

    Raises UserError before anything is started when vLLM is not installed or an option does not fit, TeacherError with
    the end of the server's log when it does not come up.
    """
    require(options)
    for problem in (*argument_problems(options), *lacks(options)):
        raise problem
    from alpaca.teachers.vllm_server import serving

    async with serving(options, executable() or "", session) as client:
        yield client


def executable() -> str | None:
    """The `vllm` program: on the PATH, or beside this Python; None where vLLM is not installed."""
    return shutil.which("vllm") or shutil.which(str(Path(sys.executable).parent / "vllm"))


def problems(options: VLLM) -> Iterator[UserError]:
    """What is wrong with the options wherever they would be used."""
    yield from weights_problems(options)
    yield from argument_problems(options)


def lacks(_options: VLLM) -> Iterator[UserError]:
    """What this machine lacks to start the server, for the plan; a cluster's node may have it."""
    if executable() is None:
        yield UserError(
            what="vLLM is not installed here: there is no program `vllm`",
            where="teacher",
            remedy="install it in this environment (pip install vllm), or serve the model elsewhere and use "
            "teacher=openai teacher.base_url=http://HOST:PORT/v1",
        )


def argument_problems(options: VLLM) -> Iterator[UserError]:
    """What is wrong with arguments and numbers."""
    for key, arguments in (("answer_arguments", options.answer_arguments), ("arguments", options.arguments)):
        for argument in filter(_is_name, arguments):
            if problem := _argument_problem(argument, key):
                yield problem
    if options.gpu_memory > 1:
        yield UserError(
            what=f"{options.gpu_memory:g} is above the most allowed, 1", where="teacher.gpu_memory", remedy="a share"
        )


def _argument_problem(argument: str, key: str) -> UserError | None:
    name = _name(argument)
    if name in SET_HERE:
        return UserError(
            what=f"{argument!r} is set by this program",
            where=f"teacher.{key}",
            remedy=f"leave it out; its key is: {SET_HERE[name]}",
        )
    if key == "arguments" and name not in HARMLESS:
        return UserError(
            what=f"{argument!r} is not known to leave the answers as they are, and these arguments are no part of what "
            "a result is identified by",
            where=f"teacher.{key}",
            remedy="give it and its value in teacher.answer_arguments, which are",
        )
    return None


def _is_name(argument: str) -> bool:
    """Whether an argument is a name and not the value of the one before, which may be a negative number."""
    return re.match(r"--?[A-Za-z]", argument) is not None


def _name(argument: str) -> str:
    """As vLLM reads it: an underscore is a hyphen, "--no-x" is the opposite of "--x", and "--x=1" sets x."""
    name = argument.partition("=")[0].replace("_", "-")
    return f"--{name[5:]}" if name.startswith("--no-") else name
