"""The optimizer that a configuration describes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from alpaca import config
from alpaca.checks.training import optimizer_problems
from alpaca.stages.train.adamw import AdamW8bit, LowPrecisionAdamW
from alpaca.stages.train.elementwise import Group
from alpaca.stages.train.gathered import ShardedAdafactor, ShardedMuon
from alpaca.stages.train.sgd import SGD


def build(
    module: nn.Module, optimizer: config.Optimizer, precision: config.Precision | None = None
) -> list[torch.optim.Optimizer]:
    """The optimizer of the parameters that are trained; with Muon two. The first one's rate is reported.

    module: already placed (on its device, sharded), since optimizers hold on to the parameters that they are given.
    precision: default config.Precision(). Raises UserError for the first of `checks.training.optimizer_problems`.
    """
    precision = precision or config.Precision()
    for problem in optimizer_problems(optimizer, precision):
        raise problem
    if isinstance(optimizer, config.Muon):
        return _muon(module, optimizer, precision)
    groups = _groups(module, optimizer)
    stochastic = precision.rounding == "stochastic"
    if isinstance(optimizer, config.AdamW):
        return [_adamw(groups, precision, lr=optimizer.lr, **_moments(optimizer))]
    if isinstance(optimizer, config.AdamW8bit):
        wide = _split(module, groups, optimizer.block)
        return [AdamW8bit(wide, lr=optimizer.lr, stochastic=stochastic, **_moments(optimizer))]
    if isinstance(optimizer, config.Adafactor):
        decay, largest = optimizer.beta2_decay, optimizer.clip_update
        kind = ShardedAdafactor if _sharded(module) else torch.optim.Adafactor
        return [kind(groups, lr=optimizer.lr, beta2_decay=decay, d=largest)]
    assert isinstance(optimizer, config.SGD)  # no other kind gets here
    return [SGD(groups, lr=optimizer.lr, momentum=optimizer.momentum, stochastic=stochastic)]


def _moments(optimizer: config.AdamW | config.AdamW8bit) -> dict[str, Any]:
    return {"betas": (optimizer.beta1, optimizer.beta2), "eps": optimizer.eps}


def _adamw(groups: list[Group], precision: config.Precision, **options: Any) -> torch.optim.Optimizer:
    if "bf16" in (precision.parameters, precision.states):
        states = torch.bfloat16 if precision.states == "bf16" else torch.float32
        return LowPrecisionAdamW(groups, states=states, stochastic=precision.rounding == "stochastic", **options)
    # The fused kernel is for GPUs; on a CPU the plain one is the reference that everything is compared with.
    return torch.optim.AdamW(groups, fused=groups[0]["params"][0].device.type == "cuda", **options)


def _muon(module: nn.Module, optimizer: config.Muon, precision: config.Precision) -> list[torch.optim.Optimizer]:
    """Muon's matrices are none of those that `no_decay` can name, and all others have no decay."""
    hidden = hidden_matrices(module)
    taken = {id(parameter) for parameter in hidden}
    rest = [parameter for parameter in _trained(module).values() if id(parameter) not in taken]
    betas = (optimizer.adamw_beta1, optimizer.adamw_beta2)
    group = {"params": rest, "weight_decay": 0.0}
    kind = ShardedMuon if _sharded(module) else torch.optim.Muon
    return [
        kind(hidden, lr=optimizer.lr, momentum=optimizer.momentum, weight_decay=optimizer.weight_decay),
        _adamw([group], precision, lr=optimizer.adamw_lr, betas=betas, eps=1e-8),
    ]


def _groups(module: nn.Module, optimizer: config.Optimizer) -> list[Group]:
    """The trained parameters with weight decay and those without; a group may be missing."""
    trained, outer = _trained(module), _outer(module)
    spared = {name for name, each in trained.items() if _kind(name, each, outer) in optimizer.no_decay}
    return _present(
        {"params": [each for name, each in trained.items() if (name in spared) == without], "weight_decay": decay}
        for without, decay in ((False, optimizer.weight_decay), (True, 0.0))
    )


def _kind(name: str, parameter: nn.Parameter, outer: set[int]) -> str:
    """Which of `checks.training.NO_DECAY` a parameter is, if any."""
    if name.endswith("bias"):
        return "bias"
    if parameter.ndim == 1:
        return "norm"
    return "embedding" if id(parameter) in outer else ""


def _split(module: nn.Module, groups: list[Group], block: int) -> list[Group]:
    """Each group as one with states in blocks and one, of embeddings and head, with states in fp32 (block=None)."""
    outer = _outer(module)
    return _present(
        {**group, "params": [each for each in group["params"] if (id(each) in outer) == wide], "block": size}
        for group in groups
        for wide, size in ((False, block), (True, None))
    )


def _present(groups: Iterable[Group]) -> list[Group]:
    return [group for group in groups if group["params"]]


def _sharded(module: nn.Module) -> bool:
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def _trained(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def _outer(module: nn.Module) -> set[int]:
    """The ids of embeddings and output head."""
    outer = {id(child.weight) for child in module.modules() if isinstance(child, nn.Embedding)}
    head = getattr(module, "get_output_embeddings", lambda: None)()
    return outer if head is None else outer | {id(head.weight)}


def hidden_matrices(module: nn.Module) -> list[nn.Parameter]:
    """The trained two-dimensional parameters that are neither an embedding nor the output head (Muon's domain)."""
    outer = _outer(module)
    return [each for each in _trained(module).values() if each.ndim == 2 and id(each) not in outer]
