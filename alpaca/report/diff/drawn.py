"""A comparison as one self-contained HTML file in the look of the report."""

from __future__ import annotations

from markupsafe import Markup

from alpaca.report import figures, html
from alpaca.report.diff.page import Page
from alpaca.report.diff.payload import Loss


def render(page: Page) -> str:
    """The HTML; every text of a run is escaped by the template."""
    return html.rendered("diff.html", page=page, curves=_curves)


def _curves(loss: Loss) -> Markup:
    pairs = zip(("A", "B"), loss.steps, loss.losses, strict=True)
    curves = [figures.Losses(group=name, steps=steps, losses=losses) for name, steps, losses in pairs]
    alt = f"Loss of {loss.role}: A ends at {loss.losses[0][-1]:.3f}, B at {loss.losses[1][-1]:.3f}"
    words = figures.Words(x="step", y="loss (nats per token)", alt=alt, name=f"loss-{loss.role}")
    return figures.loss_curves(curves, words)
