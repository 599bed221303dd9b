"""What a worker runs: `python -m alpaca.jobs FOLDER`. The same call on a laptop, in CI and on a cluster.

The folder holds everything (stage.json); configuration is never composed again here. The worker checks its parents'
markers and hashes itself, claims the folder, runs the stage, hashes the payload and sets the marker.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from alpaca import artifacts, canonical, claims, frozen, outcomes
from alpaca.artifacts import Context
from alpaca.errors import AlpacaError, ArtifactError, UserError
from alpaca.runtime import distributed, provenance, signals, tracking

ROOMS = {
    "sample": "alpaca.stages.sample",
    "rate": "alpaca.stages.rate",
    "moderate": "alpaca.stages.moderate",
    "curate": "alpaca.stages.curate",
    "pretrain": "alpaca.stages.pretrain",
    "train": "alpaca.stages.train",
    "respond": "alpaca.stages.respond",
    "score": "alpaca.stages.score",
    "report": "alpaca.report",
}
"""Stage -> the package whose `run(config, context)` does it, imported only when it is its turn."""
UNUSABLE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENOENT)
FULL_DISK = ("No space left on device", "os error 28", "PytorchStreamWriter failed writing", "unexpected pos ")


def execute(folder: Path) -> None:
    """Does the stage of one folder unless it is finished; waits while another process does it."""
    settings, config = frozen.load(folder)
    _take_threads(settings)
    if settings["stage"] == "train" and not distributed.holds_the_claim():
        _beside_rank_zero(folder, settings, config)
        return
    claim = claims.acquire(
        folder, finished=lambda: artifacts.finished_as(folder, settings["key"]), on_wait=_say_waiting
    )
    if claim is None:
        print("finished meanwhile by another process", flush=True)
        return
    try:
        _claimed(folder, settings, config, claim)
    except BaseException:
        claim.release()
        raise
    claim.remove()
    if settings["stage"] == "report":
        _list_pages(folder.parents[1])


def _list_pages(output: Path) -> None:
    """The list of all pages, which shows this one now; whatever it meets, the page itself stands."""
    from alpaca.report import index

    try:
        index.renew(output)
    except Exception as error:  # a defect in the list must not make a failure of a page that is finished
        print(f"the list of all pages was not made anew: {type(error).__name__}: {error}", flush=True)


def _beside_rank_zero(folder: Path, settings: dict[str, Any], config: Any) -> None:
    """A rank that neither claims nor publishes. Where its start has a name it waits until rank 0 holds the claim.

    Rank 0 may find the stage finished, refuse it, or wait for another process for hours; a group is no place to wait.
    """
    name = os.environ.get(distributed.START)
    while name and not _begun(folder, name).exists() and not artifacts.finished_as(folder, settings["key"]):
        time.sleep(claims.POLL_SECONDS)
    if not artifacts.finished_as(folder, settings["key"]):
        _run(settings, config, _context(folder, settings))


def _begun(folder: Path, name: str) -> Path:
    return folder / "work" / f"begun-{name}"


def _take_threads(settings: dict[str, Any]) -> None:
    """The frozen number of CPU threads, before a library reads it: another number adds up in another order."""
    if "threads" in settings and "torch" not in sys.modules:
        os.environ.update({name: str(settings["threads"]) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")})


def _claimed(folder: Path, settings: dict[str, Any], config: Any, claim: claims.Claim) -> None:
    context = _context(folder, settings)
    context.check = lambda: _check(claim)
    _refuse_changed_inputs(folder, settings, config)
    parents = {role: _verified(role, path, settings["stage"]) for role, path in context.parents.items()}
    if distributed.inside_rank() and distributed.START in os.environ:
        _begun(folder, os.environ[distributed.START]).touch()
    tracker = _tracker(settings, folder.parents[1], context)
    context.tracker = tracker
    started, clock = provenance.now(), time.monotonic()
    _run(settings, config, context)
    record = {
        "started": started,
        "ended": provenance.now(),
        "seconds": round(time.monotonic() - clock, 3),
        "cost": context.cost,
        "parents": parents,
        "summary": context.said,
        "argv": settings.get("argv", []),
        "git": settings.get("git", {}),
        "code": settings.get("code"),
        "hardware": provenance.hardware(),
        "packages": provenance.packages(),
    }
    _refuse_changed_inputs(folder, settings, config)
    artifacts.publish(folder, settings["key"], record, claim.check)
    outcomes.finish(tracker, settings, context, record["seconds"])


def _check(claim: claims.Claim) -> None:
    signals.stop_if_asked()
    claim.check()


def _refuse_changed_inputs(folder: Path, settings: dict[str, Any], config: Any) -> None:
    """An input file that is not what it was when the key was made would be published under that key."""
    if settings["stage"] == "report":
        return
    found = canonical.identity(config, frozenset(settings["promoted"]))
    if canonical.encode(found) != canonical.encode(settings["identity"]):
        raise ArtifactError(
            what="an input file is not what it was when this stage was planned",
            where=str(folder / "stage.json"),
            remedy="give the same command again: the changed file is another identity and gets a folder of its own",
        )


def _context(folder: Path, settings: dict[str, Any]) -> Context:
    output = folder.parents[1]
    work = folder / "work"
    work.mkdir(exist_ok=True)
    return Context(
        folder=folder, work=work, parents={role: output / name for role, name in settings["parents"].items()}
    )


def _verified(role: str, path: Path, stage: str) -> str:
    """The parent's manifest digest, after every byte of it was checked (a page only needs it to be finished)."""
    if not artifacts.is_finished(path):
        # SLURM lets a job start whose parent failed so long ago that it has forgotten it: this is what keeps it off.
        reason = artifacts.stopped(path).get("error")
        raise ArtifactError(
            what=f"parent {role!r} is not finished" + (f"; it stopped: {reason}" if reason else ""),
            where=str(path),
            remedy="launch the same command again; it does what is missing",
        )
    artifacts.verify(path, thorough=stage != "report")
    return artifacts.content_digest(path)


def _run(settings: dict[str, Any], config: Any, context: Context) -> None:
    room = importlib.import_module(ROOMS[settings["stage"]])
    room.run(config, context)


def _tracker(settings: dict[str, Any], output: Path, context: Context) -> tracking.Tracker:
    """Opened before the stage begins: a client that takes long to connect does so beside the work."""
    wanted = settings.get("tracking") or {}
    if settings["stage"] not in outcomes.TRACKED:
        return tracking.NullTracker()
    place = {"folder": context.folder.relative_to(output).as_posix()}
    return tracking.open_tracker({**wanted, **place}, output, _say)


def _say(text: str) -> None:
    """A line of the log that does not stand for the stage, as what it said last does."""
    print(text, flush=True)


def _say_waiting(owner: dict[str, Any]) -> None:
    print(f"waiting for process {owner.get('pid')} on {owner.get('host')}, which is doing this stage", flush=True)


def explain(error: Exception, folder: Path | str) -> UserError | None:
    """A full or read-only disk as an error that a user can mend; None for another failure.

    safetensors and torch wrap the system's error in their own, so their words are looked at too.
    """
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported for this
        return UserError(
            what=" ".join(str(error).split())[:300],
            where=str(folder),
            remedy="a smaller train.pack_tokens, train.recompute=full, precision=bf16_sr, or more processes with "
            "fsdp=full_shard; the plan (dry_run=true) tells what each takes",
        )
    told = any(words in str(error) for words in FULL_DISK)
    if told or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)):
        place = getattr(error, "filename", None) or folder
        return UserError(
            what=f"no space left while writing {place}",
            where=str(folder),
            remedy="free some space and run the same command again; the stage goes on where it stopped",
        )
    if isinstance(error, OSError) and error.errno in UNUSABLE:
        return UserError(
            what=f"{error.strerror}: {error.filename or folder}",
            where=str(folder),
            remedy="make it readable and writable, or choose another output_dir=...",
        )
    return None


def guarded(folder: Path) -> int:
    """`execute` with its errors told on stderr; the exit status."""
    try:
        execute(folder)
    except AlpacaError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_status
    except Exception as error:  # told in words where it is a full disk, with its traceback where it is a defect of ours
        known = explain(error, folder)
        if known is None:
            traceback.print_exc()
            return 1
        print(f"error: {known}", file=sys.stderr, flush=True)
        return known.exit_status
    return 0


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m alpaca.jobs FOLDER")
    signals.interrupt_when_asked()
    if distributed.START in os.environ:
        distributed.end_with_parent()
    try:
        status = guarded(Path(sys.argv[1]).resolve())
    except KeyboardInterrupt:
        status = 130
    except SystemExit as stop:
        if signals.asked() is None:
            raise
        print(f"error: stopped by {signals.asked()}; what is done is kept", file=sys.stderr, flush=True)
        status = stop.code if isinstance(stop.code, int) else 1
    if distributed.inside_rank():
        distributed.leave(status)
    raise SystemExit(status)


if __name__ == "__main__":
    main()
