"""The folder contract of a stage: frozen, claimed, written in place, hashed, published by its success marker.

stage.json        frozen identity + execution + parents, written before anything runs
provenance.json   git, packages, hardware, arguments, seconds, cost
<payload>         everything else but the bookkeeping below
manifest.json     sha256 and size of each payload file
_SUCCESS          written last, by rename; holds the manifest's sha256
claim-*, log.txt, progress.json, work/   bookkeeping while the stage runs
stopped.json      why it failed on a cluster; gone when it starts again, or is finished in any other way
planned.json      of a page: the stages that a launch is making for it; gone when the page stands
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from alpaca.errors import ArtifactError

RECORDS = {"stage.json", "provenance.json", "manifest.json", "_SUCCESS"}
STOPPED = "stopped.json"
PLANNED = "planned.json"
BOOKKEEPING = RECORDS | {"log.txt", "progress.json", STOPPED, PLANNED, "work", "workspace.json", "answers.jsonl"}
NOT_CONTENT = ("raw.jsonl", "failed.jsonl", "teacher.json", "profile/")
"""Payload that differs in every execution and that no child makes anything of: files, and folders ending in a slash."""
KEY_DIGITS = 8
PROGRESS_SECONDS = 0.25


class Tracking(Protocol):
    """What a stage may tell the experiment tracker."""

    def log(self, values: dict[str, float], step: int) -> None: ...


class NoTracking:
    """Drops everything."""

    def log(self, values: dict[str, float], step: int) -> None:
        return None


@dataclass(kw_only=True, slots=True)
class Context:
    """What a stage is given besides its configuration."""

    folder: Path
    """Payload goes here, by its final names."""
    work: Path
    """Scratch that survives a crash and is removed when the stage is finished."""
    parents: dict[str, Path]
    """Finished and verified folders by role."""
    tracker: Tracking = field(default_factory=NoTracking)
    cost: dict[str, float] = field(default_factory=dict)
    """Numbers for provenance: tokens, rates; anything that differs from one execution to the next."""
    check: Callable[[], None] = lambda: None
    """Raises when the claim was lost."""
    said: str = ""
    """The last log line, which stands for the stage in the terminal."""
    _told: float = 0.0

    def log(self, text: str) -> None:
        """One readable line."""
        self.said = text
        print(text, flush=True)

    def progress(self, done: float, total: float, text: str = "") -> None:
        """Where the stage stands; cheap, since it is written a few times a second at most."""
        now = time.monotonic()
        if now - self._told >= PROGRESS_SECONDS or done >= total:
            self._told = now
            write_json(self.folder / "progress.json", {"done": done, "total": total, "text": text})


def write_json(path: Path, value: Any) -> None:
    """Atomic: readers see the old or the new file, never half of one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as out:
        json.dump(value, out, ensure_ascii=False, indent=1, allow_nan=False)
        out.write("\n")
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)


def read_json(path: Path) -> Any:
    """A file that holds a JSON object; any other content is an ArtifactError that names the file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise _unreadable(path, f"not JSON ({error.msg}, line {error.lineno})") from error
    except ValueError as error:  # not UTF-8, or a number of too many digits
        raise _unreadable(path, f"not JSON ({error})") from error
    if not isinstance(found, dict):
        raise _unreadable(path, f"no JSON object but {json.dumps(found)[:40]}")
    return found


def _unreadable(path: Path, what: str) -> ArtifactError:
    return ArtifactError(what=what, where=str(path), remedy=f"delete {path.parent} and run the same command again")


def sha256_file(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_folder(output: Path, stage: str, slug: str, key: str) -> Path:
    """The folder of a key: an existing one whatever its slug, else the place where it will be.

    Another identity under the same first digits is an error, not an overwrite.
    """
    short = key[:KEY_DIGITS]
    for path in sorted((output / stage).glob(f"*-{short}")):
        if (path / "stage.json").exists():
            _refuse_other_key(path, key)
            return path
    return output / stage / f"{slug}-{short}"


def _refuse_other_key(path: Path, key: str) -> None:
    found = read_json(path / "stage.json")["key"]
    if found != key:
        raise ArtifactError(
            what=f"holds key {found}, wanted {key}: equal in the first {KEY_DIGITS} digits only",
            where=str(path),
            remedy="move this folder away, or use another output_dir",
        )


def freeze(folder: Path, frozen: dict[str, Any]) -> None:
    """Writes stage.json; the same key with another identity is an error. Execution may differ while unfinished."""
    path = folder / "stage.json"
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists():
        found = read_json(path)
        if found["key"] == frozen["key"] and found["identity"] != frozen["identity"]:
            raise ArtifactError(
                what=f"key {frozen['key']} is recorded with another identity",
                where=str(path),
                remedy="a stage changed what it reads without a new VERSION; delete the folder",
            )
        if finished_as(folder, frozen["key"]):
            return
    write_json(path, frozen)


def is_finished(folder: Path) -> bool:
    """Whether the success marker is there; says nothing about changes since then (see `verify`)."""
    return (folder / "_SUCCESS").exists()


def finished_as(folder: Path, key: str) -> bool:
    """Whether the marker is there and was set for this key: a sweep's page keeps its folder when its key changes."""
    return is_finished(folder) and read_json(folder / "_SUCCESS").get("key") == key


def stopped(folder: Path) -> dict[str, Any]:
    """What a job left when this stage failed on a cluster (job, restart, status, error, time, host), or nothing."""
    try:
        found: dict[str, Any] = read_json(folder / STOPPED)
    except (OSError, ArtifactError):
        return {}
    return found


def payload_files(folder: Path) -> list[str]:
    """Relative names of all payload files, sorted."""
    names = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        top = name.split("/")[0]
        if path.is_file() and top not in BOOKKEEPING and not top.startswith(("claim-", ".")) and path.suffix != ".part":
            names.append(name)
    return sorted(names)


def publish(folder: Path, key: str, provenance: dict[str, Any], check: Callable[[], None]) -> None:
    """Hashes the payload and sets the marker. check: raises when the claim is lost, so that two never publish."""
    check()
    manifest = {
        name: {"sha256": sha256_file(folder / name), "bytes": (folder / name).stat().st_size}
        for name in payload_files(folder)
    }
    write_json(folder / "manifest.json", manifest)
    write_json(folder / "provenance.json", provenance)
    times = {name: (folder / name).stat().st_mtime_ns for name in manifest}
    check()
    marker = {"key": key, "manifest": sha256_file(folder / "manifest.json"), "mtime_ns": times}
    write_json(folder / "_SUCCESS", marker)
    clean(folder)


def clean(folder: Path) -> None:
    """Removes what only served the running of a stage that is finished."""
    shutil.rmtree(folder / "work", ignore_errors=True)
    for name in ("progress.json", STOPPED):
        (folder / name).unlink(missing_ok=True)


def content_digest(folder: Path) -> str:
    """sha256 of the names and hashes of a finished folder's payload: what a child records of its parent.

    NOT_CONTENT is left out: latencies, surplus, failed tries, the date of a look at the teacher, a profile.
    """
    manifest = manifest_of(folder)
    lines = sorted(f"{name}\0{entry['sha256']}\n" for name, entry in manifest.items() if not differs_each_time(name))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def manifest_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Payload file -> its sha256 and size. ArtifactError where the record is missing or was changed."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise _unreadable(path, "missing, though the folder is marked as finished")
    found: dict[str, dict[str, Any]] = read_json(path)
    if not all(isinstance(entry, dict) and {"sha256", "bytes"} <= entry.keys() for entry in found.values()):
        raise _unreadable(path, "not the sizes and hashes of files")
    return found


def differs_each_time(name: str) -> bool:
    """Whether a payload file is one of NOT_CONTENT."""
    return name in NOT_CONTENT or any(entry.endswith("/") and name.startswith(entry) for entry in NOT_CONTENT)


def verify(folder: Path, *, thorough: bool) -> None:
    """Raises ArtifactError naming every payload file that is missing, changed or truncated.

    thorough: hash every file; else only those whose size or time of change differ from what the marker recorded.
    """
    marker, problems = read_json(folder / "_SUCCESS"), []
    if not (folder / "manifest.json").is_file():
        problems.append("manifest.json is missing")
    elif sha256_file(folder / "manifest.json") != marker.get("manifest"):
        problems.append("manifest.json was changed")
    else:
        times = marker.get("mtime_ns") or {}
        for name, entry in manifest_of(folder).items():
            problems += _changed(folder / name, name, entry, None if thorough else times.get(name))
    if problems:
        raise ArtifactError(
            what="changed after it was finished: " + "; ".join(problems),
            where=str(folder),
            remedy="restore the file, or delete this folder and run the same command again",
        )


def _changed(path: Path, name: str, entry: dict[str, Any], recorded_time: int | None) -> list[str]:
    if not path.exists():
        return [f"{name} is missing"]
    status = path.stat()
    if status.st_size != entry["bytes"]:
        return [f"{name} has {status.st_size} bytes, recorded {entry['bytes']}"]
    if status.st_mtime_ns != recorded_time and sha256_file(path) != entry["sha256"]:
        return [f"{name} has another sha256 than recorded ({entry['sha256'][:12]}…)"]
    return []
