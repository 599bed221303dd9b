"""Question files of a few lines, asked as a command would."""

from __future__ import annotations

from pathlib import Path

import pytest

from alpaca.errors import ConfigurationErrors
from alpaca.sweep import Sweep, expand


def asked(folder: Path, text: str, *overrides: str, multirun: bool = False) -> Sweep:
    """The sweep of a question file of this text."""
    (folder / "mine.yaml").write_text(text if "question:" in text else f"question: q\n{text}")
    return expand(["sweep=mine", *overrides], multirun=multirun, folder=folder)


def problems(folder: Path, text: str, *overrides: str, multirun: bool = False) -> str:
    with pytest.raises(ConfigurationErrors) as caught:
        asked(folder, text, *overrides, multirun=multirun)
    return str(caught.value)
