"""Verbs and their objects as two rings, in the manner of the figures of Self-Instruct and Alpaca; plain SVG.

Inner ring: the most frequent verbs by number of instructions. Outer ring: each verb's most frequent objects by their
share of those. A label is left out where its arc is too narrow for the text; the table beside the figure has them all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

# Okabe & Ito's palette; every wedge is a tint light enough for dark text on light and dark pages alike.
_HUES = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (213, 94, 0), (86, 180, 233), (204, 121, 167), (240, 228, 66))
_INNER_TINT = 0.45
_OUTER_TINTS = (0.55, 0.65, 0.75, 0.85)
_TEXT_ON_TINT = "#1c1e21"
_CHARACTER = 0.56
"""Width of a character in units of the font size, on average; a little wide, so that labels rather fit too well."""
_LEAST_LABEL = 3
_GAP = 5.0
"""Pixels between a label and the edge of its ring."""
_LINE = 0.95
"""Room that a line of text needs across, in units of the font size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wedge:
    """A verb with the number of its instructions, and its objects with theirs."""

    name: str
    count: int
    parts: Sequence[tuple[str, int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Form:
    """Radii in CSS pixels: the hole, the end of the verbs, the end of the objects, the end of their labels."""

    name: str
    width: float
    radii: tuple[float, float, float, float]
    text: float


_FORMS = (
    _Form(name="wide", width=720, radii=(72, 186, 212, 298), text=12.5),
    _Form(name="narrow", width=360, radii=(22, 100, 116, 178), text=11.5),
)


def drawn(wedges: Sequence[Wedge], alt: str) -> Markup:
    """Both forms of the figure; the page shows the one that fits. Empty without a wedge."""
    if not wedges:
        return Markup("")
    return Markup("").join(
        Markup('<div class="{}">{}</div>').format(form.name, Markup(_svg(wedges, form, alt))) for form in _FORMS
    )


def _svg(wedges: Sequence[Wedge], form: _Form, alt: str) -> str:
    height = 2 * form.radii[3]
    box = f"{-form.width / 2:g} {-height / 2:g} {form.width:g} {height:g}"
    head = f'<svg viewBox="{box}" role="img" aria-label="{escape(alt)}" font-size="{form.text:g}">'
    return "\n".join([head, *_rings(wedges, form), "</svg>"])


def _rings(wedges: Sequence[Wedge], form: _Form) -> Iterator[str]:
    hole, inner, _, _ = form.radii
    total, start = sum(wedge.count for wedge in wedges), 0.0
    for number, wedge in enumerate(wedges):
        end = start + wedge.count / total
        hue = _hue(number, len(wedges))
        yield _arc((start, end), (hole, inner), _tint(hue, _INNER_TINT), f"{wedge.name}: {wedge.count:,}")
        yield from _inside((start, end), form, wedge.name)
        yield from _objects(wedge, (start, end), form, hue)
        start = end


def _objects(wedge: Wedge, span: tuple[float, float], form: _Form, hue: tuple[int, int, int]) -> Iterator[str]:
    _, inner, outer, _ = form.radii
    total, start = sum(count for _, count in wedge.parts), span[0]
    for number, (name, count) in enumerate(wedge.parts):
        end = start + (span[1] - span[0]) * count / total
        colour = _tint(hue, _OUTER_TINTS[number % len(_OUTER_TINTS)])
        yield _arc((start, end), (inner, outer), colour, f"{wedge.name} {name}: {count:,}")
        yield from _outside((start, end), form, name)
        start = end


def _arc(span: tuple[float, float], radii: tuple[float, float], colour: str, title: str) -> str:
    """A sector of a ring; turns from the top, clockwise, in parts of a whole turn."""
    start, end = span
    end = min(end, start + 0.9999)  # an arc that ends where it starts is drawn as nothing
    (near, far), long = radii, int(end - start > 0.5)
    corners = [_point(start, near), _point(start, far), _point(end, far), _point(end, near)]
    path = (
        f"M{corners[0]}L{corners[1]}A{far:g} {far:g} 0 {long} 1 {corners[2]}"
        f"L{corners[3]}A{near:g} {near:g} 0 {long} 0 {corners[0]}Z"
    )
    return f'<path d="{path}" fill="{colour}" stroke="var(--paper)"><title>{escape(title)}</title></path>'


def _inside(span: tuple[float, float], form: _Form, name: str) -> Iterator[str]:
    """The verb, written along the radius in the middle of its wedge, as far out as there is most room."""
    near, far, _, _ = form.radii
    label = _fitting(name, far - near - 2 * _GAP, form)
    # The wedge must be as wide as the text is high where the text is nearest to the hole.
    innermost = far - _GAP - len(label) * _CHARACTER * form.text
    turn = (span[0] + span[1]) / 2
    if label and (span[1] - span[0]) * 2 * math.pi * innermost >= form.text * _LINE:
        yield _label(turn, far - _GAP, label, "end" if turn < 0.5 else "start", _TEXT_ON_TINT)


def _outside(span: tuple[float, float], form: _Form, name: str) -> Iterator[str]:
    _, _, outer, end = form.radii
    label = _fitting(name, end - outer - _GAP, form)
    turn = (span[0] + span[1]) / 2
    if label and (span[1] - span[0]) * 2 * math.pi * outer >= form.text * _LINE:
        yield _label(turn, outer + _GAP, label, "start" if turn < 0.5 else "end", "currentColor")


def _label(turn: float, radius: float, text: str, anchor: str, colour: str) -> str:
    # On the left half the text is turned once more, so that nobody has to read upside down.
    angle = 360 * turn - (90 if turn < 0.5 else 270)
    place = radius if turn < 0.5 else -radius
    return (
        f'<text transform="rotate({angle:.2f})" x="{place:.2f}" dy="0.35em" text-anchor="{anchor}" '
        f'style="fill:{colour}">{escape(text)}</text>'
    )


def _fitting(name: str, room: float, form: _Form) -> str:
    most = int(room / (_CHARACTER * form.text))
    if len(name) <= most:
        return name
    return f"{name[: most - 1]}…" if most > _LEAST_LABEL else ""


def _point(turn: float, radius: float) -> str:
    angle = 2 * math.pi * turn
    return f"{radius * math.sin(angle):.2f} {-radius * math.cos(angle):.2f}"


def _hue(number: int, of: int) -> tuple[int, int, int]:
    """Neighbours differ, the last and the first wedge too."""
    closes_ring = number == of - 1 and of > 1 and number % len(_HUES) == 0
    return _HUES[3 if closes_ring else number % len(_HUES)]


def _tint(hue: tuple[int, int, int], white: float) -> str:
    return "#" + "".join(f"{round(part + (255 - part) * white):02x}" for part in hue)
