"""The figures of a page, from results to drawings with their captions."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from alpaca.config import ReportConfig
from alpaca.report import curve, figures, wording
from alpaca.report.effects import Findings
from alpaca.report.figures import Losses, Mark, Series, Words
from alpaca.report.folders import Folder
from alpaca.report.results import LEAST_FAMILY, Level, Results, family_intervals
from alpaca.statistics.curves import PowerLaw


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """A figure with its caption; `svg` is None where a sentence says why there is none."""

    svg: Markup | None
    caption: str


def main_drawing(config: ReportConfig, results: Results, findings: Findings) -> Drawing:
    """The scores over the factor, by level, or, of one level, by family."""
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
        caption=f"{caption}{law if _followed(findings) else ''}",
    )


def _dots(results: Results, findings: Findings, words: Words, caption: str) -> Drawing:
    """Named levels one below the other, the baseline first with a line down from its mean."""
    contrasts = findings.contrasts.get(results.main)
    marks = [_mark(0.0, level, _dot_label(level), results.main) for level in results.measured]
    by = f"By {wording.listing(results.factors)}. " if len(results.factors) <= 2 else ""
    if contrasts is None or not contrasts.rows:
        return Drawing(svg=figures.dots(marks, words), caption=f"{by}{caption}")
    line = contrasts.reference.intervals[results.main].estimate
    caption = f"{by}{caption} The dashed line is the baseline's mean."
    return Drawing(svg=figures.dots(marks, words, line=line), caption=caption)


def _dot_label(level: Level) -> str:
    """The value alone where there is one factor, as the caption names it; else what is not as in the baseline."""
    values = list(level.factors.values())
    if len(values) == 1:
        return wording.value(values[0])
    return level.name


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
    """One series per setting of the other factors, with the law fitted to it where it describes what was measured."""
    drawn = _followed(findings)
    return [
        Series(
            label=label,
            marks=[_curve_mark(level, results) for level in levels],
            band=curve.band(drawn[label]) if label in drawn else None,
        )
        for label, levels in curve.series(results, bundles).items()
    ]


def _followed(findings: Findings) -> dict[str, PowerLaw]:
    return {label: law for label, law in findings.laws.items() if not law.missed}


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
    parts = [f"{wording.full(level.intervals[results.main])} at {level.name}" for level in results.measured]
    return f"{wording.metric_in_full(results.main)}: {'; '.join(parts)}"


def loss_drawing(results: Results) -> Drawing:
    """The training loss of every run, the seeds of a level alike."""
    curves: dict[str, Losses] = {}
    for level in results.levels:
        for outcome in level.outcomes:
            folder = outcome.folders.get("train")
            if folder is not None and folder.name not in curves:
                curves[folder.name] = _losses(folder, level.name)
    shown = [one for one in curves.values() if one.steps]
    colours = ", seeds in one colour" if len(shown) > len({one.group for one in shown}) else ""
    return _losses_drawn(shown, "losses", f"Training loss of {wording.plural(len(shown), 'run')}{colours}.")


def pretraining_drawing(folders: list[Folder]) -> Drawing:
    """The loss of every base model that was pretrained here."""
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
