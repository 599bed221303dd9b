"""`index`: the list of all sweeps and runs."""

from __future__ import annotations

import argparse

from alpaca.cli import view


def run(given: argparse.Namespace) -> int:
    """Writes outputs/index.html and names it."""
    # jinja2 and scipy take a moment to import; the other commands do not need them.
    from alpaca.report import index

    print(view.short(index.renew(given.output_dir)))
    return 0
