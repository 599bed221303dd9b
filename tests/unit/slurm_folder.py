"""An output folder as submissions leave it, beside programs of SLURM that answer from files and are counted."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alpaca import artifacts
from alpaca.config import SlurmCluster
from alpaca.dispatch.slurm import records
from alpaca.dispatch.slurm.graph import Stage
from alpaca.dispatch.slurm.records import Draft, Queued, Submission

# Rows are kept as squeue prints them here: number|index|state|reason|time|name|user; --name= chooses among them.
SHIM = """#!/bin/sh
echo "$(basename "$0") $*" >> "{root}/calls"
if [ -e "{root}/$(basename "$0").fails" ]; then cat "{root}/$(basename "$0").fails" >&2; exit 1; fi
{body}
"""
CHOOSE = """for word in "$@"; do case "$word" in --name=*) names="${{word#--name=}}";; esac; done
[ ! -e "{root}/{file}" ] || awk -F'|' -v names="$names" -v column={column} \\
    'BEGIN {{ split(names, list, ","); for (i in list) known[list[i]] = 1 }} !names || known[$column]' "{root}/{file}"
"""
SBATCH = 'count=$(grep -c ^sbatch "{root}/calls"); echo "Submitted batch job $((900 + count))"'
NAME = "data_size"


@dataclass
class Folder:
    """root: holds outputs/ and bin/ with squeue, sacct, scancel, sbatch, srun and scontrol."""

    root: Path
    rows: list[str] = field(default_factory=list)
    history: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.output.mkdir(parents=True)
        (self.root / "bin").mkdir()
        bodies = {
            "squeue": CHOOSE.format(root=self.root, file="rows", column=6),
            "sacct": CHOOSE.format(root=self.root, file="history", column=2),
            "scancel": "",
            "srun": "",
            "sbatch": SBATCH.format(root=self.root),
            "scontrol": "echo 'MaxArraySize = 1001'",
        }
        for name, body in bodies.items():
            path = self.root / "bin" / name
            path.write_text(SHIM.format(root=self.root, body=body))
            path.chmod(0o755)

    @property
    def output(self) -> Path:
        return self.root / "outputs"

    @property
    def path(self) -> str:
        return f"{self.root / 'bin'}{os.pathsep}{os.environ['PATH']}"

    def calls(self, program: str) -> list[str]:
        """What it was called with, in order."""
        path = self.root / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.split()[0] == program]

    def fails(self, program: str, words: str) -> None:
        (self.root / f"{program}.fails").write_text(words)

    def submission(self, stages: dict[str, tuple[str, ...]], name: str = NAME, **report: Any) -> Submission:
        """label -> parents; the folders get what `launch.py` freezes before it queues."""
        for label in stages:
            (self.output / label).mkdir(parents=True, exist_ok=True)
            artifacts.write_json(self.output / label / "stage.json", {"key": label.rpartition("-")[2]})
        code = self.output / "code" / "c0de"
        code.mkdir(parents=True, exist_ok=True)
        page = {"folder": f"sweeps/{name}", "labels": list(stages), **report}
        draft = Draft(
            name=name,
            command=f"python launch.py sweep={name}",
            cluster=SlurmCluster(gpus_per_node=0),
            code="code/c0de",
            stages=[Stage(label=label, role=label.partition("/")[0], parents=found) for label, found in stages.items()],
            report=page,
        )
        known = records.index(self.output).submissions
        return records.create(self.output, draft, known[-1].created if known else "")

    def queued(self, submission: Submission, job: str | None, *units: str, number: int = 1) -> Queued:
        """An array whose element N runs the Nth of `units`: labels with blanks in between."""
        found = {index: labels.split() for index, labels in enumerate(units)}
        follows = [array.job for array in records.arrays_of(submission.folder) if array.job]
        array = records.write_units(submission, number, units[0].partition("/")[0], found, follows)
        if job:
            records.write_job(array, job)
        return array

    def says(self, array: Queued, index: int, state: str, reason: str = "None", used: str = "0:00") -> None:
        """What squeue says of an element from now on; sacct would say the same."""
        job = array.job or "77"
        self.rows = [row for row in self.rows if not row.startswith(f"{job}|{index}|")]
        self.rows.append(f"{job}|{index}|{state}|{reason}|{used}|{array.name}|me")
        (self.root / "rows").write_text("\n".join(self.rows) + "\n")

    def remembers(self, array: Queued, index: int, state: str, used: str = "00:01:00") -> None:
        """What only sacct says."""
        self.history.append(f"{array.job}_{index}|{array.name}|{state}|{used}|me")
        (self.root / "history").write_text("\n".join(self.history) + "\n")

    def finish(self, *labels: str) -> None:
        for label in labels:
            (self.output / label / "_SUCCESS").write_text("{}")

    def page(self, *labels: str, name: str = NAME) -> Path:
        """The report, made of these stages."""
        folder = self.output / "sweeps" / name
        folder.mkdir(parents=True, exist_ok=True)
        artifacts.write_json(folder / "stage.json", {"key": "p", "parents": {label: label for label in labels}})
        (folder / "report.html").write_text("<p>")
        (folder / "_SUCCESS").write_text(json.dumps({"key": "p"}))
        return folder

    def stopped(self, label: str, job: str, error: str) -> None:
        word = {"job": job, "restart": 0, "status": 1, "error": error}
        (self.output / label / artifacts.STOPPED).write_text(json.dumps(word))


CHAIN: dict[str, tuple[str, ...]] = {
    "curate/a-00000001": (),
    "train/tiny-00000002": ("curate/a-00000001",),
    "respond/x-00000003": ("train/tiny-00000002",),
    "score/x-00000004": ("respond/x-00000003",),
}
CURATE, TRAIN, RESPOND, SCORE = CHAIN


def chain(folder: Folder, name: str = NAME) -> tuple[Submission, list[Queued]]:
    """A point with its data done: train, then respond and score in one job, then the page."""
    found = folder.submission(CHAIN, name)
    folder.finish(CURATE)
    units = ([TRAIN], [f"{RESPOND} {SCORE}"], [f"sweeps/{name}"])
    queued = [folder.queued(found, f"10{number}", *unit, number=number) for number, unit in enumerate(units, 1)]
    return found, queued


def waiting(folder: Folder, queued: list[Queued]) -> None:
    """The training runs, the others wait for it."""
    folder.says(queued[0], 0, "RUNNING", used="1:05")
    folder.says(queued[1], 0, "PENDING", "Dependency")
    folder.says(queued[2], 0, "PENDING", "Dependency")
