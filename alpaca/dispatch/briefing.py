"""What a plan says of a sweep before its stages: question, design, what is held equal and what is dragged along."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from alpaca.artifacts import read_json
from alpaca.dispatch import expectation, prepare
from alpaca.dispatch.prepare import Session
from alpaca.dispatch.slurm import enqueue, records
from alpaca.dispatch.slurm import states as slurm
from alpaca.errors import ArtifactError
from alpaca.sweep import Sweep
from alpaca.sweep.points import seeds_in_words, values_in_words

if TYPE_CHECKING:
    from alpaca.statistics import Design

QUEUED = "queued"
MOST_POINTS = 24
Line = tuple[str, str]
"""What it is, and its text."""


def table(sweep: Sweep, session: Session) -> Table:
    """All sections, one line each; empty ones are left out."""
    found = Table(box=None, pad_edge=False, show_header=False)
    found.add_column(style="bold", no_wrap=True)
    found.add_column(overflow="fold")
    for section in SECTIONS:
        for name, text in section(sweep, session):
            found.add_row(name, escape(text))
    return found


def _asked(sweep: Sweep, session: Session) -> Iterator[Line]:
    if sweep.question:
        yield "question", sweep.question
    if sweep.hypothesis:
        yield "hypothesis", sweep.hypothesis


def _design(sweep: Sweep, session: Session) -> Iterator[Line]:
    """The points without their seeds, where there is a baseline by what they change of it, then the seeds."""
    if sweep.factors:
        yield "factors", ", ".join(sweep.factors)
    if sweep.baseline:
        yield "baseline", values_in_words(sweep.baseline)
    changes = ({key: item for key, item in each.items() if not _is_base(sweep, key, item)} for each in sweep.points)
    told = list(dict.fromkeys(values_in_words(each) for each in changes))
    told = [text or "one configuration" for text in told if text or not sweep.baseline]
    for place, text in enumerate(told[:MOST_POINTS]):
        yield ("points" if place == 0 else ""), text
    if len(told) > MOST_POINTS:
        yield "", f"and {len(told) - MOST_POINTS} more"
    yield from _seeds(sweep)


def _is_base(sweep: Sweep, key: str, value: object) -> bool:
    return key in sweep.baseline and sweep.baseline[key] == value


def _seeds(sweep: Sweep) -> Iterator[Line]:
    arms: dict[str, list[str]] = {}
    for point, run in zip(sweep.points, sweep.runs, strict=True):
        arms.setdefault(str(point.get("arm", "")), []).append(seeds_in_words(run.seeds))
    for place, (arm, seeds) in enumerate(arms.items()):
        text = ", ".join(dict.fromkeys(seeds))
        yield ("seeds" if place == 0 else ""), f"{arm}: {text}" if arm else text


def _held_equal(sweep: Sweep, session: Session) -> Iterator[Line]:
    texts = sweep.controls or ["nothing is declared"]
    for place, text in enumerate(texts):
        yield ("held equal" if place == 0 else ""), text


def _dragged(sweep: Sweep, session: Session) -> Iterator[Line]:
    for place, text in enumerate(sweep.dragged):
        yield ("dragged along" if place == 0 else ""), text


def _measured(sweep: Sweep, session: Session) -> Iterator[Line]:
    chosen = sweep.directions or {f"{name}.{item.metrics[0]}": "higher" for name, item in sweep.runs[0].eval.items()}
    if session.run.until == "score":
        yield "measured by", ", ".join(f"{name} ({better} is better)" for name, better in chosen.items())
    parts = [f"{sweep.analysis.curve} as a curve, fit: {sweep.analysis.fit}"] if sweep.analysis.curve else []
    parts += ["each value against the baseline"] if sweep.analysis.contrasts else []
    parts += [f"interaction of {' and '.join(sweep.analysis.interaction)}"] if sweep.analysis.interaction else []
    if parts:
        yield "analysis", "; ".join(parts)


def _limits(sweep: Sweep, session: Session) -> Iterator[Line]:
    parts = [] if sweep.spend.max_usd is None else [f"${sweep.spend.max_usd:,.2f}"]
    parts += [] if sweep.spend.max_tokens is None else [f"{sweep.spend.max_tokens:,} tokens of teachers"]
    if parts:
        yield "limit", f"{' and '.join(parts)} for all stages together"


SEED_SD, ITEM_SD, SAME_ARM, ACROSS_ARMS = 0.02, 0.5, 0.35, 0.25
"""Spreads of exact match in the embedded world, as `estimated_design` read them off a sweep over teachers with three
seeds and 400 items; ITEM_SD is the largest that right or wrong can have. A guess for any other world."""
GRADED = {"rouge_l": 0.4}
"""Metric that gives part of a point -> its spreads as a share of those (ROUGE-L of single items: 0.2). A guess."""


def _precision(sweep: Sweep, session: Session) -> Iterator[Line]:
    """The smallest difference that the design would find, of one arm how wide the interval of its mean will be."""
    items, seeds, arms = _items(sweep), _seeds_of_each(sweep), len({repr(point) for point in sweep.points})
    if items is None or session.run.until != "score":
        return
    design = _guessed(items, seeds, max(1, arms - 1), GRADED.get(_deciding(sweep).rpartition(".")[2], 1.0))
    yield _interval(sweep, design) if arms == 1 else _detectable(sweep, design)
    yield from _as_measured(sweep, session)


def _as_measured(sweep: Sweep, session: Session) -> Iterator[Line]:
    """What the question's page found out about its own spreads, which a guess may be far from."""
    page = session.output / "sweeps" / sweep.name / "results.json"
    if not page.is_file():
        return
    with contextlib.suppress(ArtifactError, OSError, KeyError, TypeError, ValueError):  # of another version: no line
        found = read_json(page)["effects"]["metrics"][_deciding(sweep)]
        sizes = [100 * float(row["detectable"]) for row in found["levels"]]
        runs = min(min(row["runs"].values()) for row in found["levels"])
        low, high = f"{min(sizes):.1f}", f"{max(sizes):.1f}"
        told = high if low == high else f"{low} to {high}"
        yield "", f"{told} points as the present page measured it: {found['items']} items, {runs} runs of a level"


def _guessed(items: int, seeds: int, comparisons: int, share: float) -> Design:
    """share: of the spreads, see `GRADED`."""
    from alpaca.statistics import Design  # a plan of one run does without numpy

    return Design(
        items=items,
        seeds=seeds,
        comparisons=comparisons,
        seed_sd=share * SEED_SD,
        item_sd=share * ITEM_SD,
        same_arm=SAME_ARM,
        across_arms=ACROSS_ARMS,
    )


def _detectable(sweep: Sweep, design: Design) -> Line:
    from alpaca.statistics import detectable_effect

    of = "these very runs, since one seed says nothing of others" if design.seeds == 1 else f"{design.seeds} seeds"
    comparisons = f"{design.comparisons} comparison{'s' if design.comparisons > 1 else ''}"
    return "detectable", (
        f"{100 * detectable_effect(design):.1f} points with 80 % power: {design.items} items, {of}, {comparisons} "
        f"(a guess by spreads of the embedded world; {_with_more(sweep, design, detectable_effect)})"
    )


def _interval(sweep: Sweep, design: Design) -> Line:
    few = "" if design.seeds >= _seeds_for_t() else ", over items alone"
    seeds = f"{design.seeds} seed{'s' if design.seeds > 1 else ''}{few}"
    return "expected interval", (
        f"+/- {100 * half_width(design):.1f} points (95 %) around the mean: {design.items} items, {seeds} "
        f"(a guess by spreads of the embedded world; {_with_more(sweep, design, half_width)})"
    )


def _with_more(sweep: Sweep, design: Design, size: Callable[[Design], float]) -> str:
    """What more seeds, and more items where the set has them, would make of it, in points."""
    more = {f"with {design.seeds + 2} seeds": replace(design, seeds=design.seeds + 2)}
    if (most := _most_items(sweep, design.items)) > design.items:
        more[f"with {most} items"] = replace(design, items=most)
    return ", ".join(f"{100 * size(other):.1f} {name}" for name, other in more.items())


def half_width(design: Design) -> float:
    """Of the 95 % interval of one arm's mean, as the page makes it: Student's t over runs, with few over items."""
    import scipy

    own = design.item_sd**2 * (1 - design.same_arm) / design.items
    if design.seeds >= _seeds_for_t():
        error = math.sqrt((design.seed_sd**2 + own) / design.seeds)
        return error * float(scipy.special.stdtrit(design.seeds - 1, 0.975))
    shared = design.item_sd**2 * design.same_arm / design.items
    return math.sqrt(shared + own / design.seeds) * float(scipy.special.ndtri(0.975))


def _seeds_for_t() -> int:
    from alpaca.report.results import SEEDS_FOR_T  # imports numpy, see above

    return SEEDS_FOR_T


def _deciding(sweep: Sweep) -> str:
    """EVALUATION.METRIC that decides; of a sweep that names none the first that is measured; "" where none is."""
    measured = (f"{name}.{metric}" for name, each in sweep.runs[0].eval.items() for metric in each.metrics)
    return next(iter(sweep.directions), next(measured, ""))


def _items(sweep: Sweep) -> int | None:
    """Of the evaluation that decides; None where the set alone knows, or has too few for a spread."""
    evaluation = sweep.runs[0].eval.get(_deciding(sweep).partition(".")[0])
    count = expectation.items_of(evaluation) if evaluation else None
    return count if count is None or count > 1 else None


def _most_items(sweep: Sweep, items: int) -> int:
    """Twice as many, or as many as the set has."""
    whole = expectation.whole_set(sweep.runs[0].eval[_deciding(sweep).partition(".")[0]])
    return 2 * items if whole is None else min(2 * items, whole)


def _seeds_of_each(sweep: Sweep) -> int:
    return min(Counter(repr(point) for point in sweep.points).values())


SECTIONS: tuple[Callable[[Sweep, Session], Iterator[Line]], ...] = (
    _asked,
    _design,
    _held_equal,
    _dragged,
    _measured,
    _limits,
    _precision,
)


def states(session: Session) -> dict[str, str]:
    """Key -> cached, running, resumes, queued (a job of SLURM will do it) or to run."""
    waiting = _queued(session)
    found = {key: prepare.state(folder) for key, folder in session.folders.items()}
    return {
        key: QUEUED if key in waiting and state not in (prepare.CACHED, prepare.RUNNING) else state
        for key, state in found.items()
    }


def _queued(session: Session) -> set[str]:
    """Stages that a job will do; SLURM is asked only where something was queued in this folder."""
    index = records.index(session.output)
    seen = slurm.observe(index, session.output, history=False)
    living = slurm.live(index, seen, enqueue.stages_of(session), session.output)
    return {key for key in session.folders if session.label(key) in living}


def counted(found: dict[str, str]) -> str:
    """ "40 stages: 12 cached, 28 to run"."""
    counts = Counter(found.values())
    order = (prepare.CACHED, prepare.RUNNING, QUEUED, prepare.PARTIAL, prepare.NEW)
    shown = [f"{counts[name]} {name}" for name in order if counts[name] or name in (prepare.CACHED, prepare.NEW)]
    return f"{len(found)} stages: {', '.join(shown)}"
