"""Whether a model can be trained packed, found by trying: silent contamination between examples looks like training.

Two real examples are run packed and one at a time. Where the hidden states differ, the model does not confine attention
to examples (a mask, a window, a state of its own), and padded rows are used instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from alpaca.errors import UserError
from alpaca.stages.train.attention import UnpackableError
from alpaca.stages.train.batches import Form, collate, padded
from alpaca.stages.train.packing import beginning_of, lay_out
from alpaca.stages.train.parallel import Placed
from alpaca.stages.train.tokens import Row

TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3}
LOW_PRECISION = 0.08
"""Relative difference of hidden states: bf16 rounds to about 1e-2, an example that sees another is off by its whole."""


def settle(placed: Placed, form: Form, rows: Sequence[Row], say: Callable[[str], None]) -> Form:
    """The form that this model can be trained in; sets its attention to it. Every rank must call it.

    form.batching "auto" becomes packed or grouped. Raises UserError where packed was asked for and cannot be.
    """
    samples = _samples(rows, form)
    with placed.looking(), placed.autocast():
        placed.objective.set_attention(packed=False)
        placed.objective.plain_head = _has_plain_head(placed, samples, form)
        problem = None if form.batching in ("grouped", "padded") else _problem(placed, samples, form)
    if not placed.objective.plain_head:
        say("this model changes its logits after the head: they are computed whole, not in chunks")
    if problem is not None and form.batching == "packed":
        raise UserError(what=problem, where="train.batching", remedy="train.batching=grouped, or auto")
    if problem is not None:
        say(f"padded rows of similar length instead of packed ones: {problem}")
    chosen = {"auto": "grouped" if problem else "packed"}.get(form.batching, form.batching)
    placed.objective.set_attention(packed=chosen == "packed")
    return replace(form, batching=chosen)


def _samples(rows: Sequence[Row], form: Form) -> list[Row]:
    """Two or three short examples, at least two of them with the same beginning where rows have one."""
    shortest = sorted(rows, key=lambda row: len(row.ids))
    alike = [row for row in shortest if beginning_of(row, form.shared) == beginning_of(shortest[0], form.shared)]
    return [*alike[:2], *[row for row in shortest if row not in alike[:2]][:1]]


def _has_plain_head(placed: Placed, samples: list[Row], form: Form) -> bool:
    batch = padded(samples[:1], form.pad, placed.ranks.device)
    logits, projected = placed.forward(batch, "logits"), placed.forward(batch, "projected")
    return logits.shape == projected.shape and _agreed(placed, _distance(logits, projected) <= _tolerance(logits))


def _problem(placed: Placed, samples: list[Row], form: Form) -> str | None:
    """Why the model cannot be packed; None where it can."""
    alone = [placed.forward(padded([row], form.pad, placed.ranks.device), "hidden") for row in samples]
    try:
        placed.objective.set_attention(packed=True)
        rows = collate(samples, replace(form, batching="packed"), placed.ranks.device)
        together = placed.forward(rows, "hidden")
    except (UnpackableError, TypeError, ValueError, KeyError) as error:
        return f"{type(placed.model).__name__} does not take the packed form ({' '.join(str(error).split())[:200]})"
    apart = torch.cat([alone[index] for index in _order(samples, form)])
    distance = _distance(together, apart)
    if _agreed(placed, distance <= _tolerance(apart)):
        return None
    name = type(placed.model).__name__
    return f"examples of {name} see each other when packed (hidden states differ by {distance:.1%})"


def _order(samples: list[Row], form: Form) -> list[int]:
    """The samples' numbers in the order in which packing lays them out."""
    placed = lay_out(samples, form.shared).rows
    return [next(index for index, row in enumerate(samples) if row is found) for found in placed]


def _distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest relative difference of a position's vector."""
    wide = torch.promote_types(expected.dtype, torch.float32)
    norms = expected.to(wide).norm(dim=1).clamp_min(torch.finfo(wide).tiny)
    return float(((found.to(wide) - expected.to(wide)).norm(dim=1) / norms).max())


def _tolerance(tensor: torch.Tensor) -> float:
    return TOLERANCES.get(tensor.dtype, LOW_PRECISION)


def _agreed(placed: Placed, value: bool) -> bool:
    """Rank 0's finding, so that rounding cannot send ranks different ways."""
    return bool(placed.ranks.agree(value))
