"""How far packed loss and gradient are from those of transformers' own model, one example at a time."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as nnf
from _train_data import IGNORED, SHAPES, labels, model, rows
from _train_ours import Ours
from torch import nn

from alpaca import config
from alpaca.stages.train.tokens import Row


def errors(examples: int) -> dict[str, float]:
    """Relative errors of loss and gradient: packed, and with shared beginnings; in fp64 (no suffix) and in fp32."""
    shape, found = SHAPES["tiny"], dict[str, float]()
    batch = rows(examples, shape.vocabulary, seed=1)
    for suffix, base in (("", in_fp64(model(shape))), ("_fp32", model(shape))):
        expected = one_by_one(base, batch)
        for prefix, shared in (("", False), ("prefix_", True)):
            loss, gradient = apart(expected, measured(base, batch, shared_prefix=shared))
            found |= {f"{prefix}loss_error{suffix}": loss, f"{prefix}gradient_error{suffix}": gradient}
    return found


def accumulation_error(examples: int) -> float:
    """The larger of the relative errors of loss and gradient: many passes against one, in fp32."""
    shape = SHAPES["tiny"]
    base, batch = model(shape), rows(examples, shape.vocabulary, seed=2)
    whole = measured(base, batch, pack_tokens=512 * examples)
    return max(apart(whole, measured(base, batch, pack_tokens=512)))


Found = tuple[float, torch.Tensor]
"""Loss in nats per supervised token, and its whole gradient as one vector."""


def measured(base: nn.Module, batch: list[Row], **settings: Any) -> Found:
    """What our loop computes for one global batch."""
    ours = Ours(copy.deepcopy(base), batch, config.Train(batching="packed", **settings))
    return ours.gradients(), vector(ours.placed.model)


def one_by_one(base: nn.Module, batch: list[Row]) -> Found:
    """By definition: transformers' model and loss, each example alone, weighted by its share of supervised tokens."""
    module = copy.deepcopy(base)
    total, loss = sum(row.supervised for row in batch), 0.0
    for row in batch:
        mean = module(input_ids=torch.tensor([row.ids]), labels=torch.tensor([labels(row)])).loss
        share = mean * row.supervised / total
        share.backward()
        loss += share.item()
    return loss, vector(module)


def vector(module: nn.Module) -> torch.Tensor:
    """The gradient of all parameters."""
    return torch.cat([each.grad.flatten() for each in module.parameters() if each.grad is not None])


def apart(expected: Found, found: Found) -> tuple[float, float]:
    """Relative differences of loss and gradient."""
    distance = float((found[1] - expected[1]).norm() / expected[1].norm())
    return abs(found[0] - expected[0]) / abs(expected[0]), distance


def in_fp64(module: Any) -> nn.Module:
    """The model in fp64 throughout: transformers computes norms and loss in fp32 whatever the weights are.

    torch's own RMSNorm takes the norms' place, and the loss is transformers' without its cast; both ways use the model.
    """
    module = module.double()
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ == "LlamaRMSNorm":
                setattr(parent, name, _norm(child))
    module.loss_function = _loss
    return module  # type: ignore[no-any-return]


def _norm(child: Any) -> nn.RMSNorm:
    norm = nn.RMSNorm(len(child.weight), eps=child.variance_epsilon, dtype=torch.float64)
    norm.weight = child.weight
    return norm


def _loss(logits: torch.Tensor, labels: torch.Tensor, vocab_size: int, **_: Any) -> torch.Tensor:
    """Mean negative log-likelihood of the next token, as transformers' ForCausalLMLoss, in the logits' numbers."""
    return nnf.cross_entropy(logits[:, :-1].reshape(-1, vocab_size), labels[:, 1:].flatten(), ignore_index=IGNORED)
