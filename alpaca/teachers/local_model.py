"""The model behind `teacher=local`: requests are gathered into batches and answered in a thread beside the loop."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from jinja2 import TemplateError
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from alpaca import generation
from alpaca.errors import TeacherError, UserError
from alpaca.generation import Decoding, Generated, Generator
from alpaca.records import well_formed
from alpaca.runtime.quiet import no_bars
from alpaca.teachers.base import Cause, Completion, RefusedRequestError, Request, RetryableError, Usage
from alpaca.teachers.digest import request_digest
from alpaca.teachers.local import Local

DTYPES: dict[str, Any] = {"auto": "auto", "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
REFUSED = {"logit_bias": "data_gen.logit_bias", "schema": "data_gen.form"}
"""What this teacher cannot do -> the key that asks for it."""
# torch says it in a RuntimeError on the CPU, and older parts of it do on the GPU.
NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")
QUOTED = 300  # characters of a library's error that a message shows


@asynccontextmanager
async def loaded(options: Local, say: Callable[[str], None]) -> AsyncIterator[LocalModel]:
    """Loads the model in the thread that will run it, and ends what it is writing when the client is closed."""
    thread, halt = ThreadPoolExecutor(1, thread_name_prefix="local-teacher"), threading.Event()
    loop = asyncio.get_running_loop()
    try:
        generator = await loop.run_in_executor(thread, load, options)
        say(f"{options.name()} on {generator.model.device}, {options.batch} requests at a time")
        client = LocalModel(options, generator, Bench(thread=thread, halt=halt, say=say))
        try:
            yield client
        finally:
            await client.close()
    finally:
        halt.set()
        await loop.run_in_executor(None, thread.shutdown)


def load(options: Local) -> Generator:
    """Model and tokenizer on the GPU where there is one; UserError when they cannot be loaded."""
    no_bars()
    source = {"revision": options.revision} if options.path is None else {}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        tokenizer = AutoTokenizer.from_pretrained(options.location(), **source)
        model: Any = AutoModelForCausalLM.from_pretrained(options.location(), dtype=DTYPES[options.dtype], **source)
        model = model.to(device).eval()
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:  # missing, unknown, torn files
        raise _cannot_load(options, error) from error
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise UserError(
            what=f"{options.name()} does not fit into the memory of {device}",
            where="teacher.dtype",
            remedy="teacher.dtype=bf16 takes half of fp32; else a smaller model, or teacher=vllm over several GPUs",
        ) from error
    return _ready(options, model, tokenizer)


def _ready(options: Local, model: Any, tokenizer: Any) -> Generator:
    ends = model.generation_config.eos_token_id
    ends = tuple(ends) if isinstance(ends, list) else () if ends is None else (ends,)
    if tokenizer.eos_token_id is None:
        raise UserError(
            what=f"the tokenizer of {options.name()} has no end of sequence, so no answer would end",
            where="teacher.path" if options.path else "teacher.id",
            remedy="set eos_token in its tokenizer_config.json",
        )
    # Sampling defaults of the model (a repetition penalty, say) would change answers behind the configuration's back.
    model.generation_config = GenerationConfig()
    return Generator(model=model, tokenizer=tokenizer, ends=ends)


def _cannot_load(options: Local, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:QUOTED]
    where = "teacher.path" if options.path else "teacher.id"
    remedy = "the folder must hold config.json, *.safetensors and the tokenizer's files, whole"
    if options.path is None:
        remedy = f"without access to the hub, download it elsewhere (`hf download {options.id}`) and set teacher.path"
    return UserError(what=f"cannot load {options.name()}: {reason}", where=where, remedy=remedy)


@dataclass(kw_only=True, slots=True, frozen=True)
class Bench:
    """Where a model works: its thread, the flag that ends what it is writing, and where to say something."""

    thread: ThreadPoolExecutor
    halt: threading.Event
    say: Callable[[str], None]


@dataclass(slots=True, frozen=True)
class _Waiting:
    request: Request
    asked: generation.Request
    answer: asyncio.Future[Generated]

    def kind(self) -> tuple[float, float, float]:
        """What all requests of one batch share."""
        return self.request.temperature, self.request.top_p, self.request.presence_penalty


class LocalModel:
    """`TeacherClient` over a loaded model."""

    def __init__(self, options: Local, generator: Generator, bench: Bench) -> None:
        self._name, self._batch = options.name(), options.batch
        self._generator, self._bench = generator, bench
        self._waiting: list[_Waiting] = []
        self._worker: asyncio.Task[None] | None = None
        self._blank: Counter[str] = Counter()
        config = generator.model.config.get_text_config()
        self._context: int | None = getattr(config, "max_position_embeddings", None)

    async def complete(self, request: Request) -> Completion:
        """One try; see `TeacherClient`.

        RefusedRequestError for what this model cannot do and for a prompt that its context has no room for;
        TeacherError for what this machine's memory has no room for.
        """
        _refuse(request)
        digest = request_digest(request)
        # The stream of a second try after a blank answer is another one, else it would be blank again.
        tries = self._blank[digest]
        asked = self._asked(request, f"{digest}:{tries}" if tries else digest)
        prompt_tokens = self._prompt_tokens(request, asked)
        answer = await self._answered(_Waiting(request, asked, asyncio.get_running_loop().create_future()))
        if not answer.text:
            self._blank[digest] += 1
            usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=answer.new_tokens)
            raise RetryableError(f"the answer is blank ({answer.new_tokens} tokens)", usage=usage, cause=Cause.EMPTY)
        return Completion(
            text=well_formed(answer.text),
            finish_reason=answer.finish_reason,
            model=self._name,
            prompt_tokens=prompt_tokens,
            completion_tokens=answer.new_tokens,
        )

    async def close(self) -> None:
        """Ends the batch that is being written; its answers are lost."""
        self._bench.halt.set()
        if self._worker is not None:
            self._worker.cancel()
            with suppress(asyncio.CancelledError):
                await self._worker

    async def _answered(self, waiting: _Waiting) -> Generated:
        self._waiting.append(waiting)
        if self._worker is None or self._worker.done():
            # Its turn comes after the requests that were sent in the same moment, so they share the first batch.
            self._worker = asyncio.create_task(self._work())
        return await waiting.answer

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._next_batch():
            try:
                made = await loop.run_in_executor(self._bench.thread, self._generate, batch)
            except asyncio.CancelledError:  # closed: nobody waits for these any more
                for each in batch:
                    each.answer.cancel()
                raise
            except Exception as error:  # whatever it is, it belongs to those who wait for this batch
                made = [error] * len(batch)
            for each, answer in zip(batch, made, strict=True):
                _hand_over(each.answer, answer)

    def _next_batch(self) -> list[_Waiting]:
        """The one that waits longest, and others that are decoded in the same way."""
        batch, others = list[_Waiting](), list[_Waiting]()
        for each in self._waiting:
            fits = len(batch) < self._batch and (not batch or each.kind() == batch[0].kind())
            if not each.answer.done():  # else its try was given up
                (batch if fits else others).append(each)
        self._waiting = others
        return batch

    def _generate(self, batch: list[_Waiting]) -> list[Generated | Exception]:
        """Answers a batch, in halves where the memory does not suffice."""
        asked = [each.asked for each in batch]
        try:
            return list(self._generator.generate(asked, _decoding(batch), self._bench.halt.is_set))
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(batch) == 1:
            return [self._no_room(batch[0].request)]
        self._batch = min(self._batch, len(batch) // 2)
        self._bench.say(f"out of memory with {len(batch)} requests at a time: going on with {self._batch}")
        halves = batch[: len(batch) // 2], batch[len(batch) // 2 :]
        return [answer for half in halves for answer in self._generate(half)]

    def _asked(self, request: Request, stream: str) -> generation.Request:
        tokenizer = self._generator.tokenizer
        templated = bool(getattr(tokenizer, "chat_template", None))
        prompt = "\n\n".join(message.content for message in request.messages)
        if templated:
            chat = [{"role": message.role, "content": message.content} for message in request.messages]
            prompt = _chat_text(tokenizer, chat)
        return generation.Request(
            id=stream, prompt=prompt, templated=templated, max_new_tokens=request.max_tokens, stop=request.stop
        )

    def _prompt_tokens(self, request: Request, asked: generation.Request) -> int:
        count = len(self._generator.prompt_ids([asked])[0])
        if not count:
            what = f"{request.id} has an empty prompt"
            raise RefusedRequestError(what=what, where="data_gen", remedy="give it a text")
        if self._context is not None and count + request.max_tokens > self._context:
            left = self._context - count
            raise RefusedRequestError(
                what=f"{request.id} takes {count:,} tokens and may be answered with {request.max_tokens:,}, but "
                f"{self._name} has a context of {self._context:,}",
                where="data_gen.max_tokens",
                remedy=f"at most {left:,} here" if left > 0 else "show fewer or shorter seed tasks, or another model",
            )
        return count

    def _no_room(self, request: Request) -> TeacherError:
        return TeacherError(
            what=f"{request.id} alone is too much for the memory of {self._generator.model.device}",
            where="teacher.batch",
            remedy="a lower data_gen.max_tokens, teacher.dtype=bf16, a smaller model, or teacher=vllm",
        )


def _refuse(request: Request) -> None:
    for name, key in REFUSED.items():
        if getattr(request, name):
            raise RefusedRequestError(
                what=f"teacher=local knows no {name}",
                where=key,
                remedy="leave it out, or take a server that knows it (teacher=vllm, teacher=openai)",
            )


def _decoding(batch: Sequence[_Waiting]) -> Decoding:
    temperature, top_p, presence_penalty = batch[0].kind()
    return Decoding(
        max_new_tokens=max(each.request.max_tokens for each in batch),
        temperature=temperature,
        top_p=top_p,
        presence_penalty=presence_penalty,
    )


def _hand_over(waiting: asyncio.Future[Generated], answer: Generated | Exception) -> None:
    if waiting.done():  # given up meanwhile
        return
    if isinstance(answer, Exception):
        waiting.set_exception(answer)
    else:
        waiting.set_result(answer)


def _chat_text(tokenizer: Any, chat: list[dict[str, str]]) -> str:
    try:
        return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
    except TemplateError as error:
        raise RefusedRequestError(
            what=f"the model's chat template refuses the messages: {error}",
            where="teacher.path",
            remedy="take a model whose template knows these roles, or remove chat_template from its tokenizer's files",
        ) from error


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch or Python says that no memory is left."""
    told = str(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(words in told for words in NO_MEMORY)
