"""One point on a real SLURM, whatever happens to it: the bytes of an undisturbed run, and nothing run twice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from alpaca import artifacts
from alpaca.dispatch.slurm import records
from tests.slurm import sweeps
from tests.slurm.cluster import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
CLUSTER = {"grace": 15}
STEPS = 120
POINT = [f"train.budget={STEPS} steps", "data.size=150", "train.checkpoint_seconds=1", "optimizer=adamw"]
POINT += ["eval.embedded.size=60"]
LOCAL = ["cluster=local", "tracker=none"]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One point on this machine without SLURM: what every disturbed run must equal."""
    output = tmp_path_factory.mktemp("reference") / "outputs"
    sweeps.launch(output, *sweeps.WORLD, *POINT, *LOCAL)
    return output


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """No job and no drained node of one test reaches the next."""
    yield
    for name in {"cluster", "cluster_without_accounting"} & set(request.fixturenames):
        used: Cluster = request.getfixturevalue(name)
        used.run("scancel", "--user", str(os.getuid()))
        for node, state in used.node_states().items():
            if "drain" in state:
                used.scontrol("update", f"nodename={node}", "state=resume")
        sweeps.wait(lambda used=used: used.run("squeue", "--noheader") == "", 60, "the queue is empty")  # type: ignore[misc]


def resumed(reference: Path, tmp_path: Path, *more: str) -> tuple[Path, str]:
    """The same point on SLURM with only its training and what follows left to do; (outputs, label of the training)."""
    output = sweeps.without(reference, tmp_path / "outputs", "train", "respond", "score")
    sweeps.launch(output, *POINT, *sweeps.overrides(*more))
    return output, sweeps.only(output, "train")


def in_the_middle(output: Path, label: str, step: int = 25) -> None:
    sweeps.wait(lambda: sweeps.steps_done(output, label) >= step, 120, f"{label} at step {step}")


def equal_in_the_end(output: Path, reference: Path, seconds: float = 240) -> None:
    sweeps.wait_for_page(output, seconds)
    assert sweeps.digests(output) == sweeps.digests(reference)


def went_on(output: Path, label: str) -> None:
    """The training was started twice, the second time from its checkpoint, and nothing else was."""
    assert [count for _, count in sweeps.starts(output, label)] == [0, 1]
    assert "resumed" in (output / label / "log.txt").read_text()
    for kind in ("respond", "score"):
        assert len(sweeps.starts(output, sweeps.only(output, kind))) == 1


def test_preempted_by_a_higher_partition(cluster: Cluster, reference: Path, tmp_path: Path) -> None:
    output, label = resumed(reference, tmp_path, "cluster.partition=low")
    in_the_middle(output, label)
    cluster.sbatch("-p", "high", "-N4", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1")
    equal_in_the_end(output, reference)
    went_on(output, label)
    assert "stopped by SIGUSR2" in (output / label / "log.txt").read_text()


def test_requeued_by_an_administrator_it_stays_one_tracked_run(
    cluster: Cluster, reference: Path, tmp_path: Path
) -> None:
    output, label = resumed(reference, tmp_path, "tracker.kind=wandb")
    in_the_middle(output, label)
    cluster.scontrol("requeue", sweeps.element(output, label))
    equal_in_the_end(output, reference)
    went_on(output, label)
    starts = [path.name for path in output.glob("wandb/offline-run-*-train-*")]
    assert len(starts) == 2, starts
    key = artifacts.read_json(output / label / "stage.json")["key"]
    assert all(name.endswith(f"-train-{key[:16]}") for name in starts), starts


def test_a_node_crashes(cluster: Cluster, reference: Path, tmp_path: Path) -> None:
    output, label = resumed(reference, tmp_path)
    in_the_middle(output, label, 40)
    node = cluster.run("squeue", "--noheader", "--format=%N", f"--jobs={sweeps.element(output, label)}").strip()
    cluster.node_down(int(node.removeprefix("node")))
    try:
        equal_in_the_end(output, reference)
    finally:
        cluster.node_up(int(node.removeprefix("node")))
    went_on(output, label)


def test_a_cancelled_element_is_queued_again_by_retry(cluster: Cluster, reference: Path, tmp_path: Path) -> None:
    output, label = resumed(reference, tmp_path)
    in_the_middle(output, label)
    cluster.run("scancel", sweeps.element(output, label))
    sweeps.wait(lambda: sweeps.known_states(output)[label] in ("cancelled", "failed"), 60, "its end is known")
    with pytest.MonkeyPatch.context() as patch:  # as later, when squeue has forgotten the job
        patch.setenv("PATH", sweeps.shim(tmp_path / "bin", "squeue", "#!/bin/sh\n"))
        sweeps.wait(lambda: sweeps.known_states(output)[label] == "cancelled", 60, "sacct says so")
    score = sweeps.only(output, "score")
    sweeps.wait(lambda: sweeps.known_states(output)[score] == "skipped", 60, "its children's too")
    name = sweeps.newest(output)[1].name
    assert "queued" in sweeps.alpaca(output, "retry", name)
    equal_in_the_end(output, reference)
    assert [count for _, count in sweeps.starts(output, label)] == [0, 0]
    sweeps.wait(lambda: cluster.run("squeue", "--noheader") == "", 30, "the queue is empty")


def test_a_failed_element_stops_its_descendants_and_nothing_else(
    cluster: Cluster, reference: Path, tmp_path: Path
) -> None:
    output = sweeps.without(reference, tmp_path / "outputs", "train", "respond", "score")
    cluster.scontrol("update", "nodename=ALL", "state=drain", "reason=test")
    words = ["-m", "seeds.init=0,1", *POINT, *sweeps.overrides()]
    sweeps.launch(output, *words)
    lost, kept = [f"train/{folder.name}" for folder in sorted((output / "train").iterdir())]
    shutil.rmtree(output / lost)  # removed while it was queued
    cluster.scontrol("update", "nodename=ALL", "state=resume")
    page = sweeps.page(output)
    sweeps.wait(lambda: artifacts.is_finished(page), 240, "the page of what there is")
    states = sweeps.known_states(output)
    assert (states[lost], states[kept]) == ("failed", "done")
    assert sorted(state for label, state in states.items() if label.startswith("score/")) == ["done", "skipped"]
    missing = [name for name in ("report.html",) if lost.partition("/")[2] in (page / name).read_text()]
    assert missing, "the page does not name what is missing"
    said = sweeps.launch(output, *words)
    assert "3 stages queued" in said, said
    sweeps.wait_for_page(output)
    assert len(sweeps.starts(output, kept)) == 1
    assert sweeps.digests(reference).items() <= sweeps.digests(output).items()


def test_where_slurm_may_not_cancel_what_can_never_start(cluster: Cluster, reference: Path, tmp_path: Path) -> None:
    """The worker of a failed stage takes back what waits for it; what nobody could take back is left to reap."""
    may_not = "cluster.kill_on_invalid_dep=false"
    output, train = resumed(reference, tmp_path, may_not)
    respond = sweeps.only(output, "respond")
    in_the_middle(output, train, 5)
    os.kill(rank_process(0), signal.SIGKILL)  # no worker is left to take anything back
    reasons = ("squeue", "--noheader", "--format=%r")
    sweeps.wait(lambda: "DependencyNeverSatisfied" in cluster.run(*reasons), 60, lambda: sweeps.words(output))
    assert sweeps.known_states(output)[respond] == "skipped"
    assert f"1 jobs removed that could never start: {sweeps.element(output, respond)}" in sweeps.alpaca(output, "reap")
    sweeps.wait(lambda: sweeps.known_states(output)[train] == "failed", 20, "it is known to have failed")
    assert sweeps.known_states(output)[respond] == "skipped"
    cluster.scontrol("update", "nodename=ALL", "state=drain", "reason=test")
    sweeps.launch(output, *POINT, *sweeps.overrides(may_not))
    shutil.rmtree(output / train)  # removed while it was queued
    waits = sweeps.element(output, respond)
    cluster.scontrol("update", "nodename=ALL", "state=resume")
    sweeps.wait(lambda: sweeps.known_states(output)[train] == "failed", 60, "it failed")
    sweeps.wait(lambda: waits not in cluster.run("squeue", "--noheader", "--array", "--format=%i"), 60, "taken back")
    sweeps.launch(output, *POINT, *sweeps.overrides(may_not))
    equal_in_the_end(output, reference)


def test_a_time_limit_saves_and_queues_again(cluster: Cluster, reference: Path, tmp_path: Path) -> None:
    """The limit is a minute; SLURM looks every half minute, so the warning comes within that. The training is slowed
    down meanwhile, else it would have ended before.
    """
    output, label = resumed(reference, tmp_path, "cluster.stages.train.minutes=1", "cluster.signal_seconds=59")
    in_the_middle(output, label, 5)
    slowed_down(stage_process(), 90)
    equal_in_the_end(output, reference, 380)
    counts = [count for _, count in sweeps.starts(output, label)]
    assert counts == list(range(len(counts)))
    assert len(counts) > 1  # on a busy machine the second start may meet its limit too
    log = (output / label / "log.txt").read_text()
    assert log.count("stopped by SIGUSR2") == log.count("resumed") == len(counts) - 1


def test_restarts_are_bounded(cluster: Cluster, reference: Path, tmp_path: Path) -> None:
    output, label = resumed(reference, tmp_path, "cluster.max_requeues=0")
    in_the_middle(output, label)
    cluster.run("scancel", "--signal=USR2", sweeps.element(output, label))
    sweeps.wait(lambda: sweeps.known_states(output)[label] == "failed", 60, "it failed")
    assert "0 are allowed" in artifacts.read_json(output / label / "stopped.json")["error"]


def test_the_submitter_is_killed_between_sbatch_and_its_record(
    cluster: Cluster, reference: Path, tmp_path: Path
) -> None:
    output = sweeps.without(reference, tmp_path / "outputs", "train", "respond", "score")
    cluster.scontrol("update", "nodename=ALL", "state=drain", "reason=test")
    path = sweeps.shim(tmp_path / "bin", "sbatch", '#!/bin/sh\n"%REAL%" "$@" > /dev/null\nkill -9 $PPID\n')
    sweeps.launch(output, *POINT, *sweeps.overrides(), check=False, PATH=path)
    assert len(cluster.run("squeue", "--noheader", "--array").splitlines()) == 1
    assert not list(output.glob("queue/*/arrays/*.job"))
    said = sweeps.launch(output, *POINT, *sweeps.overrides())
    assert "1 queued or running already" in said, said
    assert "2 stages queued" in said, said
    cluster.scontrol("update", "nodename=ALL", "state=resume")
    equal_in_the_end(output, reference)
    assert len(sweeps.starts(output, sweeps.only(output, "train"))) == 1


def test_two_launches_at_once_queue_everything_once(cluster: Cluster, reference: Path, tmp_path: Path) -> None:
    output = sweeps.without(reference, tmp_path / "outputs", "train", "respond", "score")
    words = [sys.executable, "launch.py", *POINT, *sweeps.overrides(), f"output_dir={output}"]
    both = [subprocess.Popen(words, cwd=sweeps.ROOT, env=sweeps.environment()) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    equal_in_the_end(output, reference)
    for kind in ("train", "respond", "score"):
        assert len(sweeps.starts(output, sweeps.only(output, kind))) == 1
    names = [array.kind for array in records.index(output).arrays]
    assert names.count("train") == 1


def test_editing_after_the_submission_changes_nothing(cluster: Cluster, reference: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for name in ("alpaca", "conf", "sweeps", "hydra_plugins"):
        shutil.copytree(sweeps.ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(sweeps.ROOT / "launch.py", copy / "launch.py")
    output = sweeps.without(reference, tmp_path / "outputs", "train", "respond", "score")
    cluster.scontrol("update", "nodename=ALL", "state=drain", "reason=test")
    sweeps.launch(output, *POINT, *sweeps.overrides(), root=copy)
    (copy / "alpaca/stages/train/__init__.py").write_text("raise RuntimeError('edited')\n")
    (copy / "conf/optimizer/adamw.yaml").write_text("edited: true\n")
    frozen = {label: (output / label / "stage.json").read_bytes() for label in sweeps.known_states(output)}
    said = sweeps.launch(output, *POINT, *sweeps.overrides("train.checkpoint_seconds=7"))
    assert "3 queued or running already" in said, said
    assert {label: (output / label / "stage.json").read_bytes() for label in frozen} == frozen
    cluster.scontrol("update", "nodename=ALL", "state=resume")
    equal_in_the_end(output, reference)


@pytest.mark.parametrize(("optimizer", "tolerance"), [("adamw", 1e-5), ("muon", 1e-3)])
def test_two_nodes_of_two_processes_train_as_one(
    cluster: Cluster, reference: Path, tmp_path: Path, optimizer: str, tolerance: float
) -> None:
    one = sweeps.without(reference, tmp_path / "one", "train", "respond", "score")
    four = sweeps.without(reference, tmp_path / "four", "train", "respond", "score")
    point = ["train.budget=15 steps", "data.size=150", f"optimizer={optimizer}", "until=train"]
    sweeps.launch(one, *sweeps.WORLD, *point, *LOCAL)
    spread = ["fsdp=full_shard", "fsdp.world_size=4", "cluster.processes_per_node=2"]
    said = sweeps.launch(four, *point, *sweeps.overrides(*spread))
    assert "2 nodes x 2 processes" in said, said
    label = sweeps.only(four, "train")
    sweeps.wait(lambda: artifacts.is_finished(four / label), 240, lambda: sweeps.words(four))
    assert sweeps.losses(four) == pytest.approx(sweeps.losses(one), abs=tolerance)


def test_a_rank_that_dies_ends_the_job_and_the_log_says_so(cluster: Cluster, reference: Path, tmp_path: Path) -> None:
    spread = ["fsdp=full_shard", "fsdp.world_size=4", "cluster.processes_per_node=2"]
    output, label = resumed(reference, tmp_path, *spread)
    in_the_middle(output, label, 10)
    victim = rank_process(2)
    os.kill(victim, signal.SIGKILL)
    started = time.monotonic()
    sweeps.wait(lambda: sweeps.known_states(output)[label] == "failed", 60, "the job has ended")
    assert time.monotonic() - started < 60
    logs = "\n".join(path.read_text() for path in output.glob("queue/*/logs/*_0_log.out"))
    assert "task 2: Killed" in logs, logs
    assert "task 2: Killed" in sweeps.alpaca(output, "logs", label)


def slowed_down(process: int, seconds: float) -> None:
    """Lets a process run for a tenth of a second in two, until it has ended."""
    deadline = time.monotonic() + seconds
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            for number, pause in ((signal.SIGSTOP, 2.0), (signal.SIGCONT, 0.1)):
                os.kill(process, number)
                time.sleep(pause)


def stage_process() -> int:
    """The process of the one stage that runs on the cluster."""
    conf = b"SLURM_CONF=" + os.environ["SLURM_CONF"].encode()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                found = b"alpaca.jobs" in (folder / "cmdline").read_bytes().split(b"\0")
                if found and conf in (folder / "environ").read_bytes().split(b"\0"):
                    return int(folder.name)
            except OSError:
                continue
    raise AssertionError("no stage runs")


def rank_process(rank: int) -> int:
    """The process of a rank of the one training that runs."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                variables = (folder / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"alpaca.dispatch.slurm.worker" in words and b"SLURM_PROCID=%d" % rank in variables and len(words) < 8:
                return int(folder.name)
    raise AssertionError(f"no process of rank {rank}")


def test_a_child_that_slurm_starts_after_a_lost_parent_refuses(
    cluster: Cluster, reference: Path, tmp_path: Path
) -> None:
    """SLURM takes a dependency on a job it has forgotten as satisfied; the worker looks at the parents itself."""
    output = sweeps.without(reference, tmp_path / "outputs", "train", "respond", "score")
    cluster.scontrol("update", "nodename=ALL", "state=drain", "reason=test")
    sweeps.launch(output, *POINT, *sweeps.overrides())
    child = sweeps.only(output, "respond")
    cluster.run("scancel", sweeps.element(output, sweeps.only(output, "train")))
    folder = sweeps.newest(output)[1].folder
    script = next(path for path in folder.glob("logs/*submission.sh") if "002.json" in path.read_text())
    text = script.read_text().splitlines()
    forgotten = "#SBATCH --dependency=afterok:999999"
    loose = tmp_path / "loose.sh"
    loose.write_text("\n".join(forgotten if "--dependency" in line else line for line in text) + "\n")
    cluster.scontrol("update", "nodename=ALL", "state=resume")
    job = cluster.sbatch(str(loose))
    cluster.wait_for(job, "FAILED", timeout=60)
    told = artifacts.read_json(output / child / "stopped.json")["error"]
    assert "not finished" in told, told
    assert sweeps.only(output, "train") in told, told


@pytest.mark.parametrize(
    ("override", "key", "words"),
    [
        ("cluster.partition=nowhere", "cluster.partition=nowhere", "invalid partition"),
        ("cluster.gpus_per_node=64 cluster.stages.train.gpus=64", "cluster.stages.train.gpus=64", "node configuration"),
        ("cluster.stages.train.memory_gib=4000", "cluster.stages.train.memory_gib=4000", "emory"),
        ("cluster.constraint=quantum", "cluster.constraint=quantum", "feature"),
        ("cluster.extra=[--no-such-option]", "cluster", "no-such-option"),
    ],
)
def test_what_sbatch_refuses_is_told_with_the_key(
    cluster: Cluster, reference: Path, tmp_path: Path, override: str, key: str, words: str
) -> None:
    output = sweeps.without(reference, tmp_path / "outputs", "train", "respond", "score")
    said = sweeps.launch(output, *POINT, *sweeps.overrides(*override.split()), check=False)
    assert key in said, said
    assert words in said, said
    assert "Traceback" not in said


def test_what_no_node_has_is_told_where_sbatch_takes_it(cluster: Cluster, reference: Path, tmp_path: Path) -> None:
    output, label = resumed(reference, tmp_path, "cluster.stages.train.cpus=500")
    sweeps.wait(lambda: "PartitionConfig" in sweeps.alpaca(output, "status"), 60, "SLURM's reason")
    assert "no node of the partition has what was asked for" in sweeps.alpaca(output, "status")
    assert sweeps.known_states(output)[label] == "queued"


def test_without_accounting_states_come_from_markers_and_squeue(
    cluster_without_accounting: Cluster, reference: Path, tmp_path: Path
) -> None:
    output, label = resumed(reference, tmp_path)
    in_the_middle(output, label)
    assert sweeps.known_states(output)[label] == "running"
    cluster_without_accounting.run("scancel", sweeps.element(output, label))
    sweeps.wait(lambda: sweeps.known_states(output)[label] in ("cancelled", "failed"), 60, "its end is known")
    sweeps.alpaca(output, "retry", sweeps.newest(output)[1].name)
    equal_in_the_end(output, reference)
