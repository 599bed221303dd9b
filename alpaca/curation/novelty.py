"""How new is an instruction? Its nearest texts and its mean ROUGE-L F over all before it, as regen.json has them.

The duplicate index (`alpaca.curation.dedup`) may skip most pairs; a mean may not, so here every pair is compared. The
comparison is the bit-parallel LCS of `alpaca.curation.rouge`, but over many pairs in each numpy operation:

- several queries share a 64-bit word, each in a lane with a spare bit above it that takes the carry;
- `WORDS` such words lie side by side, so that one look-up by token fetches the masks of some twenty queries;
- the texts of the pool stand in order of length and their tokens in columns, so that an operation takes the next token
  of thousands of texts, none of which has ended before the others.

LCS lengths are integers, and F comes from them by rouge_score's own expression: equal to the last bit. The mean is that
of the fractions 2 LCS / (n + m), summed by length, and may differ from a mean of the rounded F by some 1e-16.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alpaca.curation.rouge import lcs_length, position_masks, tokenize

ALPACA_COUNT = 10
WORD_BITS = 64
# Words per look-up: 4 take half as long again as 1, and 8 two and a half times as long as 4 (measured).
WORDS = 4
# Texts per operation: three arrays of this many times WORDS * 8 bytes stay in the level-2 cache.
BLOCK = 8192
# Texts per call of `neighbours`' inner loop; each is also compared with the later ones of its batch, in vain.
BATCH = 512
# Texts behind the last full rebuild may be this share of it: enough to make rebuilds rare, few enough to be cheap.
TAIL_SHARE = 1 / 8
# The nearest texts are looked for among those with at least this F, taking the next where too few have it.
CUTS = (0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0)
# Rows of cuts that a segment remembers, one byte per text each.
REMEMBERED = 64

Tokens = Sequence[int | None]
Counts = NDArray[np.uint8] | NDArray[np.int64]


@dataclass(kw_only=True, slots=True, frozen=True)
class Neighbours:
    """The nearest texts of one, by score and then by lowest index, and the mean over all it was compared with.

    indices: places in the pool; scores: their ROUGE-L F (as rouge_score to the last bit); mean: 0.0 without any text.
    """

    indices: tuple[int, ...]
    scores: tuple[float, ...]
    mean: float


def neighbours(texts: Sequence[str], seeds: Sequence[str] = (), count: int = ALPACA_COUNT) -> list[Neighbours]:
    """Each text against all seeds and every text before it, which is what stanford_alpaca's regen.json records.

    Indices are places in seeds + texts. The work is quadratic: 52,002 instructions take some seconds of one core.
    """
    pool = NeighbourPool(seeds)
    found: list[Neighbours] = []
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        first = len(pool)
        pool.extend(batch)
        found += pool.nearest(batch, count, before=range(first, first + len(batch)))
    return found


def nearest_other(texts: Sequence[str], places: Sequence[int]) -> list[float]:
    """ROUGE-L F of each of the texts at `places` with the nearest other one of `texts`, earlier or later.

    Empty where there is no other.
    """
    if len(texts) < 2:
        return []
    pool, scores = NeighbourPool(texts), list[float]()
    for start in range(0, len(places), BATCH):
        batch = places[start : start + BATCH]
        # A text is among its own two nearest, or both of these are its equals.
        for place, found in zip(batch, pool.nearest([texts[place] for place in batch], 2), strict=True):
            scores.append(found.scores[1] if found.indices[0] == place else found.scores[0])
    return scores


class NeighbourPool:
    """A growing pool of texts, numbered from 0, that any batch of texts can be compared with completely.

    Batches are worth it: a query alone costs four to five times as much as one of twenty in the same call.
    """

    __slots__ = ("_ids", "_lengths", "_sealed", "_tail", "_tokens")

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._ids: dict[str, int] = {}
        self._tokens: array[int] = array("i")  # of all texts, one after the other
        self._lengths: array[int] = array("q")  # by text: its number of tokens
        self._sealed: _Segment | None = None
        self._tail: _Segment | None = None
        self.extend(texts)

    def __len__(self) -> int:
        return len(self._lengths)

    def extend(self, texts: Iterable[str]) -> None:
        """Adds the texts, duplicates or not."""
        for text in texts:
            tokens = tokenize(text)
            self._tokens.extend(self._ids.setdefault(token, len(self._ids)) for token in tokens)
            self._lengths.append(len(tokens))

    def nearest(
        self, texts: Sequence[str], count: int = ALPACA_COUNT, before: Sequence[int] | None = None
    ) -> list[Neighbours]:
        """The `count` nearest texts of each, and the mean over all; fewer where the pool is smaller.

        before: for each text the number of texts it is compared with, the first of the pool; None means all of them.
        """
        queries = [self._encode(text) for text in texts]
        limits = [len(self)] * len(queries) if before is None else [min(limit, len(self)) for limit in before]
        totals, ranked = [0.0] * len(queries), [_NOTHING] * len(queries)
        for number, segment, lcs in self._compare(queries):
            length, limit = len(queries[number]), limits[number]
            lcs[segment.places_from(limit)] = 0
            totals[number] += segment.total(lcs, length)
            ranked[number] = _first(count, ranked[number], segment.best(lcs, length, count, limit))
        return [
            Neighbours(indices=tuple(indices.tolist()), scores=tuple(scores.tolist()), mean=total / max(limit, 1))
            for (scores, indices), total, limit in zip(ranked, totals, limits, strict=True)
        ]

    def scores(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """ROUGE-L F of each text with each of the pool, [len(texts), len(self)] float64."""
        queries = [self._encode(text) for text in texts]
        result = np.zeros((len(queries), len(self)))
        for number, segment, lcs in self._compare(queries):
            result[number, segment.indices] = segment.scores(lcs, len(queries[number]))
        return result

    def _encode(self, text: str) -> Tokens:
        """Token ids; a token that no text of the pool has keeps its place as None."""
        return [self._ids.get(token) for token in tokenize(text)]

    def _compare(self, queries: Sequence[Tokens]) -> Iterator[tuple[int, _Segment, Counts]]:
        """For each query and segment its number, the segment, and the LCS with each text in the segment's order.

        The array is the receiver's to change until the next step.
        """
        lanes = _pack([len(query) for query in queries])
        long = [number for number, query in enumerate(queries) if len(query) > WORD_BITS]
        for segment in self._segments():
            for start in range(0, len(lanes), WORDS):
                words = lanes[start : start + WORDS]
                for lane, lcs in segment.compare(words, _mask_table(words, queries, len(self._ids))):
                    yield lane.query, segment, lcs
            for number in long:
                yield number, segment, self._compare_long(segment, queries[number])

    def _compare_long(self, segment: _Segment, query: Tokens) -> NDArray[np.int64]:
        """One query of any length against a segment, by integers without a width; rare, so it may be slow."""
        masks = position_masks(query)
        tokens, ends = self._tokens, np.cumsum(np.frombuffer(self._lengths, dtype=np.int64))[segment.indices].tolist()
        spans = zip(ends, segment.lengths.tolist(), strict=True)
        return np.array([lcs_length(masks, len(query), tokens[end - length : end]) for end, length in spans])

    def _segments(self) -> list[_Segment]:
        """The whole pool in one or two segments: what stood at the last full rebuild and what came since."""
        sealed = len(self._sealed.indices) if self._sealed else 0
        if len(self) - sealed > sealed * TAIL_SHARE:
            self._sealed, self._tail, sealed = self._segment(0), None, len(self)
        waiting = len(self) - sealed
        if waiting and (self._tail is None or len(self._tail.indices) != waiting):
            self._tail = self._segment(sealed)
        return [segment for segment in (self._sealed, self._tail) if segment]

    def _segment(self, first: int) -> _Segment:
        lengths = np.frombuffer(self._lengths, dtype=np.int64)
        skipped = int(lengths[:first].sum())
        return _Segment(first, np.frombuffer(self._tokens, dtype=np.intc)[skipped:], lengths[first:])


@dataclass(kw_only=True, slots=True, frozen=True)
class _Lane:
    """The bits of a word that belong to one query: `length` of them from bit `shift`."""

    query: int
    shift: int
    length: int

    @property
    def mask(self) -> int:
        return (1 << self.length) - 1 << self.shift


class _Segment:
    """Some texts in the layout of the comparison: in order of length, longest first, their tokens in columns.

    A run is a stretch of texts of one length; `indices` are the texts' numbers in the pool, in the segment's order.
    """

    __slots__ = ("_blocks", "_needs", "_places", "_run_of", "_runs", "_tables", "first", "indices", "lengths")

    def __init__(self, first: int, tokens: NDArray[np.intc], lengths: NDArray[np.int64]) -> None:
        order = np.argsort(-lengths, kind="stable")
        starts = (np.cumsum(lengths) - lengths)[order]
        self.first = first
        self.indices = first + order
        self.lengths = lengths[order]
        self._places = np.argsort(order)
        starts_run = np.diff(self.lengths, prepend=-1) != 0
        self._runs, self._run_of = np.flatnonzero(starts_run), np.cumsum(starts_run) - 1
        blocks = range(0, len(order), BLOCK)
        # numpy indexes by intp; any narrower type would be converted at every look-up.
        self._blocks = [_columns(tokens, starts[at : at + BLOCK], self.lengths[at : at + BLOCK]) for at in blocks]
        self._tables: dict[int, NDArray[np.float64]] = {}
        self._needs: dict[tuple[int, float], Counts] = {}

    def compare(self, words: Sequence[Sequence[_Lane]], table: NDArray[np.uint64]) -> Iterator[tuple[_Lane, Counts]]:
        """The LCS of the queries in `words` with each text. The array is reused: read it before the next step."""
        states = self._states([sum(lane.mask for lane in word) for word in words], table)
        bits, counts = np.empty(len(self.indices), np.uint64), np.empty(len(self.indices), np.uint8)
        for word, state in zip(words, states, strict=True):
            for lane in word:
                np.bitwise_and(state, np.uint64(lane.mask), out=bits)
                np.bitwise_count(bits, out=counts)
                np.subtract(np.uint8(lane.length), counts, out=counts)
                yield lane, counts

    def _states(self, full: Sequence[int], table: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """[words, texts]: the bits that are left in each lane, as many as the query's tokens outside the LCS."""
        states = np.empty((len(full), len(self.indices)), np.uint64)
        size = min(BLOCK, len(self.indices))
        # The lanes without their spare bits, repeated: numpy is slow with operands that it must broadcast along rows.
        lanes = np.tile(np.array(full, np.uint64), (size, 1))
        rows, found, sums = lanes.copy(), np.empty_like(lanes), np.empty_like(lanes)
        for number, columns in enumerate(self._blocks):
            rows[:] = lanes
            for column in columns:
                active = len(column)
                _step(rows[:active], table.take(column, axis=0, out=found[:active], mode="clip"), sums[:active])
                np.bitwise_and(rows[:active], lanes[:active], out=rows[:active])
            part = states[:, number * BLOCK : (number + 1) * BLOCK]
            part[:] = rows[: part.shape[1]].T
        return states

    def places_from(self, index: int) -> NDArray[np.int64]:
        """Where in the segment's order the texts stand that have this number in the pool or a higher one."""
        return self._places[max(index - self.first, 0) :]

    def scores(self, lcs: Counts, length: int) -> NDArray[np.float64]:
        """F of each text, in the segment's order, with a query of `length` tokens."""
        return self._score(self._run_of, lcs, length)

    def total(self, lcs: Counts, length: int) -> float:
        """Sum of F over the texts; F = 2 LCS / (n + m) up to rounding, so one sum of integers per run will do."""
        sums = np.add.reduceat(lcs, self._runs, dtype=np.int64)
        # Not numpy's dot, whose last bit depends on the processor.
        return math.fsum((2 * sums / np.maximum(self.lengths[self._runs] + length, 1)).tolist())

    def best(self, lcs: Counts, length: int, count: int, limit: int) -> _Ranked:
        """The first `count` by F, then lowest number, of the texts numbered below `limit`."""
        for cut in CUTS:
            rows = lcs >= self._need(length, cut)
            if np.count_nonzero(rows) >= count:
                break
        chosen = np.flatnonzero(rows)
        chosen = chosen[self.indices[chosen] < limit]
        return _first(count, _NOTHING, (self._score(self._run_of[chosen], lcs[chosen], length), self.indices[chosen]))

    def _score(self, runs: NDArray[np.int64], lcs: Counts, length: int) -> NDArray[np.float64]:
        return self._table(length).take(runs * (length + 1) + lcs)

    def _table(self, length: int) -> NDArray[np.float64]:
        """[runs, LCS]: F for a query of `length` tokens."""
        if length not in self._tables:
            self._tables[length] = _f_measures(length, self.lengths[self._runs])
        return self._tables[length]

    def _need(self, length: int, cut: float) -> Counts:
        """The smallest LCS of each text that gives an F of at least `cut`."""
        key = length, cut
        if key not in self._needs:
            if len(self._needs) == REMEMBERED:
                self._needs.clear()
            by_run = np.count_nonzero(self._table(length) < cut, axis=1)
            # A byte each, like the LCS of all that share a word: numpy then compares 64 texts at a time.
            kind = np.uint8 if length <= WORD_BITS else np.int64
            runs = np.diff(self._runs, append=len(self.lengths))
            self._needs[key] = np.repeat(by_run.astype(kind), runs)
        return self._needs[key]


# F and numbers in the pool of some texts.
_Ranked = tuple[NDArray[np.float64], NDArray[np.int64]]
_NOTHING: _Ranked = (np.empty(0), np.empty(0, np.int64))


def _first(count: int, some: _Ranked, more: _Ranked) -> _Ranked:
    scores, indices = (np.concatenate(parts) for parts in zip(some, more, strict=True))
    order = np.lexsort((indices, -scores))[:count]
    return scores[order], indices[order]


def _columns(tokens: NDArray[np.intc], starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> list[NDArray[np.intp]]:
    """The first tokens of the texts, the second tokens of those that have one, and so on; longest text first."""
    active = np.searchsorted(-lengths, -np.arange(lengths[0]))
    return [tokens[starts[:size] + place].astype(np.intp) for place, size in enumerate(active)]


def _pack(lengths: Sequence[int]) -> list[list[_Lane]]:
    """Lanes for all queries that fit in a word, filling word after word in order of length.

    The topmost lane needs no spare bit, since what it carries leaves the word.
    """
    words: list[list[_Lane]] = []
    free = 0
    fitting = [query for query, length in enumerate(lengths) if length <= WORD_BITS]
    for query in sorted(fitting, key=lengths.__getitem__):
        if not words or lengths[query] > free:
            words.append([])
            free = WORD_BITS
        words[-1].append(_Lane(query=query, shift=WORD_BITS - free, length=lengths[query]))
        free -= lengths[query] + 1
    return words


def _mask_table(words: Sequence[Sequence[_Lane]], queries: Sequence[Tokens], size: int) -> NDArray[np.uint64]:
    """[token ids, words]: the bits of each word at which a query has the token."""
    masks: dict[tuple[int, int], int] = {}
    for word, lanes in enumerate(words):
        for lane in lanes:
            for place, token in enumerate(queries[lane.query], lane.shift):
                if token is not None:
                    masks[token, word] = masks.get((token, word), 0) | 1 << place
    table = np.zeros((size, len(words)), np.uint64)
    if masks:
        table[tuple(np.array(list(masks)).T)] = np.array(list(masks.values()), np.uint64)
    return table


def _step(rows: NDArray[np.uint64], found: NDArray[np.uint64], sums: NDArray[np.uint64]) -> None:
    """One token of each text (see `rouge.lcs_length`); spends `found` and `sums`, leaves carries in the spare bits."""
    np.bitwise_and(rows, found, out=found)
    np.add(rows, found, out=sums)
    np.subtract(rows, found, out=rows)
    np.bitwise_or(rows, sums, out=rows)


def _f_measures(length: int, lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    """[len(lengths), length + 1]: `rouge.f_measure` of each LCS 0..length, operation by operation."""
    lcs = np.arange(1, length + 1)
    precision, recall = lcs / np.maximum(lengths, 1)[:, None], lcs / max(length, 1)
    result = np.zeros((len(lengths), length + 1))
    result[:, 1:] = 2 * precision * recall / (precision + recall)
    return result
