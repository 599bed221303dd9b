"""The embedded world: a lexicon, verifiable tasks and plain text, so that the default run needs no network."""

from __future__ import annotations

from alpaca.world.corpus import corpus_lines, tokenizer_lines
from alpaca.world.families import FAMILIES
from alpaca.world.lexicon import KINDS, LEXICON, build_lexicon, kind_of
from alpaca.world.tasks import Task, draw_task, held_out, is_reserved, wrong_answer

__all__ = [
    "FAMILIES",
    "KINDS",
    "LEXICON",
    "Task",
    "build_lexicon",
    "corpus_lines",
    "draw_task",
    "held_out",
    "is_reserved",
    "kind_of",
    "tokenizer_lines",
    "wrong_answer",
]
