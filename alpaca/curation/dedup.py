"""Is an instruction too similar to one that is there already? The exact answer without comparing with all of them.

A candidate is a duplicate when its ROUGE-L F with any text of the pool is above the threshold (Alpaca: 0.7). Since
F = 2 LCS / (n + m) for texts of n and m tokens, a duplicate shares s >= threshold (n + m) / 2 tokens with it. Two
filters that never lose such a pair leave a handful of texts, and these are compared exactly:

1. Prefix filter (Chaudhuri et al. 2006; PPJoin, Xiao et al. 2008). With the tokens of each text in one fixed order, two
   texts that share s tokens have one in common among the first n - s + 1 of the one and m - s + 1 of the other. So only
   those are indexed.
2. Bitmap filter (Sandes et al. 2020). Each text has 64 bits, the parities of its tokens hashed to 64 classes. Each bit
   in which two differ needs a token that only one text has, and more than n + m - 2 s such tokens are too many.

Both bounds count a repeated token as often as it stands in the text (texts are multisets here).
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from alpaca.curation.rouge import f_measure, lcs_length, position_masks, tokenize
from alpaca.errors import UserError

ALPACA_THRESHOLD = 0.7
# The bounds are taken this much too low, far more than rounding can do: a tie then reaches the exact comparison.
SLACK = 1 - 1e-12
SIGNATURE_BITS = 64


@dataclass(kw_only=True, slots=True, frozen=True)
class Match:
    """The text of the pool that makes a candidate a duplicate: its index (order of insertion) and their ROUGE-L F."""

    index: int
    score: float


class RougeIndex:
    """A growing pool of texts that finds duplicates by ROUGE-L F > threshold, decided as rouge_score would.

    Texts are numbered from 0 in the order of insertion. A text without tokens has F = 0 with every other.
    """

    __slots__ = ("_ids", "_lengths", "_postings", "_signatures", "_texts", "threshold")

    def __init__(self, threshold: float = ALPACA_THRESHOLD) -> None:
        if not 0 <= threshold <= 1:
            raise UserError(
                what=f"de-duplication threshold {threshold} is outside [0, 1]",
                where="threshold",
                remedy=f"Alpaca used {ALPACA_THRESHOLD}; 1 keeps everything, 0 nothing that shares a word",
            )
        self.threshold = threshold
        self._ids: dict[str, int] = {}
        self._postings: list[array[int]] = []  # by token id: the texts that have it in their prefix
        self._signatures: array[int] = array("Q")  # by text: its 64 parities
        self._lengths: array[int] = array("i")  # by text: its number of tokens
        self._texts: list[tuple[int, ...]] = []  # by text: the ids of its tokens

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, text: str) -> None:
        """Inserts the text whether or not it is a duplicate (seed tasks, examples that must stay)."""
        self._insert(tokenize(text))

    def nearest_above(self, text: str) -> Match | None:
        """The text of the pool with the lowest index among those with F > threshold (not the highest F), or None."""
        tokens = tokenize(text)
        return self._first_above(tokens, self._survivors(tokens))

    def offer(self, text: str) -> Match | None:
        """Inserts the text if it is no duplicate and returns None; otherwise returns the match as `nearest_above`."""
        tokens = tokenize(text)
        match = self._first_above(tokens, self._survivors(tokens))
        if match is None:
            self._insert(tokens)
        return match

    def _insert(self, tokens: Sequence[str]) -> None:
        ids = tuple(self._ids.setdefault(token, len(self._ids)) for token in tokens)
        self._postings.extend(array("i") for _ in range(len(self._ids) - len(self._postings)))
        for id in set(_rarest_first(ids)[: self._prefix_length(len(ids))]):
            self._postings[id].append(len(self._texts))
        self._signatures.append(_signature(ids))
        self._lengths.append(len(ids))
        self._texts.append(ids)

    def _survivors(self, tokens: Sequence[str]) -> list[int]:
        """Ascending indices of the texts that both filters leave: every duplicate and few others."""
        known = [self._ids[token] for token in tokens if token in self._ids]
        # No text shares a token never seen: without it the shared count stays and the prefix is one shorter.
        unseen = len(tokens) - len(known)
        prefix = set(_rarest_first(known)[: max(self._prefix_length(len(tokens)) - unseen, 0)])
        texts = np.frombuffer(b"".join(self._postings[id] for id in prefix), dtype=np.intc)
        both = np.frombuffer(self._lengths, dtype=np.intc)[texts] + len(tokens)
        allowed = both - 2 * np.ceil(both * (self.threshold / 2 * SLACK)) - unseen
        signatures = np.frombuffer(self._signatures, dtype=np.ulonglong)[texts]
        unshared = np.bitwise_count(signatures ^ np.ulonglong(_signature(known)))
        return [int(text) for text in np.unique(texts[unshared <= allowed])]

    def _first_above(self, tokens: Sequence[str], candidates: Sequence[int]) -> Match | None:
        if not candidates:
            return None
        # Unseen tokens keep their place in the text as None, which no stored text contains.
        masks = position_masks([self._ids.get(token) for token in tokens])
        for index in candidates:
            other = self._texts[index]
            score = f_measure(lcs_length(masks, len(tokens), other), len(tokens), len(other))
            if score > self.threshold:
                return Match(index=index, score=score)
        return None

    def _prefix_length(self, length: int) -> int:
        """How many of its rarest tokens a text of this length must show, whatever the length of its partner.

        The shortest possible partner (F <= 2 m / (n + m)) asks for the fewest shared tokens: the longest prefix.
        """
        if not length:
            return 0
        shortest = math.ceil(length * self.threshold / (2 - self.threshold) * SLACK)
        return length - math.ceil((length + shortest) * self.threshold / 2 * SLACK) + 1


def _rarest_first(ids: Iterable[int]) -> list[int]:
    """The fixed order of the prefix filter: what is first seen late is usually rare, and the order never changes."""
    return sorted(ids, reverse=True)


def _signature(ids: Iterable[int]) -> int:
    """The parities of the tokens by class; the commonest tokens are seen first and so fall in classes of their own."""
    signature = 0
    for id in ids:
        signature ^= 1 << id % SIGNATURE_BITS
    return signature
