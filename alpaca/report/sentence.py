"""The answer in one sentence: what the deciding metric does, never a number without its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from alpaca.report import wording
from alpaca.report.effects import Contrast, Contrasts, Findings, Interaction
from alpaca.report.naming import ARM, BASELINE
from alpaca.report.results import Level, Results
from alpaca.statistics import Interval, needed

_MOST_LISTED = 4
_MOST_INCONCLUSIVE = 3
_MOST_TIMES = 50
"""As many more seeds or items as anybody would run; beyond, a number is only false precision."""


def sentence(results: Results, findings: Findings) -> str:
    """The effects where levels are compared, else the score itself."""
    contrasts = findings.contrasts.get(results.main)
    if not results.measured:
        return _nothing_scored(results)
    if len(results.measured) == 1 or contrasts is None:
        return _scores(results)
    if findings.interaction and findings.interaction.rows:
        body = _of_interaction(findings.interaction, results)
    else:
        body = _of_contrasts(contrasts, results)
    return f"{body[0].upper()}{body[1:]}{_apart(contrasts)}; {_counts(results, contrasts)}."


def difference_told(contrast: Contrast, interval: Interval, *, unit: str = "", metric: str = "") -> str:
    """ "adds 17.2 points of exact match (15.1 to 19.3)". interval: in the told unit, "points" or "".

    metric: "" where a number before has named it.
    """
    points = f" {unit}" if unit else ""
    if not contrast.direction:
        return f"changes {metric or 'it'} by {wording.signed(interval)}{points} ({wording.bounds(interval)})"
    of_metric = f" of {metric}" if metric else ""
    if contrast.direction == "higher":
        verb, shown = "adds", interval
    else:
        verb, shown = "costs" if contrast.better == "higher" else "takes off", _turned(interval)
    return f"{verb} {wording.estimate(shown)}{points}{of_metric} ({wording.bounds(shown)}){_worth(contrast)}"


def _worth(contrast: Contrast) -> str:
    """What a change is worth where less is better; elsewhere "adds" and "costs" say it."""
    if contrast.better != "lower":
        return ""
    return ", which is better" if contrast.direction == "lower" else ", which is worse"


def more_told(contrasts: Contrasts, row: Contrast) -> str:
    """ "9 more seeds or 1,400 more items would show a difference as large as the one seen"; "" where nobody knows."""
    design, effect = contrasts.design, row.effect.interval.estimate
    if design is None or effect == 0 or row.direction:
        return ""
    found = needed(design, effect)
    more = ((found.seeds, design.seeds, "seed"), (found.items, design.items, "item"))
    parts = [
        wording.plural(count - there, "more " + noun)
        for count, there, noun in more
        if count is not None and there < count <= _MOST_TIMES * there
    ]
    if not parts and any(count is not None and count > there for count, there, _ in more):
        return f"not even {_MOST_TIMES} times the seeds or items would show a difference as small as the one seen"
    return f"{' or '.join(parts)} would show a difference as large as the one seen" if parts else ""


def _turned(interval: Interval) -> Interval:
    """The size of a loss."""
    return replace(interval, estimate=-interval.estimate, low=-interval.high, high=-interval.low)


def _nothing_scored(results: Results) -> str:
    asked = any(role.startswith("score:") for outcome in results.outcomes for role in outcome.folders)
    if asked:
        return "No run has finished scoring, so there is no answer yet."
    return f"{wording.plural(len(results.outcomes), 'run')} without an evaluation, so nothing is compared here."


def _scores(results: Results) -> str:
    """Of one level, or of several that cannot be compared."""
    levels = results.measured
    named = [
        f"{wording.full(level.intervals[results.main])}"
        + (f" at {wording.factors_in_words(level.factors)}" if level.factors else "")
        for level in levels
    ]
    head = wording.metric_in_full(results.main)
    shown = wording.listing(named[:_MOST_LISTED])
    more = f" and {len(named) - _MOST_LISTED} further levels" if len(named) > _MOST_LISTED else ""
    return f"{head[0].upper()}{head[1:]} is {shown}{more}; {_counts(results, None)}."


def _of_contrasts(contrasts: Contrasts, results: Results) -> str:
    if not contrasts.rows:
        return f"nothing can be compared with {_named(contrasts.reference, contrasts)}"
    found = [row for row in contrasts.rows if row.direction]
    if set(contrasts.reference.factors) == {ARM}:
        return _of_arms(contrasts, found)
    if all(row.is_identical for row in contrasts.rows):
        return f"the levels are identical on every item by {wording.metric(contrasts.metric)}"
    if not found:
        return _inconclusive(contrasts)
    along = _along(contrasts, results)
    return along or _listing(contrasts, found)


def _of_arms(contrasts: Contrasts, found: list[Contrast]) -> str:
    """The instrument's own control: what it finds is a false alarm."""
    shown = found or contrasts.rows
    told = wording.listing([f"{row.name} {_told(contrasts, row, first=row is shown[0])}" for row in shown])
    base = _named(contrasts.reference, contrasts)
    if found:
        return f"a difference where there is none (one such control in 20 gives one): against {base}, {told}"
    return f"no difference found: against {base}, {told}; {_detectable(contrasts, contrasts.rows)}"


def _inconclusive(contrasts: Contrasts) -> str:
    largest = max(contrasts.rows, key=lambda row: abs(row.effect.interval.estimate))
    base = _named(contrasts.reference, contrasts)
    more = more_told(contrasts, largest)
    told = f"{largest.name} {_told(contrasts, largest)}"
    found = (
        f"against {base}, {told}"
        if len(contrasts.rows) == 1
        else f"none of {len(contrasts.rows)} levels is found to differ from {base}; the largest change seen: {told}"
    )
    smallest = _detectable(contrasts, contrasts.rows)
    return f"inconclusive: {found}; {smallest}{'; ' if more else ''}{more}"


def _along(contrasts: Contrasts, results: Results) -> str:
    """Along a factor of numbers, from its first value to its last; "" where that is not found to differ."""
    key, start = results.axis, contrasts.reference
    last = results.measured[-1]
    end = contrasts.of(last)
    if not key or len(start.factors) != 1 or start is not results.measured[0] or end is None or not end.direction:
        return ""
    middle = [row for row in contrasts.rows if row is not end]
    unlike = [row for row in middle if row.direction != end.direction]
    alike = [row for row in middle if row not in unlike] if len(middle) <= _MOST_LISTED else []
    between = ", ".join(f"{_step(start, row, key, short=True)} {_told(contrasts, row, first=False)}" for row in alike)
    head = f"{_step(start, end, key)} {_told(contrasts, end)}"
    return f"{head}{'; ' if between else ''}{between}{_others(unlike, contrasts)}"


def _step(start: Level, row: Contrast, key: str, *, short: bool = False) -> str:
    """ "16x the data (250 to 4,000)"; short: "16x"."""
    first, last = start.factors[key], row.level.factors[key] if row.level else None
    name = "the data" if key == "data.size" else key
    span = f"{wording.value(first)} to {wording.value(last)}"
    if not first or not last or first < 0 or last < 0:
        return f"from {span}" if short else f"from {span} {name}"
    ratio = f"{last / first:.3g}x"
    return ratio if short else f"{ratio} {name} ({span})"


def _listing(contrasts: Contrasts, found: list[Contrast]) -> str:
    """The levels that differ, largest effect first, and how many do not."""
    ordered = sorted(found, key=lambda row: -abs(row.effect.interval.estimate))
    shown = [f"{row.name} {_told(contrasts, row, first=row is ordered[0])}" for row in ordered[:_MOST_LISTED]]
    rest = [row for row in contrasts.rows if row not in ordered[:_MOST_LISTED]]
    return f"against {_named(contrasts.reference, contrasts)}, {wording.listing(shown)}{_others(rest, contrasts)}"


def _others(rows: list[Contrast], contrasts: Contrasts) -> str:
    """The levels that the sentence has not given a number."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        groups.setdefault(row.verdict, []).append(row.name)
    told = "".join(
        f"; {_few(names)} {'is' if len(names) == 1 else 'are'} {verdict}" for verdict, names in groups.items()
    )
    doubt = [row for row in rows if not row.direction and not row.is_identical]
    return f"{told}{f' ({_detectable(contrasts, doubt)})' if doubt else ''}"


def _few(names: list[str]) -> str:
    return wording.listing(names) if len(names) <= _MOST_INCONCLUSIVE else f"{len(names)} other levels"


def _of_interaction(found: Interaction, results: Results) -> str:
    """The difference of differences that is largest, and how many of them there are."""
    real = [row for row in found.rows if row.direction]
    most = max(real or found.rows, key=lambda row: abs(row.effect.interval.estimate))
    points = " points" * found.in_points
    told = found.scaled(most.effect.interval)
    size = f"{wording.signed(told)}{points} of {wording.metric(results.main)} ({wording.bounds(told)})"
    one, other = found.factors
    of_many = f", the largest of {len(found.rows)}" if len(found.rows) > 1 else ""
    what = f"with {most.name}, the difference of differences is {size}{of_many}"
    if real:
        return f"the effect of {one} depends on {other}: {what}"
    least = max(row.effect.detectable for row in found.rows) * (100 if found.in_points else 1)
    smallest = f"the smallest detectable one was {wording.size(least)}{points}"
    return f"inconclusive whether the effect of {one} depends on {other}: {what}; {smallest}"


def _told(contrasts: Contrasts, row: Contrast, *, first: bool = True) -> str:
    """first: whether the metric is named; the effects that follow are by the same."""
    if row.is_identical:
        return "is identical on every item"
    metric = wording.metric(contrasts.metric) if first else ""
    unit = "points" if contrasts.in_points else ""
    return difference_told(row, contrasts.scaled(row.effect.interval), unit=unit, metric=metric)


def _detectable(contrasts: Contrasts, rows: Sequence[Contrast]) -> str:
    """Of these very comparisons, each of which has its own."""
    scale, unit = (100, " points") if contrasts.in_points else (1, "")
    ends = [wording.size(scale * each(row.effect.detectable for row in rows)) for each in (min, max)]
    if ends[0] == ends[1]:
        return f"the smallest detectable effect was {ends[1]}{unit}"
    return f"the smallest detectable effects were {ends[0]} to {ends[1]}{unit}"


def _named(level: Level, contrasts: Contrasts) -> str:
    """The baseline: by its values where they are one or two, as "the baseline" where the question has many factors."""
    if set(level.factors) == {ARM}:
        return f"arm {wording.value(level.factors[ARM])}"
    return level.name.replace(", ", " and ") if level.name != BASELINE else f"the {BASELINE}"


def _apart(contrasts: Contrasts) -> str:
    lost = len(contrasts.apart)
    return (
        f"; {wording.plural(lost, 'level')} without items in common with the baseline, so not compared" if lost else ""
    )


def _counts(results: Results, contrasts: Contrasts | None) -> str:
    """ "3 seeds per level, 60 items", and that these very runs are all that is spoken of, where that is so."""
    levels = results.measured
    seeds = wording.spread((len(level.scored(results.main)) for level in levels), "seed")
    items = wording.spread((level.items(results.main) for level in levels), "item")
    if contrasts is not None and contrasts.rows:
        items = wording.plural(contrasts.items, "item")
    these = contrasts is not None and contrasts.rows and not contrasts.over_seeds
    few = "; the interval speaks of these very runs, another seed may change it" if these else ""
    return f"{seeds}{' per level' if len(levels) > 1 else ''}, {items}{few}"
