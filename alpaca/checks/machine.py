"""What this machine lacks for the stages of a run: keys, processes, memory, GPUs, weights."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Collection, Iterator
from dataclasses import replace

from alpaca import teachers
from alpaca.checks.memory import problems as memory_problems
from alpaca.config import AskedDataGen, HubModel, Run, SlurmCluster
from alpaca.errors import UserError
from alpaca.footprint import gpu_of, gpus
from alpaca.footprint.shape import hub_cache
from alpaca.runtime import provenance
from alpaca.teachers.openai import KEY_VARIABLE, OPENAI_URL, key_for


def lacks(run: Run, stages: Collection[str], planned: bool = False) -> Iterator[UserError]:
    """What keeps these stages of a run from running here; planned: or where there are GPUs as `fsdp.gpu` names."""
    if "train" in stages and isinstance(run.cluster, SlurmCluster):
        yield from _elsewhere(run)
    elif "train" in stages:
        run = run if planned else _on_this_machine(run)
        yield from _processes(run)
        yield from _formats(run)
        yield from _packages(run)
        yield from memory_problems(run)
        yield from _weights(run)
    yield from _key(run, stages)
    yield from _tracker(run, stages)


def _tracker(run: Run, stages: Collection[str]) -> Iterator[UserError]:
    """A tracker that is an extra of the project: said before hours of training go untracked."""
    tracked = bool({"pretrain", "train", "score"} & set(stages))
    if tracked and run.tracker.kind == "trackio" and importlib.util.find_spec("trackio") is None:
        yield UserError(what="the package trackio is not installed", where="tracker", remedy="pip install trackio")


def _elsewhere(run: Run) -> Iterator[UserError]:
    """What a training on another machine lacks, as far as it is known here: `fsdp.gpu` names the GPUs there."""
    if run.fsdp.gpu is not None:
        yield from _formats(run)
        yield from memory_problems(run)
    yield from _packages(run)
    yield from _weights(run)


def _on_this_machine(run: Run) -> Run:
    """Without the GPU that the plan assumes; it still tells the figures of GPUs here of a kind that is not known."""
    if run.fsdp.gpu is None or (provenance.gpu_count() and gpus.here() is None):
        return run
    return replace(run, fsdp=replace(run.fsdp, gpu=None))


def _key(run: Run, stages: Collection[str]) -> Iterator[UserError]:
    """Keys that stages of this run will want; a teacher that has a URL or may have one is asked over the network."""
    asks = (isinstance(run.data_gen, AskedDataGen) and "sample" in stages) or "rate" in stages
    if asks and run.teacher.kind in teachers.KINDS:
        yield from teachers.KINDS[run.teacher.kind].lacks(run.teacher)
    if asks and hasattr(run.teacher, "base_url"):
        yield from _keyless(run.teacher.base_url, "teacher.base_url")
    if "moderate" in stages:
        yield from _keyless(run.data.moderation_url, "data.moderation_url")


def _keyless(url: str | None, where: str) -> Iterator[UserError]:
    try:
        key_for(url or OPENAI_URL)
    except UserError as error:
        yield UserError(
            what=error.what, where=where, remedy=f"export {KEY_VARIABLE}=..., or set {where} to a server of your own"
        )


def _processes(run: Run) -> Iterator[UserError]:
    if run.fsdp.gpu is not None and not provenance.gpu_count():
        return  # planned for GPUs elsewhere
    count, cores, wanted = provenance.gpu_count(), os.cpu_count() or 1, run.fsdp.world_size
    if wanted > max(count, 0 if count else cores):
        here = f"{count} GPUs" if count else f"no GPU and {cores} CPU cores"
        yield UserError(
            what=f"{wanted} processes wanted, this machine has {here}",
            where="fsdp.world_size",
            remedy="lower fsdp.world_size, or run where there are so many",
        )
    if run.fsdp.offload and not count:
        yield UserError(
            what="offload moves tensors off a GPU, and this machine has none",
            where="fsdp.offload",
            remedy="use fsdp.offload=false",
        )


def _packages(run: Run) -> Iterator[UserError]:
    if run.train.adapter == "qlora" and importlib.util.find_spec("bitsandbytes") is None:
        yield UserError(
            what="a base in 4 bits needs the package bitsandbytes, which is not installed",
            where="train.adapter",
            remedy="pip install bitsandbytes, or train.adapter=lora",
        )


def _formats(run: Run) -> Iterator[UserError]:
    """A number format that the processor cannot multiply in."""
    compute, count = run.precision.compute, provenance.gpu_count()
    gpu = gpu_of(run)
    if not count and gpu is None and compute in ("tf32", "fp8"):
        yield UserError(
            what=f"{compute} is a format of GPUs, and this machine has none",
            where="precision.compute",
            remedy="precision=fp32 or precision=bf16",
        )
    elif gpu is not None and not {"bf16": gpu.has_bf16, "tf32": gpu.has_bf16, "fp8": gpu.has_fp8}.get(compute, True):
        capability = ".".join(map(str, gpu.capability))
        yield UserError(
            what=f"a GPU {gpu.name} (compute capability {capability}) has no {compute}",
            where="precision.compute",
            remedy="precision=bf16" if gpu.has_bf16 else "precision=fp16 or precision=fp32",
        )


def _weights(run: Run) -> Iterator[UserError]:
    if not isinstance(run.model, HubModel):
        return
    if run.model.path is None and not _in_hub_cache(run.model.id):
        offline = os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
        if offline:
            yield UserError(
                what=f"{run.model.id} is not in the hub cache and HF_HUB_OFFLINE is set",
                where="model.id",
                remedy="set model.path to a local folder in the transformers format",
            )


def _in_hub_cache(model_id: str) -> bool:
    return (hub_cache() / f"models--{model_id.replace('/', '--')}").exists()
