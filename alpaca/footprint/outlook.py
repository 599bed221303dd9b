"""The forecast of one training run: seconds of a step and memory of a process, where it would run."""

from __future__ import annotations

from dataclasses import dataclass

import alpaca.footprint.gpus as gpus
import alpaca.footprint.speed as speed
from alpaca.config import Run, TinyModel, TrainConfig
from alpaca.footprint.gpus import Gpu
from alpaca.footprint.memory import GIB, Memory, memory, settings_of
from alpaca.footprint.shape import Shape, shape_of
from alpaca.footprint.work import EMBEDDED, Lengths, fullest, step
from alpaca.runtime import provenance

USUAL_GPU = "H100-80GB"
"""Assumed where training does not fit into a machine without a GPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """What is expected of every step and process."""

    memory: Memory
    room: float | None
    """Bytes that a process may take there; None: not known."""
    seconds: float | None
    """Of one optimizer step; None: the machine's speed is not known."""
    gpu: Gpu | None
    """None: a CPU."""
    assumed: bool = False
    """Whether the GPU is neither this machine's nor named by `fsdp.gpu`."""


def outlook(
    config: Run | TrainConfig, *, threads: int = 1, lengths: Lengths | None = None, may_measure: bool = True
) -> Outlook | None:
    """None where the model's shape is not known, or its GPU.

    threads: of a process on a CPU; may_measure: whether a CPU that was never measured is, for some seconds.
    """
    shape, lengths = shape_of(config.model), lengths or lengths_of(config)
    gpu = gpu_of(config)
    if shape is None or (gpu is None and provenance.gpu_count()):
        return None
    if gpu is not None:
        return _on_gpu(config, shape, lengths, gpu)
    found = _memory(config, shape, lengths, on_gpu=False)
    room = provenance.memory_bytes() / config.fsdp.world_size
    usual = gpus.named(USUAL_GPU)
    if found.total > room and usual is not None:
        return _on_gpu(config, shape, lengths, usual, assumed=True)
    seconds = _cpu_seconds(config, shape, lengths, threads, may_measure)
    return Outlook(memory=found, room=room, seconds=seconds, gpu=None)


def _cpu_seconds(
    config: Run | TrainConfig, shape: Shape, lengths: Lengths, threads: int, may_measure: bool
) -> float | None:
    """Of one step; None where nothing was measured. The rates are those of fp32 and say nothing of other formats."""
    if config.precision.compute != "fp32":
        return None
    rates = speed.rates(threads) if may_measure else speed.cached_rates(threads)
    work, settings = step(config.train, lengths, config.fsdp.world_size), settings_of(config, on_gpu=False)
    return speed.cpu_seconds(shape, work, settings, rates) if rates else None


def peak(config: Run | TrainConfig, *, on_gpu: bool, lengths: Lengths | None = None) -> Memory | None:
    """The memory of one process alone; None where the model's shape is not known."""
    shape = shape_of(config.model)
    return None if shape is None else _memory(config, shape, lengths or lengths_of(config), on_gpu)


def gpu_of(config: Run | TrainConfig) -> Gpu | None:
    """The GPU that is assumed, or this machine's; None: none, or of a kind that is not in the table."""
    if config.fsdp.gpu:
        return gpus.named(config.fsdp.gpu)
    return gpus.here() if provenance.gpu_count() else None


def lengths_of(config: Run | TrainConfig) -> Lengths:
    """What is assumed of examples that nobody has counted."""
    return EMBEDDED if isinstance(config.model, TinyModel) else Lengths()


def _memory(config: Run | TrainConfig, shape: Shape, lengths: Lengths, on_gpu: bool) -> Memory:
    work = fullest(config.train, lengths, config.fsdp.world_size)
    return memory(shape, work, settings_of(config, on_gpu))


def _on_gpu(config: Run | TrainConfig, shape: Shape, lengths: Lengths, gpu: Gpu, *, assumed: bool = False) -> Outlook:
    work, settings = step(config.train, lengths, config.fsdp.world_size), settings_of(config, on_gpu=True)
    return Outlook(
        memory=_memory(config, shape, lengths, on_gpu=True),
        room=gpu.memory_gib * GIB,
        seconds=speed.gpu_seconds(shape, work, settings, gpu, lengths),
        gpu=gpu,
        assumed=assumed,
    )
