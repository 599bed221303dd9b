"""What is trained: a model and its loss as one module, so that every way of spreading it wraps both."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as nnf
from torch import nn

from alpaca.stages.train import attention
from alpaca.stages.train.batches import Batch
from alpaca.stages.train.loss import LinearNLL


class Objective(nn.Module):
    """The sum of the negative log-likelihood of a batch's targets, in nats.

    Forward is the only way in: FSDP gathers the parameters that belong to no layer (embeddings, norm, head) around it.
    """

    def __init__(self, model: nn.Module, chunk: int) -> None:
        super().__init__()
        self.model = model
        self.chunk = chunk
        found = getattr(model.config, "_attn_implementation", None)
        self._ordinary = "sdpa" if found == attention.NAME else found  # a model may be wrapped a second time
        self.plain_head = True
        """Whether the logits are the head applied to the last hidden states; else the model's own logits are used."""

    def set_attention(self, *, packed: bool) -> None:
        """Packed attention, or the one that the model came with. Raises ValueError where it takes no other."""
        attention.register()
        if packed or self._ordinary is not None:
            self.model.set_attn_implementation(attention.NAME if packed else self._ordinary)  # type: ignore[operator]

    def forward(self, batch: Batch, wanted: str = "nll") -> torch.Tensor:
        """The sum in nats; wanted="hidden", "projected" or "logits" (at the chosen positions) are for the probe."""
        if wanted == "logits" or (wanted == "nll" and not self.plain_head):
            logits: torch.Tensor = self.model(**_inputs(batch)).logits.flatten(0, 1)[batch.chosen]
            return logits if wanted == "logits" else _nll(logits, batch.targets)
        output = self.model.base_model(**_inputs(batch))  # type: ignore[operator]
        hidden: torch.Tensor = output.last_hidden_state.flatten(0, 1)[batch.chosen]
        if wanted == "hidden":
            return hidden
        head = self.model.get_output_embeddings()  # type: ignore[operator]
        if wanted == "projected":
            return nnf.linear(hidden, head.weight.to(hidden.dtype), head.bias)
        dtype = _compute_dtype(hidden)
        bias = None if head.bias is None else head.bias.to(dtype)
        nll: torch.Tensor = LinearNLL.apply(  # type: ignore[no-untyped-call]
            hidden.to(dtype), head.weight.to(dtype), bias, batch.targets, self.chunk, torch.is_grad_enabled()
        )
        return nll


def _inputs(batch: Batch) -> dict[str, Any]:
    """Keyword arguments of the model. Packed: never a mask, which would let examples see each other in silence."""
    shared = {"input_ids": batch.ids, "use_cache": False}
    if batch.segments is None:
        return {**shared, "attention_mask": batch.attention}
    return {**shared, "position_ids": batch.positions, "segments": batch.segments}


def _nll(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    wide = torch.promote_types(logits.dtype, torch.float32)
    return nnf.cross_entropy(logits.to(wide), targets, reduction="sum")


def _compute_dtype(hidden: torch.Tensor) -> torch.dtype:
    """What a linear layer would compute in here: autocast does not reach into functions of our own."""
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
