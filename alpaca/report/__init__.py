"""The report: one self-contained HTML page per run and per sweep, with the numbers beside it as JSON and CSV.

Every data set has a card of its own below data/, as a page and as Markdown. Where the points end with their data sets
(until=curate) the card, or the comparison of the cards, is the page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alpaca.config import ReportConfig

if TYPE_CHECKING:
    from alpaca.artifacts import Context


def run(config: ReportConfig, context: Context) -> None:
    """Writes report.html, results.json, results.csv and data/NAME.html and .md into `context.folder`.

    `context.parents` maps the folders that the points name to their paths. One that is missing belongs to a stage that
    did not finish: the page is made of what there is and names what is missing. Links are relative to the folder, so
    that the outputs can be moved. Equal inputs give equal bytes. Raises UserError for a metric that nobody measured.
    """
    # matplotlib and scipy take a second to import; listing the stages must not.
    from alpaca.report.page import write_report

    write_report(config, context)
