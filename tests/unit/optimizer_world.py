"""Small modules to optimize, and what one rank of the sharded test does: `optimizer_world.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import fully_shard
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

from alpaca import config
from alpaca.stages.train import optim

LAYERS = 2
STEPS = 8
VOCABULARY = 61

BF16_STATES = config.Precision(states="bf16")
BF16_SR = config.Precision(compute="bf16", parameters="bf16", states="bf16", rounding="stochastic")
SHARDED: dict[str, tuple[config.Optimizer, config.Precision, float]] = {
    "adamw": (config.AdamW(lr=1e-2, weight_decay=0.1), config.Precision(), 1e-6),
    "bf16_states": (config.AdamW(lr=1e-2, weight_decay=0.1), BF16_STATES, 1e-6),
    "bf16_sr": (config.AdamW(lr=3e-3, weight_decay=0.1), BF16_SR, 0.02),
    "adamw8bit": (config.AdamW8bit(lr=1e-2, weight_decay=0.1, block=32), config.Precision(), 1e-6),
    "adamw8bit_sr": (config.AdamW8bit(lr=3e-3, weight_decay=0.1, block=32), BF16_SR, 0.02),
    "sgd": (config.SGD(lr=0.3, weight_decay=0.01), config.Precision(), 1e-6),
    "adafactor": (config.Adafactor(lr=0.05, weight_decay=0.01), config.Precision(), 1e-6),
    "muon": (config.Muon(lr=0.01), config.Precision(), 5e-4),
}
"""Optimizers, and by how much the losses of two processes may differ from those of one.

Both processes see the same batch, so that gradients are equal to the bit. Muon's iteration in bf16 makes much of the
last bit of a norm, and stochastic rounding draws other noise for shards than for the whole.
"""


def perceptron() -> nn.Module:
    """16 inputs, hidden layers of 70, one output; two matrices have over 4096 numbers, in rows of no whole block."""
    torch.manual_seed(1)
    shapes = ((16, 70), (70, 70), (70, 70), (70, 1))
    layers = [each for shape in shapes for each in (nn.Linear(*shape), nn.Tanh())]
    return nn.Sequential(*layers[:-1])


def llama(dtype: torch.dtype = torch.float32) -> Any:
    """Rows that two processes share evenly, but for the embedding's 61."""
    torch.manual_seed(1)
    shape = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    return LlamaForCausalLM(shape).to(dtype)


def opt() -> Any:
    """A model with biases, and a head that is not its embedding."""
    torch.manual_seed(1)
    shape = OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        ffn_dim=96,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=64,
        word_embed_proj_dim=64,
        dropout=0.0,
        tie_word_embeddings=False,
    )
    return OPTForCausalLM(shape)


def step(module: Any, optimizers: list[torch.optim.Optimizer], index: int) -> float:
    """One step on the batch of that index; returns the loss before it."""
    generator = torch.Generator().manual_seed(index)
    dtype = next(iter(module.parameters())).dtype
    for optimizer in optimizers:
        optimizer.zero_grad()
    if isinstance(module, nn.Sequential):
        numbers = torch.randn(32, 16, generator=generator)
        target = numbers[:, :4].sin().sum(1, keepdim=True)
        loss = (module(numbers.to(dtype)) - target).square().mean()
    else:
        start = torch.randint(VOCABULARY, (4, 1), generator=generator)
        ids = (start + 3 * torch.arange(16)) % VOCABULARY
        loss = module(input_ids=ids, labels=ids).loss
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
    return float(loss.detach())


def saved(module: nn.Module, optimizers: list[torch.optim.Optimizer]) -> dict[str, Any]:
    """The optimizers' state by parameter names, as checkpoints have it."""
    return get_optimizer_state_dict(module, optimizers)


def save(module: nn.Module, optimizers: list[torch.optim.Optimizer], folder: Path) -> None:
    dcp.save({"model": get_model_state_dict(module), "optimizer": saved(module, optimizers)}, checkpoint_id=folder)


def load(module: nn.Module, optimizers: list[torch.optim.Optimizer], folder: Path) -> None:
    state = {"model": get_model_state_dict(module), "optimizer": saved(module, optimizers)}
    dcp.load(state, checkpoint_id=folder)
    set_model_state_dict(module, state["model"])
    set_optimizer_state_dict(module, optimizers, state["optimizer"])


def of(precision: config.Precision) -> Any:
    """The Llama with parameters of this precision."""
    return llama(torch.bfloat16 if precision.parameters == "bf16" else torch.float32)


def sharded(precision: config.Precision) -> Any:
    module = of(precision)
    for layer in module.model.layers:
        fully_shard(layer)
    fully_shard(module)
    return module


def rank(folder: Path) -> None:
    """Trains each of SHARDED on shards; FOLDER/NAME.pt has losses, and those after the state was saved."""
    from alpaca.runtime.distributed import setup

    torch.set_num_threads(1)
    ranks = setup()
    for name, (settings, precision, _) in SHARDED.items():
        module = sharded(precision)
        optimizers = optim.build(module, settings, precision)
        found: dict[str, Any] = {"losses": [step(module, optimizers, index) for index in range(STEPS)]}
        found["weights"] = {key: value.full_tensor() for key, value in module.state_dict().items()}
        save(module, optimizers, folder / name)
        found["after"] = [step(module, optimizers, index) for index in range(3)]
        if ranks.main:
            torch.save(found, folder / f"{name}.pt")


if __name__ == "__main__":
    rank(Path(sys.argv[1]))
    from alpaca.runtime.distributed import leave

    leave()
