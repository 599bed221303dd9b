"""CONTRIBUTING.md is executed: every recipe, word for word, in a copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment

pytestmark = pytest.mark.slow
SECTIONS = {part.splitlines()[0]: part for part in (ROOT / "CONTRIBUTING.md").read_text().split("\n## ")[1:]}
RECIPES = [name for name in SECTIONS if name.startswith("How to add")]
BLOCK = re.compile(r"```(\w+) (file=|line=|run)(\S*)\n(.*?)```", re.DOTALL)


def test_there_is_a_recipe_for_each_kind() -> None:
    assert [f"How to add a {kind}" for kind in ("model", "teacher", "filter", "metric", "sweep")] == RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_works(name: str, tmp_path: Path) -> None:
    for part in ("alpaca", "conf", "sweeps", "hydra_plugins", "launch.py", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, tmp_path / part)
    ran = 0
    for _, kind, place, text in BLOCK.findall(SECTIONS[name]):
        if kind == "file=":
            (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / place).write_text(text)
        elif kind == "line=":
            _insert(tmp_path / place, text)
        else:
            ran += sum(_run(line, tmp_path) for line in text.strip().splitlines())
    assert ran >= 1


def _insert(path: Path, text: str) -> None:
    head, _, lines = text.partition("\n")
    anchor = head.removeprefix("# below: ") + "\n"
    source = path.read_text()
    assert source.count(anchor) == 1, f"{path.name} has {source.count(anchor)} lines {anchor!r}"
    path.write_text(source.replace(anchor, anchor + lines))


def _run(line: str, folder: Path) -> int:
    binaries = str(Path(sys.executable).parent)
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**environment(), "PATH": f"{binaries}:{os.environ['PATH']}"},
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return 1
