"""Contradictions in how a model is trained: shape, batches, precision, optimizer, adapter, sharding."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from alpaca.checks.words import nearest
from alpaca.config import SGD, Adafactor, AdamW, AdamW8bit, Muon, Optimizer, Precision, Run, TinyModel, Train
from alpaca.errors import UserError
from alpaca.footprint import gpus
from alpaca.footprint.work import is_packed
from alpaca.runtime.budget import Budget

NO_DECAY = ("bias", "norm", "embedding")
"""What `optimizer.no_decay` may name."""
SMALLEST_EPS = 1e-30
OPTIMIZERS = (AdamW, AdamW8bit, Muon, Adafactor, SGD)


def contradictions(run: Run) -> Iterator[UserError]:
    """Rules that hold whatever the other leaves are."""
    yield from optimizer_problems(run.optimizer, run.precision)
    for rule in (_budget, _shape, _rounding, _formats, _adapter, _stopping, _gpu):
        yield from rule(run)


def optimizer_problems(optimizer: Optimizer, precision: Precision) -> Iterator[UserError]:
    """Why this optimizer cannot be built, whatever the model."""
    yield from _kind(optimizer)
    yield from _no_decay(optimizer)
    yield from _adafactor(optimizer)
    yield from _epsilon(optimizer)
    yield from _clip(optimizer)
    yield from _rounded_updates(optimizer, precision)


def cautions(run: Run) -> list[str]:
    """What can be done but is seldom meant, for the notes of plan and page."""
    precision = run.precision
    if precision.parameters == "bf16" and precision.rounding == "nearest":
        return [
            "weights in bf16 rounded to nearest (precision=bf16_plain): at this rate most weights never move; "
            "precision=bf16_sr keeps them moving in the same memory"
        ]
    return []


def _budget(run: Run) -> Iterator[UserError]:
    try:
        Budget.parse(run.train.budget)
    except UserError as error:
        yield UserError(what=error.what, where="train.budget", remedy=error.remedy)


def _shape(run: Run) -> Iterator[UserError]:
    model = run.model
    if isinstance(model, TinyModel) and model.width % (2 * model.heads):
        yield UserError(
            what=f"{model.heads} heads do not divide a width of {model.width} into even parts",
            where="model.heads",
            remedy="model.width must be a multiple of 2 * model.heads",
        )


def _kind(optimizer: Optimizer) -> Iterator[UserError]:
    if not isinstance(optimizer, OPTIMIZERS):
        yield UserError(
            what=f"unknown optimizer {optimizer.kind!r}",
            where="optimizer.kind",
            remedy=nearest(optimizer.kind, [each().kind for each in OPTIMIZERS]),
        )


def _no_decay(optimizer: Optimizer) -> Iterator[UserError]:
    for name in optimizer.no_decay:
        if name not in NO_DECAY:
            yield UserError(
                what=f"unknown kind of parameter {name!r}", where="optimizer.no_decay", remedy=nearest(name, NO_DECAY)
            )


def _adafactor(optimizer: Optimizer) -> Iterator[UserError]:
    if not isinstance(optimizer, Adafactor):
        return
    if optimizer.clip_update < 1:
        yield UserError(
            what=f"{optimizer.clip_update:g} is below the least allowed, 1", where="optimizer.clip_update", remedy="1.0"
        )
    if optimizer.beta2_decay > 0:
        yield UserError(
            what=f"{optimizer.beta2_decay:g} is above 0", where="optimizer.beta2_decay", remedy="-0.8 as published"
        )


def _epsilon(optimizer: Optimizer) -> Iterator[UserError]:
    eps = getattr(optimizer, "eps", SMALLEST_EPS)
    if eps < SMALLEST_EPS:
        yield UserError(
            what=f"{eps:g}: the step of a number that never had a gradient would be 0 / 0",
            where="optimizer.eps",
            remedy=f"1e-8 as published, at least {SMALLEST_EPS:g}",
        )


def _clip(optimizer: Optimizer) -> Iterator[UserError]:
    if optimizer.clip == 0:
        yield UserError(
            what="0 would scale every gradient to nothing",
            where="optimizer.clip",
            remedy="optimizer.clip=null switches clipping off; 1.0 is usual",
        )


def _rounded_updates(optimizer: Optimizer, precision: Precision) -> Iterator[UserError]:
    rounds = precision.parameters == "bf16" and precision.rounding == "stochastic"
    if rounds and isinstance(optimizer, (Adafactor, Muon)):
        yield UserError(
            what=f"{optimizer.kind} cannot round its updates stochastically",
            where="precision.rounding",
            remedy="precision=bf16 (fp32 weights, bf16 products), or optimizer=adamw, adamw8bit or sgd",
        )


def _rounding(run: Run) -> Iterator[UserError]:
    precision = run.precision
    if precision.rounding == "stochastic" and "bf16" not in (precision.parameters, precision.states):
        yield UserError(
            what="stochastic rounding has no effect where weights and states are in fp32",
            where="precision.rounding",
            remedy="precision=bf16_sr, or precision.rounding=nearest",
        )


def _formats(run: Run) -> Iterator[UserError]:
    precision = run.precision
    if precision.parameters == "bf16" and precision.compute in ("fp32", "tf32", "fp16"):
        yield UserError(
            what=f"products in {precision.compute} over weights that are stored in bf16",
            where="precision.compute",
            remedy="precision.compute=bf16, or precision.parameters=fp32",
        )
    if precision.compute == "fp8" and run.train.adapter != "none":
        yield UserError(
            what=f"fp8 products cannot be combined with train.adapter={run.train.adapter}",
            where="precision.compute",
            remedy="precision=bf16, or train.adapter=none",
        )


def _adapter(run: Run) -> Iterator[UserError]:
    train, plain = run.train, Train()
    if train.adapter == "none":
        for name in ("lora_rank", "lora_alpha", "lora_targets"):
            if getattr(train, name) != getattr(plain, name):
                yield UserError(
                    what=f"{getattr(train, name)} has no effect with train.adapter=none",
                    where=f"train.{name}",
                    remedy="train.adapter=lora (or qlora), or leave it out",
                )
        return
    if train.lora_targets is not None and not train.lora_targets:
        yield UserError(
            what="no layer gets an update", where="train.lora_targets", remedy="for example [q_proj,v_proj], or null"
        )
    if run.precision.parameters == "bf16" and run.precision.rounding == "nearest":
        yield UserError(
            what="the adapter's weights would be kept in bf16, rounded to nearest, and most updates lost",
            where="precision.rounding",
            remedy="precision=bf16 (fp32 weights, bf16 products) or bf16_sr",
        )
    if train.adapter == "qlora" and run.fsdp.mode != "none":
        yield UserError(
            what=f"a base in 4 bits trains on one process alone (fsdp.mode={run.fsdp.mode})",
            where="train.adapter",
            remedy="fsdp=none (the base takes a quarter of bf16's memory), or train.adapter=lora",
        )


def _stopping(run: Run) -> Iterator[UserError]:
    if run.train.patience is not None and not run.train.holdout:
        yield UserError(
            what=f"early stopping after {run.train.patience} looks, but no examples are held out to look at",
            where="train.patience",
            remedy="train.holdout=200 or another number of examples, or train.patience=null",
        )


def _gpu(run: Run) -> Iterator[UserError]:
    if run.fsdp.gpu is not None and gpus.named(run.fsdp.gpu) is None:
        yield UserError(
            what=f"no figures are known of a GPU {run.fsdp.gpu!r}",
            where="fsdp.gpu",
            remedy=nearest(run.fsdp.gpu, [gpu.name for gpu in gpus.GPUS]),
        )


def _batch(run: Run) -> Iterator[UserError]:
    """A global batch too small for its processes, its unit, or one of its examples."""
    train, world = run.train, run.fsdp.world_size
    if train.batch_unit == "examples" and train.global_batch < world:
        yield UserError(
            what=f"{train.global_batch} examples cannot be split over {world} processes",
            where="train.global_batch",
            remedy=f"at least fsdp.world_size={world}, or fewer processes",
        )
    if train.batch_unit == "tokens" and train.global_batch < train.max_length:
        yield UserError(
            what=f"{train.global_batch} tokens do not hold one example of train.max_length={train.max_length}",
            where="train.global_batch",
            remedy=f"at least {train.max_length} (the recipe's 128 examples are about 16000 tokens)",
        )


def _passes(run: Run) -> Iterator[UserError]:
    train = run.train
    if is_packed(train) and train.pack_tokens < train.max_length:
        yield UserError(
            what=f"a packed pass of {train.pack_tokens} tokens does not hold an example of up to "
            f"train.max_length={train.max_length}, beside the beginnings that examples share",
            where="train.pack_tokens",
            remedy=f"at least {train.max_length}, or a smaller train.max_length, or train.batching=grouped",
        )


def _holdout(run: Run) -> Iterator[UserError]:
    if run.data.size is not None and 0 < run.data.size <= run.train.holdout:
        yield UserError(
            what=f"{run.train.holdout:,} of {run.data.size:,} examples held out leave none to train on",
            where="train.holdout",
            remedy=f"below data.size={run.data.size}",
        )


def _sharding(run: Run) -> Iterator[UserError]:
    fsdp = run.fsdp
    if fsdp.mode != "none" and fsdp.world_size < 2:
        yield UserError(
            what=f"mode {fsdp.mode} needs at least 2 processes, {fsdp.world_size} given",
            where="fsdp.world_size",
            remedy="set fsdp.world_size to the number of GPUs, or fsdp=none",
        )
    if fsdp.mode == "none" and fsdp.world_size > 1:
        yield UserError(
            what=f"{fsdp.world_size} processes without a sharding mode",
            where="fsdp.mode",
            remedy="use fsdp=full_shard, shard_grad_op, hybrid_shard or ddp, or fsdp.world_size=1",
        )
    shard = fsdp.shard_size or max(1, fsdp.world_size // 2)
    if fsdp.mode == "hybrid_shard" and fsdp.world_size % shard:
        yield UserError(
            what=f"{fsdp.world_size} processes cannot form groups of {shard}",
            where="fsdp.shard_size",
            remedy="shard_size must divide fsdp.world_size",
        )
    if fsdp.offload and fsdp.mode in ("none", "ddp"):
        yield UserError(
            what=f"offload is not possible with mode {fsdp.mode}: only shards can wait in host memory",
            where="fsdp.offload",
            remedy="use a sharding mode, or fsdp.offload=false",
        )


RULES: dict[Callable[[Run], Iterator[UserError]], tuple[str, ...]] = {
    _batch: ("train.global_batch", "train.batch_unit", "train.max_length", "fsdp.world_size"),
    _passes: ("train.pack_tokens", "train.max_length", "train.batching"),
    _holdout: ("train.holdout", "data.size"),
    _sharding: ("fsdp.mode", "fsdp.world_size", "fsdp.shard_size"),
}
"""Rules between leaves, and the leaves that must be in range for them."""
