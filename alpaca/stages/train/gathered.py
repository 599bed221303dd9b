"""Muon and Adafactor on sharded parameters: both need whole matrices, which are gathered one after the other.

torch's own run their formulas on DTensors: Muon then communicates in every iteration, and Adafactor stops with an error
(torch 2.13). Here every process computes the step of the whole matrix, as one process alone would, and keeps its rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.distributed.tensor import DTensor, Replicate

from alpaca.stages.train.elementwise import Group, local


class Gathered(torch.optim.Optimizer):
    """Steps from parameter to parameter, in the same order in every process."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; every process must call it. closure: not used."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, group)
        return None

    def _step(self, parameter: Any, group: Group) -> None:
        raise NotImplementedError


class ShardedMuon(Gathered, torch.optim.Muon):
    """torch.optim.Muon for parameters that are DTensors; the momentum stays sharded."""

    def _step(self, parameter: Any, group: Group) -> None:
        gradient, state = parameter.grad, self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        direction = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        if group["nesterov"]:
            direction = gradient.lerp(direction, group["momentum"])
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        local(parameter).add_(_rows(self._step_of(direction, group), parameter))

    def _step_of(self, direction: Any, group: Group) -> torch.Tensor:
        """What torch's Muon makes of a whole matrix: the way from zero that it goes without momentum of its own."""
        gathered = direction.to(torch.bfloat16).full_tensor()  # the iteration begins with this rounding anyway
        way = torch.zeros_like(gathered, dtype=direction.dtype)
        way.grad = gathered.to(direction.dtype)
        torch.optim.Muon([{**group, "params": [way], "momentum": 0.0, "nesterov": False}]).step()  # type: ignore[no-untyped-call]
        return way


class ShardedAdafactor(Gathered, torch.optim.Adafactor):
    """torch.optim.Adafactor for parameters that are DTensors; the states, means of rows and columns, are whole."""

    def _step(self, parameter: Any, group: Group) -> None:
        whole = parameter.full_tensor()
        whole.grad = parameter.grad.full_tensor()
        alone = torch.optim.Adafactor([{**group, "params": [whole]}])
        alone.state[whole] = self.state[parameter]
        alone.step()  # type: ignore[no-untyped-call]
        local(parameter).copy_(_rows(whole, parameter))


def _rows(whole: torch.Tensor, parameter: DTensor) -> torch.Tensor:
    """The part of a whole tensor that is this process's of the parameter."""
    mesh = parameter.device_mesh
    everywhere = DTensor.from_local(whole, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return local(everywhere.redistribute(placements=parameter.placements)).to(local(parameter).device)
