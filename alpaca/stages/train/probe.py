"""Whether a model can be trained packed, found by trying: silent contamination between examples looks like training.

Real examples are run packed, then packed again with one of them changed. Every number of the others must stay the same
to the last bit, since nothing of them was changed: where it does not, the model lets examples see each other (a state
carried along, a mask of its own), and padded rows are used instead. A few are also run alone, which finds positions
that are not restarted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from alpaca.errors import UserError
from alpaca.stages.train import packing
from alpaca.stages.train.attention import UnpackableError
from alpaca.stages.train.batches import Form, collate, padded
from alpaca.stages.train.packing import Pack
from alpaca.stages.train.parallel import Placed
from alpaca.stages.train.tokens import Row

TOLERANCES = {"fp32": 1e-3, "tf32": 0.02}
LOW_PRECISION = 0.08
"""Relative difference of hidden states between packed and alone: other kernels round otherwise, wrong positions are off
by the whole."""
MOST_PROBED = 32
"""Examples run together at most."""
ALONE = 3
"""Examples that are also run alone."""


def settle(placed: Placed, form: Form, rows: Sequence[Row], say: Callable[[str], None]) -> Form:
    """The form that this model can be trained in; sets its attention to it. Every rank must call it.

    form.batching "auto" becomes packed or grouped. Raises UserError where packed was asked for and cannot be, or where
    the model has no positions for the longest row.
    """
    pack = packing.lay_out(_samples(rows, form), form.shared)
    _refuse_unplaced(placed, pack)
    with placed.looking(), placed.autocast():
        placed.objective.set_attention(packed=False)
        _refuse_damaged(placed, pack, form)
        placed.objective.plain_head = _has_plain_head(placed, pack, form)
        problem = None if form.batching in ("grouped", "padded") else _problem(placed, pack, form)
    if placed.ranks.main and not placed.objective.plain_head:
        say("this model changes its logits after the head: they are computed whole, not in chunks")
    if problem is not None and form.batching == "packed":
        raise UserError(what=problem, where="train.batching", remedy="train.batching=grouped, or auto")
    if placed.ranks.main and problem is not None:
        say(f"padded rows of similar length instead of packed ones: {problem}")
    chosen = {"auto": "grouped" if problem else "packed"}.get(form.batching, form.batching)
    placed.objective.set_attention(packed=chosen == "packed")
    return replace(form, batching=chosen)


def _samples(rows: Sequence[Row], form: Form) -> list[Row]:
    """The longest row, and others in their order as far as they fit into one pass, several with a shared beginning."""
    longest = max(rows, key=lambda row: len(row.ids))
    chosen, room = [longest], form.pack_tokens - len(longest.ids)
    for row in rows:
        if row is not longest and len(row.ids) <= room and len(chosen) < MOST_PROBED:
            chosen.append(row)
            room -= len(row.ids)
    return chosen if len(chosen) > 1 else [longest, longest]


def _refuse_unplaced(placed: Placed, pack: Pack) -> None:
    """A row longer than learned positions would be an index out of range, on a GPU in words that nobody understands."""
    longest = max(len(row.ids) for row in pack.rows)
    most = getattr(placed.model.config, "max_position_embeddings", None)
    learned = any("wpe" in name or "embed_positions" in name for name, _ in placed.model.named_parameters())
    if learned and isinstance(most, int) and longest > most:
        raise UserError(
            what=f"an example of {longest} tokens, and the model has {most} positions",
            where="train.max_length",
            remedy=f"train.max_length={most}",
        )


def _refuse_damaged(placed: Placed, pack: Pack, form: Form) -> None:
    finite = bool(_alone(placed, min(pack.rows, key=lambda row: len(row.ids)), form).isfinite().all())
    if not _agreed(placed, finite):
        raise UserError(
            what="the base model gives numbers that are not finite on the first example: its weights are damaged, or "
            f"precision.compute={placed.precision.compute} is too narrow for them",
            where="model",
            remedy="download the weights again, or precision=bf16 or fp32",
        )


def _has_plain_head(placed: Placed, pack: Pack, form: Form) -> bool:
    shortest = min(pack.rows, key=lambda row: len(row.ids))
    batch = padded([shortest], form.pad, placed.ranks.device)
    logits, projected = placed.forward(batch, "logits"), placed.forward(batch, "projected")
    return logits.shape == projected.shape and _agreed(placed, _distance(logits, projected) <= _tolerance(placed))


def _problem(placed: Placed, pack: Pack, form: Form) -> str | None:
    """Why the model cannot be packed; None where it can."""
    name = type(placed.model).__name__
    few = sorted(range(len(pack.rows)), key=lambda index: len(pack.rows[index].ids))[:ALONE]
    alone = {index: _alone(placed, pack.rows[index], form) for index in few}
    try:
        placed.objective.set_attention(packed=True)
        together, changed = (_hidden(placed, each, form) for each in (pack, _with_another(pack)))
    except (UnpackableError, TypeError, ValueError, KeyError, IndexError, RuntimeError) as error:
        placed.give_up()
        return f"{name} does not take the packed form ({' '.join(str(error).split())[:200]})"
    leaks = any(not torch.equal(a, b) for a, b in zip(together[1:], changed[1:], strict=True))
    if not _agreed(placed, not leaks or placed.precision.compute == "fp8"):  # scaled by tensor: all rows round alike
        return f"examples of {name} see each other when packed"
    distance = max(_distance(together[index], alone[index]) for index in few)
    if not _agreed(placed, distance <= _tolerance(placed)):
        return f"{name} gives other hidden states packed than alone (by {distance:.1%})"
    return None


def _alone(placed: Placed, row: Row, form: Form) -> torch.Tensor:
    return placed.forward(padded([row], form.pad, placed.ranks.device), "hidden")


def _hidden(placed: Placed, pack: Pack, form: Form) -> list[torch.Tensor]:
    """Hidden states that predict each row's supervised tokens, row by row."""
    batch = collate(pack.rows, replace(form, batching="packed"), placed.ranks.device)
    return list(torch.split(placed.forward(batch, "hidden"), [row.supervised for row in pack.rows]))


def _with_another(pack: Pack) -> Pack:
    """The same pack, but for the first row's own tokens: attention looks back, so that it is seen by all if by any."""
    first = pack.rows[0]
    index = packing.beginning_of(first, pack.shared)
    kept = 0 if index is None else len(pack.shared[index])
    other = [token - 1 if token else 1 for token in first.ids[kept:]]
    return replace(pack, rows=(Row([*first.ids[:kept], *other], first.masked), *pack.rows[1:]))


def _distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest relative difference of a position's vector."""
    wide = torch.promote_types(expected.dtype, torch.float32)
    norms = expected.to(wide).norm(dim=1).clamp_min(torch.finfo(wide).tiny)
    return float(((found.to(wide) - expected.to(wide)).norm(dim=1) / norms).max())


def _tolerance(placed: Placed) -> float:
    return TOLERANCES.get(placed.precision.compute, LOW_PRECISION)


def _agreed(placed: Placed, value: bool) -> bool:
    """Rank 0's finding, so that rounding cannot send ranks different ways."""
    return bool(placed.ranks.agree(value))
