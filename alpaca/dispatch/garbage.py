"""What an output folder could do without: nothing that a page, a child, a living process or a queued job needs.

Everything is found by looking; only `delete` changes anything, and it looks again first.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from alpaca import artifacts, claims
from alpaca.dispatch.slurm import records, states
from alpaca.dispatch.slurm.records import Index, Submission
from alpaca.errors import AlpacaError
from alpaca.plan import VERSIONS

STAGES = tuple(stage for stage in VERSIONS if stage != "report")
PAGES = ("sweeps", "runs")
PAID = ("sample", "rate", "moderate")
"""Stages whose answers a teacher may have been paid for."""
QUIET_SECONDS = 600.0
"""What was touched more recently may belong to a launch that is between two stages and holds no claim."""
RECORD_DAYS = 7
TRASH = ".gc-"
_NAME = re.compile(r".+-[0-9a-f]{8}")
"""Of a stage's folder."""
UNREFERENCED, FAILED, TORN, SCRATCH, SNAPSHOT, RECORD = (
    "no page and no stage refers to it", "failed", "begun, and nobody works on it", "checkpoints of a finished stage",
    "code that no stage ran", "queue record of what is over",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Waste:
    """Something that can be deleted. label: below the output folder; size: bytes that this frees."""

    label: str
    why: str
    size: int
    note: str = ""


@dataclass(kw_only=True, slots=True)
class Found:
    """wastes: what is offered; paid: what would be with `paid`; busy: why whole stages are not offered, or nothing."""

    wastes: list[Waste] = field(default_factory=list)
    paid: list[Waste] = field(default_factory=list)
    busy: str = ""
    protected: int = 0
    """Stages of submissions that are queued or running."""


@dataclass(kw_only=True, slots=True)
class _Stage:
    label: str
    path: Path
    finished: bool
    parents: list[str]
    code: str
    held: bool
    """By a living process."""


@dataclass(kw_only=True, slots=True)
class _Look:
    """The folder at one moment."""

    output: Path
    stages: dict[str, _Stage]
    pages: dict[str, dict[str, Any]]
    """Label -> stage.json of a sweep's or run's page; empty where it cannot be read."""
    index: Index
    alive: list[Submission]
    """Something of it is queued or running, or SLURM cannot be asked."""
    busy: str


def look(output: Path, *, paid: bool) -> Found:
    """What could be deleted now. paid: teacher answers too."""
    seen = _look(output)
    kept = _needed(seen)
    loose = [] if seen.busy else [stage for stage in seen.stages.values() if stage.label not in kept]
    found = Found(busy=seen.busy, protected=len({item.label for each in seen.alive for item in each.stages}))
    for stage in loose:
        waste = _waste(stage)
        costly = stage.label.partition("/")[0] in PAID and not paid
        (found.paid if costly else found.wastes).append(waste)
    gone = {waste.label for waste in found.wastes}
    left = [stage for stage in seen.stages.values() if stage.label not in gone]
    found.wastes += [*_scratch(left), *_snapshots(seen, left), *_records(seen), *_trash(output)]
    return found


def delete(output: Path, wastes: Iterable[Waste], *, paid: bool) -> tuple[list[Waste], list[Waste]]:
    """Deletes what is still offered now; returns that, and what is needed again since it was shown."""
    still = {(waste.label, waste.why) for waste in look(output, paid=paid).wastes}
    done: list[Waste] = []
    kept: list[Waste] = []
    for waste in wastes:
        if (waste.label, waste.why) in still and _delete(output, output / waste.label):
            done.append(waste)
        else:
            kept.append(waste)
    return done, kept


def _delete(output: Path, path: Path) -> bool:
    """Moved away first, so that nobody ever sees half a folder; False where somebody took it at the last moment."""
    if claims.holder(path) or not _inside(output, path):
        return False
    if path.name.startswith(TRASH):
        shutil.rmtree(path)
        return True
    target = output / f"{TRASH}{os.getpid()}-{time.monotonic_ns()}"
    path.rename(target)
    shutil.rmtree(target)
    return True


def _look(output: Path) -> _Look:
    index = records.index(output)
    stages = {stage.label: stage for kind in STAGES for stage in _stages(output, kind)}
    pages = {
        path.relative_to(output).as_posix(): _json(path / "stage.json")
        for kind in PAGES
        for path in _folders(output, output / kind)
    }
    alive = _alive(index, output)
    return _Look(
        output=output, stages=stages, pages=pages, index=index, alive=alive, busy=_busy(output, stages, pages, alive)
    )


def _stages(output: Path, kind: str) -> Iterator[_Stage]:
    for path in _folders(output, output / kind):
        if not (path / "stage.json").exists() and not _NAME.fullmatch(path.name):
            continue  # somebody's own folder
        frozen = _json(path / "stage.json")
        code = _json(path / "provenance.json").get("code") or frozen.get("code") or ""
        yield _Stage(
            label=path.relative_to(output).as_posix(),
            path=path,
            finished=artifacts.is_finished(path),
            parents=[str(parent) for parent in (frozen.get("parents") or {}).values()],
            code=str(code),
            held=bool(claims.holder(path)),
        )


def _folders(output: Path, parent: Path) -> Iterator[Path]:
    """Real folders directly below a folder: a link, or what lies behind one, belongs to somebody else."""
    if parent.is_dir() and not parent.is_symlink():
        yield from (path for path in sorted(parent.iterdir()) if path.is_dir() and _inside(output, path))


def _inside(output: Path, path: Path) -> bool:
    return not path.is_symlink() and path.resolve().is_relative_to(output.resolve())


def _json(path: Path) -> dict[str, Any]:
    """An object, or an empty one: a torn or foreign file must not stop the look."""
    with suppress(OSError, AlpacaError, UnicodeDecodeError):
        found = artifacts.read_json(path)
        return found if isinstance(found, dict) else {}
    return {}


def _alive(index: Index, output: Path) -> list[Submission]:
    """Submissions that SLURM still has jobs of; all unfinished ones where it cannot be asked."""
    open_ones = [item for item in index.submissions if not states.is_complete(item)]
    if not open_ones:
        return []
    seen = states.observe(index, output, fresh=True)
    if seen.error:
        return open_ones
    numbers = {job.id.partition("_")[0] for job in seen.jobs.values() if job.live}
    mine = {array.submission for array in index.arrays if array.job in numbers}
    return [item for item in open_ones if item.folder in mine]


def _busy(output: Path, stages: dict[str, _Stage], pages: dict[str, Any], alive: list[Submission]) -> str:
    """Why no whole stage can be called unreferenced: a launch without a record may still need it.

    What SLURM was given is recorded, and known stage by stage.
    """
    recorded = {item.label for each in alive for item in each.stages} | {each.page for each in alive}
    for label in [*stages, *pages]:
        if label not in recorded and claims.holder(output / label):
            return f"{label} is being made"
    torn = [label for label, frozen in pages.items() if not frozen and _is_page(output / label)]
    if torn:
        return f"{torn[0]}/stage.json cannot be read, so that it is not known what that page needs"
    queueing = claims.holder(output / records.FOLDER)
    if queueing and queueing.get("pid") != os.getpid():
        return "a command is queueing something"
    recent = [label for label in [*stages, *pages] if label not in recorded and _age(output / label) < QUIET_SECONDS]
    return f"{recent[0]} was touched in the last {QUIET_SECONDS / 60:.0f} minutes" if recent else ""


def _is_page(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("stage.json", "report.html", "_SUCCESS"))


def _age(folder: Path) -> float:
    """Seconds since a record in it changed; looking for a living claim changes the folder itself."""
    paths = [*(folder / name for name in ("stage.json", "_SUCCESS", "log.txt")), *folder.glob("claim-*")]
    return time.time() - max((path.lstat().st_mtime for path in paths if path.exists()), default=0.0)


def _is_old(folder: Path) -> bool:
    """Whether nothing was put into it or taken out lately."""
    return time.time() - folder.lstat().st_mtime > QUIET_SECONDS


def _needed(seen: _Look) -> set[str]:
    """Stages that a page, a living process or a queued job needs, and everything that these were made from."""
    roots = {label for label, stage in seen.stages.items() if stage.held}
    # What failed keeps what it was made from, and what was queued is still wanted: both may be tried again.
    roots |= {parent for stage in seen.stages.values() if not stage.finished for parent in stage.parents}
    roots |= {item.label for each in seen.index.submissions if not states.is_complete(each) for item in each.stages}
    for frozen in seen.pages.values():
        points = (frozen.get("config") or {}).get("points") or []
        roots |= {str(name) for point in points for name in (point.get("stages") or {}).values()}
        roots |= {str(name) for name in (frozen.get("parents") or {}).values()}
    # A page names what it would show; what failed is no more than that.
    return {label for label in _ancestors(seen, roots) if _stands(seen, seen.stages[label])}


def _ancestors(seen: _Look, roots: set[str]) -> set[str]:
    """The stages that are there among these, and everything that they were made from."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        label = waiting.pop()
        if label not in found and label in seen.stages:
            found.add(label)
            waiting += seen.stages[label].parents
    return found


def _stands(seen: _Look, stage: _Stage) -> bool:
    queued = any(item.label == stage.label for each in seen.alive for item in each.stages)
    return stage.finished or stage.held or queued


def _waste(stage: _Stage) -> Waste:
    size = bytes_of(stage.path)
    if stage.finished:
        return Waste(label=stage.label, why=UNREFERENCED, size=size)
    error = str(artifacts.stopped(stage.path).get("error") or "").partition("\n")[0]
    saved = " (has saved work: the same command goes on from there)" if _has_work(stage.path) else ""
    return Waste(label=stage.label, why=FAILED if error else TORN, size=size, note=f"{error}{saved}".strip())


def _has_work(folder: Path) -> bool:
    work = folder / "work"
    return work.is_dir() and any(work.iterdir())


def _scratch(stages: Iterable[_Stage]) -> Iterator[Waste]:
    for stage in stages:
        work = stage.path / "work"
        if stage.finished and not stage.held and work.is_dir() and not work.is_symlink():
            yield Waste(label=f"{stage.label}/work", why=SCRATCH, size=bytes_of(work))


def _snapshots(seen: _Look, left: Iterable[_Stage]) -> Iterator[Waste]:
    """Those that no stage or page that stays ran on, and no submission can be queued again with."""
    used = {stage.code for stage in left} | {str(frozen.get("code") or "") for frozen in seen.pages.values()}
    used |= {str(_json(seen.output / label / "provenance.json").get("code") or "") for label in seen.pages}
    used |= {item.code for item in seen.index.submissions}
    for path in _folders(seen.output, seen.output / "code"):
        label = path.relative_to(seen.output).as_posix()
        if label not in used and not seen.busy and _is_old(path):
            yield Waste(label=label, why=SNAPSHOT, size=bytes_of(path))


def _records(seen: _Look) -> Iterator[Waste]:
    """Submissions that are over for some days: complete, or followed by another one of the same name."""
    latest = {item.name: item for item in seen.index.submissions}
    before = datetime.now(UTC) - timedelta(days=RECORD_DAYS)
    for item in seen.index.submissions:
        over = states.is_complete(item) or latest[item.name] is not item
        if item in seen.alive or not over or datetime.fromisoformat(item.created) > before:
            continue
        if _inside(seen.output, item.folder):
            label = item.folder.relative_to(seen.output).as_posix()
            yield Waste(label=label, why=RECORD, size=bytes_of(item.folder), note=f"of {item.created[:10]}")


def _trash(output: Path) -> Iterator[Waste]:
    """What an earlier deletion that was killed had moved away."""
    for path in _folders(output, output):
        if path.name.startswith(TRASH) and _is_old(path):
            yield Waste(label=path.name, why="left by a deletion that was killed", size=bytes_of(path))


def bytes_of(folder: Path) -> int:
    """What deleting a folder frees: its files, without what is behind links or has another name elsewhere."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                status = (Path(root) / name).lstat()
                total += status.st_size if status.st_nlink == 1 else 0
    return total
