"""Supervised fine-tuning: one plain PyTorch loop on Alpaca's templates.

stage -> tokens (examples as ids) -> order (which step sees what) -> loop -> export
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alpaca.artifacts import Context
    from alpaca.config import TrainConfig


def run(config: TrainConfig, context: Context) -> None:
    """Fine-tunes the base model on the curated examples; writes model/, loss.jsonl and training.json."""
    from alpaca.stages.train.launch import run_everywhere

    run_everywhere(config, context)
