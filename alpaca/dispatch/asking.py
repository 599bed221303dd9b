"""What asking a teacher will cost, before anything is asked: guesses from the released data, marked as such."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpaca.artifacts import find_folder, is_finished, read_json
from alpaca.config import (
    AlpacaDataGen,
    AskedDataGen,
    EvolveDataGen,
    RateConfig,
    ReanswerDataGen,
    ReleasedDataGen,
    SampleConfig,
    SelfInstructDataGen,
    Spend,
    Teacher,
)
from alpaca.plan import Node, Plan
from alpaca.teachers.prices import Price, price_of

# Means of the released set (4.2 characters a token): see the benchmark notes in benchmarks/README.md.
PROMPT_TOKENS, TASK_TOKENS = 800, 99
KEEP_RATE = 0.6
"""Share of a teacher's tasks that pass the rules: assumed, upstream publishes none."""
QUESTION_TOKENS, ANSWER_TOKENS, RATING_TOKENS = 120, 200, 60
LARGEST_COUNTED = 2**27
SHOTS_TOKENS = 1200
"""A prompt of self-instruct's later steps with its examples."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """Requests, and the prompt and completion tokens of one. price: None where it is not known."""

    requests: int
    prompt: int
    completion: int
    price: Price | None
    spend: Spend
    tier: str | None = None

    @property
    def tokens(self) -> int:
        return self.requests * (self.prompt + self.completion)

    @property
    def usd(self) -> float | None:
        if self.price is None:
            return None
        row = {"prompt_tokens": self.requests * self.prompt, "completion_tokens": self.requests * self.completion}
        return self.price.usd({**row, "service_tier": self.tier})

    def told(self) -> str:
        """Requests, tokens and money in words."""
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
        if most_tokens is not None and self.tokens > most_tokens:
            return f"a guess of {short(self.tokens)} tokens is above spend.max_tokens={most_tokens:,}"
        return None


def asked(node: Node, plan: Plan, output: Path) -> Asked | None:
    """The guess for a stage that asks a teacher; None for any other, and where the number of requests is not known.

    output: the folder of all results, where a finished pool says how large it is.
    """
    if isinstance(node.config, RateConfig):
        examples = pool_size(plan.nodes[node.parents["pool"]], output)
        amounts = None if examples is None else (examples, QUESTION_TOKENS + ANSWER_TOKENS, RATING_TOKENS)
        return _priced(amounts, node.config.teacher, node.config.spend)
    if isinstance(node.config, SampleConfig) and node.config.teacher is not None:
        return _priced(_amounts(node.config.data_gen), node.config.teacher, node.config.spend)
    return None


def _priced(amounts: tuple[int, int, int] | None, teacher: Teacher, spend: Spend) -> Asked | None:
    if amounts is None:
        return None
    requests, prompt, completion = amounts
    price = price_of(teacher, spend.prices)
    tier = getattr(teacher, "service_tier", None)
    return Asked(requests=requests, prompt=prompt, completion=completion, price=price, spend=spend, tier=tier)


def _amounts(source: Any) -> tuple[int, int, int] | None:
    """Requests, prompt and completion tokens of one."""
    if isinstance(source, AlpacaDataGen):
        tasks = source.tasks_per_request - source.seeds_per_prompt
        return math.ceil(source.num_examples / tasks / KEEP_RATE), PROMPT_TOKENS, tasks * TASK_TOKENS
    if isinstance(source, SelfInstructDataGen):
        return 3 * source.num_examples, SHOTS_TOKENS, TASK_TOKENS
    if isinstance(source, EvolveDataGen):
        return 2 * source.num_examples, 2 * QUESTION_TOKENS, ANSWER_TOKENS
    if isinstance(source, ReanswerDataGen):
        count = source.num_examples or _counted(source.path)
        return None if count is None else (count, QUESTION_TOKENS, ANSWER_TOKENS)
    return None


def _counted(path: str | None) -> int | None:
    """Records of a JSON or JSONL file by the number of their keys; None where that says nothing."""
    place = Path(path).expanduser() if path else None
    if place is None or not place.is_file() or place.stat().st_size > LARGEST_COUNTED:
        return None
    return place.read_bytes().count(b'"instruction"') or None


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
        return source.examples if source.path is None and source.hub is None else None
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
