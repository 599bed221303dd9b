"""What our own optimizers share: a parameter's numbers are updated one by one, so each process does its own shard."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import torch
from torch.distributed.tensor import DTensor

Group = dict[str, Any]


class Elementwise(torch.optim.Optimizer):
    """An optimizer without communication, on plain tensors and on DTensors sharded along their first dimension.

    States are DTensors where the parameter is, so that torch.distributed.checkpoint saves and reshards them.
    """

    def fresh(self, parameter: torch.Tensor, group: Group) -> dict[str, torch.Tensor]:
        """The states of a parameter before its first step."""
        raise NotImplementedError

    def numbers(self, group: Group, step: float) -> list[float]:
        """What changes with the step (1, 2, …). It reaches `update` as a tensor: a float would be compiled in."""
        raise NotImplementedError

    def update(
        self,
        weight: torch.Tensor,
        gradient: torch.Tensor,
        states: dict[str, torch.Tensor],
        numbers: torch.Tensor,
        group: Group,
    ) -> None:
        """Changes weight and states (local shards of the same rows) in place."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step on all parameters with a gradient; returns what closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step(group)
        return loss

    def _step(self, group: Group) -> None:
        made: dict[float, torch.Tensor] = {}  # most parameters are at the same step, and copies to a GPU wait
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state, weight = self.state[parameter], local(parameter)
            if not state:
                state.update(step=torch.tensor(0.0), **self.fresh(parameter, group))
            state["step"] += 1
            step = float(state["step"])
            if step not in made:
                made[step] = torch.tensor(self.numbers(group, step), device=weight.device)
            if weight.numel():  # with few rows some processes have none
                states = {name: local(value) for name, value in state.items() if name != "step"}
                self.update(weight, local(parameter.grad), states, made[step], group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, which however would cast states to the format of the parameter."""
        super().load_state_dict({**state_dict, "state": {}})
        parameters = _parameters(self.param_groups)
        of = dict(zip(_parameters(state_dict["param_groups"]), parameters, strict=True))
        for key, saved in state_dict["state"].items():
            device = of[key].device
            self.state[of[key]] = {
                name: value if name == "step" else value.to(device=device) for name, value in saved.items()
            }


def _parameters(groups: Iterable[Group]) -> list[Any]:
    return list(chain.from_iterable(group["params"] for group in groups))


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's shard of a DTensor, sharing its memory; any other tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def kernel(function: Callable[..., None], weight: torch.Tensor) -> Callable[..., None]:
    """The function, on a GPU compiled into one kernel: each number then crosses the memory bus once."""
    return _compiled(function) if weight.is_cuda else function


@functools.cache
def _compiled(function: Callable[..., None]) -> Callable[..., None]:
    # Sizes become dynamic at the second shape by themselves, so that two compilations serve all parameters.
    return torch.compile(function)


def flat(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Views with one dimension, so that one compiled kernel serves all shapes; as they are where memory forbids it."""
    return [each.view(-1) for each in tensors] if all(each.is_contiguous() for each in tensors) else tensors
