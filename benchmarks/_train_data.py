"""Data and models of the training benchmarks: Alpaca's lengths and preambles over random tokens, random Llamas."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from alpaca.stages.train.tokens import Row

COUNTS = (
    *(924, 4256, 6105, 7567, 5525, 3977, 3956, 3504, 3397, 2838, 2171, 1806, 1333, 946, 817, 537, 430, 322, 258, 215),
    *(193, 150, 150, 107, 107, 64, 64, 64, 43, 43, 21, 21, 21, 21, 0, 0, 21, 0, 21),
)
"""The 52,002 released examples by tokens (LLaMA's tokenizer; prompt, answer and eos): histogram of tloen/alpaca-lora,
lengths.ipynb, in bins of WIDTH from FIRST."""
FIRST, WIDTH, LONGEST = 41.96, 12.63, 512
PREAMBLES, COMMON, WITH_INPUT = (29, 39), 11, 0.4
"""Tokens before the instruction without and with an input, how many of them the two templates share, and the share of
examples with an input."""
IGNORED = -100
SUPERVISED = 0.4
PAD, BOS, EOS, RESERVED = 0, 1, 2, 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A Llama's size. groups: query heads per key and value head."""

    layers: int
    width: int
    inner: int
    heads: int
    groups: int = 1
    vocabulary: int = 4096
    positions: int = 2048


SHAPES = {
    "tiny": Shape(layers=2, width=128, inner=344, heads=4, groups=2),
    "small": Shape(layers=4, width=256, inner=688, heads=8, groups=2),
    "7b": Shape(layers=32, width=4096, inner=11008, heads=32, vocabulary=32000),
}
"""tiny: 1.4 million parameters; small: 5 million; 7b: LLaMA-7B (arXiv 2302.13971)."""


def length(rng: random.Random) -> int:
    """Tokens of one example, drawn as the released data has them (mean 128)."""
    (place,) = rng.choices(range(len(COUNTS)), COUNTS)
    return min(LONGEST, round(FIRST + WIDTH * (place + rng.random())))


def preambles(vocabulary: int) -> list[list[int]]:
    """Token ids of what the two templates have before the instruction: without and with an input."""
    rng = random.Random(0)
    common = [BOS, *_tokens(rng, COMMON - 1, vocabulary)]
    return [[*common, *_tokens(rng, size - COMMON, vocabulary)] for size in PREAMBLES]


def rows(count: int, vocabulary: int, seed: int = 0) -> list[Row]:
    """Examples of random tokens that begin with one of the two preambles and end with an answer that bears loss."""
    rng, beginnings = random.Random(seed), preambles(vocabulary)
    return [_row(rng, beginnings[rng.random() < WITH_INPUT], vocabulary) for _ in range(count)]


def _row(rng: random.Random, preamble: list[int], vocabulary: int) -> Row:
    size = length(rng)
    answer = max(1, min(round(SUPERVISED * size), size - len(preamble) - 1))
    return Row([*preamble, *_tokens(rng, size - len(preamble) - 1, vocabulary), EOS], size - answer)


def _tokens(rng: random.Random, count: int, vocabulary: int) -> list[int]:
    return [rng.randrange(RESERVED, vocabulary) for _ in range(count)]


def tokens(examples: list[Row]) -> int:
    """Real tokens: of prompts and answers, without padding and before any sharing."""
    return sum(len(row.ids) for row in examples)


def labels(row: Row) -> list[int]:
    """transformers' labels: the ids, -100 where no loss is borne."""
    return [IGNORED] * row.masked + row.ids[row.masked :]


def config_of(shape: Shape, **more: Any) -> LlamaConfig:
    """Heads of width / heads, untied embeddings, as LLaMA has them."""
    return LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads // shape.groups,
        max_position_embeddings=shape.positions,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        use_cache=False,
        **more,
    )


def model(shape: Shape, *, dtype: torch.dtype = torch.float32, device: str = "cpu", seed: int = 0) -> LlamaForCausalLM:
    """A random Llama, made where and in the numbers in which it will be used."""
    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return LlamaForCausalLM(config_of(shape, attn_implementation="sdpa"))
    finally:
        torch.set_default_dtype(before)
