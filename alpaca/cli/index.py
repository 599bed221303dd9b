"""`index`: the list of all sweeps and runs."""

from __future__ import annotations

import argparse

from alpaca.cli import view
from alpaca.report import index


def run(given: argparse.Namespace) -> int:
    """Writes outputs/index.html and names it."""
    print(view.short(index.renew(given.output_dir)))
    return 0
