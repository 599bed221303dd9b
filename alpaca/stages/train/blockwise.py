"""Eight bits per number: dynamic block-wise quantisation (Dettmers et al., arXiv 2110.02861, sections 1.3 and 2.1).

A block of neighbours in a row shares a scale, its largest magnitude; each number is the nearest entry of a codebook of
256 times that scale. Blocks never cross rows, so codes and scales can be sharded by rows as the parameter is.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as nnf

_DECADES = 7


class Table(NamedTuple):
    """What a code stands for (256 numbers, ascending) and the 255 borders between which a code is the nearest."""

    entries: torch.Tensor
    borders: torch.Tensor


@functools.cache
def tables(device: torch.device) -> tuple[Table, Table]:
    """The tables of numbers with a sign and of numbers without one."""
    return _table(codebook(signed=True), device, sure=False), _table(codebook(signed=False), device, sure=True)


def codebook(signed: bool) -> list[float]:
    """The 256 numbers that a code stands for, ascending, in (-1, 1] if signed, else in [0, 1].

    Dynamic: a byte is a sign (if signed), a run of zeros that counts powers of ten, a one, and a fraction in the bits
    that are left. So small numbers get their relative precision from the exponent and large ones from the fraction.
    """
    bits = 7 if signed else 8
    magnitudes = [
        10.0**-decade * (0.1 + 0.9 * (index + 0.5) / 2 ** (bits - 1 - decade))
        for decade in range(_DECADES)
        for index in range(2 ** (bits - 1 - decade))
    ]
    negative = [-each for each in magnitudes] if signed else []
    return sorted([*negative, 0.0, *magnitudes, 1.0])


def _table(numbers: list[float], device: torch.device, sure: bool) -> Table:
    """sure: no number above zero becomes zero.

    A second moment of zero beside a first one that is not would have the step divided by epsilon alone.
    """
    entries = torch.tensor(numbers, device=device)
    borders = (entries[1:] + entries[:-1]) / 2
    if sure:
        borders[0] = 0.0
    return Table(entries, borders)


def blocks(tensor: torch.Tensor, block: int) -> torch.Tensor:
    """(…, n) as (count, block): a view where n is a multiple of block and memory allows it, else a padded copy."""
    missing = -tensor.shape[-1] % block
    return (nnf.pad(tensor, (0, missing)) if missing else tensor).reshape(-1, block)


def unblock(target: torch.Tensor, blocked: torch.Tensor) -> None:
    """Writes (count, block) back into the tensor that it was made of by `blocks`, if it is a copy."""
    if blocked.data_ptr() != target.data_ptr():
        target.copy_(blocked.view(*target.shape[:-1], -1)[..., : target.shape[-1]])


def scales_like(parameter: torch.Tensor, block: int) -> torch.Tensor:
    """Zeros in fp32, one per block: (…, n) gives (…, ceil(n / block)), sharded by rows where the parameter is."""
    count = math.ceil(parameter.shape[-1] / block)
    return torch.zeros_like(parameter[..., :count], dtype=torch.float32, memory_format=torch.contiguous_format)


def quantise(numbers: torch.Tensor, table: Table) -> tuple[torch.Tensor, torch.Tensor]:
    """(count, block) in fp32 gives codes (count, block) in uint8 and scales (count); a block of zeros has scale zero.

    The error is at most 0.9 / 128 of the scale (without a sign 0.9 / 256).
    """
    scales = numbers.abs().amax(dim=-1)
    relative = numbers / scales.clamp_min(torch.finfo(torch.float32).tiny).unsqueeze(-1)
    return torch.bucketize(relative, table.borders, out_int32=True).to(torch.uint8), scales


def dequantise(codes: torch.Tensor, scales: torch.Tensor, table: Table) -> torch.Tensor:
    """Codes (count, block) and scales (count) give numbers (count, block) in fp32."""
    return table.entries[codes.int()] * scales.unsqueeze(-1)
