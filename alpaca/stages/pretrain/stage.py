"""The body of the pretrain stage, in the order of execution. Optimizer, loop and export are those of fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from transformers import LlamaConfig, LlamaForCausalLM

from alpaca import world
from alpaca.artifacts import Context
from alpaca.config import Fsdp, Muon, Precision, PretrainConfig, TinyModel, Train
from alpaca.errors import UserError
from alpaca.runtime.distributed import alone
from alpaca.runtime.quiet import no_bars
from alpaca.runtime.seeding import seed_torch
from alpaca.runtime.signals import Warnings
from alpaca.stages.pretrain.tokenizer import build_tokenizer
from alpaca.stages.train.batches import Form
from alpaca.stages.train.export import export
from alpaca.stages.train.loop import Job, train
from alpaca.stages.train.parallel import place
from alpaca.stages.train.probe import settle
from alpaca.stages.train.stage import write_record
from alpaca.stages.train.tokens import Row

WARMUP_STEPS = 20
WEIGHT_DECAY = 0.01
"""A tenth of fine-tuning's: the base sees each line once."""
POSITIONS = 512
ROPE_THETA = 500.0
"""Base of the rotary frequencies: lines are tens of tokens long, where the usual 10,000 hardly turns most pairs."""
FEED_FORWARD = 3
"""Width of the feed-forward layers, as a multiple of the model's width."""


def pretrain(config: PretrainConfig, context: Context) -> None:
    """Build tokenizer and model, train on the endless text of the world, write."""
    no_bars()
    shape = config.model
    tokenizer = build_tokenizer(world.tokenizer_lines(), shape.vocabulary)
    module = build_model(shape, tokenizer)
    context.log(f"base of {sum(each.numel() for each in module.parameters())} parameters, {len(tokenizer)} tokens")
    rules = Train(budget=f"{shape.steps} steps", checkpoint_seconds=shape.checkpoint_seconds)
    placed = place(module, Fsdp(), Precision(), alone(), chunk=rules.loss_chunk)
    lines = Lines(stream=lambda: world.corpus_lines(shape.seed), tokenizer=tokenizer, size=shape.batch)
    form = Form(batching="auto", pad=tokenizer.pad_token_id, micro_batch=shape.batch, pack_tokens=rules.pack_tokens)
    job = Job(
        batch=lines.batch,
        steps=shape.steps,
        form=settle(placed, form, lines.batch(0), context.log),
        optimizer=optimizer(shape),
        rules=rules,
        seed=shape.seed,
    )
    with Warnings() as warnings:
        run = train(job, placed, context, warnings)
    export(context, module.config, tokenizer, placed.weights(), chat=False)
    write_record(context, run, {"examples": shape.steps * shape.batch})


def build_model(shape: TinyModel, tokenizer: Any) -> LlamaForCausalLM:
    """A Llama with tied embeddings, its weights drawn from `model.seed`."""
    if shape.width % shape.heads or shape.width // shape.heads % 2:
        raise UserError(
            what=f"{shape.heads} heads do not divide a width of {shape.width} into even parts",
            where="model.heads",
            remedy="model.width must be a multiple of 2 * model.heads",
        )
    seed_torch(shape.seed, "weights")
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=shape.width,
            intermediate_size=FEED_FORWARD * shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.heads,
            max_position_embeddings=POSITIONS,
            rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def optimizer(shape: TinyModel) -> Muon:
    """Muon on the hidden matrices, AdamW on the rest; constant, then linear to zero."""
    return Muon(
        lr=shape.muon_lr,
        adamw_lr=shape.adamw_lr,
        weight_decay=WEIGHT_DECAY,
        schedule="wsd",
        warmup_ratio=min(1.0, WARMUP_STEPS / shape.steps),
    )


@dataclass(kw_only=True, slots=True)
class Lines:
    """The endless text in batches of `size` lines; a resumed run skips what was seen already."""

    stream: Callable[[], Iterator[str]]
    tokenizer: Any
    size: int
    _open: Iterator[str] | None = None
    _at: int = 0

    def batch(self, step: int) -> list[Row]:
        """The lines of a step, each between the tokens for beginning and end; loss on all of it."""
        if self._open is None or step < self._at:
            self._open, self._at = self.stream(), 0
        skipped = (step - self._at) * self.size
        texts = list(islice(self._open, skipped, skipped + self.size))
        self._at = step + 1
        end = self.tokenizer.eos_token_id
        return [Row([*ids, end], masked=0) for ids in self.tokenizer(texts).input_ids]
