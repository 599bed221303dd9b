"""Decoding shared by stages and demo: batches padded on the left, results in the order asked for.

Sampling draws one uniform number per item and token from a stream of that item alone, so that neither the batch nor an
interruption changes what an item gets (up to ties in floating point).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessorList,
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A prompt, and the id that its random stream is derived from."""

    id: str
    prompt: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Generated:
    """What the model wrote."""

    text: str
    """Without special tokens and surrounding whitespace."""
    new_tokens: int
    """The end of sequence included."""
    finish_reason: str
    """"stop" at the end of sequence, "length" at max_new_tokens."""


@dataclass(kw_only=True, slots=True)
class Generator:
    """A model with its tokenizer, ready to answer."""

    model: Any
    tokenizer: Any

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
        lengths = [len(ids) for ids in self.tokenizer([request.prompt for request in requests]).input_ids]
        order = sorted(range(len(requests)), key=lambda index: (-lengths[index], index))
        return [order[start : start + size] for start in range(0, len(order), size)]

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> list[Generated]:
        """Answers one batch, in its order."""
        inputs = self._padded([request.prompt for request in requests])
        sampling = _sampling([request.id for request in requests], decoding)
        with torch.inference_mode():
            output = self.model.generate(**inputs, generation_config=self._config(decoding), logits_processor=sampling)
        return [self._read(row) for row in output[:, inputs["input_ids"].shape[1] :].tolist()]

    def generate_all(self, requests: Sequence[Request], decoding: Decoding, size: int) -> list[Generated]:
        """Answers all requests in batches of `size`, in the order of the requests."""
        found: dict[int, Generated] = {}
        for indices in self.batches(requests, size):
            answers = self.generate([requests[index] for index in indices], decoding)
            found.update(zip(indices, answers, strict=True))
        return [found[index] for index in range(len(requests))]

    def _padded(self, prompts: list[str]) -> dict[str, torch.Tensor]:
        """ids and attention, [prompts, longest prompt], padded on the left; without an end of sequence."""
        eos, pad = self.tokenizer.eos_token_id, self._pad()
        rows = [ids[:-1] if ids and ids[-1] == eos else ids for ids in self.tokenizer(prompts).input_ids]
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
            eos_token_id=self.tokenizer.eos_token_id,
        )

    def _pad(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)

    def _read(self, ids: list[int]) -> Generated:
        eos = self.tokenizer.eos_token_id
        stopped = eos in ids
        ids = ids[: ids.index(eos) + 1] if stopped else ids
        text = self.tokenizer.decode(ids, skip_special_tokens=True).strip()
        return Generated(text=text, new_tokens=len(ids), finish_reason="stop" if stopped else "length")


def _sampling(ids: Sequence[str], decoding: Decoding) -> LogitsProcessorList:
    """Nothing for greedy decoding, else temperature, nucleus (Holtzman et al., arXiv 1904.09751) and the draw."""
    processors = LogitsProcessorList()
    if decoding.temperature > 0:
        processors.append(TemperatureLogitsWarper(decoding.temperature))
        if decoding.top_p < 1:
            processors.append(TopPLogitsWarper(decoding.top_p))
        processors.append(Draw([random.Random(derive(decoding.seed, "sampling", each)) for each in ids]))
    return processors


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
