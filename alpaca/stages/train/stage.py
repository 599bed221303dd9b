"""The body of the train stage, in the order of execution; the same on every rank."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from alpaca.artifacts import Context, write_json
from alpaca.config import TrainConfig
from alpaca.errors import UserError
from alpaca.prompts import PREAMBLE_WITH_INPUT, PREAMBLE_WITHOUT_INPUT
from alpaca.records import Example, read_jsonl, write_jsonl
from alpaca.runtime.budget import Budget
from alpaca.runtime.distributed import Ranks, inside_rank, setup
from alpaca.runtime.quiet import no_bars
from alpaca.runtime.signals import Warnings
from alpaca.stages.train import (
    COST,
    SAID,
    adapters,
    meter,
    models,
    order,
    packing,
    parallel,
    precision,
    probe,
    surgery,
    tokens,
)
from alpaca.stages.train.batches import Form
from alpaca.stages.train.export import export
from alpaca.stages.train.loop import Job, Run, train
from alpaca.stages.train.parallel import Placed
from alpaca.stages.train.tokens import Encoded, Row

LOST_SHARE = 0.05
"""Of the examples, cut or left out: above this it is told in the last line too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Base:
    """What training starts from."""

    tokenizer: Any
    module: nn.Module
    config: Any
    added: int
    """Tokens added to the tokenizer."""
    dropped: int
    """Dropout rates set to zero."""
    surprises: list[str]
    """What a user should hear of the tokenizer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """The encoded examples, cut into steps."""

    encoded: Encoded
    rows: list[Row]
    held_out: list[Row]
    order: order.Order

    def batch(self, step: int) -> list[Row]:
        """The rows of a step."""
        return [self.rows[index] for index in self.order.batch(step)]


def run_here(config: TrainConfig, context: Context) -> None:
    """Runs the stage in this process, as one rank or alone."""
    no_bars()
    ranks = setup()
    try:
        _refuse_other_ranks(config, ranks)
        parallel.check(config.fsdp, ranks.device)
        precision.check(config.precision, ranks.device)
        with Warnings() as warnings:  # loading and writing too: a signal there must not end the process at once
            fine_tune(config, context, ranks, warnings)
    finally:
        ranks.close()


def _refuse_other_ranks(config: TrainConfig, ranks: Ranks) -> None:
    if ranks.grouped and ranks.world_size != config.fsdp.world_size:
        raise UserError(
            what=f"started as one of {ranks.world_size} processes, and the configuration says {config.fsdp.world_size}",
            where="fsdp.world_size",
            remedy=f"fsdp.world_size={ranks.world_size}, or start {config.fsdp.world_size} processes",
        )


def fine_tune(config: TrainConfig, context: Context, ranks: Ranks, warnings: Warnings) -> None:
    """Load, encode, plan, place, train, write."""
    base = load(models.source(config.model, context.parents.get("base")), config, ranks)
    data = read_data(config, context.parents["data"], base.tokenizer)
    if ranks.main:
        _say_data(context, config, base, data)
    placed = place(base.module, config, ranks)
    warned = [*base.surprises, *_positions(base.config, data)]
    form = probe.settle(placed, form_of(config, base.tokenizer, data.rows), data.rows, warned.append)
    if ranks.main:
        for text in warned:
            context.log(f"warning: {text}")
    job = Job(
        batch=data.batch,
        steps=data.order.steps,
        form=form,
        optimizer=config.optimizer,
        rules=config.train,
        seed=config.seeds.order,
        held_out=data.held_out,
    )
    run = train(job, placed, context, warnings)
    _refuse_untrained(run)
    weights = placed.weights()  # every rank takes part in gathering
    if ranks.main:
        context.cost.update(meter.utilisation(config, data.rows, ranks, context.cost))
        export(context, base.config, base.tokenizer, adapters.merged(weights, placed.model, config.train, context))
        write_record(context, run, facts(base, data, run) | {"warnings": warned})
        if inside_rank():
            write_json(context.work / COST, {**context.cost, SAID: context.said})


def _refuse_untrained(run: Run) -> None:
    if all("left_out" in row for row in run.rows):
        raise UserError(
            what=f"all {len(run.rows)} batches were left out: the model is the base as it was",
            where="train.on_nonfinite",
            remedy="a lower optimizer.lr; if the first step diverges, the base model's weights are damaged",
        )


def load(source: models.Source, config: TrainConfig, ranks: Ranks) -> Base:
    """Tokenizer and model, fitted to each other. Only rank 0 reads the weights; the others get the shapes from it."""
    tokenizer, dtype = models.load_tokenizer(source), precision.stored(config.precision)
    module, shape, dropped, surprises = None, None, 0, list[str]()
    if ranks.main:
        module = models.load_model(source, dtype, quantised=config.train.adapter == "qlora")
        models.check_fit(tokenizer, module, source)
        surprises = models.other_specials(tokenizer, module)
        dropped = models.disable_dropout(module)
    added = models.add_padding(tokenizer)
    if module is not None:
        models.embed_added(module, tokenizer, added, config.seeds.init, config.train.vocabulary_multiple)
        models.align_config(module, tokenizer)
        shape = models.plain_config(module)
    shape = ranks.agree(shape)
    if module is None:
        module = models.shape_of(shape, dtype)
        models.disable_dropout(module)  # not all rates stand in the configuration
    return Base(
        tokenizer=tokenizer, module=module, config=shape, added=added, dropped=dropped, surprises=surprises
    )


def read_data(config: TrainConfig, folder: Path, tokenizer: Any) -> Data:
    """The training set of a finished curate stage in tokens, its held-out part, and the order of the steps."""
    encoded = tokens.encode(read_examples(folder), tokenizer, config.train.max_length)
    tokens.refuse_endless(encoded, config.train.max_length)
    if config.train.holdout >= len(encoded.rows):
        raise UserError(
            what=f"{config.train.holdout} of {len(encoded.rows)} examples held out leave nothing to train on",
            where="train.holdout",
            remedy="a smaller train.holdout, or more data",
        )
    kept, held = order.hold_out(len(encoded.rows), config.train.holdout, config.seeds.order)
    rows = [encoded.rows[index] for index in kept]
    budget, lengths = Budget.parse(config.train.budget), [len(row.ids) for row in rows]
    planned = order.plan(budget, lengths, config.train.global_batch, config.seeds.order, config.train.batch_unit)
    return Data(encoded=encoded, rows=rows, held_out=[encoded.rows[index] for index in held], order=planned)


def place(module: nn.Module, config: TrainConfig, ranks: Ranks) -> Placed:
    """The model with its adapter, recomputation and compilation, spread over the ranks."""
    adapters.insert(module, config.train, config.seeds.init)
    surgery.number_format(module, config.precision)
    placed = parallel.place(module, config.fsdp, config.precision, ranks, chunk=config.train.loss_chunk)
    surgery.recompute(placed.model, config.train.recompute)
    surgery.compile_layers(placed.model, wanted=config.train.compile)
    return placed


def form_of(config: TrainConfig, tokenizer: Any, rows: list[Row]) -> Form:
    """How batches become passes, with the beginnings that Alpaca's templates give these rows."""
    shared: tuple[tuple[int, ...], ...] = ()
    if config.train.shared_prefix:
        candidates = tokens.token_ids([PREAMBLE_WITH_INPUT, PREAMBLE_WITHOUT_INPUT], tokenizer)
        shared = packing.beginnings(rows, candidates)
    return Form(
        batching=config.train.batching,
        pad=tokenizer.pad_token_id,
        micro_batch=config.train.micro_batch,
        pack_tokens=config.train.pack_tokens,
        shared=shared,
    )


def read_examples(folder: Path) -> list[Example]:
    """The training set of a finished curate stage, in its order."""
    return [Example(**row) for row in read_jsonl(folder / "examples.jsonl")]


def _say_data(context: Context, config: TrainConfig, base: Base, data: Data) -> None:
    encoded, lengths = data.encoded, [len(row.ids) for row in data.rows]
    context.log(
        f"{len(data.rows)} examples, {sum(lengths) / len(lengths):.1f} tokens each; {data.order.steps} steps "
        f"of {config.train.global_batch} {config.train.batch_unit}; {encoded.truncated} cut, "
        f"{encoded.unsupervised} left out, {encoded.repaired} boundaries repaired, {len(data.held_out)} held out; "
        f"{base.dropped} dropout rates set to zero"
    )


def _positions(shape: Any, data: Data) -> list[str]:
    """A warning where examples are longer than what the base was made for; learned positions are refused later."""
    most, longest = getattr(shape, "max_position_embeddings", None), max(len(row.ids) for row in data.rows)
    if not isinstance(most, int) or longest <= most:
        return []
    return [f"the longest example has {longest} tokens, and the base model was made for {most} (config.json)"]


def facts(base: Base, data: Data, run: Run) -> dict[str, Any]:
    """What training.json says of data and base."""
    rows = data.rows
    return {
        "examples": len(rows),
        "held_out_examples": len(data.held_out),
        "epochs": data.order.starts[run.done] / len(rows),
        "supervised_share": sum(row.supervised for row in rows) / sum(len(row.ids) for row in rows),
        "truncated_examples": data.encoded.truncated,
        "unsupervised_examples": data.encoded.unsupervised,
        "boundary_repairs": data.encoded.repaired,
        "added_tokens": base.added,
        "dropout_disabled": base.dropped,
    }


def write_record(context: Context, run: Run, facts: dict[str, Any]) -> None:
    """loss.jsonl and training.json."""
    rows = run.rows
    write_jsonl(context.folder / "loss.jsonl", rows)
    totals = {name: sum(int(row[name]) for row in rows) for name in ("tokens", "supervised_tokens")}
    guarded = {
        "left_out_steps": sum("left_out" in row for row in rows),
        "spikes": run.guard.spikes,
        "nonfinite_steps": run.guard.nonfinite,
        "rollbacks": run.guard.rollbacks,
    }
    held = {"best_holdout_loss": run.holdout.best, "best_step": run.holdout.best_step} if run.holdout.best_step else {}
    losses = [row["loss"] for row in rows if "left_out" not in row]
    exported = run.holdout.best_step if run.job.rules.patience is not None and run.holdout.best_step else len(rows)
    record = {"steps": len(rows), "exported_step": exported, **totals, "final_loss": losses[-1]}
    write_json(context.folder / "training.json", {**record, **facts, **guarded, **held})
    context.log("; ".join([f"{len(rows)} steps, loss {losses[0]:.3f} to {losses[-1]:.3f}", *_notable(run, facts)]))


def _notable(run: Run, facts: dict[str, Any]) -> list[str]:
    """What a user should not have to look for, in a few words each."""
    left_out, total = sum("left_out" in row for row in run.rows), run.job.steps
    lost = facts.get("unsupervised_examples", 0) + facts.get("truncated_examples", 0)
    told = [
        (left_out > 0, f"{left_out} of them left out"),
        (len(run.rows) < total, f"stopped early, {len(run.rows)} of {total} steps"),
        (run.holdout.best_step not in (0, len(run.rows)), _kept(run)),
        (lost > LOST_SHARE * facts["examples"], f"{facts.get('truncated_examples', 0):,} examples cut and "
         f"{facts.get('unsupervised_examples', 0):,} left out at train.max_length"),
        (bool(facts.get("warnings")), f"{len(facts.get('warnings', []))} warnings in its log"),
    ]
    return [text for true, text in told if true]


def _kept(run: Run) -> str:
    kept = "its weights are the ones kept" if run.job.rules.patience is not None else "the last weights are kept"
    return f"lowest held-out loss {run.holdout.best:.3f} at step {run.holdout.best_step}, {kept}"
