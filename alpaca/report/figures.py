"""What is drawn: scores over a numeric factor, scores of named levels, families, loss curves, lengths."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation, Transform

from alpaca.report import wording
from alpaca.report.svg import BAR, COLOURS, FORMS, INK, MARKERS, MUTED, PAPER, Form, inline
from alpaca.statistics import Interval

LOSS_POINTS = 120
_LINES: tuple[Literal["-", "--", "-."], ...] = ("-", "--", "-.")
"""With colour and marker, so that series are told apart on grey paper; dots are what a law says beyond the measured."""
_HANDLE = 54
"""Pixels of a legend's line with its marker and the space beside it."""
_EQUALS = "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """One level in a figure: where it stands, its mean with interval, and each seed's own value."""

    x: float
    label: str
    interval: Interval
    seeds: list[float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """A fitted curve with its interval."""

    x: list[float]
    middle: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """Marks that a line joins, or the curve that is fitted to them."""

    label: str
    marks: list[Mark]
    band: Band | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Losses:
    """The loss curve of one training run; runs of one `group` share colour and legend entry."""

    group: str
    steps: list[int]
    losses: list[float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """Axis labels, text alternative and the prefix of the figure's ids."""

    x: str
    y: str
    alt: str
    name: str


def curve(series: Sequence[Series], words: Words) -> Markup:
    """Mean line, interval and every seed over a numeric factor; logarithmic where the values span more than tenfold."""

    def draw(figure: Figure, form: Form) -> None:
        axes = figure.subplots()
        for index, one in enumerate(series):
            _draw_series(axes, one, index, aside=_aside(index, len(series)))
        beyond = max((one.band.x[-1] for one in series if one.band), default=0.0)
        _scale_x(axes, sorted({mark.x: mark.label for one in series for mark in one.marks}.items()), form, beyond)
        _scale_scores(axes.set_ylim, [mark for one in series for mark in one.marks])
        axes.set_xlabel(words.x)
        axes.set_ylabel(words.y)
        if len(series) > 1:
            _legend(figure, form, [one.label for one in series], [one.band is not None for one in series])

    wide, narrow = (_legend_height([one.label for one in series], form) for form in FORMS)
    return inline(draw, heights=(360 + wide, 280 + narrow), alt=words.alt, name=words.name)


def dots(marks: Sequence[Mark], words: Words, *, line: float | None = None) -> Markup:
    """One row per named level: mean, interval and every seed; `line`: where the baseline stands."""

    def draw(figure: Figure, form: Form) -> None:
        axes = figure.subplots()
        if line is not None:
            axes.axvline(line, color=MUTED, linestyle="--", linewidth=1, zorder=1)
        for row, mark in enumerate(marks):
            _draw_dot(axes, row, mark)
        axes.set_yticks(range(len(marks)), [_broken(mark.label, form) for mark in marks])
        axes.set_ylim(len(marks) - 0.4, -0.6)
        _scale_scores(axes.set_xlim, marks)
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", visible=True)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(words.x)

    wide, narrow = (70 + len(marks) * _row_height(marks, form) for form in FORMS)
    return inline(draw, heights=(wide, narrow), alt=words.alt, name=words.name)


def bars(marks: Sequence[Mark], words: Words) -> Markup:
    """One bar per family of items, with its interval."""

    def draw(figure: Figure, form: Form) -> None:
        axes = figure.subplots()
        rows, means = list(range(len(marks))), [mark.interval.estimate for mark in marks]
        axes.barh(rows, means, height=0.62, color=BAR)
        axes.errorbar(
            means,
            rows,
            xerr=_arms([mark.interval for mark in marks]),
            fmt="none",
            ecolor=INK,
            elinewidth=1.2,
            capsize=3,
        )
        axes.set_yticks(rows, [_wrapped(mark.label, _half(form)) for mark in marks])
        axes.set_ylim(len(marks) - 0.4, -0.6)
        axes.set_xlim(0, max(1.0, *(mark.interval.high for mark in marks)) * 1.01)
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", visible=True)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(words.x)

    wide, narrow = (
        60 + sum(27 + 1.4 * form.text * _wrapped(mark.label, _half(form)).count("\n") for mark in marks)
        for form in FORMS
    )
    return inline(draw, heights=(wide, narrow), alt=words.alt, name=words.name)


def loss_curves(curves: Sequence[Losses], words: Words) -> Markup:
    """Every training run on one pair of axes, long ones averaged over equal spans of steps."""
    groups = list(dict.fromkeys(one.group for one in curves))

    def draw(figure: Figure, form: Form) -> None:
        axes = figure.subplots()
        for one in curves:
            _draw_losses(axes, one, groups.index(one.group))
        axes.set_xlabel(words.x)
        axes.set_ylabel(words.y)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: wording.count(step)))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=True))
        axes.set_ylim(0, 1.05 * max(max(one.losses) for one in curves))
        if len(groups) > 1:
            _legend(figure, form, groups, [False] * len(groups))

    wide, narrow = (_legend_height(groups, form) for form in FORMS)
    return inline(draw, heights=(290 + wide, 260 + narrow), alt=words.alt, name=words.name)


def lengths(histograms: dict[str, list[list[float]]], words: Words) -> Markup:
    """Histograms of words per field, beside each other where there is room. Bins are [lower edge, count]."""

    def draw(figure: Figure, form: Form) -> None:
        count = len(histograms)
        grid = figure.subplots(*((1, count) if form.name == "wide" else (count, 1)), squeeze=False).ravel()
        for axes, (field, bins) in zip(grid, histograms.items(), strict=True):
            edges, counts = _edges(bins)
            axes.stairs(counts, edges, fill=True, facecolor=BAR)
            axes.set_title(field)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10], integer=True))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda number, _: wording.count(number)))
        grid[-1 if form.name == "narrow" else count // 2].set_xlabel(words.x)
        grid[0].set_ylabel(words.y)

    return inline(draw, heights=(190, 130 * len(histograms) + 20), alt=words.alt, name=words.name)


def _draw_series(axes: Axes, series: Series, index: int, aside: float) -> None:
    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
    xs = [mark.x for mark in series.marks]
    means = [mark.interval.estimate for mark in series.marks]
    place = _moved(axes, aside, 0)
    if series.band:
        _draw_band(axes, series.band, index, last=xs[-1])
    axes.errorbar(
        xs,
        means,
        yerr=_arms([mark.interval for mark in series.marks]),
        color=colour,
        marker=marker,
        linestyle="none" if series.band else _LINES[index % len(_LINES)],
        elinewidth=1.2,
        capsize=4,
        transform=place,
        markeredgecolor=PAPER,
        markeredgewidth=1,
        zorder=3,
    )
    for mark in series.marks:
        for seed, room in zip(mark.seeds, _beside(len(mark.seeds)), strict=True):
            axes.plot(
                [mark.x],
                [seed],
                marker=marker,
                linestyle="none",
                markersize=5,
                markerfacecolor=PAPER,
                markeredgecolor=colour,
                transform=_moved(axes, aside + room, 0),
                zorder=4,
                clip_on=False,
            )


def _draw_band(axes: Axes, band: Band, index: int, *, last: float) -> None:
    """A line within what was measured, dots beyond; the band is pale, so that marks stand out in grey, too."""
    colour = COLOURS[index % len(COLOURS)]
    axes.fill_between(band.x, band.low, band.high, color=colour, alpha=0.15, linewidth=0, zorder=1)
    inside = [place <= last * (1 + 1e-9) for place in band.x]
    for style, kept in (("-", inside), (":", [not within for within in inside])):
        points = [(x, y) for x, y, keep in zip(band.x, band.middle, kept, strict=True) if keep]
        axes.plot(*zip(*points, strict=True), color=colour, linestyle=style, zorder=2) if points else None


def _draw_dot(axes: Axes, row: int, mark: Mark) -> None:
    colour = COLOURS[0]
    axes.errorbar(
        [mark.interval.estimate],
        [row],
        xerr=_arms([mark.interval]),
        color=colour,
        marker="o",
        elinewidth=1.4,
        capsize=4,
        markeredgecolor=PAPER,
        markeredgewidth=1,
        markersize=8,
        zorder=3,
    )
    for seed, room in zip(mark.seeds, _beside(len(mark.seeds)), strict=True):
        axes.plot(
            [seed],
            [row],
            marker="o",
            linestyle="none",
            markersize=5,
            markerfacecolor=PAPER,
            markeredgecolor=colour,
            transform=_moved(axes, 0, -room),
            zorder=4,
        )


def _draw_losses(axes: Axes, one: Losses, index: int) -> None:
    steps, losses = _thinned(one.steps, one.losses)
    marker = MARKERS[index % len(MARKERS)]
    axes.plot(
        steps,
        losses,
        color=COLOURS[index % len(COLOURS)],
        marker=marker,
        markersize=4.5,
        linewidth=1.2,
        linestyle=_LINES[index % len(_LINES)],
        markeredgewidth=0,
        markevery=(index % 7, max(1, len(steps) // 6)),
    )


def _moved(axes: Axes, right: float, down: float) -> Transform:
    """The data's coordinates, moved by so many pixels."""
    scale = axes.figure.dpi_scale_trans
    return axes.transData + ScaledTranslation(right / 72, -down / 72, scale)


def _beside(seeds: int) -> list[float]:
    """Pixels from the mean to each seed's mark: neither the mean nor an equal seed may hide one."""
    step = min(4.0, 12.0 / max(1, seeds - 1))
    return [9.0 + step * index for index in range(seeds)]


def _aside(index: int, count: int) -> float:
    """Pixels by which a series stands aside, so that intervals at one value do not cover each other."""
    return (index - (count - 1) / 2) * 5.0


def _arms(intervals: Sequence[Interval]) -> np.ndarray:
    below = [max(0.0, one.estimate - one.low) for one in intervals]
    return np.array([below, [max(0.0, one.high - one.estimate) for one in intervals]])


def _scale_x(axes: Axes, ticks: Sequence[tuple[float, str]], form: Form, beyond: float) -> None:
    """Ticks at the values; `beyond`: up to where a fitted curve goes."""
    places = [place for place, _ in ticks]
    if beyond > places[-1] * (1 + 1e-9):
        places, ticks = [*places, beyond], [*ticks, (beyond, wording.value(beyond))]
    if places[0] > 0 and places[-1] / places[0] > 10:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        room = (places[-1] / places[0]) ** 0.07
        axes.set_xlim(places[0] / room, places[-1] * room)
    else:
        span = places[-1] - places[0] or abs(places[0]) or 1.0
        axes.set_xlim(places[0] - 0.08 * span, places[-1] + 0.08 * span)
    every = -(-len(ticks) // (6 if form.name == "narrow" else 12))
    shown = ticks[::-every][::-1]
    axes.set_xticks([place for place, _ in shown], [label for _, label in shown])


def _scale_scores(set_limits: Callable[[float, float], object], marks: Sequence[Mark]) -> None:
    """The whole scale of a rate where the values fill a good part of it, otherwise their range with some room."""
    lows = [min(mark.interval.low, *mark.seeds, mark.interval.estimate) for mark in marks]
    highs = [max(mark.interval.high, *mark.seeds, mark.interval.estimate) for mark in marks]
    low, high = min(lows), max(highs)
    room = (high - low or abs(high) or 1.0) * 0.08
    whole = low >= 0.0 and high <= 1.0 and high - low > 0.4
    set_limits(*((-0.02, 1.02) if whole else (low - room, high + room)))


def _legend(figure: Figure, form: Form, labels: Sequence[str], fitted: Sequence[bool]) -> None:
    wrapped, columns = _legend_labels(labels, form)
    figure.legend(
        [_handle(index, fitted=through) for index, through in enumerate(fitted)],
        wrapped,
        loc="outside upper left",
        ncols=columns,
        handlelength=2.8,
        columnspacing=1.4,
    )


def _legend_labels(labels: Sequence[str], form: Form) -> tuple[list[str], int]:
    """Labels broken where one is wider than the figure, and how many stand beside each other."""
    room = form.width - 20
    wrapped = [_wrapped(label, _letters(room - _HANDLE, form)) for label in labels]
    widest = max(len(line) for label in wrapped for line in label.split("\n")) * _letter(form) + _HANDLE
    return wrapped, max(1, min(len(labels), int(room // widest)))


def _legend_height(labels: Sequence[str], form: Form) -> float:
    """Pixels that a legend needs beyond its first few lines, so that it takes none from the axes."""
    if len(labels) < 2:
        return 0.0
    wrapped, columns = _legend_labels(labels, form)
    rows = -(-len(wrapped) // columns)
    lines = [max(label.count("\n") + 1 for label in wrapped[row::rows]) for row in range(rows)]
    return max(0.0, 1.5 * form.text * (sum(lines) - 3))


def _handle(index: int, *, fitted: bool) -> Line2D:
    return Line2D(
        [],
        [],
        color=COLOURS[index % len(COLOURS)],
        marker=MARKERS[index % len(MARKERS)],
        markersize=6,
        linestyle="-" if fitted else _LINES[index % len(_LINES)],
    )


def _broken(label: str, form: Form) -> str:
    """The settings of a level one below the other where the page is narrow, and no line wider than half a figure."""
    if form.name == "narrow":
        lines = label.replace(", ", ",\n").replace(" and ", "\nand ")
        label = lines if "\n" in lines else label.replace(" = ", " =\n")
    return "\n".join(_wrapped(line, _half(form)) for line in label.split("\n"))


def _wrapped(text: str, most: int) -> str:
    """Lines of at most so many characters; a setting is torn apart only where it alone is too long."""
    whole = textwrap.wrap(text.replace(" = ", _EQUALS), most, break_long_words=False, break_on_hyphens=False)
    lines = [part for line in whole for part in textwrap.wrap(line.replace(_EQUALS, " = "), most)]
    return "\n".join(lines) or text


def _letter(form: Form) -> float:
    """Pixels of a letter: a browser's font may be wider than the one that matplotlib measures with."""
    return form.text * 0.62


def _letters(room: float, form: Form) -> int:
    return int(room / _letter(form))


def _half(form: Form) -> int:
    """Characters that fit beside axes which keep half of the figure."""
    return _letters(form.width * 0.46, form)


def _row_height(marks: Sequence[Mark], form: Form) -> float:
    lines = max(_broken(mark.label, form).count("\n") + 1 for mark in marks)
    return max(46.0, 1.5 * form.text * lines)


def _thinned(steps: list[int], losses: list[float]) -> tuple[list[float], list[float]]:
    """At most 120 points: the means of equal spans of steps."""
    parts = min(len(steps), LOSS_POINTS)
    if parts == 0:
        return [], []
    return (
        [float(part.mean()) for part in np.array_split(np.array(steps, dtype=float), parts)],
        [float(part.mean()) for part in np.array_split(np.array(losses, dtype=float), parts)],
    )


def _edges(bins: list[list[float]]) -> tuple[list[float], list[float]]:
    """Edges and counts; the last bin is as wide as the one before it."""
    lower = [float(edge) for edge, _ in bins]
    width = lower[-1] - lower[-2] if len(lower) > 1 else 1.0
    return [*lower, lower[-1] + width], [float(count) for _, count in bins]
