"""A whole question on a real SLURM while everything happens to it: its page is right, nothing lost or done twice."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from alpaca import artifacts
from alpaca.dispatch.slurm import records
from tests.slurm import sweeps
from tests.slurm.cluster import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
CLUSTER = {"grace": 15}
SWEEP = ["sweep=data_size", "data_gen.num_examples=4000", "train.budget=100 steps", "eval.embedded.size=60"]
ON_SLURM = ["cluster.partition=low", "cluster.max_requeues=10", "train.checkpoint_seconds=1"]


class Disturbed:
    """A sweep under fire. lost: labels of stages that ran when something happened, which alone may run twice."""

    def __init__(self, cluster: Cluster, output: Path) -> None:
        self.cluster, self.output = cluster, output
        self.lost: set[str] = set()
        self.struck: list[str] = []

    def strike(self, blow: Callable[[str], object]) -> str:
        """Disturbs a training in its middle that was not disturbed before; its label."""
        sweeps.wait(self._in_the_middle, 400, lambda: f"{self.struck} {sweeps.known_states(self.output)}")
        label = self._in_the_middle()[0]
        self.struck.append(label)
        self.lost |= self._running()
        blow(sweeps.element(self.output, label))
        self.lost |= self._running()
        return label

    def _in_the_middle(self) -> list[str]:
        labels = [f"train/{folder.name}" for folder in sorted((self.output / "train").iterdir())]
        open_labels = [label for label in labels if not artifacts.is_finished(self.output / label)]
        return [each for each in open_labels if each not in self.struck and sweeps.steps_done(self.output, each) >= 3]

    def _running(self) -> set[str]:
        text = self.cluster.run("squeue", "--noheader", "--array", "--states=RUNNING,COMPLETING", "--format=%i")
        jobs = set(text.split())
        return {label for label, element in records.index(self.output).latest.items() if element.job in jobs}

    def requeue(self, job: str) -> None:
        self.cluster.scontrol("requeue", job)

    def warn(self, job: str) -> None:
        """SLURM's signal ahead of a time limit."""
        self.cluster.run("scancel", "--signal=USR2", job)

    def preempt(self, job: str) -> None:
        self.cluster.sbatch("-p", "high", "-N4", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1")
        sweeps.wait(lambda: "high" not in self.cluster.run("squeue", "--noheader", "--format=%P"), 90, "it is over")

    def crash(self, job: str) -> None:
        node = self.cluster.run("squeue", "--noheader", "--format=%N", f"--jobs={job}").removeprefix("node")
        self.cluster.node_down(int(node))
        self.cluster.node_up(int(node))

    def cancel(self, job: str) -> None:
        self.cluster.run("scancel", job)


def test_a_question_is_one_graph_and_survives_everything(cluster: Cluster, tmp_path: Path) -> None:
    local, output = tmp_path / "local", tmp_path / "slurm"
    here = threading.Thread(
        target=sweeps.launch, args=(local, *sweeps.WORLD, *SWEEP, "cluster=local", "tracker=none", "cluster.parallel=1")
    )
    said = sweeps.launch(output, *sweeps.overrides(*SWEEP, *ON_SLURM))
    assert "40 stages queued in 12 job arrays" in said, said
    again = sweeps.launch(output, *sweeps.overrides(*SWEEP, *ON_SLURM))
    assert "0 stages queued in 0 job arrays" in again, again
    disturbed = Disturbed(cluster, output)
    cancelled = disturbed.strike(disturbed.cancel)
    for blow in (disturbed.requeue, disturbed.warn, disturbed.crash, disturbed.preempt):
        disturbed.strike(blow)
    here.start()
    sweeps.wait(lambda: cluster.run("squeue", "--noheader") == "", 400, lambda: sweeps.words(output))
    states = sweeps.known_states(output)
    assert states.pop(cancelled) == "cancelled"
    assert sorted(state for state in states.values() if state != "done") == ["skipped", "skipped"]
    assert cancelled.partition("/")[2] in (sweeps.page(output) / "report.html").read_text()
    sweeps.alpaca(output, "retry", sweeps.newest(output)[1].name)
    sweeps.wait_for_page(output)
    here.join()
    assert_the_same(output, local)
    for label in sweeps.digests(output).keys() - disturbed.lost:
        assert len(sweeps.starts(output, label)) == 1, label
    assert all(len(sweeps.starts(output, label)) > 1 for label in disturbed.struck)


def assert_the_same(output: Path, local: Path) -> None:
    """Every byte of every stage, and every number of the page."""
    assert sweeps.digests(output) == sweeps.digests(local)
    assert len(sweeps.digests(output)) == 40
    there = json.loads((sweeps.page(output) / "results.json").read_text())
    expected = json.loads((local / sweeps.page(output).relative_to(output) / "results.json").read_text())
    assert there["points"] == expected["points"]
