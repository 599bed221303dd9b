"""The page: gathers results, draws, fills the template, writes the three files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from alpaca.config import ReportConfig
from alpaca.report import answer, cards, curve, datacard, effects, export, figures, html, ledger, wording
from alpaca.report.effects import Contrasts, Findings
from alpaca.report.figures import Losses, Mark, Series, Words
from alpaca.report.folders import Folder, Library
from alpaca.report.foresight import Compared, compared, events
from alpaca.report.material import Material
from alpaca.report.results import LEAST_FAMILY, Level, Outcome, Results, family_intervals, gather
from alpaca.report.samples import choose
from alpaca.report.sentence import sentence

if TYPE_CHECKING:
    from alpaca.artifacts import Context


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """A figure with its caption; `svg` is None where a sentence says why there is none."""

    svg: Markup | None
    caption: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """One row of the table below the loss curves."""

    runs: str
    folder: Folder
    training: dict[str, Any]
    truncated: str
    compared: list[Compared]
    """Forecast and measurement."""
    events: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What a page is about: the runs and what they scored, and their data sets. `title` and `sentence` head it."""

    config: ReportConfig
    results: Results
    findings: Findings
    data_sets: list[Material]
    title: str
    sentence: str

    @property
    def is_data_only(self) -> bool:
        """Whether no evaluation was asked for and nothing was trained, so that the data sets are the whole result."""
        roles = {role.partition(":")[0] for point in self.config.points for role in point.stages}
        return "curate" in roles and not roles & {"train", "score"}


def write_report(config: ReportConfig, context: Context) -> None:
    """Writes report.html, results.json, results.csv and the cards below data/; each appears whole or not at all."""
    library = Library(parents=context.parents, home=context.folder)
    subject = _subject(config, library)
    html.write(context.folder / "results.json", json.dumps(_as_json(subject), indent=1, ensure_ascii=False) + "\n")
    html.write(context.folder / "results.csv", export.long_form(subject.results))
    context.check()
    cards.write_pages(subject.data_sets, context.folder, context.parents)
    html.write(context.folder / "report.html", render(subject, library))
    context.log(subject.sentence)


def _subject(config: ReportConfig, library: Library) -> Subject:
    results = gather(config, library)
    data_sets = cards.materials(results.outcomes, question=config.question, command=config.command)
    findings = effects.find(config, results)
    made = Subject(
        config=config,
        results=results,
        findings=findings,
        data_sets=data_sets,
        title=config.title,
        sentence=sentence(results, findings),
    )
    if not made.is_data_only:
        return made
    planned = {outcome.point.stages["curate"] for outcome in results.outcomes}
    alone = len(data_sets) == 1 and not config.factors
    return replace(
        made,
        title=f"Data set {data_sets[0].name}" if alone else f"{config.title}: data sets",
        sentence=cards.in_one_sentence(data_sets, len(planned) - len(data_sets)),
    )


def render(subject: Subject, library: Library) -> str:
    """The page's HTML; every text of a run is escaped by the template."""
    config, results, data_sets = subject.config, subject.results, subject.data_sets
    findings = subject.findings
    folders = library.of_points(config.points)
    # One data set and nothing else: its card is the page.
    alone = subject.is_data_only and len(data_sets) == 1
    of_data = datacard.caveats(data_sets[0]) if alone else []
    return html.rendered(
        "page.html",
        config=config,
        title=subject.title,
        data_only=subject.is_data_only,
        whole=datacard.document(data_sets[0], alone=False) if alone else None,
        results=results,
        sentence=subject.sentence,
        method=answer.method(results),
        contrasts=findings.contrasts,
        interaction=findings.interaction,
        difference_method={metric: answer.difference_method(one) for metric, one in findings.contrasts.items()},
        caveats=[*of_data, *answer.caveats(results, findings, folders)],
        main=_main_drawing(config, results, findings),
        laws=[(label, curve.told(law, results)) for label, law in findings.laws.items()],
        samples=choose(results),
        trainings=_trainings(results.outcomes),
        losses=_loss_drawing(results),
        pretraining=_pretraining_drawing(folders),
        cards=cards.data_cards(results.outcomes),
        compared=cards.comparison(cards.compared(data_sets, results.outcomes)),
        ledger=ledger.keep(folders),
        cut=_cut_responses(results.outcomes),
    )


def _main_drawing(config: ReportConfig, results: Results, findings: Findings) -> Drawing:
    metric = wording.metric(results.main)
    if not results.measured:
        return Drawing(svg=None, caption="")
    if len(results.levels) == 1:
        return _family_drawing(results, metric)
    caption = "Filled marks are means, bars their 95 % intervals; each open mark is one seed."
    if not results.axis:
        return _dots(results, findings, Words(x=metric, y="", alt=_alt(results), name="scores"), caption)
    words = Words(x=results.axis, y=metric, alt=_alt(results), name="scores")
    law = " The line is the fitted power law, its band the 95 % interval; dotted beyond what was measured."
    return Drawing(
        svg=figures.curve(_series(results, findings, config.bundles), words),
        caption=f"{caption}{law if findings.laws else ''}",
    )


def _dots(results: Results, findings: Findings, words: Words, caption: str) -> Drawing:
    """Named levels one below the other, the baseline first with a line down from its mean."""
    contrasts = findings.contrasts.get(results.main)
    marks = [_mark(0.0, level, _dot_label(level, contrasts), results.main) for level in results.measured]
    by = f"By {wording.listing(results.factors)}. " if len(results.factors) <= 2 else ""
    if contrasts is None or not contrasts.rows:
        return Drawing(svg=figures.dots(marks, words), caption=f"{by}{caption}")
    line = contrasts.reference.intervals[results.main].estimate
    caption = f"{by}{caption} The dashed line is the baseline's mean."
    return Drawing(svg=figures.dots(marks, words, line=line), caption=caption)


def _dot_label(level: Level, contrasts: Contrasts | None) -> str:
    """The value alone where there is one factor, as the caption names it; else what is not as in the baseline."""
    values = list(level.factors.values())
    if len(values) == 1:
        return wording.value(values[0])
    row = contrasts.of(level) if contrasts else None
    if row is not None:
        return row.name
    return "baseline" if contrasts and contrasts.reference is level else wording.factors(level.factors)


def _family_drawing(results: Results, metric: str) -> Drawing:
    first, *others = [outcome for outcome in results.measured[0].outcomes if results.main in outcome.scores]
    families = family_intervals(first.scores[results.main])
    if not families:
        return Drawing(svg=None, caption="")
    marks = [
        Mark(x=0.0, label=f"{name} ({interval.n})", interval=interval, seeds=[]) for name, interval in families.items()
    ]
    alt = f"{metric} by family: " + "; ".join(f"{name} {wording.full(one)}" for name, one in families.items())
    of_seed = f" (seed {first.seed})" if others else ""
    caption = (
        f"By family of at least {LEAST_FAMILY} items{of_seed}, with their number; lines are 95 % intervals over items."
    )
    return Drawing(svg=figures.bars(marks, Words(x=metric, y="", alt=alt, name="families")), caption=caption)


def _series(results: Results, findings: Findings, bundles: dict[str, list[str]]) -> list[Series]:
    """One series per setting of the other factors, with the law fitted to it."""
    return [
        Series(
            label=label,
            marks=[_curve_mark(level, results) for level in levels],
            band=curve.band(findings.laws[label]) if label in findings.laws else None,
        )
        for label, levels in curve.series(results, bundles).items()
    ]


def _curve_mark(level: Level, results: Results) -> Mark:
    value = level.factors[results.axis]
    return _mark(float(value), level, wording.value(value), results.main)


def _mark(x: float, level: Level, label: str, metric: str) -> Mark:
    return Mark(
        x=x,
        label=label,
        interval=level.intervals[metric],
        seeds=[scores.interval.estimate for scores in level.scored(metric)],
    )


def _alt(results: Results) -> str:
    parts = [
        f"{wording.full(level.intervals[results.main])} at {wording.factors(level.factors)}"
        for level in results.measured
    ]
    return f"{wording.metric_in_full(results.main)}: {'; '.join(parts)}"


def _loss_drawing(results: Results) -> Drawing:
    curves: dict[str, Losses] = {}
    for level in results.levels:
        for outcome in level.outcomes:
            folder = outcome.folders.get("train")
            if folder is not None and folder.name not in curves:
                curves[folder.name] = _losses(folder, wording.factors(level.factors))
    shown = [one for one in curves.values() if one.steps]
    colours = ", seeds in one colour" if len(shown) > len({one.group for one in shown}) else ""
    return _losses_drawn(shown, "losses", f"Training loss of {wording.plural(len(shown), 'run')}{colours}.")


def _pretraining_drawing(folders: list[Folder]) -> Drawing:
    shown = [_losses(folder, folder.name) for folder in folders if folder.stage == "pretrain"]
    return _losses_drawn([one for one in shown if one.steps], "pretraining", "Pretraining loss of the tiny base model.")


def _losses(folder: Folder, group: str) -> Losses:
    rows = [row for row in folder.rows("loss.jsonl") if row.get("loss") is not None]
    return Losses(group=group, steps=[row["step"] for row in rows], losses=[row["loss"] for row in rows])


def _losses_drawn(curves: list[Losses], name: str, caption: str) -> Drawing:
    if not curves:
        return Drawing(svg=None, caption="")
    ends = "; ".join(f"{one.group or 'loss'}: {one.losses[0]:.2f} to {one.losses[-1]:.2f}" for one in curves)
    words = Words(x="step", y="loss (nats per token)", alt=f"{caption} {ends}", name=name)
    thinned = max(len(one.steps) for one in curves) > figures.LOSS_POINTS
    return Drawing(
        svg=figures.loss_curves(curves, words),
        caption=f"{caption} Points are means over equal spans of steps." if thinned else caption,
    )


def _trainings(outcomes: list[Outcome]) -> list[Training]:
    rows: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.folders.get("train") and outcome.folders["train"].document("training.json"):
            rows.setdefault(outcome.folders["train"].name, []).append(outcome)
    return [_training(group) for group in rows.values()]


def _training(group: list[Outcome]) -> Training:
    folder = group[0].folders["train"]
    training = folder.document("training.json")
    return Training(
        runs="; ".join(dict.fromkeys(outcome.label for outcome in group)),
        folder=folder,
        training=training,
        truncated=wording.percent(training.get("truncated_examples", 0), training.get("examples", 0)),
        compared=compared(folder),
        events=events(training),
    )


def _cut_responses(outcomes: list[Outcome]) -> list[tuple[str, str]]:
    """For each evaluation the share of all responses that reached the token limit."""
    folders = {
        folder.name: (role.partition(":")[2], folder)
        for outcome in outcomes
        for role, folder in outcome.folders.items()
        if role.startswith("respond:")
    }
    ends: dict[str, list[bool]] = {}
    for name, folder in folders.values():
        ends.setdefault(name, []).extend(row.get("finish_reason") == "length" for row in folder.rows("responses.jsonl"))
    return [(name, f"{wording.percent(sum(cut), len(cut))} of {len(cut):,}") for name, cut in ends.items() if cut]


def _as_json(subject: Subject) -> dict[str, Any]:
    results, findings = subject.results, subject.findings
    return {
        "title": subject.config.title,
        "question": subject.config.question,
        "metric": results.main,
        "answer": subject.sentence,
        "data_sets": [asdict(one) for one in cards.compared(subject.data_sets, results.outcomes)],
        "levels": export.levels(results),
        "differences": export.differences(results, findings),
        "effects": export.effects(findings),
        "points": export.points(results.outcomes),
    }
