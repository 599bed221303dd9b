"""Where the model's parameters live: on one device, replicated (DDP), or sharded over the processes (FSDP2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from alpaca.config import Fsdp, Precision
from alpaca.errors import UserError
from alpaca.runtime.distributed import Ranks
from alpaca.stages.train import precision as formats
from alpaca.stages.train.objective import Objective

SHARDED = ("full_shard", "shard_grad_op", "hybrid_shard")


@dataclass(kw_only=True, slots=True)
class Placed:
    """A model ready for training, whatever its distribution."""

    objective: Objective
    forward: Callable[..., torch.Tensor]
    """What to call; never a part of the objective, since sharded parameters are only gathered by the whole."""
    ranks: Ranks
    precision: Precision
    shard: int = 0
    """Which part of each parameter this process holds; equal in processes that hold copies of each other."""

    @property
    def model(self) -> nn.Module:
        """The transformers model itself: owner of parameters and state."""
        return self.objective.model

    def autocast(self) -> AbstractContextManager[Any]:
        """Around each forward pass; FSDP casts by itself."""
        if isinstance(self.objective, FSDPModule):
            return nullcontext()
        return formats.autocast(self.precision, self.ranks.device)

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Around forward passes that no backward follows: no gradients, and what they gathered is given up again.

        The model stays in training mode: without dropout that makes no difference, but in evaluation mode bitsandbytes
        repacks 4-bit weights on a CPU for good, and then computes wrong gradients without a word.
        """
        try:
            with torch.no_grad():
                yield
        finally:
            self.give_up()

    def give_up(self) -> None:
        """Brings sharded parameters back to where they were before a forward pass.

        They stay gathered until a backward pass, and after an error inside the forward some of them do; an optimizer
        that is built then would hold the wrong ones.
        """
        if isinstance(self.objective, FSDPModule):
            self.objective.reset_iter_state()
        for module in self.objective.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def accumulating(self, last: bool) -> AbstractContextManager[Any]:
        """Around forward and backward of one pass: when gradients are exchanged.

        Copies do so in the last pass of a step alone; shards in each, since whole gradients of the passes before would
        take the memory that sharding spares.
        """
        if isinstance(self.objective, FSDPModule):
            self.objective.set_requires_all_reduce(last)  # between groups of hybrid_shard; the others have none
        if isinstance(self.forward, DistributedDataParallel) and not last:
            return self.forward.no_sync()
        return nullcontext()

    def state(self, optimizers: list[torch.optim.Optimizer]) -> dict[str, Any]:
        """The very tensors of model and optimizers, each process its own part: what is loaded into them is in use.

        A frozen base below an adapter is left out. Every rank must call it. Optimizers that have made no step yet make
        one without effect, to have states.
        """
        model, states = get_state_dict(self.model, optimizers)
        frozen = {name for name, parameter in self.model.named_parameters() if not parameter.requires_grad}
        if frozen:  # with it goes what belongs to it: the scales of weights in 4 bits, buffers
            trained = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
            model = {name: tensor for name, tensor in model.items() if name in trained}
        return {"model": model, "optimizers": states}

    def weights(self) -> dict[str, Any]:
        """The whole model's state dict in host memory of rank 0 (empty elsewhere). Every rank must call it."""
        return get_model_state_dict(self.model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def check(fsdp: Fsdp, device: torch.device) -> None:
    """Refuses what cannot run here, before anything is loaded."""
    if fsdp.mode == "none" and fsdp.world_size > 1:
        raise UserError(
            what=f"{fsdp.world_size} processes without a way to share the work",
            where="fsdp.mode",
            remedy="fsdp.mode=full_shard (or ddp), or fsdp.world_size=1",
        )
    if fsdp.offload and (fsdp.mode not in SHARDED or device.type != "cuda"):
        raise UserError(
            what=f"offload with mode {fsdp.mode} on {device.type}",
            where="fsdp.offload",
            remedy="offload moves shards from GPU to host memory: it needs a GPU and a sharding mode",
        )
    if fsdp.mode == "hybrid_shard" and fsdp.world_size % shard_size(fsdp):
        raise UserError(
            what=f"{fsdp.world_size} processes do not divide into groups of {shard_size(fsdp)}",
            where="fsdp.shard_size",
            remedy="a divisor of fsdp.world_size",
        )


def shard_size(fsdp: Fsdp) -> int:
    """Processes in one shard group of hybrid_shard."""
    return fsdp.shard_size or max(1, fsdp.world_size // 2)


def place(model: nn.Module, fsdp: Fsdp, precision: Precision, ranks: Ranks, *, chunk: int) -> Placed:
    """Spreads the model as `fsdp.mode` says. Rank 0's weights count; the other ranks only bring the shapes.

    chunk: supervised positions whose logits exist at the same time.
    """
    formats.prepare(precision)
    objective = Objective(model, chunk).train()
    forward: Callable[..., torch.Tensor] = objective
    if fsdp.mode in SHARDED and ranks.world_size > 1:
        _shard(objective, fsdp, ranks, precision)
        part = ranks.rank % shard_size(fsdp) if fsdp.mode == "hybrid_shard" else ranks.rank
        return Placed(objective=objective, forward=forward, ranks=ranks, precision=precision, shard=part)
    objective.to(ranks.device)
    if ranks.world_size > 1:
        _send_buffers(objective)
        # Sends rank 0's parameters to all.
        forward = DistributedDataParallel(objective, broadcast_buffers=False, gradient_as_bucket_view=True)
    return Placed(objective=objective, forward=forward, ranks=ranks, precision=precision)


def _shard(objective: Objective, fsdp: Fsdp, ranks: Ranks, precision: Precision) -> None:
    whole = dict(objective.model.named_parameters()) if ranks.main else {}
    mixed = formats.computed(precision) != torch.float32
    options: dict[str, Any] = {
        "mesh": _mesh(fsdp, ranks),
        # Gradients are summed over the processes in fp32: bf16 loses a part of each where there are many.
        "mp_policy": MixedPrecisionPolicy(param_dtype=formats.computed(precision), reduce_dtype=torch.float32)
        if mixed
        else MixedPrecisionPolicy(),
        "offload_policy": CPUOffloadPolicy() if fsdp.offload else OffloadPolicy(),
    }
    for layer in layers(objective.model):
        fully_shard(layer, reshard_after_forward=fsdp.mode != "shard_grad_op", **options)
    # What belongs to no layer is needed at both ends of the forward pass and again at once in the backward.
    fully_shard(objective, reshard_after_forward=False, **options)
    with torch.no_grad():
        for name, parameter in objective.model.named_parameters():
            _fill(parameter, whole.get(name), ranks)
    _send_buffers(objective)


def _fill(shards: Any, whole: torch.Tensor | None, ranks: Ranks) -> None:
    """Rank 0's parameter into everyone's shards, one at a time, so that no other process ever holds a whole model."""
    device = ranks.device
    full = torch.empty(shards.shape, dtype=shards.dtype, device=device) if whole is None else whole.detach().to(device)
    part = distribute_tensor(full, shards.device_mesh, shards.placements, src_data_rank=0)
    shards.to_local().copy_(part.to_local())


def _send_buffers(module: nn.Module) -> None:
    """Rank 0's buffers to all: those outside the state dict (rotary frequencies) exist only where it was loaded."""
    for buffer in module.buffers():
        dist.broadcast(buffer, src=0)


def _mesh(fsdp: Fsdp, ranks: Ranks) -> DeviceMesh:
    if fsdp.mode == "hybrid_shard":
        shape = (ranks.world_size // shard_size(fsdp), shard_size(fsdp))
        return init_device_mesh(ranks.device.type, shape, mesh_dim_names=("replicate", "shard"))
    return init_device_mesh(ranks.device.type, (ranks.world_size,))


def layers(model: nn.Module, needed_by: str = "fsdp.mode") -> list[nn.Module]:
    """The model's blocks by the class names that it declares itself (`_no_split_modules`), so that none must be given.

    A wrong name would shard the whole model as one unit: correct, but with all parameters gathered at once.
    """
    names = set(getattr(model, "_no_split_modules", None) or ())
    found = [child for child in model.modules() if type(child).__name__ in names]
    if not found:
        raise UserError(
            what=f"{type(model).__name__} does not say which of its modules are layers ({sorted(names)})",
            where=needed_by,
            remedy="fsdp.mode=ddp and train.compile=false, or a model that declares _no_split_modules",
        )
    return found
