"""What came out: examples, losses, scores and answers of two chains."""

from __future__ import annotations

import difflib
import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpaca.records import is_number, read_jsonl
from alpaca.report.diff.sides import Chain, Stage, roles
from alpaca.statistics import Interval, PairedTest, can_be_conclusive, change_interval, paired_test

SHOWN = 3
_MOST_CHARACTERS = 2000
"""Of an answer that are looked at when the most different ones are chosen."""
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """Two training sets. `changed`: pairs of equal id or instruction; each list holds only the first few."""

    sizes: tuple[int, int]
    same: int
    counts: dict[str, int]
    """added, removed, changed."""
    added: list[Row]
    removed: list[Row]
    changed: list[tuple[Row, Row]]
    reordered: bool
    """Whether the examples are the same, in another order."""

    @property
    def is_equal(self) -> bool:
        return not any(self.counts.values()) and not self.reordered


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """Two loss curves. `first`: the first step at which they differ; `largest`: the largest difference, and its step.

    Only steps that both have are compared.
    """

    role: str
    steps: tuple[list[int], list[int]]
    losses: tuple[list[float], list[float]]
    first: int | None
    largest: tuple[float, int] | None

    @property
    def is_equal(self) -> bool:
        return self.first is None and self.steps[0] == self.steps[1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A metric of both, over the items that both answered; None without any.

    `change`: the paired difference; `test`: McNemar's where answers are right or wrong, else sign flips, None for a
    single item; `moved`: items that are higher and lower in the second.
    """

    name: str
    means: tuple[float, float]
    items: tuple[int, int]
    change: Interval | None
    test: PairedTest | None
    moved: tuple[int, int]

    @property
    def verdict(self) -> str:
        """What the interval says; it covers these items, not what another seed would give."""
        if self.change is None:
            return "no item in common"
        if self.change.method == "constant" and self.change.estimate == 0:
            return "identical on every item"
        if not can_be_conclusive(self.change.n, self.change.level) or not self.change.excludes(0.0):
            return "inconclusive"
        return "higher on these items" if self.change.estimate > 0 else "lower on these items"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """The answers of one evaluation: how many of the shared items differ, and the pairs that differ most."""

    role: str
    shared: int
    differing: int
    pairs: list[tuple[Row, Row]]
    scores: list[str]
    """Of each pair, in words; empty without scores."""


def data(one: Chain, other: Chain) -> Data | None:
    """The examples that were trained on; None where either has none."""
    sides = one.stages.get("curate"), other.stages.get("curate")
    if not all(side and side.finished for side in sides):
        return None
    return _data(*(side.folder.path / "examples.jsonl" for side in sides if side and side.folder.path))


@functools.lru_cache(maxsize=64)
def _data(before: Path, after: Path) -> Data | None:
    """The points of a sweep share their data sets."""
    rows = [list(read_jsonl(path)) if path.is_file() else [] for path in (before, after)]
    return compared_examples(*rows) if all(rows) else None


def compared_examples(before: Sequence[Row], after: Sequence[Row]) -> Data:
    """By content first: an example that moved is the same one; then by id, then by instruction and input."""
    left, right = _without_common(before, after), _without_common(after, before)
    changed = _paired(left, right)
    counts = {"added": len(right), "removed": len(left), "changed": len(changed)}
    return Data(
        sizes=(len(before), len(after)),
        same=len(before) - len(left) - len(changed),
        counts=counts,
        added=right[:SHOWN],
        removed=left[:SHOWN],
        changed=changed[:SHOWN],
        reordered=not any(counts.values()) and [_content(row) for row in before] != [_content(row) for row in after],
    )


def _content(row: Row) -> tuple[str, ...]:
    return tuple(str(row.get(name) or "") for name in ("instruction", "input", "output"))


def _without_common(rows: Sequence[Row], others: Sequence[Row]) -> list[Row]:
    """Each of the others makes up for one equal row."""
    there = Counter(_content(row) for row in others)
    left = []
    for row in rows:
        content = _content(row)
        if there[content]:
            there[content] -= 1
        else:
            left.append(row)
    return left


def _paired(left: list[Row], right: list[Row]) -> list[tuple[Row, Row]]:
    """Takes the pairs of equal id, then of equal instruction and input, out of both lists."""
    pairs: list[tuple[Row, Row]] = []
    for key in (lambda row: row.get("id") or id(row), lambda row: _content(row)[:2]):
        there = {key(row): row for row in right}
        found = [(row, there.pop(key(row))) for row in left if key(row) in there]
        taken = {id(row) for pair in found for row in pair}
        left[:], right[:] = ([row for row in rows if id(row) not in taken] for rows in (left, right))
        pairs += found
    return pairs


def losses(one: Chain, other: Chain) -> list[Loss]:
    """The curves of every stage that both trained."""
    found = []
    for role in ("pretrain", "train"):
        before, after = (
            [row for row in _rows(chain, role, "loss.jsonl") if row.get("loss") is not None] for chain in (one, other)
        )
        if before and after:
            found.append(compared_losses(role, before, after))
    return found


def compared_losses(role: str, before: Sequence[Row], after: Sequence[Row]) -> Loss:
    """Two lists of rows with step and loss."""
    there = {int(row["step"]): float(row["loss"]) for row in after}
    gaps = [
        (abs(float(row["loss"]) - there[int(row["step"])]), int(row["step"]))
        for row in before
        if int(row["step"]) in there
    ]
    return Loss(
        role=role,
        steps=([int(row["step"]) for row in before], list(there)),
        losses=([float(row["loss"]) for row in before], list(there.values())),
        first=next((step for gap, step in gaps if gap), None),
        largest=max(gaps, key=lambda item: (item[0], -item[1])) if gaps else None,
    )


def metrics(one: Chain, other: Chain) -> list[Metric]:
    """Every metric that both measured, "EVALUATION.METRIC"."""
    found = []
    for role in (role for role in roles(one, other) if role.startswith("score:")):
        before, after = ({row["id"]: row for row in _rows(chain, role, "scores.jsonl")} for chain in (one, other))
        names = dict.fromkeys(name for row in before.values() for name in row if name not in ("id", "family"))
        found += [made for name in names if (made := _metric(role.partition(":")[2], name, before, after))]
    return found


def _metric(evaluation: str, name: str, before: dict[str, Row], after: dict[str, Row]) -> Metric | None:
    values = [
        {item: float(row[name]) for item, row in rows.items() if is_number(row.get(name))} for rows in (before, after)
    ]
    if not all(values):
        return None
    shared = [item for item in values[0] if item in values[1]]
    sides = [[side[item] for item in shared] for side in values]
    changes = [after - before for before, after in zip(*sides, strict=True)]
    return Metric(
        name=f"{evaluation}.{name}",
        means=(_mean(values[0]), _mean(values[1])),
        items=(len(values[0]), len(values[1])),
        change=change_interval(changes) if changes else None,
        test=paired_test([sides[0]], [sides[1]]) if len(shared) > 1 else None,
        moved=(sum(change > 0 for change in changes), sum(change < 0 for change in changes)),
    )


def _mean(values: dict[str, float]) -> float:
    return sum(values.values()) / len(values)


def answers(one: Chain, other: Chain) -> list[Answers]:
    """The answers of every evaluation that both gave."""
    found = []
    for role in (role for role in roles(one, other) if role.startswith("respond:")):
        before, after = ({row["id"]: row for row in _rows(chain, role, "responses.jsonl")} for chain in (one, other))
        shared = [item for item in before if item in after]
        if shared:
            scores = _scores(one, other, role)
            differing = [item for item in shared if before[item]["response"] != after[item]["response"]]
            most = sorted(differing, key=lambda item: _gap(before[item], after[item], scores.get(item)))[:SHOWN]
            found.append(
                Answers(
                    role=role,
                    shared=len(shared),
                    differing=len(differing),
                    pairs=[(before[item], after[item]) for item in most],
                    scores=[_told(scores.get(item)) for item in most],
                )
            )
    return found


Pair = tuple[str, float, float]


def _scores(one: Chain, other: Chain, role: str) -> dict[str, Pair]:
    """Item -> the first metric's name and its value on both sides."""
    rows = [
        {row["id"]: row for row in _rows(chain, role.replace("respond:", "score:"), "scores.jsonl")}
        for chain in (one, other)
    ]
    found: dict[str, Pair] = {}
    for item in rows[0].keys() & rows[1].keys():
        for name, value in rows[0][item].items():
            if name not in ("id", "family") and is_number(value) and is_number(rows[1][item].get(name)):
                found[item] = (name, float(value), float(rows[1][item][name]))
                break
    return found


def _gap(before: Row, after: Row, scores: Pair | None) -> tuple[float, float, str]:
    """Sorts the largest difference of scores first, among equals the least similar text."""
    texts = [str(row["response"])[:_MOST_CHARACTERS] for row in (before, after)]
    apart = abs(scores[1] - scores[2]) if scores else 0.0
    return (-apart, difflib.SequenceMatcher(None, texts[0], texts[1]).quick_ratio(), str(before["id"]))


def _told(scores: Pair | None) -> str:
    return f"{scores[0].replace('_', ' ')} {scores[1]:.3g} against {scores[2]:.3g}" if scores else ""


def _rows(chain: Chain, role: str, file: str) -> list[Row]:
    """Of a finished stage: a file that still grows may end in half a line."""
    stage: Stage | None = chain.stages.get(role)
    return stage.folder.rows(file) if stage and stage.finished else []
