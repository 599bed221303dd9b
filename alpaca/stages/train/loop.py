"""The training loop: one for pretraining and fine-tuning, for one process and many."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as nnf

from alpaca import config
from alpaca.artifacts import Context
from alpaca.errors import UserError
from alpaca.runtime.seeding import seed_torch
from alpaca.stages.train import optim
from alpaca.stages.train.batches import IGNORED, Batch, collate, micro_batches
from alpaca.stages.train.checkpoint import Checkpoints
from alpaca.stages.train.parallel import Placed
from alpaca.stages.train.tokens import Row

SAVING_SHARE = 0.05
"""Largest share of the time that checkpoints may take; a slow disk makes them rarer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What to train on, how long and how."""

    batch: Callable[[int], list[Row]]
    """The rows of the global batch of a step; a pure function of the step, so that a resumed run sees the same."""
    steps: int
    micro_batch: int
    pad: int
    optimizer: config.Optimizer
    seed: int
    checkpoint_seconds: float


@dataclass(kw_only=True, slots=True)
class Run:
    """A job under way: everything that changes from step to step."""

    placed: Placed
    optimizers: list[torch.optim.Optimizer]
    schedulers: list[torch.optim.lr_scheduler.LambdaLR]
    done: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)


def train(job: Job, placed: Placed, context: Context) -> list[dict[str, float]]:
    """Trains from the newest checkpoint, or from the start, to the end; returns one row per step (see `_row`)."""
    optimizers = optim.build(placed.module, job.optimizer)
    run = Run(placed=placed, optimizers=optimizers, schedulers=optim.schedulers(optimizers, job.optimizer, job.steps))
    checkpoints = Checkpoints(folder=context.work, say=context.log)
    _restore(run, checkpoints, context)
    placed.module.train()
    clock = Clock(seconds=job.checkpoint_seconds)
    first, tokens = run.done, 0
    for step in range(run.done, job.steps):
        context.check()
        row = _step(run, job, step)
        tokens += int(row["tokens"])
        _tell(context, placed, job, row)
        if placed.ranks.agree(clock.due()) and run.done < job.steps:
            clock.time(lambda: _save(run, checkpoints))
    if job.steps > first and placed.ranks.main:
        context.cost.update(train_seconds=clock.elapsed(), tokens_per_second=tokens / clock.elapsed())
    # What follows may fail (a full disk), and then must not cost the steps since the last checkpoint again.
    if placed.ranks.agree(job.steps > first and clock.worth_saving()):
        _save(run, checkpoints)
    return run.rows


def _step(run: Run, job: Job, step: int) -> dict[str, float]:
    """One optimizer step on one global batch."""
    rows, placed = job.batch(step), run.placed
    seed_torch(job.seed, "step", step, placed.ranks.rank)  # should a model draw at random: resumed as uninterrupted
    for optimizer in run.optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss = float(gradients(placed, rows, job.micro_batch, job.pad))
    norm = _clip(placed.module, job.optimizer.clip)
    _refuse_nonfinite(step, loss, norm)
    row = _row(run, rows, step, loss, norm)
    for optimizer, scheduler in zip(run.optimizers, run.schedulers, strict=True):
        optimizer.step()
        scheduler.step()
    run.rows.append(row)
    run.done = step + 1
    return row


def gradients(placed: Placed, rows: list[Row], micro_batch: int, pad: int) -> torch.Tensor:
    """Accumulates the gradient of the mean NLL per supervised token of the whole global batch; returns that mean.

    The sum over each pass is divided by the token count of the whole batch, so neither micro-batches nor processes
    change the result (a mean of means would weigh short examples more).
    """
    ranks, total = placed.ranks, sum(row.supervised for row in rows)
    passes = micro_batches(rows, micro_batch, ranks.rank, ranks.world_size)
    loss = torch.zeros((), device=ranks.device)
    for index, each in enumerate(passes):
        with placed.accumulating(last=index == len(passes) - 1):
            mean = summed_nll(placed, collate(each, pad, ranks.device)) / total
            # DDP and FSDP average gradients over the processes, where the sum is wanted.
            (mean * ranks.world_size).backward()  # type: ignore[no-untyped-call]
        loss += mean.detach()
    return ranks.sum(loss)


def summed_nll(placed: Placed, batch: Batch) -> torch.Tensor:
    """Sum of -log p(target) over the positions that bear loss, in nats.

    Logits are computed only in columns where some row bears loss: with a large vocabulary the head is the dear part.
    """
    columns = (batch.targets != IGNORED).any(dim=0).nonzero().squeeze(1)
    if not len(columns):
        columns = torch.zeros(1, dtype=torch.long, device=batch.ids.device)  # a silent pass still needs its gradient
    chosen = {"logits_to_keep": columns} if _chooses_logits(placed.module) else {}
    with placed.autocast():
        output = placed.forward(input_ids=batch.ids, attention_mask=batch.attention, use_cache=False, **chosen)
    logits = output.logits if chosen else output.logits[:, columns]
    targets = batch.targets[:, columns]
    return nnf.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")


def _chooses_logits(module: Any) -> bool:
    return "logits_to_keep" in inspect.signature(module.forward).parameters


def _clip(module: torch.nn.Module, largest: float | None) -> float:
    """Clips the gradient to a norm of at most `largest`; returns the norm before that."""
    parameters = [parameter for parameter in module.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.clip_grad_norm_(parameters, math.inf if largest is None else largest)
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)


def _refuse_nonfinite(step: int, loss: float, norm: float) -> None:
    if math.isfinite(loss) and math.isfinite(norm):
        return
    raise UserError(
        what=f"training diverged at step {step + 1}: loss {loss}, gradient norm {norm}",
        where="optimizer.lr",
        remedy="a lower optimizer.lr, a longer optimizer.warmup_ratio or a smaller optimizer.clip; if the "
        "first step diverges, the base model's weights are damaged",
    )


def _row(run: Run, rows: list[Row], step: int, loss: float, norm: float) -> dict[str, float]:
    """What is recorded of a step: mean NLL in nats, rate, gradient norm before clipping, tokens of this step."""
    return {
        "step": step + 1,
        "loss": loss,
        "lr": float(run.schedulers[0].get_last_lr()[0]),
        "grad_norm": norm,
        "tokens": sum(len(row.ids) for row in rows),
        "supervised_tokens": sum(row.supervised for row in rows),
    }


def _tell(context: Context, placed: Placed, job: Job, row: dict[str, float]) -> None:
    if placed.ranks.main:
        context.progress(row["step"], job.steps, f"step {row['step']:g} of {job.steps}, loss {row['loss']:.3f}")
        context.tracker.log({name: value for name, value in row.items() if name != "step"}, step=int(row["step"]))


def _save(run: Run, checkpoints: Checkpoints) -> None:
    model, optimizers = run.placed.state(run.optimizers)  # every rank takes part in gathering
    if run.placed.ranks.main:
        schedulers = [scheduler.state_dict() for scheduler in run.schedulers]
        checkpoints.save(
            run.done, {"model": model, "optimizers": optimizers, "schedulers": schedulers, "rows": run.rows}
        )


def _restore(run: Run, checkpoints: Checkpoints, context: Context) -> None:
    ranks = run.placed.ranks
    found = checkpoints.newest() if ranks.main else None
    state = found[1] if found else {}
    small = {"done": found[0], "schedulers": state["schedulers"], "rows": state["rows"]} if found else None
    small = ranks.agree(small)
    if small is None:
        return
    run.placed.load(run.optimizers, (state.get("model", {}), state.get("optimizers", {})))
    run.done, run.rows = small["done"], small["rows"]
    for scheduler, saved in zip(run.schedulers, small["schedulers"], strict=True):
        scheduler.load_state_dict(saved)
    if ranks.main:
        context.log(f"resumed after step {run.done}")


@dataclass(kw_only=True, slots=True)
class Clock:
    """When a checkpoint is due: `seconds` after the last, or later where saving takes long; 0: after each step."""

    seconds: float
    started: float = field(default_factory=time.monotonic)
    last: float = field(default_factory=time.monotonic)
    saving: float = 0.0

    def due(self) -> bool:
        return not self.seconds or self.elapsed(self.last) >= max(self.seconds, self.saving / SAVING_SHARE)

    def worth_saving(self) -> bool:
        """Whether doing again what was done since the last checkpoint takes longer than a checkpoint."""
        return self.elapsed(self.last) > self.saving

    def time(self, save: Callable[[], None]) -> None:
        """Saves, and remembers how long that took."""
        begin = time.monotonic()
        save()
        self.last = time.monotonic()
        self.saving = self.last - begin

    def elapsed(self, since: float | None = None) -> float:
        """Seconds since `since`, or since the loop began."""
        return time.monotonic() - (self.started if since is None else since)
