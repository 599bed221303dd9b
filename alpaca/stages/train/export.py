"""Writing the trained model in the transformers format, and reading it back before it counts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from transformers import AutoModelForCausalLM, GenerationConfig

from alpaca.artifacts import Context
from alpaca.errors import UserError

SHARD = "5GB"
"""Largest file of weights."""


def export(context: Context, config: Any, tokenizer: Any, weights: dict[str, torch.Tensor]) -> None:
    """Writes `model/`: weights, configuration, tokenizer and the tokens at which generation starts and stops.

    The folder appears whole or not at all; what was written is compared with memory first, since a model that was
    damaged in saving looks like one that learnt nothing.
    """
    temporary, final = context.work / "model.part", context.folder / "model"
    shutil.rmtree(temporary, ignore_errors=True)
    # Sharded parameters cannot be saved by the model itself; the shell only lends its class and its ties.
    with init_empty_weights(include_buffers=True):
        shell = AutoModelForCausalLM.from_config(config, dtype=_dtype(weights))
    weights = _without_ties(weights, shell.all_tied_weights_keys)
    _write(temporary, shell, tokenizer, weights)
    compare(temporary, weights)
    shutil.rmtree(final, ignore_errors=True)
    temporary.replace(final)


def _dtype(weights: dict[str, torch.Tensor]) -> torch.dtype:
    """The format that most numbers are in."""
    return max(weights.values(), key=torch.Tensor.numel).dtype


def _write(folder: Path, shell: Any, tokenizer: Any, weights: dict[str, torch.Tensor]) -> None:
    # A fresh one: base models ship sampling settings which transformers then refuses to save without do_sample.
    shell.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id
    )
    shell.save_pretrained(folder, state_dict=dict(weights), max_shard_size=SHARD)
    tokenizer.save_pretrained(folder)


def _without_ties(weights: dict[str, torch.Tensor], ties: dict[str, str]) -> dict[str, torch.Tensor]:
    """Drops what is stored under another name already; gathered shards no longer show that by their address."""
    return {
        name: weight
        for name, weight in weights.items()
        if name not in ties or not torch.equal(weight, weights[ties[name]])
    }


def compare(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """Raises a UserError unless the files hold exactly these weights."""
    missing = set(weights)
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
                if name not in weights or not torch.equal(file.get_tensor(name), weights[name]):
                    raise _damaged(path, name)
                missing.discard(name)
    if missing:
        raise _damaged(folder, ", ".join(sorted(missing)))


def _damaged(path: Path, name: str) -> UserError:
    return UserError(
        what=f"reading back what was written gives other weights: {name}",
        where=str(path),
        remedy="the disk is full or faulty; free space and run the same command again",
    )
