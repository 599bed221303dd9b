"""Shared by all tests: the project's root, the data beside it, and runs of launch.py as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
os.environ.setdefault("ALPACA_CALIBRATE", "0")  # a plan measures a processor it does not know, for some seconds


@pytest.fixture
def shared() -> Path:
    """The folder of other people's data; a test that needs it skips where it is missing."""
    if not SHARED.exists():
        pytest.skip("../shared is not beside the project")
    return SHARED


@pytest.fixture
def launch(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`launch("data.size=500")` runs launch.py in a process of its own, results in tmp_path/outputs, no tracker."""

    def run(*arguments: str, check: bool = True, timeout: float = 280) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command(tmp_path, arguments), cwd=ROOT, capture_output=True, text=True, timeout=timeout, env=environment()
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    return run


def command(folder: Path, arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "launch.py", *arguments, f"output_dir={folder / 'outputs'}", "tracker=none"]


def environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}


# A run that shows everything and takes seconds: a base of a few steps, a few items.
SMALL = (
    "model.steps=4", "model.batch=8", "train.budget=4 steps", "train.global_batch=8", "train.micro_batch=8",
    "data_gen.num_examples=60", "data.size=40", "eval.embedded.size=10",
)  # fmt: skip
