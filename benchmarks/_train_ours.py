"""This project's optimizer step on one global batch, by the parts that the train stage's loop is made of."""

from __future__ import annotations

import sys
from typing import Any

from _train_data import PAD, preambles
from _train_peers import LR, Watch

from alpaca import config
from alpaca.runtime.distributed import alone
from alpaca.stages.train import gradient, loop, optim, packing, parallel, probe, surgery
from alpaca.stages.train.batches import Form, passes
from alpaca.stages.train.tokens import Row


class Ours:
    """A model placed and compiled as `train` and `precision` say, asked for optimizer steps on the same examples."""

    def __init__(
        self, model: Any, rows: list[Row], train: config.Train, precision: config.Precision | None = None
    ) -> None:
        self.rows, self.rule, self.watch = rows, config.AdamW(lr=LR), Watch()
        precision = precision or config.Precision()
        surgery.number_format(model, precision)
        self.placed = parallel.place(model, config.Fsdp(), precision, alone(), chunk=train.loss_chunk)
        surgery.recompute(self.placed.model, train.recompute)
        surgery.compile_layers(self.placed.model, wanted=train.compile)
        form = form_of(rows, train, int(model.config.vocab_size))
        self.form = probe.settle(self.placed, form, rows, lambda text: print(text, file=sys.stderr))
        self.optimizers = optim.build(self.placed.model, self.rule, precision)
        self.placed.objective.train()

    def steps(self, count: int = 1) -> Watch:
        """Takes `count` optimizer steps, each on all examples: planning, passes, clipping, update. Returns the watch of
        all steps so far."""
        for _ in range(count):
            self.watch.start()
            self._step()
            self.watch.stop()
        return self.watch

    def _step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.gradients()
        model = self.placed.model
        gradient.rescale(model, gradient.norm(model), self.rule.clip, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()

    def gradients(self) -> float:
        """Accumulates the gradient of the global batch; returns the mean loss in nats per supervised token."""
        return float(loop.accumulate(self.placed, self.rows, self.form))

    def packs(self) -> list[packing.Pack]:
        """The passes of one step."""
        return [packing.lay_out(part, self.form.shared) for part in passes(self.rows, self.form, 0, 1)]

    def computed_tokens(self) -> int:
        """Tokens that pass through the model in one step, shared beginnings counted once per pass."""
        return sum(pack.layout.tokens for pack in self.packs())


def form_of(rows: list[Row], train: config.Train, vocabulary: int) -> Form:
    """As the stage makes it, with the benchmark's beginnings in place of the templates'."""
    return Form(
        batching=train.batching,
        pad=PAD,
        micro_batch=train.micro_batch,
        pack_tokens=train.pack_tokens,
        shared=packing.beginnings(rows, preambles(vocabulary)) if train.shared_prefix else (),
    )
