"""Whether training will fit into memory, by the forecast, and which settings would make it fit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from alpaca.config import AdamW8bit, Run
from alpaca.errors import UserError
from alpaca.footprint import GIB, Gpu, Memory, gpu_of, peak, shape_of
from alpaca.footprint.memory import BYTES, SHARDED, gib, told
from alpaca.footprint.work import is_packed
from alpaca.runtime import provenance

BYTES_PER_PARAMETER = 16
"""fp32 weights, gradients and two AdamW states: the count for a model whose shape is not known."""
BF16_SR = {"compute": "bf16", "parameters": "bf16", "states": "bf16", "rounding": "stochastic"}
"""precision=bf16_sr."""


def problems(run: Run) -> Iterator[UserError]:
    """An out-of-memory before it happens; nothing is said where the GPU is not known."""
    gpu = gpu_of(run)
    if gpu is None and provenance.gpu_count():
        return
    found = peak(run, on_gpu=gpu is not None)
    if found is None:
        yield from _by_parameters(run, gpu)
        return
    room = _room(run, gpu)
    if found.total > room:
        yield UserError(
            what=f"training {run.model.name} needs about {gib(found.total)} GiB per process ({told(found)}), "
            f"{_has(run, gpu, room)}",
            where="model",
            remedy=_way_out(run, gpu, room),
        )
    yield from _host(run, gpu, found)


def _room(run: Run, gpu: Gpu | None) -> float:
    """Bytes of one process; on a CPU all processes share the machine."""
    return provenance.memory_bytes() / run.fsdp.world_size if gpu is None else gpu.memory_gib * GIB


def _has(run: Run, gpu: Gpu | None, room: float) -> str:
    if gpu is not None:
        return f"a GPU {gpu.name} has {gib(room)} GiB"
    share = f", {gib(room)} GiB for each of {run.fsdp.world_size} processes" if run.fsdp.world_size > 1 else ""
    return f"this machine has {gib(provenance.memory_bytes())} GiB and no GPU{share}"


def _by_parameters(run: Run, gpu: Gpu | None) -> Iterator[UserError]:
    """Without a shape, only for one process: what is kept whatever the batch."""
    needed, room = run.model.parameters * BYTES_PER_PARAMETER, _room(run, gpu)
    if needed > room and run.fsdp.mode not in SHARDED and run.train.adapter == "none":
        yield UserError(
            what=f"training {run.model.name} needs about {gib(needed)} GiB for weights, gradients and states, "
            f"{_has(run, gpu, room)}",
            where="model",
            remedy="use a smaller model, or run where there is more memory",
        )


def _host(run: Run, gpu: Gpu | None, found: Memory) -> Iterator[UserError]:
    """Host memory beside GPUs of this machine: one copy of the weights while loading, and what is offloaded."""
    shape = shape_of(run.model)
    if gpu is None or shape is None or not provenance.gpu_count():
        return
    loading, present = shape.parameters * BYTES[run.precision.parameters], provenance.memory_bytes()
    needed = max(loading, found.host * run.fsdp.world_size)
    if needed > present:
        kept = "its weights, gradients and states (fsdp.offload=true)" if needed > loading else "its weights to load"
        yield UserError(
            what=f"{run.model.name} needs {gib(needed)} GiB of host memory for {kept}, "
            f"this machine has {gib(present)} GiB",
            where="fsdp.offload" if needed > loading else "model",
            remedy="fsdp.offload=false, or a machine with more memory" if needed > loading else "a smaller model",
        )


@dataclass(frozen=True, slots=True)
class Way:
    """A setting that takes less memory."""

    words: str
    apply: Callable[[Run], None]


def _way_out(run: Run, gpu: Gpu | None, room: float) -> str:
    """The first single setting that makes it fit, else the first of them that do together."""
    ways, together = _ways(run, gpu), copy.deepcopy(run)
    for way in ways:
        alone = copy.deepcopy(run)
        way.apply(alone)
        if _fits(alone, gpu, room):
            return f"{way.words} would fit"
    for number, way in enumerate(ways):
        way.apply(together)
        if _fits(together, gpu, room):
            return f"{' '.join(each.words for each in ways[: number + 1])} would fit together"
    return "use a smaller model, or a machine with more memory" + ("" if gpu is None else ", or more GPUs")


def _fits(run: Run, gpu: Gpu | None, room: float) -> bool:
    found = peak(run, on_gpu=gpu is not None)
    return found is not None and found.total <= room


def _ways(run: Run, gpu: Gpu | None) -> list[Way]:
    """In the order in which they cost least; those that are taken already or cannot be are left out."""
    kind, train, mode = run.optimizer.kind, run.train, run.fsdp.mode
    processes = max(run.fsdp.world_size, 1 if run.fsdp.gpu else provenance.gpu_count())
    can_shard = gpu is not None and processes > 1
    can_round = kind in ("adamw", "adamw8bit", "sgd") and (gpu is None or gpu.has_bf16)
    size, least = ("pack_tokens", train.max_length) if is_packed(train) else ("micro_batch", 1)
    spread = {"mode": "full_shard", "world_size": processes}
    every = (
        (can_shard and mode not in SHARDED, f"fsdp=full_shard fsdp.world_size={processes}", _set("fsdp", **spread)),
        (can_round and run.precision.parameters == "fp32", "precision=bf16_sr", _set("precision", **BF16_SR)),
        (kind == "adamw", "optimizer=adamw8bit", _to_8bit),
        (train.recompute != "full", "train.recompute=full", _set("train", recompute="full")),
        (getattr(train, size) > least, f"train.{size}={least}", _set("train", **{size: least})),
        (can_shard and not run.fsdp.offload, "fsdp.offload=true", _set("fsdp", offload=True)),
        (train.adapter == "none", "train.adapter=lora", _set("train", adapter="lora")),
    )
    return [Way(words, apply) for possible, words, apply in every if possible]


def _set(group: str, **values: object) -> Callable[[Run], None]:
    def apply(run: Run) -> None:
        for name, value in values.items():
            setattr(getattr(run, group), name, value)

    return apply


def _to_8bit(run: Run) -> None:
    run.optimizer = AdamW8bit(lr=run.optimizer.lr)
