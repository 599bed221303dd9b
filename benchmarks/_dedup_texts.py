"""Instructions and candidates for the de-duplication benchmark."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

RELEASED_FILE = Path(__file__).resolve().parents[2] / "shared" / "data" / "alpaca" / "alpaca_data.json"
POOL_SIZE = 52_002
SPLITS = ("of", "in", "for", "to", "with", "from", "about", "on", "that", "by", "and")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def load_pool(path: Path | None, rng: random.Random) -> tuple[list[str], bool]:
    """The instructions of the released file, and whether they had to be made up."""
    source = path or RELEASED_FILE
    if path is None and not source.exists():
        say("the released file is not beside the project: using a synthetic pool")
        return synthetic_pool(rng), True
    return [row["instruction"] for row in json.loads(source.read_text(encoding="utf-8"))], False


def synthetic_pool(rng: random.Random) -> list[str]:
    """Instructions of 4 to 22 made-up words whose frequencies fall like natural ones (Zipf, 9,000 words)."""
    words = [f"w{rank}" for rank in range(9_000)] + list(SPLITS)
    # Summed up here, since choices() would do it anew for every text.
    weights = list(accumulate([1 / (rank + 10) for rank in range(9_000)] + [0.02] * len(SPLITS)))
    shares = [4, 6, 9, 11, 12, 12, 11, 9, 7, 5, 4, 3, 2, 2, 1, 1, 1, 1, 1]
    lengths = rng.choices(range(4, 23), weights=shares, k=POOL_SIZE)
    return [" ".join(rng.choices(words, cum_weights=weights, k=length)) for length in lengths]


def edited(text: str, words: Sequence[str], rng: random.Random) -> str:
    """The text with at most as many edits as words, each dropping, replacing or adding one: F around the threshold."""
    result = text.split()
    for _ in range(rng.randint(0, len(result))):
        place = rng.randrange(len(result) + 1)
        result[place : place + rng.randint(0, 1)] = [rng.choice(words)] * rng.randint(0, 1)
    return " ".join(result)


def split(text: str) -> tuple[str, str]:
    """Head and tail of the text, cut before its first preposition, or in the middle where it has none."""
    words = text.split()
    cut = next((place for place, word in enumerate(words) if place and word in SPLITS), len(words) // 2)
    return " ".join(words[:cut]), " ".join(words[cut:])


def recombined(parts: Sequence[tuple[str, str]], rng: random.Random) -> str:
    """The head of one text and the tail of another."""
    return f"{rng.choice(parts)[0]} {rng.choice(parts)[1]}"


def make_candidates(texts: Sequence[str], count: int, rng: random.Random) -> list[str]:
    """Half of them edited, half recombined."""
    words = " ".join(rng.sample(texts, min(len(texts), 2_000))).split()
    parts = [split(text) for text in texts]
    return [
        edited(rng.choice(texts), words, rng) if rng.random() < 0.5 else recombined(parts, rng) for _ in range(count)
    ]
