"""Sample responses side by side, chosen by a rule that is written in the page."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from alpaca.report import wording
from alpaca.report.results import Level, Outcome, Results

_ITEMS = 6
_MOST_ARMS = 12
_MOST_CHARACTERS = 700


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One arm's response to an item; `score` is its value of the main metric, in words."""

    arm: str
    text: str
    score: str
    cut: bool
    """Decoding ended at the token limit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One item with the reference and every arm's response."""

    id: str
    family: str
    instruction: str
    input: str
    reference: str
    answers: list[Answer]


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """The section: the rule of choice, the items, the arms left out."""

    rule: str
    items: list[Sample]
    left_out: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Arm:
    label: str
    rows: dict[str, dict[str, object]]
    values: dict[str, float]


def choose(results: Results) -> Samples:
    """The items on which the arms differ most, one family after the other; the same items in each arm."""
    arms = [arm for arm in (_arm(level, results) for level in results.levels) if arm is not None]
    shown = arms[:_MOST_ARMS]
    ids = _ordered(shown)[:_ITEMS] if shown else []
    return Samples(
        rule=_rule(shown, results), items=[_sample(item, shown) for item in ids], left_out=len(arms) - len(shown)
    )


def _arm(level: Level, results: Results) -> _Arm | None:
    evaluation = results.main.rpartition(".")[0]
    answered = {
        outcome.seed: outcome
        for outcome in level.outcomes
        if outcome.folders.get(f"respond:{evaluation}") and outcome.folders[f"respond:{evaluation}"].path
    }
    if not answered:
        return None
    common = _common_seed(results)
    outcome = answered.get(common) or answered[min(answered)]
    rows = outcome.folders[f"respond:{evaluation}"].rows_by_id("responses.jsonl")
    label = level.name or "response"
    return _Arm(
        label=label if outcome.seed == common else f"{label} (seed {outcome.seed})",
        rows=rows,
        values=_values(outcome, results),
    )


def _values(outcome: Outcome, results: Results) -> dict[str, float]:
    scores = outcome.scores.get(results.main)
    return scores.values if scores else {}


def _common_seed(results: Results) -> str:
    """The seed that most levels have scored, the smallest among equals."""
    counts = Counter(outcome.seed for outcome in results.outcomes if results.main in outcome.scores)
    return min(counts, key=lambda seed: (-counts[seed], seed), default="")


def _ordered(arms: list[_Arm]) -> list[str]:
    """Shared items, largest spread of scores first; among equals the families take turns."""
    shared = [item for item in arms[0].rows if all(item in arm.rows for arm in arms)]
    turns: Counter[tuple[float, object]] = Counter()
    ranked = []
    for item in sorted(shared):
        values = [arm.values[item] for arm in arms if item in arm.values]
        spread = round(max(values) - min(values), 6) if values else 0.0
        family = arms[0].rows[item].get("family")
        turns[spread, family] += 1
        ranked.append((-spread, turns[spread, family], str(family), item))
    return [item for *_, item in sorted(ranked)]


def _rule(arms: list[_Arm], results: Results) -> str:
    if not arms:
        return "No responses yet."
    seed = _common_seed(results)
    of_seed = f", all of seed {seed}" if seed else ""
    if len(arms) == 1:
        return f"Taken by rule, not by hand: the first items of each family in turn, by id{of_seed}."
    return (
        f"Taken by rule, not by hand: the items whose {wording.metric(results.main)} differs most between the "
        f"levels, families in turn{of_seed}. They show how the levels differ, not how often."
    )


def _sample(item: str, arms: list[_Arm]) -> Sample:
    row = {key: "" if value is None else str(value) for key, value in arms[0].rows[item].items()}
    return Sample(
        id=item,
        family=row.get("family", ""),
        instruction=wording.shortened(row["instruction"], _MOST_CHARACTERS),
        input=wording.shortened(row.get("input", ""), _MOST_CHARACTERS),
        reference=wording.shortened(row.get("reference", ""), _MOST_CHARACTERS),
        answers=[_answer(item, arm) for arm in arms],
    )


def _answer(item: str, arm: _Arm) -> Answer:
    row = arm.rows[item]
    return Answer(
        arm=arm.label,
        text=wording.shortened(str(row.get("response") or ""), _MOST_CHARACTERS),
        score=f"{arm.values[item]:.3g}" if item in arm.values else "",
        cut=row.get("finish_reason") == "length",
    )
