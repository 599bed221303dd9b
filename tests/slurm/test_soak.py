"""Random faults, seeded: whatever happens, every stage is done once, with the bytes of an undisturbed run.

SOAK=50 (`make soak`) sets how many faults; a few in the ordinary tests. SOAK_SEED chooses others.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.slurm import sweeps
from tests.slurm.cluster import Cluster, ClusterError

FAULTS = int(os.environ.get("SOAK", "4"))
SEED = int(os.environ.get("SOAK_SEED", "20261127"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240 + 60 * FAULTS)]
CLUSTER = {"grace": 10}
POINTS = ["-m", "seeds.init=0,1,2", "train.budget=60 steps", "data.size=100", "train.checkpoint_seconds=1"]
ON_SLURM = ["cluster.partition=low", "cluster.max_requeues=100", "cluster.signal_seconds=30"]
WANTED = 3 + 3 * 3
"""Pool, data set and base are shared by the three points; each has a training, its answers and their scores."""


class Soak:
    """One output folder under fire."""

    def __init__(self, cluster: Cluster, output: Path, luck: random.Random) -> None:
        self.cluster, self.output, self.luck = cluster, output, luck
        self.done: Counter[str] = Counter()

    def running(self) -> list[str]:
        """Elements that run now."""
        text = self.cluster.run("squeue", "--noheader", "--array", "--states=RUNNING", "--format=%i %j")
        return [line.split()[0] for line in text.splitlines() if "alpaca." in line]

    def live(self) -> list[str]:
        return self.cluster.run("squeue", "--noheader", "--array", "--format=%i %r").splitlines()

    def launch(self) -> None:
        sweeps.launch(self.output, *POINTS, *sweeps.overrides(*ON_SLURM))

    def fault(self) -> bool:
        """One fault, if there is anything to disturb."""
        running = self.running()
        kinds: list[Callable[[str], None]] = [
            self.warn, self.requeue, self.cancel, self.kill, self.crash, self.preempt, self.restart, self.again,
            self.forget,
        ]  # fmt: skip
        if not running:
            return False
        chosen = self.luck.choice(kinds)
        chosen(self.luck.choice(running))
        self.done[chosen.__name__] += 1
        return True

    def warn(self, job: str) -> None:
        self.quietly("scancel", "--signal=USR2", job)

    def requeue(self, job: str) -> None:
        self.quietly("scontrol", "requeue", job)

    def cancel(self, job: str) -> None:
        self.quietly("scancel", job)

    def kill(self, job: str) -> None:
        """SIGKILL for a process of some job, as the system does when memory runs out."""
        found = [pid for pid in processes() if b"alpaca.jobs" in command(pid)]
        if found:
            os.kill(self.luck.choice(found), signal.SIGKILL)

    def crash(self, job: str) -> None:
        node = self.luck.randint(1, 4)
        self.cluster.node_down(node, announce=self.luck.random() < 0.5)
        time.sleep(self.luck.uniform(0, 2))
        self.cluster.node_up(node)

    def preempt(self, job: str) -> None:
        self.cluster.sbatch("-p", "high", "-N2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1")

    def restart(self, job: str) -> None:
        self.cluster.restart_controller()

    def again(self, job: str) -> None:
        self.launch()

    def forget(self, job: str) -> None:
        """As if the submitter had died before it wrote SLURM's numbers down."""
        for path in self.output.glob("queue/*/arrays/*.job"):
            path.unlink()

    def quietly(self, *words: str) -> None:
        """The job may have ended meanwhile."""
        with suppress(ClusterError):
            self.cluster.run(*words)


def processes() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]


def command(pid: int) -> bytes:
    try:
        mine = b"SLURM_CONF=" + os.environ["SLURM_CONF"].encode() in Path(f"/proc/{pid}/environ").read_bytes()
        return Path(f"/proc/{pid}/cmdline").read_bytes() if mine else b""
    except OSError:
        return b""


def test_no_stage_is_lost_or_done_twice(cluster: Cluster, tmp_path: Path) -> None:
    reference, luck = tmp_path / "reference", random.Random(SEED)
    sweeps.launch(reference, *POINTS, *sweeps.WORLD, "cluster=local", "tracker=none")
    expected = sweeps.digests(reference)
    assert len(expected) == WANTED
    done: Counter[str] = Counter()
    for round_number in range(1000):
        if done.total() >= FAULTS:
            break
        output = sweeps.without(reference, tmp_path / f"round{round_number}", "train", "respond", "score")
        soak = Soak(cluster, output, luck)
        soak.launch()
        disturbed_to_the_end(soak, FAULTS - done.total())
        assert sweeps.digests(output) == expected, sweeps.words(output)
        assert_once(soak, expected)
        done += soak.done
    print(f"{done.total()} faults with seed {SEED}: {dict(done)}")
    assert done.total() >= FAULTS


def disturbed_to_the_end(soak: Soak, budget: int) -> None:
    """Faults while there are some left; whenever nothing moves and something is missing, the same command again."""
    deadline = time.monotonic() + 200 + 30 * budget
    while len(sweeps.digests(soak.output)) < WANTED or soak.live():
        assert time.monotonic() < deadline, f"{soak.live()}\n{sweeps.known_states(soak.output)}\n{dict(soak.done)}"
        if soak.done.total() < budget:
            soak.fault()
        assert not [line for line in soak.live() if "DependencyNeverSatisfied" in line]
        if not soak.live() and len(sweeps.digests(soak.output)) < WANTED:
            soak.launch()
        time.sleep(soak.luck.uniform(0.5, 3))


def assert_once(soak: Soak, expected: dict[str, str]) -> None:
    """No stage was started more often than something was disturbed, and nobody still holds one."""
    for label in expected:
        if label.startswith(("train/", "respond/", "score/")):
            assert 1 <= len(sweeps.starts(soak.output, label)) <= 1 + soak.done.total(), label
            assert not list((soak.output / label).glob("claim-*")), label
