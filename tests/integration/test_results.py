"""What looks at results, on two real runs: the list, the comparison, the second making, and what can be deleted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, SMALL, command, environment

pytestmark = pytest.mark.slow
Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs that differ in the size of their data."""
    folder = tmp_path_factory.mktemp("results")
    for size in (40, 30):
        arguments = [*(word for word in SMALL if not word.startswith("data.size")), f"data.size={size}"]
        done = subprocess.run(
            command(folder, arguments), cwd=ROOT, capture_output=True, text=True, timeout=280, env=environment()
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "outputs"


@pytest.fixture
def call(outputs: Path) -> Call:
    """`python -m alpaca ...` in a process of its own."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "alpaca", *words, "--output-dir", str(outputs)]
        return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=280, env=environment())

    return run


def tree(outputs: Path) -> dict[str, tuple[int, int]]:
    paths = [path for path in outputs.rglob("*") if "__pycache__" not in path.parts and path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in paths}


def test_both_pages_stand_in_the_list(outputs: Path) -> None:
    text = (outputs / "index.html").read_text()
    assert "2 runs" in text
    for path in (outputs / "runs").iterdir():
        assert f'href="runs/{path.name}/report.html"' in text
    assert text.count("data.size=40") == text.count("data.size=30") == 1


def test_two_scores_differ_because_their_data_do(outputs: Path, call: Call) -> None:
    labels = sorted(path.name for path in (outputs / "score").iterdir())
    done = call("diff", *labels, "--json")
    assert done.returncode == 1, done.stderr
    (runs,) = json.loads(done.stdout)["runs"]
    assert runs["origins"] == ["curate"]
    assert [leaf["key"] for leaf in runs["identity"]] == ["data.size"]
    assert runs["data"]["same"] == 30
    assert abs(runs["data"]["sizes"][0] - runs["data"]["sizes"][1]) == 10
    assert {loss["role"]: loss["first"] for loss in runs["losses"]} == {"pretrain": None, "train": 1}
    assert (runs["code"], runs["packages"]) == ([], [])
    assert call("diff", labels[0], labels[0]).returncode == 0


@pytest.mark.parametrize("stage", ["sample", "train", "score", "runs"])
def test_a_stage_comes_out_the_same_to_the_last_byte(outputs: Path, call: Call, stage: str) -> None:
    before, folder = tree(outputs), sorted((outputs / stage).iterdir())[0]
    done = call("reproduce", f"{stage}/{folder.name}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bit-equal" in done.stdout
    assert tree(outputs) == before
    assert [path.name for path in outputs.parent.iterdir()] == ["outputs"]


def test_nothing_that_a_page_shows_is_offered(outputs: Path, call: Call) -> None:
    assert "touched in the last 10 minutes" in call("gc", "--yes", "--paid").stdout
    for path in outputs.rglob("*"):
        os.utime(path, (1, 1))
    assert call("gc", "--yes", "--paid").stdout == "nothing to delete\n"
    (page,) = [path for path in (outputs / "runs").iterdir() if "data.size=30" in (path / "stage.json").read_text()]
    shutil.rmtree(page)
    done = call("gc", "--yes")
    assert done.returncode == 0, done.stderr
    assert "4 deleted" in done.stdout  # its data, training, answers and scores; the rest the other run needs
    assert [len(list((outputs / stage).iterdir())) for stage in ("sample", "curate", "pretrain", "train")] == [1] * 4
