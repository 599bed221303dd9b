"""Metrics of one response against its reference, in [0, 1], higher is better. `METRICS` is the table of all of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

Metric = Callable[[str, str], float]


def exact_match(reference: str, response: str) -> float:
    """1 where response and reference are equal but for white space at the ends."""
    return float(reference.strip() == response.strip())


def rouge_l(reference: str, response: str) -> float:
    """ROUGE-L F1 (Lin 2004) by rouge-score without a stemmer; its tokenizer knows [a-z0-9] only."""
    return float(_scorer().score(reference, response)["rougeL"].fmeasure)


METRICS: dict[str, Metric] = {
    "exact_match": exact_match,
    "rouge_l": rouge_l,
}


@functools.cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # imports nltk: only where a score is computed

    return RougeScorer(["rougeL"], use_stemmer=False)
