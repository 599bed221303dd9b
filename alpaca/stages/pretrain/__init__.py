"""The tiny base model: tokenizer and Llama built and pretrained on the embedded world's plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alpaca.artifacts import Context
    from alpaca.config import PretrainConfig


def run(config: PretrainConfig, context: Context) -> None:
    """Builds and pretrains the base; writes model/, loss.jsonl and training.json."""
    from alpaca.stages.pretrain.stage import pretrain

    pretrain(config, context)
