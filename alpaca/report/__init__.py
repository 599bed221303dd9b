"""The report: one self-contained HTML page per run and per sweep, with the numbers beside it as JSON and CSV.

From scores to page: `results` (runs and levels) -> `effects` and `curve` (what is compared) -> `sentence` (the answer)
and `drawings` -> `page`; `summary` is the page in short, `export` the numbers, `answers` what it said before.

Every data set has a card of its own below data/, as a page and as Markdown. Where the points end with their data sets
(until=curate) the card, or the comparison of the cards, is the page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alpaca.config import ReportConfig

if TYPE_CHECKING:
    from alpaca.artifacts import Context


def run(config: ReportConfig, context: Context) -> None:
    """Writes report.html and .md, results.json and .csv, and data/NAME.html and .md into `context.folder`.

    Where there is a question or a factor, answers.jsonl gets a row when the answer is a new one.

    `context.parents` maps the folders that the points name to their paths. One that is missing belongs to a stage that
    did not finish: the page is made of what there is and names what is missing. Links are relative to the folder, so
    that the outputs can be moved. Equal inputs give equal bytes. Raises UserError for a metric that nobody measured.
    """
    # matplotlib and scipy take a second to import; listing the stages must not.
    from alpaca.report.page import write_report

    write_report(config, context)
