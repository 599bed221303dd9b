"""How varied a set of texts is: distinct-n, compression ratio, effective numbers, quantiles of similarity.

All of these depend on how much text there is: a data set of twice the size repeats more. `measure` therefore gives
distinct-n a second time over a fixed number of words, which sets of different sizes can be compared by.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alpaca.curation.rouge import tokenize

ORDERS = (1, 2, 3)
"""The n of distinct-n."""
FIXED_WORDS = 5_000
LEVEL = 9
"""zlib's level; the ratio depends on it, so it is fixed."""
PERCENTILES = (10, 25, 50, 75, 90, 99)


@dataclass(kw_only=True, slots=True, frozen=True)
class Diversity:
    """Measures of one field. `distinct` has an entry for each n of ORDERS."""

    words: int
    distinct: list[float]
    distinct_fixed: list[float] | None
    """The same over the first FIXED_WORDS words; None where there are fewer."""
    compression: float
    """Bytes of all texts over bytes compressed; higher is more repetitive."""


def measure(texts: Sequence[str]) -> Diversity:
    """All measures of a list of texts; the order matters to the compression ratio and to `distinct_fixed`."""
    lists = [tokenize(text) for text in texts]
    words = sum(map(len, lists))
    return Diversity(
        words=words,
        distinct=distinct(lists),
        distinct_fixed=distinct(_first(lists, FIXED_WORDS)) if words >= FIXED_WORDS else None,
        compression=compression_ratio(texts),
    )


def distinct(lists: Sequence[Sequence[str]]) -> list[float]:
    """distinct-1, -2 and -3: different n-grams within texts over the number of all words.

    Li et al. 2016 (arXiv 1510.03055), section 5: the count is "scaled by total number of generated tokens". Words are
    those of `rouge.tokenize`. Without a word each is 0.0. Rounded to six decimals.
    """
    vocabulary: dict[str, int] = {}
    ids = [vocabulary.setdefault(word, len(vocabulary)) for words in lists for word in words]
    if not ids:
        return [0.0 for _ in ORDERS]
    flat = np.array(ids, dtype=np.int64)
    text = np.repeat(np.arange(len(lists)), [len(words) for words in lists])
    return [round(count / len(flat), 6) for count in _distinct_counts(flat, text, len(vocabulary))]


def _distinct_counts(flat: NDArray[np.int64], text: NDArray[np.int64], vocabulary: int) -> list[int]:
    """Different n-grams for each n, found by numbering the (n-1)-grams and joining each with the word that follows."""
    counts, grams = [vocabulary], flat
    for order in ORDERS[1:]:
        inside = text[order - 1 :] == text[: max(0, len(text) - order + 1)]
        joined = grams[: len(inside)] * vocabulary + flat[order - 1 :]
        # Renumbered, the n-grams stay below the number of words, so that no product overflows.
        grams = np.unique(joined, return_inverse=True)[1]
        counts.append(int(np.count_nonzero(np.bincount(grams[inside]))))
    return counts


def _first(lists: Sequence[Sequence[str]], words: int) -> list[Sequence[str]]:
    """The texts up to that many words; the last one is cut."""
    taken, left = [], words
    for text in lists:
        if left <= 0:
            break
        taken.append(text[:left])
        left -= len(text)
    return taken


def compression_ratio(texts: Iterable[str]) -> float:
    """Bytes of the texts, joined by newlines, over their bytes compressed by zlib at level 9; 0.0 without a text.

    Shaib et al. 2024 (arXiv 2403.00553), with gzip there, which is the same method in another envelope. Two decimals:
    builds of zlib differ by less.
    """
    raw = "\n".join(texts).encode("utf-8", errors="replace")
    return round(len(raw) / len(zlib.compress(raw, LEVEL)), 2) if raw else 0.0


def effective_number(counts: Iterable[int]) -> float:
    """exp of the Shannon entropy: so many equally frequent kinds would be as varied (Hill 1973, order 1)."""
    present = [count for count in counts if count > 0]
    total = sum(present)
    if not total:
        return 0.0
    return math.exp(-sum(count / total * math.log(count / total) for count in present))


def quantiles(scores: Sequence[float]) -> dict[str, float]:
    """ "p10" to "p99" of the scores (linear between neighbours), four decimals; empty without a score."""
    if not scores:
        return {}
    values = np.percentile(np.asarray(scores, dtype=float), PERCENTILES)
    return {f"p{percent}": round(float(value), 4) for percent, value in zip(PERCENTILES, values, strict=True)}
