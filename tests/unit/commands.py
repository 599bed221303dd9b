"""`python -m alpaca` in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from alpaca.cli.commands import main

Run = Callable[..., tuple[int, str]]


def runner(capsys: pytest.CaptureFixture[str], output: Path, *first: str) -> Run:
    """`run("--json")` -> exit status of the command that begins with `first`, and what it printed, both streams."""

    def run(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main([*first, *words, "--output-dir", str(output)])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    return run
