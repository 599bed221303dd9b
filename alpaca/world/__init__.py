"""The embedded world: a lexicon, verifiable tasks and plain text, so that the default run needs no network."""

from __future__ import annotations

from alpaca.world.corpus import corpus_lines, tokenizer_lines
from alpaca.world.families import EVERY, FAMILIES, INPUT_FAMILIES, PLAIN_FAMILIES
from alpaca.world.lexicon import KINDS, LEXICON, build_lexicon, kind_of
from alpaca.world.solver import family_of, read_task, solve, with_inputs
from alpaca.world.tasks import LONGEST, Task, draw_task, held_out, is_reserved, wrong_answer

__all__ = [
    "EVERY",
    "FAMILIES",
    "INPUT_FAMILIES",
    "KINDS",
    "LEXICON",
    "LONGEST",
    "PLAIN_FAMILIES",
    "Task",
    "build_lexicon",
    "corpus_lines",
    "draw_task",
    "family_of",
    "held_out",
    "is_reserved",
    "kind_of",
    "read_task",
    "solve",
    "tokenizer_lines",
    "with_inputs",
    "wrong_answer",
]
