"""The last job of a submission: the page of what there is. `python -m alpaca.dispatch.slurm.page SUBMISSION`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from alpaca import jobs
from alpaca.dispatch import pages
from alpaca.dispatch.slurm import records
from alpaca.errors import AlpacaError


def make(folder: Path) -> int:
    """Makes the page unless the one that is there is current; the exit status."""
    try:
        submission = records.load(folder)
        page = pages.freeze(submission.output, submission.report)
    except AlpacaError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_status
    if page is None:
        print("the page shows everything already", flush=True)
        return 0
    return jobs.guarded(page)


def main() -> None:
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # a page takes seconds; the warning's default would end it
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m alpaca.dispatch.slurm.page SUBMISSION")
    raise SystemExit(make(Path(sys.argv[1]).resolve()))


if __name__ == "__main__":
    main()
