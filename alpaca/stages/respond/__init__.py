"""Answers of a trained model to the items of one evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alpaca.artifacts import Context
    from alpaca.config import RespondConfig


def run(config: RespondConfig, context: Context) -> None:
    """Answers every item with the template of training; writes responses.jsonl."""
    from alpaca.stages.respond.stage import respond

    respond(config, context)
