"""matplotlib figures as inline SVG: theme, two forms of every figure, and the same bytes for the same numbers."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Stand-ins that become the page's own colours, so that one drawing serves light, dark and paper.
INK, MUTED, RULE, PAPER, BAR = "#010203", "#010204", "#010205", "#010206", "#010207"
_THEME = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    PAPER: "var(--paper)",
    BAR: "var(--bar)",
    "#0072b2": "var(--blue)",
}

# Okabe & Ito's palette, safe for all common colour blindness, without its yellow (too pale for a line on white).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", INK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_UNITS_PER_INCH = 72
_XLINK = "http://www.w3.org/1999/xlink"


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """A size to draw at, in CSS pixels: text comes out at `text` pixels on a page of this width."""

    name: str
    width: float
    text: float


FORMS = (Form(name="wide", width=720, text=13), Form(name="narrow", width=360, text=11.6))
"""The page shows the one that fits, so that text stays legible at 360 px and calm at 1280."""

Draw = Callable[[Figure, Form], None]


def inline(draw: Draw, *, heights: tuple[float, float], alt: str, name: str) -> Markup:
    """Both forms of a figure. heights: CSS pixels, wide and narrow; name: unique in the page, prefixes every id."""
    return Markup("").join(
        _one(draw, form, height, alt, f"{name}-{form.name}") for form, height in zip(FORMS, heights, strict=True)
    )


def _one(draw: Draw, form: Form, height: float, alt: str, name: str) -> Markup:
    with matplotlib.rc_context(_style(form)), warnings.catch_warnings():
        # The browser draws the text with its own fonts; that matplotlib's lacks a glyph does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(form.width / _UNITS_PER_INCH, height / _UNITS_PER_INCH), layout="constrained")
        draw(figure, form)
        out = io.StringIO()
        figure.set_canvas(FigureCanvasSVG(figure))
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return Markup(f'<div class="{form.name}">{_embed(out.getvalue(), alt, name)}</div>')


def _embed(text: str, alt: str, name: str) -> str:
    """The drawing without its document head, its ids made unique, its stand-in colours replaced."""
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(href="|url\()#', rf"\g<1>#{name}-", body)
    for stand_in, colour in _THEME.items():
        body = body.replace(stand_in, colour)
    view = re.search(r'viewBox="[^"]*"', body)
    head = f'<svg {view.group() if view else ""} role="img" aria-label="{escape(alt)}" xmlns:xlink="{_XLINK}">'
    return re.sub(r"\n\s*", "\n", head + body[body.index(">") + 1 :])


def _style(form: Form) -> Any:  # matplotlib names every key in a type of its own
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "alpaca",
        "text.parse_math": False,
        "path.simplify": True,
        "font.family": "DejaVu Sans",
        "font.size": form.text,
        "axes.labelsize": form.text,
        "axes.titlesize": form.text,
        "xtick.labelsize": form.text,
        "ytick.labelsize": form.text,
        "legend.fontsize": form.text,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": MUTED,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "axes.titlelocation": "left",
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "grid.color": RULE,
        "grid.linewidth": 0.8,
        "axes.axisbelow": True,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "legend.frameon": False,
        "lines.linewidth": 1.8,
        "lines.markersize": 7,
        "axes.formatter.use_mathtext": False,
        "axes.unicode_minus": True,
    }
