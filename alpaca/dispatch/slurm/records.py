"""What is known on disk of submissions: outputs/queue/<id>/.

submission.json   the stages, the cluster, the page: written before the first sbatch
arrays/NN.json    one job array: its unique name and what each element runs; written before its sbatch
arrays/NN.job     the number SLURM gave it; missing after a crash in between, then found again by the name
cancelled         somebody cancelled it: the jobs that were taken back
logs/             what SLURM and srun themselves said
"""

from __future__ import annotations

import dataclasses
import getpass
import re
import socket
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from alpaca.artifacts import read_json, write_json
from alpaca.config import SlurmCluster
from alpaca.dispatch.slurm.graph import Array, Stage
from alpaca.errors import UserError
from alpaca.frozen import typed

FOLDER = "queue"


@dataclass(kw_only=True, slots=True)
class Draft:
    """What a command wants to have done: all that status, retry and cancel need later without the configuration."""

    name: str
    """Of the sweep, or of the run."""
    command: str
    cluster: SlurmCluster
    code: str
    """The frozen code, below the output folder."""
    stages: list[Stage]
    """Parents before children."""
    report: dict[str, Any]
    """What the page is made from (`alpaca.dispatch.pages`); empty where there is none to make."""

    @property
    def page(self) -> str:
        """Label of the page, or nothing."""
        return str(self.report.get("folder", ""))


@dataclass(kw_only=True, slots=True)
class Submission(Draft):
    """One command that queued something."""

    folder: Path
    created: str

    @property
    def output(self) -> Path:
        return self.folder.parents[1]

    @property
    def cancelled(self) -> bool:
        return (self.folder / "cancelled").exists()


@dataclass(kw_only=True, slots=True)
class Queued:
    """One job array as recorded. units: index -> labels in order; job: SLURM's number, None while not known."""

    path: Path
    name: str
    kind: str
    units: dict[int, list[str]]
    job: str | None
    follows: list[str] = field(default_factory=list)
    """Of a page: the numbers of the arrays that it waits for."""
    cancelled: frozenset[str] = frozenset()
    """The elements of its submission that somebody took back."""

    @property
    def submission(self) -> Path:
        return self.path.parents[1]


@dataclass(kw_only=True, slots=True)
class Element:
    """Where a stage is, or was, queued: an element of an array."""

    array: Queued
    index: int
    position: int
    """Of the stage among those that the element runs."""

    @property
    def job(self) -> str | None:
        """SLURM's name for it, "123_4"."""
        return f"{self.array.job}_{self.index}" if self.array.job else None

    @property
    def is_cancelled(self) -> bool:
        return self.job in self.array.cancelled


@dataclass(kw_only=True, slots=True)
class Index:
    """All submissions of an output folder, oldest first, and the latest element of every stage."""

    submissions: list[Submission] = field(default_factory=list)
    arrays: list[Queued] = field(default_factory=list)
    latest: dict[str, Element] = field(default_factory=dict)


def create(output: Path, draft: Draft, newest: str = "") -> Submission:
    """Writes a new submission's record; nothing is queued yet.

    newest: when the latest one there was made: by a clock that is ahead of this one the new one would seem older.
    """
    now = datetime.now(UTC)
    if newest:
        now = max(now, datetime.fromisoformat(newest) + timedelta(milliseconds=1))
    folder = output / FOLDER / f"{_plain(draft.name)}-{now:%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:4]}"
    (folder / "arrays").mkdir(parents=True)
    (folder / "logs").mkdir()
    given = {spec.name: getattr(draft, spec.name) for spec in dataclasses.fields(Draft)}
    found = Submission(folder=folder, created=now.isoformat(timespec="milliseconds"), **given)
    record = given | {"created": found.created, "cluster": dataclasses.asdict(draft.cluster)}
    record |= {"stages": [dataclasses.asdict(stage) for stage in draft.stages]}
    write_json(folder / "submission.json", record | {"user": getpass.getuser(), "host": socket.gethostname()})
    return found


def load(folder: Path) -> Submission:
    """A submission from its record."""
    found = read_json(folder / "submission.json")
    return Submission(
        folder=folder,
        name=found["name"],
        created=found["created"],
        command=found["command"],
        cluster=typed(SlurmCluster, found["cluster"]),
        code=found["code"],
        stages=[Stage(**{**stage, "parents": tuple(stage["parents"])}) for stage in found["stages"]],
        report=found["report"],
    )


def index(output: Path) -> Index:
    """Everything that was ever queued in this output folder."""
    found = Index()
    folders = [path.parent for path in (output / FOLDER).glob("*/submission.json")]
    known = [submission for folder in folders if (submission := _loaded(folder))]
    found.submissions = sorted(known, key=lambda item: (item.created, item.folder.name))
    for submission in found.submissions:
        for array in arrays_of(submission.folder):
            found.arrays.append(array)
            for number, labels in array.units.items():
                for position, label in enumerate(labels):
                    found.latest[label] = Element(array=array, index=number, position=position)
    return found


def _loaded(folder: Path) -> Submission | None:
    """A submission, or nothing where its command has just given it up."""
    try:
        return load(folder)
    except FileNotFoundError:
        return None


def arrays_of(folder: Path) -> Iterator[Queued]:
    """The arrays of one submission in the order in which they were queued, but for those sbatch refused."""
    taken = cancelled(folder)
    for path in sorted((folder / "arrays").glob("*.json")):
        try:
            record, job = read_json(path), path.with_suffix(".job")
        except FileNotFoundError:  # sbatch has just refused it
            continue
        units = {int(number): labels for number, labels in record["units"].items()}
        name, known = record["name"], job.read_text().strip() if job.exists() else None
        follows = record.get("follows", [])
        yield Queued(
            path=path, name=name, kind=record["kind"], units=units, job=known, follows=follows, cancelled=taken
        )


def write_array(submission: Submission, array: Array) -> Queued:
    """The record of an array that is about to be queued."""
    units = {number: [stage.label for stage in unit.stages] for number, unit in array.units.items()}
    return write_units(submission, array.number, array.kind, units)


def write_units(
    submission: Submission, number: int, kind: str, units: dict[int, list[str]], follows: Iterable[str] = ()
) -> Queued:
    """The record of an array by its units. follows: of a page, the arrays it waits for."""
    path = submission.folder / "arrays" / f"{number:03d}.json"
    name = f"alpaca.{_plain(submission.name)}.{kind}.{uuid.uuid4().hex[:10]}"
    limit = submission.cluster.max_requeues
    record = {"name": name, "kind": kind, "units": units, "code": submission.code, "max_requeues": limit}
    write_json(path, record | {"follows": sorted(follows)})
    return Queued(path=path, name=name, kind=kind, units=units, job=None, follows=sorted(follows))


def write_job(array: Queued, job: str) -> None:
    """SLURM's number of an array."""
    path = array.path.with_suffix(".job")
    temporary = path.with_suffix(".part")
    temporary.write_text(job + "\n")
    temporary.replace(path)
    array.job = job


def cancelled(submission: Path) -> frozenset[str]:
    """The elements of a submission that somebody took back, "123_4"."""
    path = submission / "cancelled"
    return frozenset(path.read_text().split()) if path.exists() else frozenset()


def write_cancelled(submission: Path, jobs: Iterable[str]) -> None:
    """Before they are cancelled: a job that is just being saved must not queue itself again."""
    with (submission / "cancelled").open("a") as file:
        file.writelines(f"{job}\n" for job in jobs)


def chosen(found: Index, name: str) -> Submission:
    """The newest submission of that name, of a variant of it (NAME-4f537d8a), or with that folder name.

    UserError when there is none.
    """
    exact = [item for item in found.submissions if name in (item.name, item.folder.name)]
    fitting = exact or [item for item in found.submissions if item.name.rpartition("-")[0] == name]
    if not fitting:
        known = sorted({item.name for item in found.submissions})
        raise UserError(
            what=f"nothing was queued under the name {name}",
            where="outputs/queue",
            remedy="known: " + ", ".join(known) if known else "nothing was queued in this folder yet (--output-dir?)",
        )
    return fitting[-1]


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:40].strip(".-") or "run"
