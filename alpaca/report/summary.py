"""The page in short, for a pull request: answer, effects, means, what was held equal, failures; as blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from alpaca.config import ReportConfig
from alpaca.report import answer, curve, wording
from alpaca.report.answers import History
from alpaca.report.blocks import Block, Code, Document, Facts, Section, Table, Text
from alpaca.report.effects import Contrast, Contrasts, Findings, Interaction
from alpaca.report.failures import Failure
from alpaca.report.naming import BASELINE
from alpaca.report.results import Results

_HEAD = ["effect", "95 % interval", "corrected p", "detectable", "verdict"]


def document(
    config: ReportConfig,
    results: Results,
    findings: Findings,
    failed: Sequence[Failure],
    history: History,
    sentence: str,
) -> Document:
    """Every number with its interval, as on the page; what has no place in a comment is left to the page."""
    sections = [
        Section(title="Effects", blocks=list(_effects(results, findings))),
        Section(title="Means", blocks=list(_means(results))),
        Section(title="Held equal", blocks=[Text(text=f"{text}.") for text in config.controls]),
        Section(title="Not held equal, and notes", blocks=[Text(text=f"{text}.") for text in config.notes]),
        Section(title="Failures", blocks=list(_failures(failed))),
        Section(title="Earlier answers", blocks=list(_earlier(history))),
        Section(
            title="Made by", blocks=[Facts(rows=[("command", Code(text=config.command))])] if config.command else []
        ),
    ]
    asked = [config.question] if config.question else []
    held = [f"Hypothesis: {history.hypothesis.hypothesis} ({history.foretold})"] if history.hypothesis else []
    opening = Section(title="Question", blocks=[Text(text=text) for text in (*asked, *held)])
    filled = [section for section in (opening, *sections) if section.blocks]
    return Document(title=config.title, lead=sentence, sections=filled)


def _effects(results: Results, findings: Findings) -> Iterator[Block]:
    for law in findings.laws.values():
        yield from (Text(text=text) for text in curve.told(law, results))
    if findings.interaction and findings.interaction.rows:
        yield _interaction(findings.interaction)
    main = findings.contrasts.get(results.main)
    if main is not None and main.rows:
        yield _contrasts(main)
        if main.reference.name == BASELINE:
            yield Text(text=f"The baseline: {wording.factors(main.reference.factors)}.")
        yield Text(text=answer.difference_method(main), kind="fine")


def _contrasts(found: Contrasts) -> Table:
    unit = ", points" if found.in_points else ""
    return Table(
        label=f"Effects on {wording.metric_in_full(found.metric)}",
        head=[f"against {found.reference.name}{unit}", *_HEAD],
        rows=[[row.name, *_cells(row, found)] for row in found.rows],
        right=frozenset({1, 3, 4}),
    )


def _interaction(found: Interaction) -> Table:
    one, other = found.factors
    return Table(
        label="Interaction",
        head=[f"{one} by {other}, difference of differences", *_HEAD],
        rows=[[row.name, *_cells(row, found)] for row in found.rows],
        right=frozenset({1, 3, 4}),
    )


def _cells(row: Contrast, found: Contrasts | Interaction) -> list[str]:
    interval = found.scaled(row.effect.interval)
    detectable = row.effect.detectable * (100 if found.in_points else 1)
    p_value = wording.p_value(row.effect.corrected_p)
    return [wording.signed(interval), wording.bounds(interval), p_value, wording.size(detectable), row.verdict]


def _means(results: Results) -> Iterator[Block]:
    levels = results.measured
    if not levels:
        return
    rows = [
        [level.name or "all runs", str(len(level.scored(results.main)))]
        + [wording.full(level.intervals[metric]) if metric in level.intervals else "–" for metric in results.metrics]
        for level in levels
    ]
    head = ["level", "runs", *(wording.metric_in_full(metric) for metric in results.metrics)]
    yield Table(label="Means", head=head, rows=rows, right=frozenset({1}))
    yield Text(text=answer.method(results), kind="fine")


def _failures(failed: Sequence[Failure]) -> Iterator[Block]:
    if failed:
        rows = [[one.stage, one.reason, one.runs] for one in failed]
        yield Table(label="Failures", head=["stage", "what it said", "runs that need it"], rows=rows)


def _earlier(history: History) -> Iterator[Block]:
    rows = [[wording.moment(row.recorded), history.told(row), row.answer] for row in history.earlier]
    if rows:
        yield Table(label="Earlier answers", head=["made", "runs", "answer"], rows=rows)
    for row in history.changed:
        yield Text(text=f"The hypothesis was changed later ({wording.moment(row.recorded)}): {row.hypothesis}")
