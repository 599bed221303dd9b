"""Score: responses against references, per item and on average. Cheap, so a new metric costs no new responses.

python -m alpaca.jobs outputs/score/NAME-KEY
"""

from __future__ import annotations

from statistics import fmean
from typing import Any

from alpaca.artifacts import Context, write_json
from alpaca.config import ScoreConfig
from alpaca.errors import UserError
from alpaca.metrics import METRICS
from alpaca.records import read_jsonl, write_jsonl


def run(config: ScoreConfig, context: Context) -> None:
    """Writes scores.jsonl (one row per item) and metrics.json (means)."""
    rows = list(read_jsonl(context.parents["responses"] / "responses.jsonl"))
    _refuse_free_references(rows, config, context)
    scores = []
    for number, row in enumerate(rows, 1):
        values = {name: METRICS[name](row["reference"], row["response"]) for name in config.metrics}
        scores.append({"id": row["id"], "family": row["family"], **values})
        context.progress(number, len(rows))
    means = {name: fmean(score[name] for score in scores) for name in config.metrics}
    context.check()
    write_jsonl(context.folder / "scores.jsonl", scores)
    write_json(context.folder / "metrics.json", {"items": len(scores), **means})
    context.log(f"{len(scores):,} items: " + ", ".join(f"{name} {value:.3f}" for name, value in means.items()))


def _refuse_free_references(rows: list[dict[str, Any]], config: ScoreConfig, context: Context) -> None:
    """Exact match only where the reference is the one right answer."""
    free = sum(1 for row in rows if not row["exact"])
    if "exact_match" in config.metrics and free:
        raise UserError(
            what=f"exact_match asked for {free} items whose reference is only one of many right answers",
            where=str(context.parents["responses"]),
            remedy="use rouge_l for this evaluation",
        )
