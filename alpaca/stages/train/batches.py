"""From the rows of a global batch to the tensors of each forward pass: packed end to end, or padded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from alpaca.stages.train import packing
from alpaca.stages.train.attention import Segments, moved, segments_of
from alpaca.stages.train.packing import Pack
from alpaca.stages.train.tokens import Row


@dataclass(kw_only=True, slots=True)
class Form:
    """How a global batch is cut into forward passes; none of it changes the loss."""

    batching: str
    """packed, grouped or padded (see config.Train)."""
    pad: int
    micro_batch: int = 4
    pack_tokens: int = 4096
    shared: tuple[tuple[int, ...], ...] = field(default=())
    """Token ids of the beginnings that packed rows share."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """One forward pass. ids: [B, T]; packed: B = 1, positions [1, T] and segments; padded: attention [B, T], 1 for
    tokens and 0 for padding on the right."""

    ids: torch.Tensor
    chosen: torch.Tensor
    """[S]: flat positions (row * T + column) that predict a token which bears loss."""
    targets: torch.Tensor
    """[S]: those tokens."""
    attention: torch.Tensor | None = None
    positions: torch.Tensor | None = None
    segments: Segments | None = None


def passes(rows: list[Row], form: Form, rank: int, world_size: int) -> list[list[Row]]:
    """This rank's share of a global batch, cut into forward passes; all ranks get the same number."""
    if form.batching == "packed":
        return packing.bins(rows, form.pack_tokens, form.shared, rank, world_size)
    return micro_batches(rows, form.micro_batch, rank, world_size, by_length=form.batching == "grouped")


def micro_batches(rows: list[Row], size: int, rank: int, world_size: int, *, by_length: bool = True) -> list[list[Row]]:
    """Passes of at most `size` rows, of similar length or as they come.

    All ranks get the same number of passes, since each pass synchronises them; where the rows do not suffice, a pass
    computes a row without loss.
    """
    if by_length:
        rows = sorted(rows, key=lambda row: len(row.ids), reverse=True)
    size = min(size, math.ceil(len(rows) / world_size))
    made = [rows[start : start + size] for start in range(0, len(rows), size)]
    while len(made) % world_size:
        made.append([rows[-1].silent()])
    return made[rank::world_size]


def collate(rows: Sequence[Row], form: Form, device: torch.device) -> Batch:
    """The tensors of one pass."""
    if form.batching == "packed":
        return packed(packing.lay_out(rows, form.shared), device)
    return padded(rows, form.pad, device)


def padded(rows: Sequence[Row], pad: int, device: torch.device) -> Batch:
    """Rows side by side, filled up on the right to the longest."""
    length = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), length), pad, dtype=torch.long)
    attention = torch.zeros_like(ids)
    chosen, targets = list[int](), list[int]()
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = torch.tensor(row.ids)
        attention[index, : len(row.ids)] = 1
        first = max(row.masked, 1)
        chosen += range(index * length + first - 1, index * length + len(row.ids) - 1)
        targets += row.ids[first:]
    numbers = moved([chosen, targets], torch.long, device)
    return Batch(ids=ids.to(device), attention=attention.to(device), chosen=numbers[0], targets=numbers[1])


def packed(pack: Pack, device: torch.device) -> Batch:
    """Rows end to end behind their shared beginnings; positions go on from the beginning that a row has."""
    ids, positions = list[int](), list[int]()
    for shared in pack.shared:
        ids += shared
        positions += range(len(shared))
    chosen, targets = list[int](), list[int]()
    for row in pack.rows:
        index = packing.beginning_of(row, pack.shared)
        before = 0 if index is None else len(pack.shared[index])
        first, start = max(row.masked, 1), len(ids) - before
        chosen += range(start + first - 1, start + len(row.ids) - 1)
        targets += row.ids[first:]
        ids += row.ids[before:]
        positions += range(before, len(row.ids))
    numbers = moved([ids, positions], torch.long, device).unsqueeze(1)
    places = moved([chosen, targets], torch.long, device)
    segments = segments_of(pack.layout, device)
    return Batch(ids=numbers[0], positions=numbers[1], chosen=places[0], targets=places[1], segments=segments)
