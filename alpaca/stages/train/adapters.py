"""LoRA and QLoRA through peft: put in before training, merged into the weights that are exported."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from alpaca.artifacts import Context
from alpaca.config import Train
from alpaca.errors import UserError
from alpaca.runtime.seeding import seed_torch

NAME = "default"
FOLDER = "adapter"
"""Below the stage's folder: the adapter alone, as peft's PeftModel.from_pretrained reads it."""
UP, DOWN, BASE = f".lora_B.{NAME}.weight", f".lora_A.{NAME}.weight", ".base_layer."


def insert(model: Any, train: Train, seed: int) -> None:
    """Adds low-rank updates to the linear layers and freezes everything else; nothing for adapter=none."""
    if train.adapter == "none":
        return
    _require_peft()
    from peft import inject_adapter_in_model

    seed_torch(seed, "adapter")
    try:
        inject_adapter_in_model(_options(model, train), model)
    except ValueError as error:
        raise UserError(
            what=f"no layers of {type(model).__name__} for {train.lora_targets}: {' '.join(str(error).split())[:200]}",
            where="train.lora_targets",
            remedy=f"names of its linear layers: {', '.join(linear_names(model))}",
        ) from error
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(UP in name or DOWN in name)


def _options(model: Any, train: Train) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=train.lora_rank,
        lora_alpha=train.lora_alpha,  # type: ignore[arg-type]  # peft only divides it
        lora_dropout=0.0,  # what is dropped would depend on the cut into passes
        target_modules=list(train.lora_targets or linear_names(model)),
        task_type="CAUSAL_LM",
    )


def linear_names(model: Any) -> list[str]:
    """Last names of all linear layers but the output head, such as q_proj."""
    head = model.get_output_embeddings()
    found = {
        name.rpartition(".")[2]
        for name, child in model.named_modules()
        if (isinstance(child, nn.Linear) or type(child).__name__ == "Conv1D") and child is not head
    }
    return sorted(found)


def _require_peft() -> None:
    if importlib.util.find_spec("peft") is None:
        raise UserError(
            what="adapters need the package peft, which is not installed",
            where="train.adapter",
            remedy="pip install peft, or train.adapter=none",
        )


def merged(weights: dict[str, torch.Tensor], model: Any, train: Train, context: Context) -> dict[str, torch.Tensor]:
    """Whole weights without adapter: base + alpha / rank * B @ A. Writes the adapter alone to `adapter/` too.

    weights: the gathered state dict. Computed in fp32 and rounded once to the base's dtype.
    """
    if train.adapter == "none":
        return weights
    _write_adapter({name: each for name, each in weights.items() if UP in name or DOWN in name}, model, train, context)
    scaling = train.lora_alpha / train.lora_rank
    return dict(_plain(weights, _dequantised(model), scaling))


def _plain(
    weights: dict[str, torch.Tensor], full: Callable[[str, torch.Tensor], torch.Tensor], scaling: float
) -> Iterator[tuple[str, torch.Tensor]]:
    for name, weight in weights.items():
        if UP in name or DOWN in name or ".quant_" in name or ".absmax" in name or ".nested_" in name:
            continue
        if BASE + "weight" not in name:
            yield name.replace(BASE, "."), weight
            continue
        stem, base = name.removesuffix(BASE + "weight"), full(name, weight)
        update = weights[stem + UP].float() @ weights[stem + DOWN].float()
        yield f"{stem}.weight", (base.float() + scaling * update).to(base.dtype)


def _dequantised(model: Any) -> Callable[[str, torch.Tensor], torch.Tensor]:
    """Gives a base weight in full: of a layer in 4 bits, what its codes stand for."""
    parameters = dict(model.named_parameters())

    def full(name: str, weight: torch.Tensor) -> torch.Tensor:
        state = getattr(parameters[name], "quant_state", None)
        if state is None:
            return weight
        from bitsandbytes.functional import dequantize_4bit

        plain: torch.Tensor = dequantize_4bit(parameters[name].data, state)
        return plain.cpu()

    return full


def _write_adapter(weights: dict[str, torch.Tensor], model: Any, train: Train, context: Context) -> None:
    folder = context.folder / FOLDER
    folder.mkdir(exist_ok=True)
    named = {f"base_model.model.{name.replace(f'.{NAME}.', '.')}": each.contiguous() for name, each in weights.items()}
    save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    options = _options(model, train)
    options.target_modules = sorted(train.lora_targets or linear_names_of(weights))
    options.inference_mode = True
    options.save_pretrained(str(folder))


def linear_names_of(weights: dict[str, torch.Tensor]) -> list[str]:
    """Last names of the layers that an adapter's weights belong to."""
    return sorted({name.partition(".lora_")[0].rpartition(".")[2] for name in weights})
