"""Optimizers and schedules."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from alpaca import config
from alpaca.errors import UserError

WSD_DECAY = 0.4
_ROUNDING = 1e-9


def build(module: nn.Module, optimizer: config.Optimizer) -> list[torch.optim.Optimizer]:
    """AdamW on all parameters, or Muon on the hidden matrices and AdamW on the rest. The first one's rate is reported.

    module: already placed (on its device, sharded), since optimizers hold on to the parameters that they are given.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if isinstance(optimizer, config.AdamW):
        decay, betas = optimizer.weight_decay, (optimizer.beta1, optimizer.beta2)
        return [_adamw(parameters, lr=optimizer.lr, betas=betas, eps=optimizer.eps, weight_decay=decay)]
    if isinstance(optimizer, config.Muon):
        return _muon(module, parameters, optimizer)
    raise UserError(what=f"unknown optimizer {optimizer.kind!r}", where="optimizer.kind", remedy="known: adamw, muon")


def _adamw(
    parameters: list[nn.Parameter], *, lr: float, betas: tuple[float, float], eps: float, weight_decay: float
) -> torch.optim.Optimizer:
    # The fused kernel is for GPUs; on a CPU the plain one is the reference that everything is compared with.
    fused = parameters[0].device.type == "cuda"
    return torch.optim.AdamW(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=fused)


def _muon(module: nn.Module, parameters: list[nn.Parameter], optimizer: config.Muon) -> list[torch.optim.Optimizer]:
    hidden = hidden_matrices(module)
    taken = {id(parameter) for parameter in hidden}
    rest = [parameter for parameter in parameters if id(parameter) not in taken]
    betas = (optimizer.adamw_beta1, optimizer.adamw_beta2)
    return [
        torch.optim.Muon(hidden, lr=optimizer.lr, momentum=optimizer.momentum, weight_decay=optimizer.weight_decay),
        _adamw(rest, lr=optimizer.adamw_lr, betas=betas, eps=1e-8, weight_decay=0.0),
    ]


def hidden_matrices(module: nn.Module) -> list[nn.Parameter]:
    """The two-dimensional parameters that are neither an embedding nor the output head (Muon's domain)."""
    outer = {id(child.weight) for child in module.modules() if isinstance(child, nn.Embedding)}
    head = getattr(module, "get_output_embeddings", lambda: None)()
    if head is not None:
        outer.add(id(head.weight))
    return [parameter for parameter in module.parameters() if parameter.ndim == 2 and id(parameter) not in outer]


def schedulers(optimizers: list[torch.optim.Optimizer], optimizer: config.Optimizer, steps: int) -> list[LambdaLR]:
    """One schedule for all optimizers: each one's rate times the same factor."""
    factor = rate(optimizer.schedule, steps, optimizer.warmup_ratio)
    return [LambdaLR(each, factor) for each in optimizers]


def rate(schedule: str, steps: int, warmup_ratio: float) -> Callable[[int], float]:
    """The factor of the learning rate at step 0 … steps - 1.

    Warm-up and decay as transformers' `get_scheduler` has them, but for the first step: it has the first fraction of
    the rise instead of rate zero, which would be a step without effect.
    """
    warmup = math.ceil(warmup_ratio * steps - _ROUNDING)

    def factor(step: int) -> float:
        # A scheduler asks once more after the last step: progress 1.
        progress = max(0, step - warmup) / max(1, steps - warmup)
        decay = {
            "constant": 1.0,
            "linear": 1 - progress,
            "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
            "wsd": min(1.0, (steps - step) / (WSD_DECAY * steps)),
        }[schedule]
        return min(1.0, (step + 1) / max(1, warmup)) * decay

    return factor
