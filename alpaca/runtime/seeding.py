"""Seeds that do not collide: every random stream has a name, and its seed is a hash of that name."""

from __future__ import annotations

import hashlib


def derive(*parts: int | str) -> int:
    """A seed of 63 bits from a path of names and numbers, such as `derive(seed, "order", epoch)`.

    Unlike `seed + epoch`, streams of different names or seeds never share a seed.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_torch(*parts: int | str) -> None:
    """Seeds torch's generators (CPU and all GPUs) with `derive(*parts)`.

    Called before each step, it makes dropout a function of the step alone, so that no generator has to be saved.
    """
    import torch

    torch.manual_seed(derive(*parts))
