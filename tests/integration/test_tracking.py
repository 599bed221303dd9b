"""W&B offline, read back with W&B's own reader: configuration, history, group, job type, tags."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from alpaca.runtime import tracking
from tests.conftest import ROOT, SMALL

pytestmark = pytest.mark.slow


def records(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Record type -> records of one offline run."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, list[dict[str, Any]]] = {}
    for line in done.stdout.splitlines():
        row = json.loads(line)
        found.setdefault(row["type"], []).append(row[row["type"]])
    return found


def test_each_training_job_is_one_offline_run_that_reads_back(tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    done = subprocess.run(
        [
            sys.executable,
            "launch.py",
            "-m",
            *SMALL,
            "seed=0,1",
            f"output_dir={tmp_path}",
            "tracker=wandb",
            "tracker.group=mine",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        stdin=subprocess.DEVNULL,
        env={**clean, "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(folders) == 3
    jobs = [records(folder) for folder in folders]
    runs = [job["run"][0] for job in jobs]
    assert sorted(run["job_type"] for run in runs) == ["pretrain", "train", "train"]
    assert {run["run_group"] for run in runs} == {"mine"}
    frozen = {
        json.loads(path.read_text())["key"][:16]
        for stage in ("pretrain", "train")
        for path in (tmp_path / stage).glob("*/stage.json")
    }
    assert {run["run_id"].partition("-")[2] for run in runs} == frozen
    train = next(job for job in jobs if job["run"][0]["job_type"] == "train")
    steps = [item for item in train["history"] if any("loss" in json.dumps(entry) for entry in [item])]
    assert len(steps) == 4
    assert "optimizer" in json.dumps(train["run"][0]["config"])
    assert set(train["run"][0]["tags"]) == {"train", "tiny"}


def test_a_failing_tracker_is_told_once_and_stops_nothing() -> None:
    told: list[str] = []

    class Broken:
        def log(self, values: dict[str, float]) -> None:
            raise ConnectionError("service is gone")

    tracker = tracking.WandbTracker(Broken(), told.append)
    tracker.log({"loss": 1.0}, 0)
    tracker.log({"loss": 1.0}, 1)
    tracker.finish({})
    assert told == ["tracking stopped: ConnectionError: service is gone"]


def test_without_a_key_nothing_is_asked_and_with_one_it_is_online(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not tracking._has_key()
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert tracking._has_key()
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert not tracking._has_key()
