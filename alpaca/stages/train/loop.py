"""The training loop: one for pretraining and fine-tuning, for one process and many."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from alpaca import config
from alpaca.artifacts import Context
from alpaca.errors import PreemptedError, UserError
from alpaca.runtime.seeding import seed_torch
from alpaca.runtime.signals import Warnings
from alpaca.stages.train import gradient, holdout, optim, profiling, schedule
from alpaca.stages.train.batches import Form, collate, passes
from alpaca.stages.train.checkpoint import Checkpoints
from alpaca.stages.train.guard import KEEP, ROLLBACK, SKIP, Guard
from alpaca.stages.train.holdout import Holdout
from alpaca.stages.train.meter import Meter
from alpaca.stages.train.parallel import Placed
from alpaca.stages.train.precision import LossScale
from alpaca.stages.train.tokens import Row

SAVING_SHARE = 0.05
"""Largest share of the time that checkpoints may take; a slow disk makes them rarer."""
BEST, POINTS = "best", "rollback"
"""Folders below the work folder: the best weights so far, and the points that a rollback goes back to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What to train on, how long and how."""

    batch: Callable[[int], list[Row]]
    """The rows of the global batch of a step; a pure function of the step, so that a resumed run sees the same."""
    steps: int
    form: Form
    optimizer: config.Optimizer
    rules: config.Train
    seed: int
    held_out: list[Row] = field(default_factory=list)


@dataclass(kw_only=True, slots=True)
class Run:
    """A job under way: everything that changes from step to step."""

    job: Job
    placed: Placed
    context: Context
    optimizers: list[torch.optim.Optimizer]
    checkpoints: Checkpoints
    best: Checkpoints
    points: Checkpoints
    """A function of the step alone: which batches a rollback leaves out must not depend on the clock."""
    guard: Guard
    holdout: Holdout
    scale: LossScale
    meter: Meter
    done: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)

    def notes(self) -> dict[str, Any]:
        """What a checkpoint holds beside the tensors: schedule, data and random numbers are functions of the step."""
        return {
            "rows": self.rows,
            "guard": self.guard.state(),
            "holdout": self.holdout.state(),
            "scale": [self.scale.scale, self.scale.good],
        }

    def rollback_point(self) -> bool:
        """Whether a rollback may come back to after the step just made."""
        rules = self.job.rules
        if ROLLBACK not in (rules.on_nonfinite, rules.on_spike) or "left_out" in self.rows[-1]:
            return False
        return self.done % rules.rollback_steps == 0 or sum("left_out" not in row for row in self.rows) == 1

    def load(self, step: int, notes: dict[str, Any]) -> None:
        """Puts back what `notes` gave after so many steps."""
        self.done, self.rows = step, notes["rows"]
        self.guard.load(notes["guard"])
        self.holdout.load(notes["holdout"])
        self.scale.scale, self.scale.good = notes["scale"]


def train(job: Job, placed: Placed, context: Context, warnings: Warnings) -> Run:
    """Trains from the newest checkpoint, or from the start, to the end.

    Raises PreemptedError after a signal that asks for a stop, with a checkpoint saved; UserError where it diverges.
    """
    run = _begin(job, placed, context)
    try:
        _train(run, warnings)
    except BaseException:
        for each in (run.checkpoints, run.best, run.points):
            with contextlib.suppress(Exception):
                each.wait()  # what is being written is worth having, whatever happened meanwhile
        raise
    return run


def _train(run: Run, warnings: Warnings) -> None:
    clock, first = Clock(seconds=run.job.rules.checkpoint_seconds), run.done
    profiled = profiling.of(run.job.rules.profile, run.context, run.placed.ranks.main)
    with profiled as profiler:
        while run.done < run.job.steps and not run.holdout.exhausted():
            run.context.check()
            _step(run)
            _look(run)
            profiler.step()
            _keep(run, clock, warnings)
    _finish(run, worth=run.placed.ranks.any(run.done > first and clock.worth_saving())[0])


def _keep(run: Run, clock: Clock, warnings: Warnings) -> None:
    """A checkpoint, where one is due or a signal asks for a stop; the stop itself."""
    if run.rollback_point():
        run.points.save(run.done, run.placed.state(run.optimizers), run.notes())
    asked, due = run.placed.ranks.any(warnings.heard is not None, clock.due())
    if run.done == run.job.steps or not (asked or due):
        return
    clock.time(lambda: _save(run))
    if asked:
        run.checkpoints.wait()
        signal = warnings.heard or "a signal to another process"
        raise PreemptedError.of(signal, run.done, run.job.steps, saved=_has_states(run))


def _begin(job: Job, placed: Placed, context: Context) -> Run:
    ranks = placed.ranks
    say = context.log if ranks.main else _silent
    optimizers = optim.build(placed.model, job.optimizer, placed.precision)
    schedule.set_rates(optimizers, 1.0)
    run = Run(
        job=job,
        placed=placed,
        context=context,
        optimizers=optimizers,
        checkpoints=Checkpoints(context.work, ranks, say, keep=job.rules.keep_checkpoints),
        # Two: should this start end before its next checkpoint, the next one may still want the best one before.
        best=Checkpoints(context.work / BEST, ranks, say, keep=2),
        points=Checkpoints(context.work / POINTS, ranks, say, keep=1),
        guard=Guard(rules=job.rules, say=say),
        holdout=Holdout(rules=job.rules, rows=job.held_out),
        scale=LossScale.of(placed.precision),
        meter=Meter(device=ranks.device),
    )
    _resume(run, say)
    return run


def _resume(run: Run, say: Callable[[str], None]) -> None:
    """From the newest checkpoint or rollback point, which is one too; what an earlier start made later is removed."""
    newest = [max(each.steps(), default=0) for each in (run.checkpoints, run.points)]
    point_first = run.placed.ranks.agree(newest[1] > newest[0])
    for place in (run.points, run.checkpoints) if point_first else (run.checkpoints, run.points):
        found = _restore(run, place)
        if found is not None:
            run.load(*found)
            say(f"resumed after step {run.done}")
            break
    for each in (run.best, run.points):
        each.forget_after(run.done)


def _step(run: Run) -> None:
    """One optimizer step on one global batch, or what the guard makes of it."""
    step, placed, rows = run.done, run.placed, run.job.batch(run.done)
    run.meter.start()
    for optimizer in run.optimizers:
        optimizer.zero_grad(set_to_none=True)
    scale = run.scale.scale  # judging may change it for the next step
    loss = float(accumulate(placed, rows, run.job.form, scale=scale))
    norm = gradient.norm(placed.model) / scale
    verdict = _verdict(run, step, loss, norm)
    row = _row(run, rows, loss, norm, left_out=verdict != KEEP)
    if verdict == KEEP:
        _update(run, step, norm, scale)
    elif verdict == ROLLBACK:
        _go_back(run)
    run.rows.append(row)
    run.done = step + 1
    _tell(run, row, run.meter.stop(int(row["tokens"])))


def accumulate(placed: Placed, rows: list[Row], form: Form, *, scale: float = 1.0) -> torch.Tensor:
    """Adds the gradient of the mean NLL per supervised token of the whole global batch; returns that mean.

    The sum over each pass is divided by the token count of the whole batch, so neither the form, nor the cut into
    passes, nor the number of processes changes the result (a mean of means would weigh short examples more; see
    transformers issue 34242). scale: factor of the gradient, not of what is returned.
    """
    ranks, total = placed.ranks, sum(row.supervised for row in rows)
    share = passes(rows, form, ranks.rank, ranks.world_size)
    loss = torch.zeros((), device=ranks.device)
    for index, each in enumerate(share):
        batch = collate(each, form, ranks.device)
        with placed.accumulating(last=index == len(share) - 1):
            with placed.autocast():
                mean = placed.forward(batch) / total
            # DDP and FSDP average gradients over the processes, where the sum is wanted.
            (mean * (ranks.world_size * scale)).backward()  # type: ignore[no-untyped-call]
        loss = loss + mean.detach()
    return ranks.sum(loss)


def _verdict(run: Run, step: int, loss: float, norm: float) -> str:
    """An overflow of fp16 is the scale's fault as long as that can fall; anything else is the guard's to judge."""
    finite = math.isfinite(norm)
    overflowed = not finite and not run.scale.exhausted()
    run.scale.update(finite)
    return SKIP if overflowed else run.guard.judge(step, loss, norm)


def _update(run: Run, step: int, norm: float, scale: float) -> None:
    job = run.job
    gradient.rescale(run.placed.model, norm, job.optimizer.clip, scale)
    schedule.set_rates(run.optimizers, _rate(run, step))
    # Noise of stochastic rounding: a function of the step, and the same wherever the same weights are held.
    seed_torch(job.seed, "rounding", step, run.placed.shard)
    for optimizer in run.optimizers:
        optimizer.step()


def _go_back(run: Run) -> None:
    """Weights and states of the last point; the batches since then count as done and left out."""
    found = _restore(run, run.points)
    if found is None:
        raise UserError(
            what=f"step {run.done + 1} is to go back, and there is no point to go back to",
            where="train.on_spike",
            remedy="a lower optimizer.lr; if the first step diverges, the base model's weights are damaged",
        )
    for row in run.rows[found[0] :]:
        row["left_out"] = 1
    run.holdout.forget_after(found[0])
    run.best.forget_after(run.holdout.best_step)


def _look(run: Run) -> None:
    """The held-out loss, where it is due; the weights are kept where they are the best so far."""
    if not run.holdout.due(run.done, run.job.steps):
        return
    loss = holdout.loss_of(run.placed, run.job.held_out, run.job.form)
    run.rows[-1]["holdout_loss"] = loss if math.isfinite(loss) else None
    if run.placed.ranks.main and math.isfinite(loss):
        run.context.tracker.log({"holdout_loss": loss}, step=run.done)
    if run.holdout.note(run.done, loss) and run.job.rules.patience is not None:
        run.best.save(run.done, {"model": run.placed.state(run.optimizers)["model"]}, {})


def _row(run: Run, rows: list[Row], loss: float, norm: float, *, left_out: bool) -> dict[str, Any]:
    """What is recorded of a step: mean NLL in nats, rate, gradient norm before clipping, tokens of this step.

    None for what is no finite number.
    """
    return {
        "step": run.done + 1,
        "loss": loss if math.isfinite(loss) else None,
        "lr": run.job.optimizer.lr * _rate(run, run.done),
        "grad_norm": norm if math.isfinite(norm) else None,
        "tokens": sum(len(row.ids) for row in rows),
        "supervised_tokens": sum(row.supervised for row in rows),
        **({"left_out": 1} if left_out else {}),
    }


def _rate(run: Run, step: int) -> float:
    """Factor of the learning rate at a step."""
    rule = run.job.optimizer
    return schedule.rate(rule.schedule, run.job.steps, rule.warmup_ratio)(step)


def _tell(run: Run, row: dict[str, Any], speed: float) -> None:
    if run.placed.ranks.main:
        loss = "no number" if row["loss"] is None else f"{row['loss']:.3f}"
        text = f"step {run.done} of {run.job.steps}, loss {loss}, {speed:,.0f} tokens/s"
        run.context.progress(run.done, run.job.steps, text)
        shown = {name: value for name, value in row.items() if name != "step" and value is not None}
        run.context.tracker.log({**shown, "tokens_per_second": speed}, step=run.done)


def _save(run: Run) -> None:
    """Everything that a later start goes on from; what the notes speak of must be on disk before them."""
    if not _has_states(run):
        return  # no step was made yet, all batches having been left out: a later start does the same again
    for each in (run.best, run.points):
        each.wait()
    run.checkpoints.save(run.done, run.placed.state(run.optimizers), run.notes())


def _has_states(run: Run) -> bool:
    return any(optimizer.state for optimizer in run.optimizers)


def _restore(run: Run, checkpoints: Checkpoints) -> tuple[int, dict[str, Any]] | None:
    """The newest of these checkpoints into model and optimizers; its step and notes."""
    checkpoints.wait()
    if not run.placed.ranks.any(bool(checkpoints.steps()))[0]:
        return None
    fresh = not _has_states(run)
    found = checkpoints.restore(run.placed.state(run.optimizers))
    if found is None and fresh:  # the step that made the states was none: it must not count
        for optimizer in run.optimizers:
            optimizer.state.clear()
    return found


def _finish(run: Run, *, worth: bool) -> None:
    """A last checkpoint, since what follows may fail (a full disk); the best weights, where training stopped early."""
    if worth:
        _save(run)
    run.checkpoints.wait()
    if run.placed.ranks.main:
        run.context.cost.update(run.meter.summary())
    for each in (run.best, run.points):
        each.wait()
    if run.holdout.best_step and run.job.rules.patience is not None and run.holdout.best_step != run.done:
        _take_best(run)


def _take_best(run: Run) -> None:
    state = {"model": run.placed.state(run.optimizers)["model"]}
    if run.best.restore(state, at=run.holdout.best_step) is None:
        raise UserError(
            what=f"the weights of step {run.holdout.best_step}, the best on held-out examples, are not there any more",
            where=str(run.context.work / BEST),
            remedy="delete the stage's folder and run the same command again",
        )


def _silent(text: str, /) -> None:
    return None


@dataclass(kw_only=True, slots=True)
class Clock:
    """When a checkpoint is due: `seconds` after the last, or later where saving takes long; 0: after each step."""

    seconds: float
    last: float = field(default_factory=time.monotonic)
    saving: float = 0.0

    def due(self) -> bool:
        return not self.seconds or self._since_last() >= max(self.seconds, self.saving / SAVING_SHARE)

    def worth_saving(self) -> bool:
        """Whether doing again what was done since the last checkpoint takes longer than a checkpoint."""
        return self._since_last() > self.saving

    def time(self, save: Callable[[], None]) -> None:
        """Saves, and remembers how long that took."""
        begin = time.monotonic()
        save()
        self.last = time.monotonic()
        self.saving = self.last - begin

    def _since_last(self) -> float:
        return time.monotonic() - self.last
