"""Whether training will fit into memory, by the forecast, and which settings would make it fit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from alpaca.config import AdamW8bit, HubModel, Run
from alpaca.errors import UserError
from alpaca.footprint import GIB, Gpu, Memory, gpu_of, peak, shape_of
from alpaca.footprint.memory import BYTES, SHARDED, gib, listed, told
from alpaca.footprint.work import is_packed
from alpaca.runtime import provenance

BYTES_PER_PARAMETER = 16
"""fp32 weights, gradients and two AdamW states: the count for a model whose shape is not known."""
STAGED_PER_PARAMETER = 12
"""Beside them on a CPU: the copy of weights and states from which checkpoints are written."""
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
            what=f"training {run.model.name}{_on(gpu)} needs about {gib(found.total)} GiB per process ({told(found)}), "
            f"{_has(run, gpu, room)}",
            where="model",
            remedy=_way_out(run, gpu, _ways(run, gpu)),
        )
    yield from _host(run, gpu, found)


def _room(run: Run, gpu: Gpu | None) -> float:
    """Bytes of one process; on a CPU all processes share the machine."""
    return provenance.memory_bytes() / run.fsdp.world_size if gpu is None else gpu.memory_gib * GIB


def _on(gpu: Gpu | None) -> str:
    """Said of this machine alone: the plan's line beside it may be that of a GPU."""
    return " on this machine's CPU" if gpu is None else ""


def _has(run: Run, gpu: Gpu | None, room: float) -> str:
    if gpu is not None:
        return f"a GPU {gpu.name} has {gib(room)} GiB"
    share = f", {gib(room)} GiB for each of {run.fsdp.world_size} processes" if run.fsdp.world_size > 1 else ""
    return f"this machine has {gib(provenance.memory_bytes())} GiB and no GPU{share}"


def _by_parameters(run: Run, gpu: Gpu | None) -> Iterator[UserError]:
    """Without a shape, only for one process: what is kept whatever the batch."""
    if isinstance(run.model, HubModel) and run.model.path is not None:
        return  # `model.parameters` is that of the hub's model
    each = BYTES_PER_PARAMETER + (STAGED_PER_PARAMETER if gpu is None else 0)
    needed, room = run.model.parameters * each, _room(run, gpu)
    if needed > room and run.fsdp.mode not in SHARDED and run.train.adapter == "none":
        yield UserError(
            what=f"training {run.model.name}{_on(gpu)} needs about {gib(needed)} GiB for weights, gradients and "
            f"states, {_has(run, gpu, room)}",
            where="model",
            remedy="use a smaller model, or run where there is more memory",
        )


def _host(run: Run, gpu: Gpu | None, found: Memory) -> Iterator[UserError]:
    """Host memory beside GPUs of this machine: weights while loading; copies for checkpoints, and what is offloaded."""
    needed, present = _host_needed(run, gpu, found), provenance.memory_bytes()
    if needed <= present:
        return
    loads = needed > found.host_total * _processes_here(run)
    kept = "its weights to load" if loads else f"{_processes_here(run)} x {gib(found.host_total)} beside its GPUs"
    yield UserError(
        what=f"{run.model.name} needs {gib(needed)} GiB of host memory for {kept}"
        f"{'' if loads else f' ({listed(found.host)})'}, this machine has {gib(present)} GiB",
        where="fsdp.offload" if run.fsdp.offload and not loads else "model",
        remedy="a smaller model" if loads else _way_out(run, gpu, _host_ways(run)),
    )


def _host_needed(run: Run, gpu: Gpu | None, found: Memory) -> float:
    """Bytes of all processes of this machine in its host memory; 0 where they do not run on GPUs of it."""
    shape = shape_of(run.model)
    if gpu is None or shape is None or not provenance.gpu_count():
        return 0.0
    return max(shape.parameters * BYTES[run.precision.parameters], found.host_total * _processes_here(run))


def _processes_here(run: Run) -> int:
    """Of several machines each has its share."""
    return min(run.fsdp.world_size, max(1, provenance.gpu_count()))


@dataclass(frozen=True, slots=True)
class Way:
    """A setting that takes less memory."""

    words: str
    apply: Callable[[Run], None]


Offer = tuple[bool, str, Callable[[Run], None]]
"""Whether there is such a way, and what it is."""


def _way_out(run: Run, gpu: Gpu | None, ways: list[Way]) -> str:
    """The first single setting that makes it fit, else the first of them that do together."""
    together = copy.deepcopy(run)
    for way in ways:
        alone = copy.deepcopy(run)
        way.apply(alone)
        if _fits(alone, gpu):
            return f"{way.words} would fit"
    for number, way in enumerate(ways):
        way.apply(together)
        if _fits(together, gpu):
            return f"{' '.join(each.words for each in ways[: number + 1])} would fit together"
    return "use a smaller model, or a machine with more memory" + ("" if gpu is None else ", or more GPUs")


def _fits(run: Run, gpu: Gpu | None) -> bool:
    """On the device and beside it."""
    found = peak(run, on_gpu=gpu is not None)
    if found is None or found.total > _room(run, gpu):
        return False
    return _host_needed(run, gpu, found) <= provenance.memory_bytes()


def _ways(run: Run, gpu: Gpu | None) -> list[Way]:
    """In the order in which they cost least; those that are taken already or cannot be are left out."""
    kind, train, mode = run.optimizer.kind, run.train, run.fsdp.mode
    processes = max(run.fsdp.world_size, 1 if run.fsdp.gpu else provenance.gpu_count())
    can_shard = gpu is not None and processes > 1
    can_round = kind in ("adamw", "adamw8bit", "sgd") and (gpu is None or gpu.has_bf16)
    size, least = ("pack_tokens", train.max_length) if is_packed(train) else ("micro_batch", 1)
    spread = {"mode": "full_shard", "world_size": processes}
    every = (
        *(_leaner_saving(run) if gpu is None else ()),
        (can_shard and mode not in SHARDED, f"fsdp=full_shard fsdp.world_size={processes}", _set("fsdp", **spread)),
        (can_round and run.precision.parameters == "fp32", "precision=bf16_sr", _set("precision", **BF16_SR)),
        (kind == "adamw", "optimizer=adamw8bit", _to_8bit),
        (train.recompute != "full", "train.recompute=full", _set("train", recompute="full")),
        (getattr(train, size) > least, f"train.{size}={least}", _set("train", **{size: least})),
        (can_shard and not run.fsdp.offload, "fsdp.offload=true", _set("fsdp", offload=True)),
        (train.adapter == "none", "train.adapter=lora", _set("train", adapter="lora")),
    )
    return _possible(every)


def _host_ways(run: Run) -> list[Way]:
    """The same for what lies in host memory beside GPUs."""
    kind, fsdp = run.optimizer.kind, run.fsdp
    can_round = kind in ("adamw", "adamw8bit", "sgd") and run.precision.parameters == "fp32"
    return _possible(
        (
            *_leaner_saving(run),
            (fsdp.offload, "fsdp.offload=false", _set("fsdp", offload=False)),
            (fsdp.mode == "ddp", "fsdp=full_shard", _set("fsdp", mode="full_shard")),
            (can_round, "precision=bf16_sr", _set("precision", **BF16_SR)),
            (kind == "adamw", "optimizer=adamw8bit", _to_8bit),
            (run.train.adapter == "none", "train.adapter=lora", _set("train", adapter="lora")),
        )
    )


def _leaner_saving(run: Run) -> Iterator[Offer]:
    """Without the copies that rollbacks and early stopping need."""
    usual = {"on_spike": "report", "on_nonfinite": "stop"}
    calm = {name: value for name, value in usual.items() if getattr(run.train, name) == "rollback"}
    yield bool(calm), " ".join(f"train.{name}={value}" for name, value in calm.items()), _set("train", **calm)
    yield run.train.patience is not None, "train.patience=null", _set("train", patience=None)


def _possible(offers: Iterable[Offer]) -> list[Way]:
    return [Way(words, apply) for possible, words, apply in offers if possible]


def _set(group: str, **values: object) -> Callable[[Run], None]:
    def apply(run: Run) -> None:
        for name, value in values.items():
            setattr(getattr(run, group), name, value)

    return apply


def _to_8bit(run: Run) -> None:
    run.optimizer = AdamW8bit(lr=run.optimizer.lr)
