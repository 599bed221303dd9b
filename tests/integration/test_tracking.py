"""W&B of whole runs: offline files read back with W&B's own reader, and trackers that fail in every way they can."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from alpaca import artifacts
from tests.conftest import ROOT, SMALL, environment
from tests.integration.wandb_server import Server

pytestmark = pytest.mark.slow
KEY = "k" * 40
LONG = (*(word for word in SMALL if "budget" not in word), "train.budget=120 steps", "until=train")
"""Long enough that something can happen in the middle."""


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


def summary(job: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """What the summary came to."""
    return {name: value for each in job["summary"] for name, value in each["update"].items()}


def surroundings(**more: str) -> dict[str, str]:
    """Without what this machine's user set for W&B."""
    clean = {name: value for name, value in environment().items() if not name.startswith("WANDB")}
    return {**clean, "HOME": "/nonexistent", **more}


def started(*words: str, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "launch.py", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        env=surroundings(**more),
    )


def run(*words: str, **more: str) -> str:
    process = started(*words, **more)
    text, _ = process.communicate(timeout=280)
    assert process.returncode == 0, text
    return text


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of two sizes, tracked offline."""
    output = tmp_path_factory.mktemp("swept")
    small = [word for word in SMALL if not word.startswith("data.size")]
    run("-m", *small, "data.size=20,40", f"output_dir={output}", "tracker=wandb", "tracker.group=mine")
    return output


def jobs(output: Path, kind: str) -> list[dict[str, list[dict[str, Any]]]]:
    return [records(folder) for folder in sorted((output / "wandb").glob(f"offline-run-*-{kind}-*"))]


def test_each_training_is_one_offline_run_that_reads_back(swept: Path) -> None:
    found = jobs(swept, "train")
    runs = [job["run"][0] for job in found]
    assert {each["run_group"] for each in runs} == {"mine"}
    assert {each["job_type"] for each in runs} == {"train"}
    assert sorted(each["tags"] for each in runs) == [["data.size=20"], ["data.size=40"]]
    keys = {json.loads(path.read_text())["key"][:16] for path in (swept / "train").glob("*/stage.json")}
    assert {each["run_id"] for each in runs} == {f"train-{key}" for key in keys}
    for job in found:
        config = job["run"][0]["config"]["update"]
        folder = swept / job["run"][0]["display_name"]
        assert config["optimizer"]["kind"] == "muon"
        assert job["run"][0]["tags"] == [f"data.size={config['factors']['data_size']}"]
        losses = [json.loads(line)["loss"] for line in (folder / "loss.jsonl").read_text().splitlines()]
        rows = {row["item"]["_step"]: row["item"]["loss"] for row in job["history"] if "loss" in row["item"]}
        assert rows == dict(enumerate(losses, 1))
        assert summary(job)["final_loss"] == losses[-1]
        assert job["exit"][0].get("exit_code", 0) == 0


def test_a_stage_that_points_share_has_the_tags_that_all_of_them_have(swept: Path) -> None:
    (pretraining,) = jobs(swept, "pretrain")
    assert not pretraining["run"][0].get("tags")
    assert pretraining["run"][0]["config"]["update"]["seed"] == {"data": 0, "init": 0, "order": 0}


def test_a_score_holds_the_scores_and_the_answers(swept: Path) -> None:
    found = jobs(swept, "score")
    assert len(found) == 2
    for job in found:
        folder = swept / job["run"][0]["display_name"]
        metrics = json.loads((folder / "metrics.json").read_text())
        told = summary(job)
        assert {name: told[f"embedded/{name}"] for name in metrics} == metrics
    tables = list((swept / "wandb").glob("offline-run-*-score-*/files/media/table/embedded/*.json"))
    assert len(tables) == 2
    table = json.loads(tables[0].read_text())
    assert {"instruction", "reference", "response", "exact_match"} <= set(table["columns"])
    assert len(table["data"]) == 10


def test_system_metrics_of_a_process_are_recorded(swept: Path) -> None:
    stats = [each["item"] for job in jobs(swept, "train") for each in job.get("stats", [])]
    assert stats
    assert any(name.startswith("proc.") for item in stats for name in item)


def test_the_sweeps_dashboard_lies_beside_its_page_and_is_no_payload(swept: Path) -> None:
    (path,) = (swept / "sweeps").glob("*/workspace.json")
    text = path.read_text()
    assert "summary:c::factors.data_size" in text
    assert "summary:s::embedded/exact_match" in text
    assert json.loads(text)["saved"] is None
    assert "workspace.json" not in json.loads((path.parent / "manifest.json").read_text())


@pytest.fixture(scope="module")
def untracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of a training without a tracker."""
    output = tmp_path_factory.mktemp("untracked")
    run(*LONG, f"output_dir={output}", "tracker=none")
    return output


@pytest.fixture
def again(untracked: Path, tmp_path: Path) -> Path:
    """A copy of these outputs in which the training is still to be done."""
    shutil.copytree(untracked, tmp_path / "outputs")
    shutil.rmtree(tmp_path / "outputs" / "train")
    return tmp_path / "outputs"


def trained(output: Path) -> dict[str, str]:
    """Payload file -> its sha256."""
    (folder,) = (output / "train").iterdir()
    assert artifacts.is_finished(folder)
    return {name: entry["sha256"] for name, entry in artifacts.read_json(folder / "manifest.json").items()}


def log(output: Path) -> str:
    (path,) = (output / "train").glob("*/log.txt")
    return path.read_text()


def child(process: subprocess.Popen[str], name: str) -> psutil.Process | None:
    """The descendant of a process whose command line holds a name."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for each in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if any(name in word for word in each.cmdline()):
                    return each
    return None


def kill_in_the_middle(process: subprocess.Popen[str], output: Path, name: str) -> None:
    """Kills a descendant once a step of the training is done."""
    while process.poll() is None:
        told = [json.loads(path.read_text()) for path in (output / "train").glob("*/progress.json")]
        victim = child(process, name)
        if victim is not None and told and 1 <= told[0]["done"] < told[0]["total"]:
            os.kill(victim.pid, signal.SIGKILL)
            return
        time.sleep(0.01)
    raise AssertionError(process.communicate()[0])


@pytest.mark.parametrize("name", ["wandb-core", "alpaca.runtime.tracking.process"])
def test_a_tracker_killed_in_the_middle_of_training_leaves_it_unharmed(
    name: str, untracked: Path, again: Path
) -> None:
    process = started(*LONG, f"output_dir={again}", "tracker=wandb")
    kill_in_the_middle(process, again, name)
    text, _ = process.communicate(timeout=200)
    assert process.returncode == 0, text
    assert trained(again) == trained(untracked)
    assert "tracking stopped: " in log(again)


def test_a_folder_that_cannot_be_written_ends_the_tracking_alone(untracked: Path, again: Path) -> None:
    (again / "wandb").write_text("a file where the folder should be")
    run(*LONG, f"output_dir={again}", "tracker=wandb")
    assert trained(again) == trained(untracked)
    assert "tracking stopped: FileExistsError" in log(again)


def test_a_full_disk_ends_the_tracking_alone(untracked: Path, again: Path) -> None:
    (again / "wandb").mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(again / "wandb")], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("cannot mount a small disk here")
    try:
        run(*LONG, f"output_dir={again}", "tracker=wandb", "tracker.patience=10")
    finally:
        subprocess.run(["umount", "-l", str(again / "wandb")], check=True)
    assert trained(again) == trained(untracked)


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A port that takes connections and never answers."""
    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        def take() -> None:
            with contextlib.suppress(OSError):
                while True:
                    kept.append(server.accept()[0])

        threading.Thread(target=take, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    for each in kept:
        each.close()


def test_a_server_that_never_answers_makes_the_run_an_offline_one(
    silent_server: str, untracked: Path, again: Path
) -> None:
    patience = "tracker.patience=60"  # the client gives up after ten
    run(*LONG, f"output_dir={again}", "tracker=wandb", patience, WANDB_API_KEY=KEY, WANDB_BASE_URL=silent_server)
    assert trained(again) == trained(untracked)
    assert "tracking goes on offline" in log(again)
    (job,) = jobs(again, "train")
    assert len([row for row in job["history"] if "loss" in row["item"]]) == 120


def test_a_tracker_that_outlasts_the_patience_is_given_up(silent_server: str, untracked: Path, again: Path) -> None:
    patience = "tracker.patience=0"
    run(*LONG, f"output_dir={again}", "tracker=wandb", patience, WANDB_API_KEY=KEY, WANDB_BASE_URL=silent_server)
    assert trained(again) == trained(untracked)
    assert "tracking was given up after 0 s" in log(again)


def test_online_and_sync_against_a_stand_in(swept: Path, tmp_path: Path) -> None:
    """The client against a server of ours: that the runs of a sweep arrive with group, job type, tags, configuration,
    every row of the history and the summary, that the dashboard is saved, and that a second sync sends nothing.

    Not covered: W&B's permissions, its merging of a run's pieces, its artifact store and its pages.
    """
    output = tmp_path / "outputs"
    shutil.copytree(swept, output, symlinks=True)
    command = [sys.executable, "-m", "alpaca", "sync", "--output-dir", str(output)]
    with Server() as server:
        keyed = surroundings(WANDB_API_KEY=KEY, WANDB_BASE_URL=server.url)
        first = subprocess.run(command, cwd=ROOT, env=keyed, capture_output=True, text=True, check=False)
        assert first.returncode == 0, first.stdout + first.stderr
        assert "sent 5 of 5 run(s), saved 1 of 1 dashboard(s)" in first.stdout
        sent = len(server.received.queries)
        second = subprocess.run(command, cwd=ROOT, env=keyed, capture_output=True, text=True, check=False)
        assert "nothing to send" in second.stdout
        assert len(server.received.queries) == sent
    upserts = {each["name"]: each for each in server.received.named("UpsertBucket") if each.get("groupName")}
    trainings = {name: each for name, each in upserts.items() if name.startswith("train-")}
    assert {each["groupName"] for each in upserts.values()} == {"mine"}
    assert sorted(tuple(each["tags"]) for each in trainings.values()) == [("data.size=20",), ("data.size=40",)]
    assert {each["jobType"] for each in trainings.values()} == {"train"}
    for name in trainings:
        assert [row["_step"] for row in server.received.history(name)] == [1, 2, 3, 4]
    (view,) = server.received.named("UpsertView2")
    assert "summary:c::factors.data_size" in view["spec"]


def test_a_second_start_goes_on_in_the_same_run_online(untracked: Path, again: Path) -> None:
    """The stage begun twice is one run by its id; W&B's part (rows that it has are not taken twice) is W&B's."""
    words = (*LONG, f"output_dir={again}", "tracker=wandb", "train.checkpoint_seconds=0")
    with Server() as server:
        keyed = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.url}
        process = started(*words, **keyed)
        kill_in_the_middle(process, again, "alpaca.jobs")
        process.communicate(timeout=100)
        assert process.returncode != 0
        run(*words, **keyed)
        assert len({each["name"] for each in server.received.named("RunResumeStatus")}) == 1
        assert len(server.received.named("RunResumeStatus")) >= 2
    assert trained(again) == trained(untracked)
    assert not list((again / "wandb").glob("offline-*"))


def test_sync_without_a_key_says_what_waits(swept: Path) -> None:
    command = [sys.executable, "-m", "alpaca", "sync", "--output-dir", str(swept)]
    done = subprocess.run(command, cwd=ROOT, env=surroundings(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "5 run(s) and 1 dashboard(s) wait, and there is no key of W&B" in done.stderr


def test_two_processes_of_one_machine_are_one_run_with_every_step_as_it_comes(again: Path) -> None:
    """Speeds are known to rank 0 alone while it trains: they are in the history only if they were handed on live."""
    split = ("fsdp=full_shard", "fsdp.world_size=2", "train.micro_batch=4", "until=train")
    run(*SMALL, *split, f"output_dir={again}", "tracker=wandb")
    (job,) = jobs(again, "train")
    steps = [row["item"] for row in job["history"]]
    assert [row["_step"] for row in steps if "loss" in row] == [1, 2, 3, 4]
    assert all(row["tokens_per_second"] > 0 for row in steps if "loss" in row)
