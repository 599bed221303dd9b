"""The cluster that the other tests here stand on: it comes up, does what a real one does, and leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.slurm import processes
from tests.slurm.cluster import PROJECT, Cluster, ClusterError, free_ports, missing, temporary
from tests.slurm.processes import until

IDLE = {f"node{number}": "idle" for number in (1, 2, 3, 4)}


def script(folder: Path, text: str) -> str:
    path = folder / "job.sh"
    path.write_text(f"#!/bin/sh\n{text}\n")
    return str(path)


def written(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def test_an_array_runs_on_nodes_of_their_own_names(cluster: Cluster, tmp_path: Path) -> None:
    assert cluster.node_states() == IDLE
    says = script(tmp_path, "hostname; echo $SLURM_ARRAY_TASK_ID")
    job = cluster.sbatch("--array=0-9%4", f"--output={tmp_path}/%a", says)
    assert cluster.wait_for(job, "COMPLETED") == {f"{job}_{index}": "COMPLETED" for index in range(10)}
    for index in range(10):
        host, number = written(tmp_path / str(index))
        assert host in IDLE
        assert number == str(index)


def test_gpus_are_handed_out_and_no_more_than_there_are(cluster: Cluster, tmp_path: Path) -> None:
    says = script(tmp_path, "echo $CUDA_VISIBLE_DEVICES")
    job = cluster.sbatch("--gpus-per-node=3", f"--output={tmp_path}/out", says)
    cluster.wait_for(job, "COMPLETED")
    assert written(tmp_path / "out") == ["0,1,2"]
    with pytest.raises(ClusterError, match="Requested node configuration is not available"):
        cluster.sbatch("--gpus-per-node=9", "--wrap=true")


def test_sacct_tells_how_jobs_ended(cluster: Cluster) -> None:
    good, bad = cluster.sbatch("--wrap=true"), cluster.sbatch("--wrap=exit 3")
    cluster.wait_for(good, "COMPLETED")
    cluster.wait_for(bad, "FAILED")
    ask = ("sacct", "-X", "-n", "-P", f"--jobs={good},{bad}", "--format=JobID,State,ExitCode")
    expected = [f"{good}|COMPLETED|0:0", f"{bad}|FAILED|3:0"]
    assert until(lambda: cluster.run(*ask).splitlines() == expected, 20), cluster.run(*ask)


def test_without_accounting_sacct_says_so_and_squeue_still_knows(cluster_without_accounting: Cluster) -> None:
    assert os.environ["SLURM_CONF"] == str(cluster_without_accounting.conf)
    job = cluster_without_accounting.sbatch("--wrap=exit 3")
    cluster_without_accounting.wait_for(job, "FAILED")
    with pytest.raises(ClusterError, match="accounting storage is disabled"):
        cluster_without_accounting.run("sacct", f"--jobs={job}")


def test_a_requeued_job_starts_again_within_half_a_minute(cluster: Cluster, tmp_path: Path) -> None:
    text = f'echo "start-$SLURM_RESTART_COUNT" >> {tmp_path}/starts\n[ -n "$SLURM_RESTART_COUNT" ] || sleep 300'
    job = cluster.sbatch("--requeue", "--output=/dev/null", script(tmp_path, text))
    assert until(lambda: written(tmp_path / "starts"), 20)
    asked = time.monotonic()
    cluster.scontrol("requeue", job)
    cluster.wait_for(job, "COMPLETED")
    assert time.monotonic() - asked < 30
    assert written(tmp_path / "starts") == ["start-", "start-1"]


def test_a_preempted_job_is_warned_and_requeued(cluster: Cluster, tmp_path: Path) -> None:
    warned = f"trap 'date +warned >> {tmp_path}/seen' USR2; echo start >> {tmp_path}/seen; while :; do sleep 0.2; done"
    inner = tmp_path / "inner.sh"
    inner.write_text(f"#!/bin/sh\n{warned}\n")
    inner.chmod(0o755)
    low = cluster.sbatch(
        "--partition=low", "--nodes=4", "--exclusive", "--requeue", "--signal=USR2@30", "--output=/dev/null",
        script(tmp_path, f"srun --ntasks=1 --nodes=1 {inner}"),
    )  # fmt: skip
    assert until(lambda: written(tmp_path / "seen"), 20)
    high = cluster.sbatch("--partition=high", "--nodes=4", "--exclusive", "--wrap=true")
    cluster.wait_for(high, "COMPLETED", timeout=60)
    assert until(lambda: written(tmp_path / "seen").count("start") == 2, 40), written(tmp_path / "seen")
    assert written(tmp_path / "seen")[:2] == ["start", "warned"]
    cluster.scontrol("update", f"jobid={low}", "requeue=0")
    cluster.run("scancel", low)
    cluster.wait_for(low, "CANCELLED")


def test_the_controller_restarts_under_a_running_job(cluster: Cluster) -> None:
    job = cluster.sbatch("--output=/dev/null", "--wrap=sleep 300")
    cluster.wait_for(job, "RUNNING")
    for crash in (False, True):
        cluster.restart_controller(crash=crash)
        assert cluster.states(job) == {job: "RUNNING"}
    cluster.run("scancel", job)
    cluster.wait_for(job, "CANCELLED")


def test_a_dead_node_is_noticed_and_its_job_runs_elsewhere(cluster: Cluster, tmp_path: Path) -> None:
    where = tmp_path / "where"
    text = f'hostname >> {where}; [ -n "$SLURM_RESTART_COUNT" ] && exit; setsid sleep 300 & echo $! >> {where}; wait'
    job = cluster.sbatch("--requeue", "--output=/dev/null", script(tmp_path, text))
    assert until(lambda: len(written(where)) == 2, 20)
    first, pid = written(where)
    cluster.node_down(int(first.removeprefix("node")))
    assert processes.gone(int(pid)), "a process that left the job's session lives on"
    assert until(lambda: cluster.node_states()[first].startswith("down"), 60), cluster.node_states()
    cluster.wait_for(job, "COMPLETED", timeout=60)
    assert written(where)[2] in set(IDLE) - {first}
    cluster.node_up(int(first.removeprefix("node")))
    assert until(lambda: cluster.node_states() == IDLE, 20), cluster.node_states()


def test_a_node_can_be_declared_dead_at_once(cluster: Cluster) -> None:
    job = cluster.sbatch("--no-requeue", "--nodelist=node3", "--output=/dev/null", "--wrap=sleep 300")
    cluster.wait_for(job, "RUNNING")
    cluster.node_down(3, announce=True)
    cluster.wait_for(job, "NODE_FAIL", timeout=10)
    cluster.node_up(3)


def test_stopping_leaves_no_process_and_no_file() -> None:
    lacking = missing(dbd=True)
    if lacking:
        pytest.fail(lacking) if os.environ.get("REQUIRE_SLURM") == "1" else pytest.skip(lacking)
    with temporary(dbd=True) as mine:
        job = mine.sbatch("--output=/dev/null", "--wrap=trap '' TERM; sleep 300 & setsid sleep 300 & wait")
        mine.wait_for(job, "RUNNING")
        assert until(lambda: len(processes.of_jobs(mine.conf, mine.settings.names)) >= 4, 10)
        pids = [*mine.daemons(), *processes.of_jobs(mine.conf, mine.settings.names)]
        assert set(mine.status().values()) <= set(pids)
        assert len(mine.status()) == 8
    assert [pid for pid in pids if not processes.gone(pid)] == []
    assert mine.daemons() == []
    assert not mine.root.exists()


def test_a_killed_test_run_leaves_no_cluster_either() -> None:
    lacking = missing(dbd=False)
    if lacking:
        pytest.fail(lacking) if os.environ.get("REQUIRE_SLURM") == "1" else pytest.skip(lacking)
    program = (
        "import time\nfrom tests.slurm.cluster import temporary\n"
        "with temporary(dbd=False) as c:\n    print(c.root, flush=True)\n    time.sleep(300)"
    )
    run = subprocess.Popen([sys.executable, "-c", program], cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    killed = Cluster.at(run.stdout.readline().strip())
    assert all(killed.status().values())
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert until(lambda: not killed.root.exists(), 30)
    assert killed.daemons() == []


def test_runs_side_by_side_take_different_ports() -> None:
    (first, one), (second, two) = free_ports(), free_ports()
    with one, two:
        assert abs(first - second) >= 40


@pytest.mark.parametrize(
    ("root", "part"),
    [("relative", "relative"), ("/" + "x" * 80, "at most 70"), ("/with blank", "without blanks")],
)
def test_an_unusable_root_is_refused(root: str, part: str) -> None:
    with pytest.raises(ClusterError, match=part):
        Cluster(root, 20_000, dbd=False)


def test_a_command_without_a_cluster_says_what_to_do(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.slurm.cluster", "status", f"--root={tmp_path}"],
        cwd=PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path}: no cluster was started here\n    make slurm-up\n"


def test_what_is_missing_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.slurm.cluster.PATH", "/nowhere")
    assert missing(dbd=False) == (
        "SLURM is not installed here (munged, mungekey, slurmctld, slurmd, sbatch): "
        "apt-get install --no-install-recommends munge slurmctld slurmd slurm-client"
    )
    assert missing(dbd=True).endswith("slurm-client slurmdbd mariadb-server-core")
