"""What a finished stage tells its tracker: numbers for the summary and a table of samples, read from its payload."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from alpaca.artifacts import Context, read_json
from alpaca.records import read_jsonl
from alpaca.runtime.tracking import NullTracker, Tracker

TRACKED = ("pretrain", "train", "score", "report")
"""A training's losses, an evaluation's scores with the answers, a sweep's dashboard."""
MOST_SAMPLES = 200
SHOWN = ("id", "family", "instruction", "input", "reference", "response")


def finish(tracker: Tracker, settings: dict[str, Any], context: Context, seconds: float) -> None:
    """The last of a stage that is published. Whatever is missing here is not worth an error."""
    if isinstance(tracker, NullTracker):
        return
    summary: dict[str, Any] = {"seconds": seconds}
    with _told("numbers"):
        summary = {**_summary(settings, context), **summary}
    with _told("samples"):
        if settings["stage"] == "score":
            tracker.table(f"{settings['name']}/samples", *_samples(context))
    with _told("end"):
        tracker.finish(summary)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """One line about what is missing: the stage is published, and nothing here may make a failure of it."""
    try:
        yield
    except Exception as error:  # a file that is torn or not there, a value of another kind, the tracker itself
        text = " ".join(str(error).split())[:300]
        print(f"tracking: no {what} ({type(error).__name__}: {text})", flush=True)


def _summary(settings: dict[str, Any], context: Context) -> dict[str, Any]:
    """final_loss and its like of a training; EVALUATION/METRIC of a score, so that evaluations do not mix."""
    if settings["stage"] == "score":
        found = read_json(context.folder / "metrics.json")
        return {f"{settings['name']}/{name}": value for name, value in found.items()}
    if settings["stage"] == "report":
        return {}
    found = {**read_json(context.folder / "training.json"), **context.cost}
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


def _samples(context: Context) -> tuple[list[str], list[list[Any]]]:
    """The first items as asked, expected, answered and scored."""
    scores = list(islice(read_jsonl(context.folder / "scores.jsonl"), MOST_SAMPLES))
    answers = islice(read_jsonl(context.parents["responses"] / "responses.jsonl"), MOST_SAMPLES)
    metrics = [name for name in scores[0] if name not in ("id", "family")] if scores else []
    rows = [
        [answer.get(name, "") for name in SHOWN] + [score[name] for name in metrics]
        for answer, score in zip(answers, scores, strict=True)
    ]
    return [*SHOWN, *metrics], rows
