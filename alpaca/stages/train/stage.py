"""The body of the train stage, in the order of execution; the same on every rank."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from alpaca.artifacts import Context, write_json
from alpaca.config import TrainConfig
from alpaca.records import Example, read_jsonl, write_jsonl
from alpaca.runtime.budget import Budget
from alpaca.runtime.distributed import Ranks, inside_rank, setup
from alpaca.runtime.quiet import no_bars
from alpaca.stages.train import models, order, parallel, tokens
from alpaca.stages.train.export import export
from alpaca.stages.train.launch import COST
from alpaca.stages.train.loop import Job, train


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


def run_here(config: TrainConfig, context: Context) -> None:
    """Runs the stage in this process, as one rank or alone."""
    no_bars()
    ranks = setup()
    try:
        parallel.check(config.fsdp, ranks.device)
        fine_tune(config, context, ranks)
    finally:
        ranks.close()


def fine_tune(config: TrainConfig, context: Context, ranks: Ranks) -> None:
    """Load, encode, plan, place, train, write."""
    base = load(models.source(config.model, context.parents.get("base")), config.seeds.init, ranks)
    encoded = tokens.encode(read_examples(context.parents["data"]), base.tokenizer, config.train.max_length)
    lengths = [len(row.ids) for row in encoded.rows]
    plan = order.plan(Budget.parse(config.train.budget), lengths, config.train.global_batch, config.seeds.order)
    if ranks.main:
        context.log(
            f"{len(encoded.rows)} examples, {sum(lengths) / len(lengths):.1f} tokens each; {plan.steps} steps "
            f"of {config.train.global_batch}; {encoded.truncated} cut, {encoded.unsupervised} left out, "
            f"{encoded.repaired} boundaries repaired; {base.dropped} dropout rates set to zero"
        )
    placed = parallel.place(base.module, config.fsdp, ranks, bf16=config.precision.compute == "bf16")
    job = Job(
        batch=lambda step: [encoded.rows[index] for index in plan.batch(step)],
        steps=plan.steps,
        micro_batch=config.train.micro_batch,
        pad=base.tokenizer.pad_token_id,
        optimizer=config.optimizer,
        seed=config.seeds.order,
        checkpoint_seconds=config.train.checkpoint_seconds,
    )
    rows = train(job, placed, context)
    weights = placed.weights()  # every rank takes part in gathering
    if ranks.main:
        export(context, base.config, base.tokenizer, weights)
        write_record(
            context,
            rows,
            {
                "examples": len(encoded.rows),
                "epochs": plan.draws / len(encoded.rows),
                "truncated_examples": encoded.truncated,
                "unsupervised_examples": encoded.unsupervised,
                "boundary_repairs": encoded.repaired,
                "added_tokens": base.added,
                "dropout_disabled": base.dropped,
            },
        )
        if inside_rank():
            write_json(context.work / COST, context.cost)


def load(source: models.Source, seed: int, ranks: Ranks) -> Base:
    """Tokenizer and model, fitted to each other. Only rank 0 reads the weights; the others get the shapes from it."""
    tokenizer = models.load_tokenizer(source)
    module, config, dropped = None, None, 0
    if ranks.main:
        module = models.load_model(source)
        models.check_fit(tokenizer, module, source)
        dropped = models.disable_dropout(module)
    added = models.add_padding(tokenizer)
    if module is not None:
        models.embed_added(module, tokenizer, added, seed)
        models.align_config(module, tokenizer)
        config = module.config
    config = ranks.agree(config)
    module = module or models.shape_of(config)
    return Base(tokenizer=tokenizer, module=module, config=config, added=added, dropped=dropped)


def read_examples(folder: Path) -> list[Example]:
    """The training set of a finished curate stage, in its order."""
    return [Example(**row) for row in read_jsonl(folder / "examples.jsonl")]


def write_record(context: Context, rows: list[dict[str, float]], facts: dict[str, Any]) -> None:
    """loss.jsonl and training.json."""
    write_jsonl(context.folder / "loss.jsonl", rows)
    totals = {name: sum(int(row[name]) for row in rows) for name in ("tokens", "supervised_tokens")}
    record = {"steps": len(rows), **totals, "final_loss": rows[-1]["loss"], **facts}
    write_json(context.folder / "training.json", record)
    context.log(f"{len(rows)} steps, loss {rows[0]['loss']:.3f} to {rows[-1]['loss']:.3f}")
