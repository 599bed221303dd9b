"""What is changed in a model before and after it is spread over processes: fp8 layers, recomputation, compilation."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from alpaca.config import Precision
from alpaca.errors import UserError
from alpaca.stages.train import fp8, parallel

PRODUCTS = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten._scaled_mm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
}
"""Dear to compute, cheap to keep: what selective recomputation saves."""


def number_format(model: Any, precision: Precision) -> None:
    """fp8: the linear layers but the head; every other format leaves the modules alone."""
    if precision.compute == "fp8":
        fp8.replace_linear(model, kept=model.get_output_embeddings())


def recompute(model: Any, how: str) -> None:
    """Activation checkpointing of each layer (see config.Train.recompute)."""
    if how == "none":
        return
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise UserError(
            what=f"{type(model).__name__} cannot compute its layers again",
            where="train.recompute",
            remedy="train.recompute=none",
        )
    # Dropout is off everywhere, so that no random state has to be kept for the second computation.
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if how == "selective":
        options["context_fn"] = functools.partial(create_selective_checkpoint_contexts, _keeper())
    model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)


def _keeper() -> Any:
    """The policy of selective recomputation."""
    import torch.nn.attention.varlen  # makes its operation known

    kept = {*PRODUCTS, torch.ops.torch_attn._varlen_attn.default}

    def policy(context: Any, operation: Any, *arguments: Any, **options: Any) -> CheckpointPolicy:
        return CheckpointPolicy.MUST_SAVE if operation in kept else CheckpointPolicy.PREFER_RECOMPUTE

    return policy


def compile_layers(model: nn.Module, *, wanted: bool) -> None:
    """torch.compile of each layer: one compilation serves all, and packs of any length; attention stays as it is."""
    if not wanted:
        return
    found = parallel.layers(model, needed_by="train.compile")
    for layer in found:
        layer.compile(dynamic=True)
