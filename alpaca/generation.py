"""Decoding shared by stages and demo: batches padded on the left, results in the order asked for.

Sampling draws one uniform number per item and token from a stream of that item alone, so that neither the batch nor an
interruption changes what an item gets (up to ties in floating point).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from alpaca.errors import UserError
from alpaca.runtime.seeding import derive


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoding:
    """How to decode: greedily at temperature 0 (top_p and seed are not read then)."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    presence_penalty: float = 0.0
    """Taken off the logit of every token that the answer holds already (OpenAI's definition)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A prompt, and the id that its random stream is derived from."""

    id: str
    prompt: str
    templated: bool = False
    """The prompt comes from a chat template, so it holds its special tokens already."""
    max_new_tokens: int | None = None
    """Less than the decoding's, for this answer alone."""
    stop: tuple[str, ...] = ()
    """The answer ends before the first of these."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Generated:
    """What the model wrote."""

    text: str
    """Without special tokens and surrounding whitespace."""
    new_tokens: int
    """The end of sequence included."""
    finish_reason: str
    """"stop" at the end of sequence or before a stop string, "length" at max_new_tokens."""


@dataclass(kw_only=True, slots=True)
class Generator:
    """A model with its tokenizer, ready to answer."""

    model: Any
    tokenizer: Any
    ends: tuple[int, ...] = ()
    """Tokens that end an answer besides the tokenizer's end of sequence (chat models have several)."""

    @classmethod
    def load(cls, folder: Path) -> Generator:
        """The model of a finished stage, in fp32, on the GPU where there is one; a UserError when it cannot be read."""
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(folder)
        except (OSError, ValueError, KeyError) as error:  # what transformers raises for missing, unknown and torn files
            raise UserError(
                what=f"cannot load the model: {' '.join(str(error).split())[:300]}",
                where=str(folder),
                remedy="delete the stage's folder and run the same command again",
            ) from error
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return cls(model=model.to(device).eval(), tokenizer=tokenizer)

    def batches(self, requests: Sequence[Request], size: int) -> list[list[int]]:
        """Indices of the requests, cut into batches of similar prompt length; longest first."""
        lengths = [len(ids) for ids in self.prompt_ids(requests)]
        order = sorted(range(len(requests)), key=lambda index: (-lengths[index], index))
        return [order[start : start + size] for start in range(0, len(order), size)]

    def generate(
        self, requests: Sequence[Request], decoding: Decoding, halted: Callable[[], bool] | None = None
    ) -> list[Generated]:
        """Answers one batch, in its order. halted: asked at every token; all answers end there once it is true."""
        inputs = self._padded(requests)
        width = inputs["input_ids"].shape[1]
        ending = Ending(requests, decoding, self.tokenizer, width, halted) if halted or _own(requests) else None
        with torch.inference_mode():
            output = self.model.generate(
                **inputs,
                generation_config=self._config(decoding),
                logits_processor=_sampling([request.id for request in requests], decoding, width),
                stopping_criteria=StoppingCriteriaList([ending] if ending else []),
            )
        rows = output[:, width:].tolist()
        if ending is None:
            return [self._read(row) for row in rows]
        return [
            self._read(row[:length], each.stop)
            for row, length, each in zip(rows, ending.lengths, requests, strict=True)
        ]

    def generate_all(self, requests: Sequence[Request], decoding: Decoding, size: int) -> list[Generated]:
        """Answers all requests in batches of `size`, in the order of the requests."""
        found: dict[int, Generated] = {}
        for indices in self.batches(requests, size):
            answers = self.generate([requests[index] for index in indices], decoding)
            found.update(zip(indices, answers, strict=True))
        return [found[index] for index in range(len(requests))]

    def prompt_ids(self, requests: Sequence[Request]) -> list[list[int]]:
        """Tokens of each prompt as the model sees them, without an end of sequence."""
        eos, found = self.tokenizer.eos_token_id, list[list[int]]()
        for request in requests:
            ids = self.tokenizer(request.prompt, add_special_tokens=not request.templated).input_ids
            found.append(ids[:-1] if ids and ids[-1] == eos and not request.templated else ids)
        return found

    def _padded(self, requests: Sequence[Request]) -> dict[str, torch.Tensor]:
        """ids and attention, [prompts, longest prompt], padded on the left."""
        pad, rows = self._pad(), self.prompt_ids(requests)
        length = max(map(len, rows))
        ids = torch.tensor([[pad] * (length - len(row)) + row for row in rows])
        attention = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
        return {"input_ids": ids.to(self.model.device), "attention_mask": attention.to(self.model.device)}

    def _config(self, decoding: Decoding) -> GenerationConfig:
        # Sampling is done by the processors below, hence greedy here in both cases.
        return GenerationConfig(
            max_new_tokens=decoding.max_new_tokens,
            do_sample=False,
            pad_token_id=self._pad(),
            bos_token_id=self.tokenizer.bos_token_id,
            eos_token_id=sorted({self.tokenizer.eos_token_id, *self.ends}),
        )

    def _pad(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)

    def _read(self, ids: list[int], stop: tuple[str, ...] = ()) -> Generated:
        """What the tokens of one answer say, up to the first end of sequence or stop string."""
        ends = {self.tokenizer.eos_token_id, *self.ends}
        end = next((place for place, token in enumerate(ids) if token in ends), None)
        ids = ids if end is None else ids[: end + 1]
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        cut = min((place for each in stop if (place := text.find(each)) >= 0), default=None)
        reason = "length" if end is None and cut is None else "stop"
        return Generated(text=text[:cut].strip(), new_tokens=len(ids), finish_reason=reason)


def _own(requests: Sequence[Request]) -> bool:
    """Whether any answer ends by a rule of its own."""
    return any(request.stop or request.max_new_tokens is not None for request in requests)


class Ending(StoppingCriteria):  # type: ignore[misc]  # transformers is untyped
    """Ends each row at its own length or stop string; `lengths` are the tokens until then.

    A row that has ended is padded until the last one has, and what is padding and what was written can look the same.
    """

    SLACK = 4  # tokens beside those of the stop string, since a tokenizer may drop a space before the first one

    def __init__(
        self,
        requests: Sequence[Request],
        decoding: Decoding,
        tokenizer: Any,
        width: int,
        halted: Callable[[], bool] | None = None,
    ) -> None:
        most = decoding.max_new_tokens
        self.lengths = [min(most, request.max_new_tokens or most) for request in requests]
        self._stops = [request.stop for request in requests]
        self._tokenizer, self._width, self._halted = tokenizer, width, halted
        self._done = [False] * len(requests)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **options: Any) -> torch.Tensor:
        """input_ids: [rows, prompt + tokens so far]; which rows have ended, [rows]."""
        made, halted = input_ids.shape[1] - self._width, self._halted is not None and self._halted()
        for row, done in enumerate(self._done):
            if not done and (halted or made >= self.lengths[row] or self._stopped(input_ids[row], self._stops[row])):
                self._done[row], self.lengths[row] = True, made
        return torch.tensor(self._done, device=input_ids.device)

    def _stopped(self, ids: torch.Tensor, stop: tuple[str, ...]) -> bool:
        if not stop:
            return False
        # A token is at least one byte, so the string cannot begin before these.
        reach = max(len(each.encode()) for each in stop) + self.SLACK
        tail = self._tokenizer.decode(ids[self._width :][-reach:].tolist(), skip_special_tokens=True)
        return any(each in tail for each in stop)


def _sampling(ids: Sequence[str], decoding: Decoding, width: int) -> LogitsProcessorList:
    """Nothing for greedy decoding, else temperature, nucleus (Holtzman et al., arXiv 1904.09751) and the draw.

    width: length of the padded prompts.
    """
    processors = LogitsProcessorList()
    if decoding.presence_penalty:
        processors.append(Presence(decoding.presence_penalty, width))
    if decoding.temperature > 0:
        processors.append(TemperatureLogitsWarper(decoding.temperature))
        if decoding.top_p < 1:
            processors.append(TopPLogitsWarper(decoding.top_p))
        processors.append(Draw([random.Random(derive(decoding.seed, "sampling", each)) for each in ids]))
    return processors


class Presence:
    """A logits processor: lowers the logits of the tokens that the answer, not the prompt, holds already."""

    def __init__(self, penalty: float, width: int) -> None:
        self.penalty, self.width = penalty, width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """scores: [rows, vocabulary] logits; returns the same shape."""
        present = torch.zeros_like(scores).scatter(1, input_ids[:, self.width :], 1.0)
        return scores - self.penalty * present


class Draw:
    """A logits processor: leaves of each row of scores one token, drawn by inverting the cumulative distribution."""

    def __init__(self, streams: list[random.Random]) -> None:
        self.streams = streams

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """scores: [rows, vocabulary] logits; returns the same shape, -inf everywhere but at the drawn token."""
        uniform = torch.tensor([[stream.random()] for stream in self.streams], dtype=torch.double, device=scores.device)
        cumulative = scores.double().softmax(dim=-1).cumsum(dim=-1)
        # Times the last entry: rounding may leave the sum a little below one, and no token beyond it may be drawn.
        drawn = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
        drawn = drawn.clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, drawn, 0.0)
