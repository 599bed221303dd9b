"""Launching on the tests' cluster, waiting for it, and comparing what came out."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from alpaca import artifacts
from alpaca.dispatch.slurm import records, states
from alpaca.dispatch.slurm.records import Index, Submission

ROOT = Path(__file__).resolve().parents[2]
SITE = ["cluster=slurm_cpu", "cluster.memory_gib=2", "tracker=none"]
SITE += ["cluster.stages.train.memory_gib=2", "cluster.stages.respond.memory_gib=2"]
WORLD = ["model.steps=60", "model.batch=16", "data_gen.num_examples=300"]
STARTED = re.compile(r"^-- job (\S+) \(start (\d+)\)", re.MULTILINE)
OUTCOME = ("score", "respond", "train", "pretrain", "curate", "sample")


def environment(**more: str) -> dict[str, str]:
    """Of a launch: offline, one thread."""
    offline = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **offline, **more}


def launch(output: Path, *overrides: str, root: Path = ROOT, check: bool = True, **more: str) -> str:
    """`python launch.py` to its end; what it printed."""
    words = [sys.executable, "launch.py", *overrides, f"output_dir={output}"]
    done = subprocess.run(words, cwd=root, env=environment(**more), capture_output=True, text=True, check=False)
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def alpaca(output: Path, *arguments: str, check: bool = True) -> str:
    """`python -m alpaca ...` to its end; what it printed."""
    words = [sys.executable, "-m", "alpaca", *arguments, "--output-dir", str(output)]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def newest(output: Path) -> tuple[Index, Submission]:
    """The last submission of an output folder."""
    index = records.index(output)
    return index, index.submissions[-1]


def known_states(output: Path) -> dict[str, str]:
    """Label -> state, by SLURM's word of now."""
    index, submission = newest(output)
    queue = states.observe(index, output, fresh=True)
    return {each.stage.label: each.state for each in states.states(submission, index, queue)}


def wait(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Until it is true; the test fails with `what` when it never is."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what() if callable(what) else what}"
        time.sleep(0.2)


def page(output: Path) -> Path:
    """The folder of the last submission's page."""
    return output / str(newest(output)[1].report["folder"])


def wait_for_page(output: Path, seconds: float = 240) -> None:
    """Until the last submission's page stands and shows every stage."""
    submission = newest(output)[1]

    def stands() -> bool:
        folder = output / str(submission.report["folder"])
        if not artifacts.is_finished(folder):
            return False
        return len(artifacts.read_json(folder / "stage.json")["parents"]) == len(submission.stages)

    try:
        wait(stands, seconds, "the page")
    except AssertionError:
        raise AssertionError(f"the page does not stand: {known_states(output)}\n{words(output)}") from None


def words(output: Path) -> str:
    """The ends of all logs, for a failure's message."""
    paths = [*output.glob("*/*/log.txt"), *output.glob("queue/*/logs/*.out")]
    return "\n".join(f"== {path.relative_to(output)}\n{path.read_text()[-1500:]}" for path in paths)


def digests(output: Path, *kinds: str) -> dict[str, str]:
    """Label -> digest of the content, of everything finished."""
    kinds = kinds or OUTCOME
    folders = [path.parent for kind in kinds for path in output.glob(f"{kind}/*/_SUCCESS")]
    return {folder.relative_to(output).as_posix(): artifacts.content_digest(folder) for folder in folders}


def starts(output: Path, label: str) -> list[tuple[str, int]]:
    """(job, restart count) of every start of a stage on SLURM, from its log."""
    path = output / label / "log.txt"
    return [(job, int(count)) for job, count in STARTED.findall(path.read_text())] if path.exists() else []


def only(output: Path, kind: str) -> str:
    """The label of the one stage of a kind."""
    (folder,) = (output / kind).iterdir()
    return f"{kind}/{folder.name}"


def without(source: Path, target: Path, *kinds: str) -> Path:
    """A copy of finished outputs in which some kinds of stages, the pages and the queue are missing."""
    shutil.copytree(source, target, symlinks=True)
    for name in (*kinds, "queue", "sweeps", "runs"):
        shutil.rmtree(target / name, ignore_errors=True)
    return target


def steps_done(output: Path, label: str) -> int:
    """How far a training is, by its progress file."""
    try:
        return int(json.loads((output / label / "progress.json").read_text())["done"])
    except (OSError, ValueError, KeyError):
        return 0


def losses(output: Path) -> list[float]:
    """The training loss of every step."""
    text = (output / only(output, "train") / "loss.jsonl").read_text()
    return [json.loads(line)["loss"] for line in text.splitlines()]


def element(output: Path, label: str) -> str:
    """SLURM's name of the job of a stage."""
    job = records.index(output).latest[label].job
    assert job, label
    return job


def shim(folder: Path, name: str, script: str) -> str:
    """A PATH on which a program of ours stands before the real one; %REAL% in the script names that."""
    real = shutil.which(name)
    assert real, name
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(script.replace("%REAL%", real))
    path.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def overrides(*more: str, site: Sequence[str] = SITE) -> list[str]:
    """A small world on the tests' site."""
    return [*WORLD, *site, *more]
