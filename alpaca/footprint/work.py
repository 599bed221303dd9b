"""What one optimizer step has to compute, from the settings and the lengths of the examples."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from alpaca.config import Train

SPREAD = 0.45
"""Standard deviation of the logarithm of the released examples' lengths (log-normal)."""
RARE = 3.5
"""Standard deviations above the middle at which the longest of some thousand examples lies."""
GROUPED = 1.03
"""Computed per real token where rows of similar length are padded together (measured with batches of 4 to 32)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """Tokens of the examples, in the mean. The defaults are those of the released 52,002 with LLaMA's tokenizer."""

    mean: float = 128.0
    """Prompt, answer and end of sequence."""
    shared: tuple[int, ...] = (29, 39)
    """Of the beginnings of the two templates, which every example has one of."""
    shared_mean: float = 33.0
    """Tokens of an example that belong to its beginning: 40 % of the released examples have an input."""
    supervised: float = 0.4
    """Share of the tokens that bears loss."""
    spread: float = SPREAD


EMBEDDED = Lengths(mean=14.0, shared=(), shared_mean=0.0, supervised=0.23, spread=0.3)
"""Of the embedded world, whose tokenizer has learnt the templates: their beginnings are too short to be shared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """One optimizer step of one process: `passes` equal forward and backward passes. All in the mean."""

    passes: int
    tokens: float
    """Computed in one pass: padding counts, shared beginnings count once."""
    supervised: float
    """Positions of one pass that bear loss."""
    examples: float
    """In one pass."""
    runs: float
    """Calls of attention in one pass and layer (packed: neighbours of equal length are one call)."""
    keys: float
    """Keys of all calls of one pass: a shared beginning counts once for each example."""
    pairs: float
    """Query-key pairs of one pass, causal half."""
    masks: float
    """Numbers in the masks of one pass and layer (packed over a shared beginning: one mask per call)."""


def step(train: Train, lengths: Lengths, processes: int = 1) -> Work:
    """The mean step of one of `processes` processes."""
    examples = step_examples(train, lengths) / processes
    return _packed(train, lengths, examples) if is_packed(train) else _padded(train, lengths, examples)


def is_packed(train: Train) -> bool:
    """auto counts as packed: nearly every model can."""
    return train.batching in ("auto", "packed")


def step_examples(train: Train, lengths: Lengths) -> float:
    """Examples in a global batch; where it is given in tokens, as many as fit in the mean."""
    if train.batch_unit == "examples":
        return float(train.global_batch)
    return max(1.0, train.global_batch / lengths.mean)


def fullest(train: Train, lengths: Lengths, processes: int = 1) -> Work:
    """The step with the largest pass of a whole run: what memory must suffice for."""
    examples = step_examples(train, lengths) / processes
    if not is_packed(train):
        longest = _middle(lengths.mean, lengths.spread) * math.exp(RARE * lengths.spread)
        return _padded(train, lengths, examples, longest)
    own, heads = _own(train, lengths)
    capacity, total = max(own, train.pack_tokens - heads), examples * own
    margin = 2 * own * lengths.spread * math.sqrt(examples)
    passes = math.ceil((total + margin) / capacity)
    fills = passes > 1 and (passes - 1) * capacity >= total - margin
    each = capacity if fills else (total + margin) / passes
    return _pass(train, lengths, each / own, passes)


def _own(train: Train, lengths: Lengths) -> tuple[float, int]:
    """Tokens of an example beside its shared beginning, and of the beginnings in each pass."""
    is_shared = train.shared_prefix and bool(lengths.shared)
    return (lengths.mean - lengths.shared_mean, sum(lengths.shared)) if is_shared else (lengths.mean, 0)


def _packed(train: Train, lengths: Lengths, examples: float) -> Work:
    own, heads = _own(train, lengths)
    capacity = max(own, train.pack_tokens - heads)
    passes = max(1, math.ceil(examples * own / capacity))
    return _pass(train, lengths, examples / passes, passes)


def _pass(train: Train, lengths: Lengths, each: float, passes: int) -> Work:
    """A packed pass of `each` examples."""
    own, heads = _own(train, lengths)
    groups = len(lengths.shared) if heads else 1
    runs = groups * distinct(each / groups, own, lengths.spread)
    square, before = own * own * math.exp(lengths.spread**2), lengths.mean - own
    return Work(
        passes=passes,
        tokens=each * own + heads,
        supervised=each * lengths.supervised * lengths.mean,
        examples=each,
        runs=runs + (groups if heads else 0),
        keys=each * lengths.mean,
        pairs=each * (square / 2 + before * own),
        masks=runs * (square + before * own) if heads else 0.0,
    )


def _padded(train: Train, lengths: Lengths, examples: float, longest: float | None = None) -> Work:
    rows = min(train.micro_batch, math.ceil(examples))
    if longest is None:
        longest = _longest(rows, lengths) if train.batching == "padded" else lengths.mean * GROUPED
    length = min(float(train.max_length), longest)
    return Work(
        passes=max(1, math.ceil(examples / rows)),
        tokens=rows * length,
        supervised=rows * lengths.supervised * lengths.mean,
        examples=float(rows),
        runs=1.0,
        keys=rows * length,
        pairs=rows * length * length,  # with a mask, nothing is left out
        masks=rows * length * length,
    )


def distinct(count: float, mean: float, spread: float = SPREAD) -> float:
    """Expected number of different lengths among `count` examples."""
    return sum(1.0 - math.pow(1 - chance, count) for chance in _chances(round(mean), spread))


@functools.lru_cache(maxsize=64)
def _chances(mean: int, spread: float) -> tuple[float, ...]:
    """Of each length in tokens, 1, 2, …"""
    middle = math.log(_middle(mean, spread))

    def below(length: float) -> float:
        return 0.5 * (1 + math.erf((math.log(length) - middle) / (spread * math.sqrt(2))))

    return tuple(below(length + 0.5) - below(length - 0.5) for length in range(1, 6 * max(1, mean)))


def _middle(mean: float, spread: float) -> float:
    """The median of a log-normal distribution."""
    return max(1.0, mean) * math.exp(-(spread**2) / 2)


def _longest(rows: int, lengths: Lengths) -> float:
    """Expected length of the longest of `rows` examples."""
    total, below = 0.0, 0.0
    for chance in _chances(round(lengths.mean), lengths.spread):
        total += 1.0 - math.pow(below, rows)
        below = min(1.0, below + chance)
    return total
