"""What asking a teacher will cost, before anything is asked: guesses from the released data, marked as such."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpaca.artifacts import find_folder, is_finished, read_json
from alpaca.config import (
    AlpacaDataGen,
    AskedDataGen,
    EvolveDataGen,
    ModerateConfig,
    RateConfig,
    ReanswerDataGen,
    ReleasedDataGen,
    SampleConfig,
    SelfInstructDataGen,
    Spend,
    Teacher,
)
from alpaca.plan import Node, Plan
from alpaca.records.given import data_file, is_parquet
from alpaca.records.reading import starts_with
from alpaca.teachers.moderation import MODERATORS
from alpaca.teachers.prices import FREE_KINDS, Price, price_of

# Means of the released set (4.2 characters a token): see the benchmark notes in benchmarks/README.md.
PROMPT_TOKENS, TASK_TOKENS = 800, 99
KEEP_RATE = 0.6
"""Share of a teacher's tasks that pass the rules: assumed, upstream publishes none."""
QUESTION_TOKENS, ANSWER_TOKENS, RATING_TOKENS = 120, 200, 60
VERDICT_TOKENS = 1
"""Completion tokens that the moderate stage allows."""
LARGEST_COUNTED = 2**27
RECORD_KEYS = (b'"instruction"', b'"conversations"', b'"messages"')
"""Of which every record has one. In a text the quotes are escaped, so that the key is not found there."""
SHOTS_TOKENS = 1200
"""A prompt of self-instruct's later steps with its examples."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """Requests, and the prompt and completion tokens of one. requests and price: None where they are not known."""

    requests: int | None
    prompt: int
    completion: int
    price: Price | None
    spend: Spend
    tier: str | None = None

    @property
    def tokens(self) -> int | None:
        return None if self.requests is None else self.requests * (self.prompt + self.completion)

    @property
    def usd(self) -> float | None:
        """None where it is not known; what asks no money is free however often it is asked."""
        if self.price is None:
            return None
        if self.requests is None:
            return 0.0 if self.price.input == self.price.output == 0.0 else None
        row = {"prompt_tokens": self.requests * self.prompt, "completion_tokens": self.requests * self.completion}
        return self.price.usd({**row, "service_tier": self.tier})

    def told(self) -> str:
        """Requests, tokens and money in words."""
        if self.requests is None or self.tokens is None:
            return "the number of requests is not known"
        if self.usd is None or self.price is None:
            money = "price unknown"
        else:
            money = f"${self.usd:,.2f} by the prices of {self.price.date}" if self.usd else "no money"
        return f"about {self.requests:,} requests, {short(self.tokens)} tokens (a guess), {money}"

    def beyond(self) -> str | None:
        """What is said where the guess is above a bound of `spend`; the stage then stops there and keeps everything."""
        most_usd, most_tokens = self.spend.max_usd, self.spend.max_tokens
        if most_usd is not None and self.usd is not None and self.usd > most_usd:
            return f"a guess of ${self.usd:,.2f} is above spend.max_usd={most_usd:g}"
        if most_tokens is not None and self.tokens is not None and self.tokens > most_tokens:
            return f"a guess of {short(self.tokens)} tokens is above spend.max_tokens={most_tokens:,}"
        return None


def asked(node: Node, plan: Plan, output: Path) -> Asked | None:
    """The guess for a stage that asks a teacher, its number of requests None where it is not known; None for any other.

    output: the folder of all results, where a finished pool says how large it is.
    """
    config = node.config
    if isinstance(config, RateConfig):
        examples = pool_size(plan.nodes[node.parents["pool"]], output)
        return _priced((examples, QUESTION_TOKENS + ANSWER_TOKENS, RATING_TOKENS), config.teacher, config.spend)
    if isinstance(config, ModerateConfig):
        return _moderated(config, pool_size(plan.nodes[node.parents["pool"]], output))
    if isinstance(config, SampleConfig) and config.teacher is not None:
        return _priced(_amounts(config.data_gen), config.teacher, config.spend)
    return None


def _moderated(config: ModerateConfig, examples: int | None) -> Asked | None:
    """None for a moderator that is free: its answers count no tokens."""
    moderator = MODERATORS[config.kind].options(config)
    if moderator.kind in FREE_KINDS:
        return None
    return _priced((examples, QUESTION_TOKENS + ANSWER_TOKENS, VERDICT_TOKENS), moderator, Spend())


Amounts = tuple[int | None, int, int]
"""Requests, None where they are not known; prompt and completion tokens of one."""


def _priced(amounts: Amounts, teacher: Teacher, spend: Spend) -> Asked:
    requests, prompt, completion = amounts
    price = price_of(teacher, spend.prices)
    tier = getattr(teacher, "service_tier", None)
    return Asked(requests=requests, prompt=prompt, completion=completion, price=price, spend=spend, tier=tier)


def _amounts(source: Any) -> Amounts:
    if isinstance(source, AlpacaDataGen):
        tasks = source.tasks_per_request - source.seeds_per_prompt
        return math.ceil(source.num_examples / tasks / KEEP_RATE), PROMPT_TOKENS, tasks * TASK_TOKENS
    if isinstance(source, SelfInstructDataGen):
        return 3 * source.num_examples, SHOTS_TOKENS, TASK_TOKENS
    if isinstance(source, EvolveDataGen):
        return 2 * source.num_examples, 2 * QUESTION_TOKENS, ANSWER_TOKENS
    if isinstance(source, ReanswerDataGen):
        return source.num_examples or _counted(source.path), QUESTION_TOKENS, ANSWER_TOKENS
    return None, QUESTION_TOKENS, ANSWER_TOKENS


def _counted(path: str | None) -> int | None:
    """Records of a data set: rows of Parquet, lines of JSONL, keys in a JSON array; None where that says nothing."""
    place = data_file(path) if path else None
    if place is None or not place.is_file():
        return None
    found = place.stat()
    return _records(place, found.st_size, found.st_mtime_ns)


@functools.cache  # every stage of a plan over one file asks
def _records(place: Path, size: int, changed: int) -> int | None:
    """changed: when, so that another content is counted anew."""
    if is_parquet(place):
        return _rows(place)
    if size > LARGEST_COUNTED:
        return None
    text = place.read_bytes()
    if starts_with(place, "["):
        return max(map(text.count, RECORD_KEYS)) or None
    return sum(bool(line.strip()) for line in text.split(b"\n")) or None


def _rows(place: Path) -> int | None:
    """By the footer of the file; None where that cannot be read, which the stage will say."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_metadata
    except ImportError:
        return None
    try:
        return int(read_metadata(place).num_rows)
    except (ArrowException, OSError):
        return None


def pool_size(node: Node, output: Path) -> int | None:
    """Examples in a pool: what it holds where it is finished, else what its configuration says; None: not known."""
    folder = find_folder(output, node.stage, node.slug, node.key)
    if is_finished(folder):
        pool = read_json(folder / "pool.json")
        return int(pool.get("kept", pool.get("examples", 0)))
    source = node.config.data_gen
    if isinstance(source, ReanswerDataGen):
        return source.num_examples or _counted(source.path)
    if isinstance(source, ReleasedDataGen):
        if source.path is not None:
            return _counted(source.path)
        return source.examples if source.hub is None else None
    if not isinstance(source, AskedDataGen) and not hasattr(source, "num_examples"):
        return None
    found: int | None = source.num_examples
    return found


def short(count: float) -> str:
    """A count in three digits."""
    for size, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g} {name}"
    return f"{count:.0f}"
