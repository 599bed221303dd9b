"""Where the model's parameters live: on one device, replicated (DDP), or sharded over the processes (FSDP2)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from alpaca.config import Fsdp
from alpaca.errors import UserError
from alpaca.runtime.distributed import Ranks

SHARDED = ("full_shard", "shard_grad_op", "hybrid_shard")


@dataclass(kw_only=True, slots=True)
class Placed:
    """A model ready for training, whatever its distribution."""

    module: nn.Module
    """The transformers model itself: owner of parameters and state."""
    forward: Callable[..., Any]
    """What to call; never a part of the module, since sharded parameters are only gathered by the whole."""
    ranks: Ranks
    bf16: bool = False

    def autocast(self) -> AbstractContextManager[Any]:
        """bf16 matrix products over fp32 weights; entered per forward pass, since it caches the cast weights."""
        if not self.bf16 or isinstance(self.module, FSDPModule):
            return nullcontext()
        return torch.autocast(self.ranks.device.type, dtype=torch.bfloat16)

    def accumulating(self, last: bool) -> AbstractContextManager[Any]:
        """Around forward and backward of one pass: gradients are exchanged in the last pass of a step only."""
        if isinstance(self.module, FSDPModule):
            self.module.set_requires_gradient_sync(last)
        elif isinstance(self.forward, DistributedDataParallel) and not last:
            return self.forward.no_sync()
        return nullcontext()

    def state(self, optimizers: list[torch.optim.Optimizer]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Whole model and optimizer state in host memory of rank 0 (empty elsewhere). Every rank must call it."""
        return get_state_dict(self.module, optimizers, options=_gathered())

    def weights(self) -> dict[str, Any]:
        """The whole model's state dict in host memory of rank 0 (empty elsewhere). Every rank must call it."""
        return get_model_state_dict(self.module, options=_gathered())

    def load(self, optimizers: list[torch.optim.Optimizer], state: tuple[dict[str, Any], dict[str, Any]]) -> None:
        """Puts back what `state` gave, from rank 0's copy. Every rank must call it."""
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=self.ranks.world_size > 1)
        # One after the other: `set_state_dict` skips the model on ranks whose copy is empty, and rank 0 waits for ever.
        set_model_state_dict(self.module, state[0], options=options)
        set_optimizer_state_dict(self.module, optimizers, state[1], options=options)


def _gathered() -> StateDictOptions:
    return StateDictOptions(full_state_dict=True, cpu_offload=True)


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


def place(module: nn.Module, fsdp: Fsdp, ranks: Ranks, *, bf16: bool) -> Placed:
    """Spreads the model as `fsdp.mode` says. Rank 0's weights count; the other ranks only bring the shapes."""
    if fsdp.mode in SHARDED and ranks.world_size > 1:
        _shard(module, fsdp, ranks, bf16)
        return Placed(module=module, forward=module, ranks=ranks, bf16=bf16)
    module.to(ranks.device)
    if ranks.world_size == 1:
        return Placed(module=module, forward=module, ranks=ranks, bf16=bf16)
    _send_buffers(module)
    replicated = DistributedDataParallel(module, broadcast_buffers=False)  # sends rank 0's parameters to all
    return Placed(module=module, forward=replicated, ranks=ranks, bf16=bf16)


def _shard(module: nn.Module, fsdp: Fsdp, ranks: Ranks, bf16: bool) -> None:
    whole = module.state_dict() if ranks.main else {}
    precision = (
        MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32) if bf16 else MixedPrecisionPolicy()
    )
    options: dict[str, Any] = {
        "mesh": _mesh(fsdp, ranks),
        "mp_policy": precision,
        "reshard_after_forward": fsdp.mode != "shard_grad_op",
        "offload_policy": CPUOffloadPolicy() if fsdp.offload else OffloadPolicy(),
    }
    for layer in layers(module):
        fully_shard(layer, **options)
    fully_shard(module, **options)
    loading = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(module, whole, options=loading)
    _send_buffers(module)


def _send_buffers(module: nn.Module) -> None:
    """Rank 0's buffers to all: those outside the state dict (rotary frequencies) exist only where it was loaded."""
    for buffer in module.buffers():
        dist.broadcast(buffer, src=0)


def _mesh(fsdp: Fsdp, ranks: Ranks) -> DeviceMesh:
    if fsdp.mode == "hybrid_shard":
        shape = (ranks.world_size // shard_size(fsdp), shard_size(fsdp))
        return init_device_mesh(ranks.device.type, shape, mesh_dim_names=("replicate", "shard"))
    return init_device_mesh(ranks.device.type, (ranks.world_size,))


def layers(module: nn.Module) -> list[nn.Module]:
    """The model's blocks by the class names that it declares itself (`_no_split_modules`), so that none must be given.

    A wrong name would shard the whole model as one unit: correct, but with all parameters gathered at once.
    """
    names = set(getattr(module, "_no_split_modules", None) or ())
    found = [child for child in module.modules() if type(child).__name__ in names]
    if not found:
        raise UserError(
            what=f"{type(module).__name__} does not say which of its modules are layers ({sorted(names)})",
            where="fsdp.mode",
            remedy="fsdp.mode=ddp, or a model that declares _no_split_modules",
        )
    return found
