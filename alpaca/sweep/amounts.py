"""How much training a point is: steps, epochs, tokens and compute, and which of them a factor drags along."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from alpaca.config import ReleasedDataGen, Run
from alpaca.errors import UserError
from alpaca.footprint.outlook import lengths_of
from alpaca.footprint.shape import shape_of
from alpaca.footprint.speed import flops
from alpaca.footprint.work import step_examples
from alpaca.runtime.budget import Budget
from alpaca.sweep.points import Points, reached, told_along
from alpaca.sweep.question import AMOUNTS, BUDGET, Control, Question

EQUAL = 0.01
"""Relative difference up to which amounts count as equal: a budget of epochs ends with a whole step."""
CURATED = ("data.size", "data_gen.num_examples")
"""Leaves that change how many examples there are, and not what they are like."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Amounts:
    """Of one training run, before it runs; None: not known yet. tokens and compute are by the usual length."""

    epochs: float | None
    steps: float | None
    tokens: float | None
    compute: float | None
    """Floating-point operations."""


def amounts(run: Run) -> Amounts:
    """What the budget comes to with this data set, batch and model."""
    budget, lengths, shape = Budget.parse(run.train.budget), lengths_of(run), shape_of(run.model)
    batch, examples = step_examples(run.train, lengths), _examples(run)
    if budget.unit == "epochs" and examples is None:
        return Amounts(epochs=budget.amount, steps=None, tokens=None, compute=None)
    steps = budget.steps(examples or 1, max(1, round(batch)), lengths.mean)
    seen = budget.draws(examples or 1) if budget.unit == "epochs" else steps * batch
    tokens = budget.amount if budget.unit == "tokens" else seen * lengths.mean
    return Amounts(
        epochs=None if examples is None else seen / examples,
        steps=float(steps),
        tokens=tokens,
        compute=None if shape is None else flops(shape, tokens, lengths.mean),
    )


def _examples(run: Run) -> int | None:
    """Examples that are trained on, where that is known before the data is made."""
    count = run.data.size
    source = run.data_gen
    if count is None and isinstance(source, ReleasedDataGen) and source.path is None and source.hub is None:
        drops = run.data.filters or run.data.dedup_threshold is not None or run.data.judge_least is not None
        count = None if drops else source.examples
    return None if count is None else max(1, count - run.train.holdout)


def dragged(question: Question, points: Points) -> Iterator[str]:
    """What each factor changes by necessity beside itself, in words."""
    control = question.effort
    equal = f" at equal {control.name}" if control and control.name in AMOUNTS else ""
    found = [amounts(run) for run in points.runs]
    for axis in points.layout.axes:
        for name in AMOUNTS:
            values = [getattr(each, name) for each in found]
            groups = [group for group in points.along(axis) if not _equal([values[place] for place in group])]
            if groups:
                shown = told_along(points, axis, groups[0], [_short(values[place], name) for place in groups[0]])
                yield f"{axis.name} changes the {name.replace('compute', 'FLOP')} of training{equal}: {shown}"
    others = _of_other_lengths(points)
    if others:
        yield (
            f"other examples may be longer or shorter ({', '.join(others)}): tokens and compute of a step are counted "
            "when the data is made"
        )


def _of_other_lengths(points: Points) -> list[str]:
    """Factors that choose other examples, which may be longer or shorter, and do not just take more of them."""
    choosing = [axis for axis in points.layout.axes if set(axis.keys) - set(CURATED)]
    return [axis.name for axis in choosing if reached(points, axis, "curate")]


def effort_problems(question: Question, points: Points) -> Iterator[UserError]:
    """A control of the length of training that the budget does not keep."""
    control = question.effort
    if control is None:
        return
    yield from (_of_budget if control.name == BUDGET else _of_amount)(control, points)


def _of_budget(control: Control, points: Points) -> Iterator[UserError]:
    """Not the same budget, or the same one that means something else at each size."""
    budgets = dict.fromkeys(run.train.budget for run in points.runs)
    found = [amounts(run) for run in points.runs]
    if unknown := _uncounted(points, found):
        yield _unchecked(f"controls: {control.name}", f"how many examples there are hangs on {unknown}")
    unequal = [name for name in ("steps", "epochs") if not _equal([getattr(each, name) for each in found])]
    if len(budgets) > 1 or unequal:
        told = f"but train.budget={', '.join(budgets)}" + (f" gives other {' and '.join(unequal)}" if unequal else "")
        yield UserError(
            what=f"declared equal, {told}",
            where=f"controls: {control.name}",
            remedy=f"say which is equal, controls: one of {', '.join(AMOUNTS)}",
        )


def _uncounted(points: Points, found: list[Amounts]) -> str:
    """Factors along which the data sets are others and their sizes are not known yet; "" where there are none."""
    names = [
        axis.name
        for axis in points.layout.axes
        if reached(points, axis, "curate")
        and any(None in (found[place].steps, found[place].epochs) for group in points.along(axis) for place in group)
    ]
    return " and ".join(names)


def _unchecked(where: str, why: str) -> UserError:
    return UserError(
        what=f"cannot be checked: {why}", where=where,
        remedy="name data.size, train.budget in steps or tokens, or take the control out",
    )  # fmt: skip


def _of_amount(control: Control, points: Points) -> Iterator[UserError]:
    units = {Budget.parse(run.train.budget).unit for run in points.runs}
    where = f"controls: {control.name}"
    if control.name != "compute" and units != {control.name}:
        shown = ", ".join(dict.fromkeys(run.train.budget for run in points.runs))
        yield UserError(
            what=f"declared equal, but train.budget={shown} holds {' and '.join(sorted(units))} equal",
            where=where,
            remedy=f"train.budget in {control.name}, or controls: {' or '.join(sorted(units))}",
        )
        return
    found = [amounts(run) for run in points.runs]
    values = [getattr(each, control.name) for each in found]
    others = _of_other_lengths(points)
    if control.name == "compute" and others and units != {"tokens"}:
        yield _unchecked(where, f"examples chosen by {' and '.join(others)} may be longer or shorter")
    elif control.name == "compute" and None in values:
        yield UserError(
            what="cannot be checked: the model's shape or the number of examples is not known",
            where=where, remedy="name data.size, and the model's layers, width, heads ... (see conf/model)",
        )  # fmt: skip
    elif not _equal(values):
        shown = ", ".join(dict.fromkeys(_short(value, control.name) for value in values))
        factors = ", ".join(points.layout.factors)
        yield UserError(
            what=f"declared equal, but the points differ: {shown}",
            where=where,
            remedy=f"a train.budget for each value of {factors} that makes them equal (zip), or another control",
        )


def _equal(values: list[float | None]) -> bool:
    known = [value for value in values if value is not None]
    return not known or max(known) - min(known) <= EQUAL * max(known)


def _short(value: float | None, name: str) -> str:
    if value is None:
        return "not known yet"
    if name == "compute":
        return f"{value:.2g}"
    return f"{value:,.0f}" if value >= 100 or math.isclose(value, round(value)) else f"{value:.3g}"
