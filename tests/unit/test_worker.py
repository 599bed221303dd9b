"""What runs inside a SLURM job, as a real process with SLURM's environment; scontrol and squeue are scripts of ours."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from alpaca import artifacts
from tests.conftest import ROOT, SMALL, command, environment

pytestmark = pytest.mark.slow
SLOW = (
    # Long enough that a signal in the middle of the pretraining still meets it there.
    *(word for word in SMALL if not word.startswith("model.steps")), "model.steps=60",
    "train.budget=30 steps", "eval.embedded.size=30", "teacher.latency=0.4", "teacher.in_flight=1",
    "train.checkpoint_seconds=0", "model.checkpoint_seconds=0", "eval.embedded.responses.batch=1",
)  # fmt: skip
SHIM = '#!/bin/sh\necho "$(basename "$0") $*" >> "{calls}"\n{body}\n'
BEFORE_PYTHON = 0.02  # seconds: shorter than an interpreter takes to start
# Requests in flight at a stop decide what raw.jsonl holds beyond the pool.
NOT_COMPARED = ("raw.jsonl", "failed.jsonl")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of a small run on this machine that nobody disturbed."""
    folder = tmp_path_factory.mktemp("finished")
    done = subprocess.run(
        command(folder, SLOW), cwd=ROOT, capture_output=True, text=True, timeout=280, env=environment()
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "outputs"


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """A test that fails may leave workers behind; their stages end with them."""
    yield
    for process in STARTED:
        if process.poll() is None:
            process.kill()
            process.wait()
    STARTED.clear()


@dataclass(kw_only=True)
class Job:
    """A copy of the outputs in which some stages are to do again, and the element of a job array that does them."""

    output: Path
    kinds: tuple[str, ...]
    array_file: Path
    limit: int = 3
    state: str = "RUNNING"
    requeue: str = "exit 0"
    variables: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, source: Path, place: Path, *kinds: str, **options: Any) -> Job:
        output = place / "outputs"
        place.mkdir(exist_ok=True)
        subprocess.run(["cp", "-a", str(source), str(output)], check=True)
        array_file = output / "queue" / "s-1" / "arrays" / "001.json"
        array_file.parent.mkdir(parents=True)
        job = cls(output=output, kinds=kinds, array_file=array_file, **options)
        for kind in kinds:
            job.undo(kind)
        record = {"name": "n", "kind": kinds[-1], "units": {"4": [job.label(kind) for kind in kinds]}, "code": "code/x"}
        array_file.write_text(json.dumps({**record, "max_requeues": job.limit}))
        (place / "bin").mkdir()
        job.shims()
        return job

    def shims(self) -> None:
        for name, body in {"squeue": f"echo {self.state}", "scontrol": self.requeue}.items():
            path = self.output.parent / "bin" / name
            path.write_text(SHIM.format(calls=self.output.parent / "calls", body=body))
            path.chmod(0o755)

    def label(self, kind: str) -> str:
        (folder,) = (self.output / kind).iterdir()
        return f"{kind}/{folder.name}"

    def folder(self, kind: str) -> Path:
        return self.output / self.label(kind)

    def undo(self, kind: str) -> None:
        for path in self.folder(kind).iterdir():
            if path.name != "stage.json":
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def edit(self, kind: str, **fsdp: object) -> None:
        """Execution settings of the frozen configuration."""
        settings = artifacts.read_json(self.folder(kind) / "stage.json")
        settings["config"]["fsdp"].update(fsdp)
        artifacts.write_json(self.folder(kind) / "stage.json", settings)

    def start(self, restart: int = 0, rank: int = 0, tasks: int = 1) -> subprocess.Popen[str]:
        place = {
            "SLURM_JOB_ID": "127", "SLURM_ARRAY_JOB_ID": "123", "SLURM_ARRAY_TASK_ID": "4",
            "SLURM_RESTART_COUNT": str(restart), "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank),
            "SLURM_NTASKS": str(tasks), "SLURM_JOB_NUM_NODES": "1", "SLURM_NODEID": "0",
            "SLURM_JOB_NODELIST": "localhost", "SUBMITIT_EXECUTOR": "slurm",
        }  # fmt: skip
        path = f"{self.output.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "alpaca.dispatch.slurm.worker", str(self.array_file)],
            env={**environment(), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PATH": path, **place}
            | self.variables,
            cwd=self.output,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        STARTED.append(process)
        return process

    def run(self, restart: int = 0) -> tuple[int, str]:
        """(exit status, what it said besides the log)."""
        process = self.start(restart)
        said = process.communicate(timeout=120)[0]
        return process.returncode, said

    def log(self, kind: str) -> str:
        return (self.folder(kind) / "log.txt").read_text()

    def word(self, kind: str) -> dict[str, Any]:
        return artifacts.stopped(self.folder(kind))

    def calls(self) -> list[str]:
        path = self.output.parent / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def equals(self, source: Path) -> None:
        for kind in self.kinds:
            assert artifacts.is_finished(self.folder(kind)), self.log(kind)
            found, wanted = (self.manifest(each, kind) for each in (self.output, source))
            assert found == wanted
            artifacts.verify(self.folder(kind), thorough=True)
            assert not list(self.folder(kind).glob("claim-*"))

    def manifest(self, output: Path, kind: str) -> dict[str, str]:
        rows = artifacts.read_json(output / self.label(kind) / "manifest.json")
        return {name: row["sha256"] for name, row in rows.items() if name not in NOT_COMPARED}


def wait(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


MIDDLE = {
    "sample": lambda folder: size(folder / "raw.jsonl"),
    "pretrain": lambda folder: list(folder.glob("work/step-*/*.json")) or list(folder.glob("work/**/step-*.json")),
    "train": lambda folder: list(folder.glob("work/**/step-*.json")),
    "respond": lambda folder: size(folder / "work" / "partial.jsonl"),
}


def in_the_middle(job: Job, kind: str, process: subprocess.Popen[str]) -> None:
    wait(lambda: process.poll() is not None or MIDDLE[kind](job.folder(kind)))
    assert process.poll() is None, job.log(kind)


@pytest.mark.parametrize("kind", ["sample", "pretrain", "train", "respond"])
def test_warned_in_the_middle_it_queues_itself_again_and_goes_on_to_the_same_bytes(
    kind: str, finished: Path, tmp_path: Path
) -> None:
    job = Job.of(finished, tmp_path, kind)
    process = job.start()
    in_the_middle(job, kind, process)
    kept = MIDDLE[kind](job.folder(kind))
    process.send_signal(signal.SIGUSR2)
    assert process.wait(60) == 75, job.log(kind)
    assert job.calls() == ["scontrol requeue 123_4"]
    assert job.word(kind) == {}
    assert "stopped by SIGUSR2" in job.log(kind)
    assert "Traceback" not in job.log(kind)
    assert MIDDLE[kind](job.folder(kind)) >= kept  # what was done is still there
    began = time.monotonic()
    assert job.run(restart=1)[0] == 0, job.log(kind)
    assert time.monotonic() - began < 60  # the released claim was not waited for
    job.equals(finished)
    assert [line for line in job.log(kind).splitlines() if line.startswith("-- job")] == [
        f"-- job 123_4 (start {count}) on {os.uname().nodename}" for count in (0, 1)
    ]


def test_a_chain_runs_in_order_and_what_is_finished_is_left_alone(finished: Path, tmp_path: Path) -> None:
    job = Job.of(finished, tmp_path, "respond", "score")
    assert job.run() == (0, "")
    job.equals(finished)
    before = {kind: artifacts.read_json(job.folder(kind) / "provenance.json") for kind in job.kinds}
    assert before["respond"]["ended"] <= before["score"]["started"]
    assert job.run(restart=1) == (0, "")
    assert {kind: artifacts.read_json(job.folder(kind) / "provenance.json") for kind in job.kinds} == before
    assert "(start 1)" not in job.log("respond")


def test_a_warning_before_a_stage_begins_queues_again_too(finished: Path, tmp_path: Path) -> None:
    """From the first line of `main` on; the child that is starting meanwhile may be killed by it."""
    job = Job.of(finished, tmp_path, "respond", "score")
    process = job.start()
    wait(lambda: size(job.folder("respond") / "log.txt"))
    time.sleep(BEFORE_PYTHON)
    process.send_signal(signal.SIGUSR2)
    assert process.wait(60) == 75
    assert job.calls() == ["scontrol requeue 123_4"]
    assert not (job.folder("score") / "log.txt").exists()
    assert job.run(restart=1)[0] == 0
    job.equals(finished)


def test_variables_of_another_launcher_mean_nothing(finished: Path, tmp_path: Path) -> None:
    foreign = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "nowhere", "ALPACA_RANKS": "1"}
    job = Job.of(finished, tmp_path, "train", variables=foreign)
    assert job.run()[0] == 0, job.log("train")
    job.equals(finished)


def test_requeues_are_bounded(finished: Path, tmp_path: Path) -> None:
    job = Job.of(finished, tmp_path, "train")
    process = job.start(restart=3)
    in_the_middle(job, "train", process)
    process.send_signal(signal.SIGUSR2)
    assert process.wait(60) == 75
    assert job.calls() == []
    word = job.word("train")
    assert (word["job"], word["restart"], word["status"]) == ("123_4", 3, 75)
    assert "3 times, and 3 are allowed" in word["error"]
    assert "cluster.max_requeues" in word["error"]
    status, _ = job.run(restart=4)  # SLURM itself starts a job again after a node's failure
    assert status == 1
    assert "4 times, and 3 are allowed" in job.word("train")["error"]
    assert "resumed" not in job.log("train")
    assert job.run(restart=1)[0] == 0
    assert job.word("train") == {}
    job.equals(finished)


@pytest.mark.parametrize(("state", "calls"), [("CANCELLED", 1), ("RUNNING", 2)])
def test_after_a_mere_sigterm_only_a_running_job_is_queued_again(
    state: str, calls: int, finished: Path, tmp_path: Path
) -> None:
    job = Job.of(finished, tmp_path, "train", state=state)
    process = job.start()
    in_the_middle(job, "train", process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 75
    expected = ["squeue --all --noheader --jobs=123_4 --format=%T", "scontrol requeue 123_4"]
    assert job.calls() == expected[:calls]
    assert ("CANCELLED" in job.word("train").get("error", "")) == (state == "CANCELLED")
    assert "a checkpoint of that step is saved" in job.log("train")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_stage_that_our_own_command_cancelled_has_not_failed(
    finished: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """Nor does it queue itself again, if it was just being saved for another reason."""
    job = Job.of(finished, tmp_path, "train", state="COMPLETING")
    process = job.start()
    in_the_middle(job, "train", process)
    (job.array_file.parents[1] / "cancelled").write_text("123_3\n123_4\n")
    process.send_signal(number)
    assert process.wait(60) == 75
    assert job.word("train") == {}
    assert job.calls() == []
    assert job.log("train").endswith("cancelled\n")


def test_when_slurm_refuses_to_requeue_its_words_are_kept(finished: Path, tmp_path: Path) -> None:
    job = Job.of(finished, tmp_path, "respond", requeue="echo 'Requested operation is presently disabled' >&2; exit 1")
    process = job.start()
    in_the_middle(job, "respond", process)
    process.send_signal(signal.SIGUSR2)
    assert process.wait(60) == 75
    assert "presently disabled" in job.word("respond")["error"]
    assert "presently disabled" in job.log("respond")


def test_a_stage_that_the_system_kills_leaves_word(finished: Path, tmp_path: Path) -> None:
    job = Job.of(finished, tmp_path, "train")
    process = job.start()
    in_the_middle(job, "train", process)
    os.kill(child(job, "train"), signal.SIGKILL)
    assert process.wait(60) == 128 + signal.SIGKILL
    assert "killed by SIGKILL (by the system, if memory ran out)" in job.word("train")["error"]
    assert job.calls() == []


def test_a_stage_ends_with_its_worker(finished: Path, tmp_path: Path) -> None:
    job = Job.of(finished, tmp_path, "sample")
    process = job.start()
    in_the_middle(job, "sample", process)
    pid = child(job, "sample")
    process.kill()
    process.wait()
    wait(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2])


def child(job: Job, kind: str) -> int:
    """The process that does the stage."""
    return int(artifacts.read_json(max(job.folder(kind).glob("claim-*")))["pid"])


def test_a_child_of_a_failed_parent_says_why_it_refuses(finished: Path, tmp_path: Path) -> None:
    """SLURM forgets a failed job in minutes, and takes a dependency on it as satisfied then."""
    job = Job.of(finished, tmp_path, "train", "respond")
    artifacts.write_json(job.folder("train") / "stopped.json", {"job": "9_0", "restart": 0, "error": "it diverged"})
    artifacts.write_json(job.array_file, {"units": {"4": [job.label("respond")]}, "max_requeues": 3})
    status, said = job.run()
    assert (status, said) == (1, "")
    word = job.word("respond")
    assert "parent 'model' is not finished; it stopped: it diverged" in word["error"]
    assert str(job.folder("train")) in word["error"]
    assert word["status"] == 1
    assert set(word) == {"job", "restart", "status", "error", "time", "host"}


def test_the_chain_stops_at_the_first_failure(finished: Path, tmp_path: Path) -> None:
    job = Job.of(finished, tmp_path, "respond", "score")
    (job.folder("train") / "_SUCCESS").unlink()
    assert job.run()[0] == 1
    assert not (job.folder("score") / "log.txt").exists()


def test_what_was_removed_while_it_was_queued_is_a_clear_error(finished: Path, tmp_path: Path) -> None:
    job = Job.of(finished, tmp_path, "score")
    folder, label = job.folder("score"), job.label("score")
    shutil.rmtree(folder)
    status, said = job.run()
    assert status == 1
    assert f"{label}: removed while its job was queued" in said
    job.array_file.unlink()
    status, said = job.run()
    assert status == 1
    assert "001.json: removed while its job was queued" in said
    assert "Traceback" not in said


def two(job: Job, restart: int = 0) -> list[subprocess.Popen[str]]:
    return [job.start(restart, rank, 2) for rank in range(2)]


@pytest.fixture
def pair(finished: Path, tmp_path: Path) -> Job:
    """A training of two processes."""
    return training_of_two(finished, tmp_path)


def training_of_two(finished: Path, place: Path) -> Job:
    job = Job.of(finished, place, "train")
    job.edit("train", mode="full_shard", world_size=2)
    return job


def losses(output: Path, job: Job) -> list[float]:
    text = (output / job.label("train") / "loss.jsonl").read_text()
    return [json.loads(line)["loss"] for line in text.splitlines()]


def test_two_ranks_are_warned_queued_again_once_and_train_as_one_process(
    pair: Job, finished: Path, tmp_path: Path
) -> None:
    ranks = two(pair)
    in_the_middle(pair, "train", ranks[0])
    for process in ranks:
        process.send_signal(signal.SIGUSR2)
    assert ranks[0].wait(60) == 75
    assert pair.calls() == ["scontrol requeue 123_4"]
    time.sleep(0.5)
    assert ranks[1].poll() is None  # it waits to be ended, else srun would have ended rank 0
    ranks[1].terminate()
    assert ranks[1].wait(20) == 75
    again = two(pair, restart=1)
    assert [process.wait(120) for process in again] == [0, 0], pair.log("train")
    assert "resumed after step" in pair.log("train")
    calm = training_of_two(finished, tmp_path / "calm")
    assert [process.wait(120) for process in two(calm)] == [0, 0], calm.log("train")
    pair.equals(calm.output)
    # Muon's orthogonalisation lets the rounding of another order of addition grow.
    assert losses(pair.output, pair)[:15] == pytest.approx(losses(finished, pair)[:15], abs=1e-3)


def test_a_rank_waits_for_rank_zero_and_ends_well_when_there_is_nothing_to_do(pair: Job) -> None:
    claim = pair.folder("train") / "claim-000001"
    busy = subprocess.Popen([sys.executable, "-c", HOLD, str(claim.parent)], cwd=ROOT, stdout=subprocess.PIPE)
    assert busy.stdout is not None
    assert busy.stdout.readline() == b"held\n"
    ranks = two(pair)
    wait(lambda: size(pair.folder("train") / "log.txt") and "waiting for process" in pair.log("train"))
    assert [process.poll() for process in ranks] == [None, None]
    assert not list(pair.folder("train").glob("work/begun-*"))
    (pair.folder("train") / "manifest.json").write_text("{}")
    key = artifacts.read_json(pair.folder("train") / "stage.json")["key"]
    artifacts.write_json(pair.folder("train") / "_SUCCESS", {"key": key, "manifest": "", "mtime_ns": {}})
    assert [process.wait(30) for process in ranks] == [0, 0], pair.log("train")
    busy.kill()
    busy.wait()


HOLD = (
    "import sys, time; from pathlib import Path; from alpaca import claims\n"
    "claims.acquire(Path(sys.argv[1]), finished=lambda: False, on_wait=print)\n"
    "print('held', flush=True); time.sleep(600)"
)


def test_a_rank_that_is_killed_is_named_in_the_log_and_in_the_word(pair: Job) -> None:
    ranks = two(pair)
    in_the_middle(pair, "train", ranks[0])
    os.kill(only_child(ranks[1].pid), signal.SIGKILL)
    assert ranks[1].wait(60) == 128 + signal.SIGKILL
    assert ranks[0].wait(60) != 0
    host = os.uname().nodename
    named = f"rank 1 of 2 on {host}: killed by SIGKILL (by the system, if memory ran out)"
    assert f"error: {named}" in pair.log("train")
    assert named in pair.word("train")["error"]
    assert pair.calls() == []


def test_srun_ending_the_others_of_a_dead_rank_is_no_reason_to_queue_again(pair: Job) -> None:
    """srun sends SIGTERM to them while SLURM still says that the job is running."""
    ranks = two(pair)
    in_the_middle(pair, "train", ranks[0])
    os.kill(only_child(ranks[1].pid), signal.SIGKILL)
    assert ranks[1].wait(60) == 128 + signal.SIGKILL
    ranks[0].terminate()
    assert ranks[0].wait(60) != 0
    assert pair.calls() == []
    assert "rank 1 of 2" in pair.word("train")["error"]


def test_a_rank_that_refuses_ends_the_others_before_they_have_met(pair: Job) -> None:
    ranks = [pair.start(0, rank, 3) for rank in (0, 1)]
    wait(lambda: list(pair.folder("train").glob("work/begun-*")))
    os.kill(only_child(ranks[1].pid), signal.SIGKILL)
    assert ranks[1].wait(60) == 128 + signal.SIGKILL
    ranks[0].terminate()  # it waits for a third that never comes
    assert ranks[0].wait(60) != 0
    assert pair.calls() == []
    assert pair.word("train")["error"].count("rank 1 of 3") == 1


def test_a_rank_that_fails_alone_leaves_the_word_itself(pair: Job) -> None:
    """Where srun ends rank 0 before that can say anything."""
    ranks = two(pair)
    in_the_middle(pair, "train", ranks[0])
    zero = ranks[0]
    victim = only_child(ranks[1].pid)
    zero.kill()
    os.kill(victim, signal.SIGKILL)
    assert ranks[1].wait(60) != 0
    assert pair.word("train")["error"].startswith("rank 1 of 2 on")


def only_child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
