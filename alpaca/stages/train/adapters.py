"""LoRA and QLoRA through peft: put in before training, merged into the weights that are exported."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
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
    """Adds low-rank updates to the linear layers and freezes everything else; nothing for adapter=none.

    A UserError for names of other layers.
    """
    if train.adapter == "none":
        return
    _require_peft()
    from peft import inject_adapter_in_model

    for target in train.lora_targets or []:
        _check(model, target)
    seed_torch(seed, "adapter")
    try:
        inject_adapter_in_model(_options(model, train), model)
    except ValueError as error:
        raise _refused(model, f"peft puts no updates there: {' '.join(str(error).split())[:200]}") from error
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(UP in name or DOWN in name)


def _check(model: Any, target: str) -> None:
    """Refuses a name that stands for no layer, or for one that is not linear, or for the output head.

    A name stands for all modules whose full names end with it, as in peft. An update of the head would have no effect,
    since the loss reads the head's weight and does not call it; embeddings and convolutions would get other updates.
    """
    found = {name for name, _ in model.named_modules() if f".{name}".endswith(f".{target}")}
    if not found:
        raise _refused(model, f"{type(model).__name__} has no layer {target}")
    if others := found - _linear_layers(model):
        raise _refused(model, f"{min(others)} is the output head or not linear: no low-rank update can train it")


def _refused(model: Any, what: str) -> UserError:
    known = ", ".join(linear_names(model))
    return UserError(what=what, where="train.lora_targets", remedy=f"names of its linear layers: {known}")


def _options(model: Any, train: Train) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=train.lora_rank,
        lora_alpha=train.lora_alpha,  # type: ignore[arg-type]  # peft only divides it
        lora_dropout=0.0,  # what is dropped would depend on the cut into passes
        target_modules=list(train.lora_targets or linear_names(model)),
        fan_in_fan_out=any(_is_conv1d(type(child)) for child in model.modules()),
        task_type="CAUSAL_LM",
    )


def linear_names(model: Any) -> list[str]:
    """Last names of all linear layers but the output head, such as q_proj."""
    return sorted({name.rpartition(".")[2] for name in _linear_layers(model)})


def _linear_layers(model: Any) -> set[str]:
    """Full names of all linear layers but the output head."""
    head = model.get_output_embeddings()
    return {
        name
        for name, child in model.named_modules()
        if (isinstance(child, nn.Linear) or _is_conv1d(type(child))) and child is not head
    }


def _is_conv1d(kind: type) -> bool:
    """Whether layers of this class are linear and store their weight transposed, (in, out), as GPT-2's do."""
    return kind.__name__ == "Conv1D"


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
    return dict(_plain(weights, model, train.lora_alpha / train.lora_rank))


def _plain(weights: dict[str, torch.Tensor], model: Any, scaling: float) -> Iterator[tuple[str, torch.Tensor]]:
    for name, weight in weights.items():
        if UP in name or DOWN in name or ".quant_" in name or ".absmax" in name or ".nested_" in name:
            continue
        if BASE + "weight" not in name:
            yield name.replace(BASE, "."), weight
            continue
        stem = name.removesuffix(BASE + "weight")
        update = scaling * (weights[stem + UP].float() @ weights[stem + DOWN].float())
        yield f"{stem}.weight", _added(weight, update, model.get_submodule(stem).base_layer)


def _added(weight: torch.Tensor, update: torch.Tensor, layer: Any) -> torch.Tensor:
    """Weight and update of a layer as the model without adapter stores them. update: (out, in), fp32.

    Of a layer in 4 bits, the weight is what its codes stand for: (out, in), also where it replaced a Conv1D.
    """
    state = getattr(layer.weight, "quant_state", None)
    if state is None:
        return (weight.float() + (update.T if _is_conv1d(type(layer)) else update)).to(weight.dtype)
    from bitsandbytes.functional import dequantize_4bit

    codes: torch.Tensor = dequantize_4bit(layer.weight.data, state).cpu()
    whole = (codes.float() + update).to(codes.dtype)
    return whole.T.contiguous() if _is_conv1d(getattr(layer, "source_cls", nn.Linear)) else whole


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
