"""What an output folder could do without: nothing that a page, a child, a living process or a queued job needs.

Everything is found by looking, behind links too: an output folder may be spread over several disks. Only `delete`
changes anything: it looks again first, and once more when all is moved away and nothing is removed yet.
"""

from __future__ import annotations

import fcntl
import glob
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

from alpaca import artifacts, claims
from alpaca.dispatch.pages import planned
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
LOCK = ".gc.lock"
LOCK_SECONDS = 60.0
"""After which a lock that is held is done without."""
AGAIN = "-again-"
"""In the name of a folder beside an output folder: something of it is made once more there, from its parents here."""
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
    ours: bool
    """Lies in the output folder itself, and not behind a link."""


@dataclass(kw_only=True, slots=True)
class _Look:
    """The folder at one moment."""

    output: Path
    stages: dict[str, _Stage]
    pages: dict[str, dict[str, Any]]
    """Label -> stage.json of a sweep's or run's page; empty where it cannot be read."""
    planned: set[str]
    """Stages of pages that a launch is still making, or was when it was interrupted."""
    index: Index
    alive: list[Submission]
    """Something of it is queued or running, or SLURM cannot be asked."""
    busy: str


def look(output: Path, *, paid: bool) -> Found:
    """What could be deleted now. paid: teacher answers too."""
    seen = _look(output)
    found = Found(busy=seen.busy, protected=len({item.label for each in seen.alive for item in each.stages}))
    for stage in _loose(seen):
        waste = _waste(stage)
        costly = stage.label.partition("/")[0] in PAID and not paid
        (found.paid if costly else found.wastes).append(waste)
    gone = {waste.label for waste in found.wastes}
    left = [stage for stage in seen.stages.values() if stage.label not in gone]
    found.wastes += [*_scratch(left), *_snapshots(seen, left), *_records(seen), *_trash(output)]
    return found


def delete(output: Path, wastes: Iterable[Waste], *, paid: bool) -> tuple[list[Waste], list[Waste]]:
    """Deletes what is still offered now; returns that, and what is needed again since it was shown.

    All is moved away before anything is removed, and what something needs by then is put back: whoever records a need
    later finds it missing, and makes it.
    """
    trash = output / f"{TRASH}{os.getpid()}-{time.monotonic_ns()}"
    moved: list[Waste] = []
    with lock(output, alone=True):
        still = {(waste.label, waste.why) for waste in look(output, paid=paid).wastes}
        kept: list[Waste] = []
        try:
            for waste in wastes:
                taken = (waste.label, waste.why) in still and _move(output, trash, waste.label)
                (moved if taken else kept).append(waste)
            again = _needed_again(output, trash, moved)
        except BaseException:
            _put_back(output, trash, moved)
            raise
        back = [waste for waste in moved if waste.label in again]
        _put_back(output, trash, back)
    done = [waste for waste in moved if waste.label not in again]
    for waste in done:
        shutil.rmtree(trash / waste.label)
        _remove_empty(output, trash / waste.label)
    return done, [*kept, *back]


def _move(output: Path, trash: Path, label: str) -> bool:
    """Out of everybody's sight; False where somebody took it at the last moment."""
    path, target = output / label, trash / label
    if claims.holder(path) or not _inside(output, path):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)
    return True


def _needed_again(output: Path, trash: Path, moved: list[Waste]) -> set[str]:
    """Stages and code that something needs by now. The rest is of finished stages and submissions, or trash."""
    if not moved:
        return set()
    seen = _look(output, trash)
    stages = {waste.label for waste in moved if waste.why in (UNREFERENCED, FAILED, TORN)}
    code = {waste.label for waste in moved if waste.why == SNAPSHOT}
    gone = stages & {stage.label for stage in _loose(seen)}
    left = [stage for stage in seen.stages.values() if stage.label not in gone]
    return (stages - gone) | (code if seen.busy else code & _used_code(seen, left))


def _put_back(output: Path, trash: Path, wastes: Iterable[Waste]) -> None:
    """What somebody began anew meanwhile stays where it was moved to, and is offered later."""
    for waste in wastes:
        with suppress(OSError):
            (trash / waste.label).rename(output / waste.label)
        _remove_empty(output, trash / waste.label)


def _remove_empty(output: Path, path: Path) -> None:
    """The folders above what was moved away from the trash."""
    for parent in path.parents:
        if parent == output:
            return
        with suppress(OSError):
            parent.rmdir()


@contextmanager
def lock(output: Path, *, alone: bool) -> Iterator[None]:
    """Held by a deletion alone, and by launches together while they record what they need.

    Where the file system has no locks, or one is held for too long, all goes on without: a deletion then finds what was
    recorded when it looks once more, and puts back what it had moved.
    """
    with ExitStack() as stack:
        with suppress(OSError):
            file = stack.enter_context((output / LOCK).open("a"))
            _wait_for(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


def _wait_for(file: IO[str], kind: int) -> None:
    give_up = time.monotonic() + LOCK_SECONDS
    while time.monotonic() < give_up:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(claims.POLL_SECONDS)


def _look(output: Path, trash: Path | None = None) -> _Look:
    """trash: where stages were moved to, which count as if they were still there."""
    index = records.index(output)
    places = [trash, output] if trash else [output]
    stages = {stage.label: stage for place in places for kind in STAGES for stage in _stages(output, place, kind)}
    pages = {
        path.relative_to(output).as_posix(): _json(path / "stage.json")
        for kind in PAGES
        for path in _folders(output / kind)
    }
    alive = _alive(index, output)
    busy = _unreadable(output) or _being_remade(output) or _busy(output, stages, pages, alive)
    wanted: set[str] = set()
    for label in pages:
        try:
            wanted |= set(planned(output / label))
        except (OSError, AlpacaError):
            busy = busy or _unknown(f"{label}/{artifacts.PLANNED}")
    return _Look(output=output, stages=stages, pages=pages, planned=wanted, index=index, alive=alive, busy=busy)


def _loose(seen: _Look) -> list[_Stage]:
    """The stages that nothing needs, neither by their own name nor by that of a link to them."""
    if seen.busy:
        return []
    kept = _needed(seen)
    real = {seen.stages[label].path.resolve() for label in kept}
    others = [stage for stage in seen.stages.values() if stage.ours and stage.label not in kept]
    return [stage for stage in others if stage.path.resolve() not in real]


def _stages(output: Path, place: Path, kind: str) -> Iterator[_Stage]:
    for path in _folders(place / kind):
        if not (path / "stage.json").exists() and not _NAME.fullmatch(path.name):
            continue  # somebody's own folder
        frozen = _json(path / "stage.json")
        code = _json(path / "provenance.json").get("code") or frozen.get("code") or ""
        yield _Stage(
            label=path.relative_to(place).as_posix(),
            path=path,
            finished=artifacts.is_finished(path),
            parents=[str(parent) for parent in (frozen.get("parents") or {}).values()],
            code=str(code),
            held=bool(claims.holder(path)),
            ours=_inside(output, path),
        )


def _folders(parent: Path) -> Iterator[Path]:
    """The folders directly below a folder; either may lie behind a link."""
    yield from (path for path in _entries(parent) if _readable(path) and path.is_dir())


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if _readable(folder) and folder.is_dir() else []


def _readable(path: Path) -> bool:
    """Whether it is there, through links, and a folder can be looked into."""
    try:
        return path.exists() and (not path.is_dir() or os.access(path, os.R_OK | os.X_OK))
    except OSError:
        return False


def _inside(output: Path, path: Path) -> bool:
    """Whether no link leads there: what lies behind one belongs to somebody else, and is never deleted."""
    return path.resolve() == output.resolve() / path.relative_to(output)


def _json(path: Path) -> dict[str, Any]:
    """An object, or an empty one: a torn or foreign file must not stop the look."""
    try:
        found: dict[str, Any] = artifacts.read_json(path)
    except (OSError, AlpacaError):
        return {}
    return found


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


def _unreadable(output: Path) -> str:
    """What is there and cannot be looked into, as behind a link to a disk that is not mounted.

    A dead link into the folder itself leads to what was removed, and needs nothing.
    """
    for kind in (*STAGES, *PAGES, records.FOLDER):
        for path in (output / kind, *_entries(output / kind)):
            here = Path(os.path.realpath(path)).is_relative_to(output.resolve())
            if os.path.lexists(path) and not _readable(path) and not (path.is_symlink() and here):
                label = path.relative_to(output).as_posix()
                return f"{label} cannot be read, so that it is not known what it needs; remove it if it is a dead link"
    return ""


def _being_remade(output: Path) -> str:
    """What `reproduce` makes reads its parents, and the first making, from here."""
    with suppress(OSError):
        for path in output.parent.glob(f"{glob.escape(output.name)}{AGAIN}*"):
            if claims.holder(path):
                return f"{path.name} beside it is being made from what is here"
    return ""


def _busy(output: Path, stages: dict[str, _Stage], pages: dict[str, Any], alive: list[Submission]) -> str:
    """Why no whole stage can be called unreferenced: a launch without a record may still need it.

    What SLURM was given is recorded, and known stage by stage.
    """
    recorded = {item.label for each in alive for item in each.stages} | {each.page for each in alive}
    paths = {stage.label: stage.path for stage in stages.values()} | {label: output / label for label in pages}
    mine = {label: path for label, path in paths.items() if label not in recorded}
    for label, path in mine.items():
        if claims.holder(path):
            return f"{label} is being made"
    torn = [label for label, frozen in pages.items() if not frozen and _is_page(output / label)]
    if torn:
        return _unknown(f"{torn[0]}/stage.json")
    queueing = claims.holder(output / records.FOLDER)
    if queueing and queueing.get("pid") != os.getpid():
        return "a command is queueing something"
    recent = [label for label, path in mine.items() if _age(path) < QUIET_SECONDS]
    return f"{recent[0]} was touched in the last {QUIET_SECONDS / 60:.0f} minutes" if recent else ""


def _unknown(file: str) -> str:
    return f"{file} cannot be read, so that it is not known what that page needs; launch it again, or remove the file"


def _is_page(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("stage.json", "report.html", "_SUCCESS"))


def _age(folder: Path) -> float:
    """Seconds since a record in it changed; looking for a living claim changes the folder itself."""
    names = ("stage.json", "_SUCCESS", "log.txt", artifacts.PLANNED)
    paths = [*(folder / name for name in names), *folder.glob("claim-*")]
    return time.time() - max((path.lstat().st_mtime for path in paths if path.exists()), default=0.0)


def _is_old(folder: Path) -> bool:
    """Whether nothing was put into it or taken out lately."""
    return time.time() - folder.lstat().st_mtime > QUIET_SECONDS


def _needed(seen: _Look) -> set[str]:
    """Stages that a page, a living process or a queued job needs, and everything that these were made from."""
    roots = {label for label, stage in seen.stages.items() if stage.held} | seen.planned
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
        if stage.ours and stage.finished and not stage.held and work.is_dir() and not work.is_symlink():
            yield Waste(label=f"{stage.label}/work", why=SCRATCH, size=bytes_of(work))


def _snapshots(seen: _Look, left: Iterable[_Stage]) -> Iterator[Waste]:
    """Those that nothing which stays needs."""
    used = _used_code(seen, left)
    for path in _folders(seen.output / "code"):
        label = path.relative_to(seen.output).as_posix()
        if label not in used and not seen.busy and _inside(seen.output, path) and _is_old(path):
            yield Waste(label=label, why=SNAPSHOT, size=bytes_of(path))


def _used_code(seen: _Look, left: Iterable[_Stage]) -> set[str]:
    """Snapshots that a stage or a page that stays ran on, or a submission can be queued again with."""
    used = {stage.code for stage in left} | {str(frozen.get("code") or "") for frozen in seen.pages.values()}
    used |= {str(_json(seen.output / label / "provenance.json").get("code") or "") for label in seen.pages}
    return used | {item.code for item in seen.index.submissions}


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
    for path in _folders(output):
        if path.name.startswith(TRASH) and _inside(output, path) and _is_old(path):
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
