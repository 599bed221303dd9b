"""From the rows of a global batch to the padded tensors of each forward pass."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from alpaca.stages.train.tokens import Row

IGNORED = -100


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """One forward pass. Shapes: all [rows, length of the longest row]."""

    ids: torch.Tensor
    attention: torch.Tensor
    """1 for tokens, 0 for padding on the right."""
    targets: torch.Tensor
    """The id that each position must predict, IGNORED where no loss is borne (always at the last position)."""


def micro_batches(rows: list[Row], size: int, rank: int, world_size: int) -> list[list[Row]]:
    """This rank's share of a global batch, cut into forward passes of at most `size` rows of similar length.

    All ranks get the same number of passes, since each pass synchronises them; where the rows do not suffice, a pass
    computes a row without loss.
    """
    rows = sorted(rows, key=lambda row: len(row.ids), reverse=True)
    size = min(size, math.ceil(len(rows) / world_size))
    passes = [rows[start : start + size] for start in range(0, len(rows), size)]
    while len(passes) % world_size:
        passes.append([rows[-1].silent()])
    return passes[rank::world_size]


def collate(rows: list[Row], pad: int, device: torch.device) -> Batch:
    """Pads to the longest row, on the right."""
    length = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), length), pad, dtype=torch.long)
    attention = torch.zeros_like(ids)
    targets = torch.full_like(ids, IGNORED)
    for index, row in enumerate(rows):
        tokens, first = torch.tensor(row.ids), max(row.masked, 1)
        ids[index, : len(tokens)] = tokens
        attention[index, : len(tokens)] = 1
        targets[index, first - 1 : len(tokens) - 1] = tokens[first:]
    return Batch(ids=ids.to(device), attention=attention.to(device), targets=targets.to(device))
