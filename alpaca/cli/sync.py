"""`sync`: what was tracked offline goes to W&B, by W&B's own `wandb sync`, and nothing goes twice."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alpaca import claims
from alpaca.artifacts import KEY_DIGITS
from alpaca.errors import UserError
from alpaca.runtime.tracking import keys, wandb_run, workspace

LOCK = ".sync.lock"


@dataclass(kw_only=True, slots=True)
class Found:
    """The runs below an output folder by what is to be done with them, as files of W&B."""

    waiting: list[Path]
    """Offline runs, and online ones that were cut off."""
    sent: list[Path]
    running: list[Path]
    """Still written to: sent now, the rest of them would count as sent too."""


def run(given: argparse.Namespace) -> int:
    """Sends what waits and says what it did; status 1 where something could not be sent."""
    found = look(given.output_dir)
    boards = [path for path in sorted(given.output_dir.glob(f"sweeps/*/{workspace.FILE}")) if workspace.pending(path)]
    _say_left(found)
    if not found.waiting and not boards:
        print("nothing to send")
        return 0
    if given.dry_run:
        print(f"would send {len(found.waiting)} run(s) and {len(boards)} dashboard(s)")
        return 0
    if not keys.has_key():
        raise UserError(
            what=f"{len(found.waiting)} run(s) and {len(boards)} dashboard(s) wait, and there is no key of W&B",
            where="WANDB_API_KEY",
            remedy="export WANDB_API_KEY=..., or `wandb login`",
        )
    wandb_run.quiet(given.output_dir)
    with _alone(given.output_dir):
        runs_sent = _send(given.output_dir, found.waiting)
        boards_sent = sum(_save(path) for path in boards)
    print(f"sent {runs_sent} of {len(found.waiting)} run(s), saved {boards_sent} of {len(boards)} dashboard(s)")
    return 0 if (runs_sent, boards_sent) == (len(found.waiting), len(boards)) else 1


def look(output: Path) -> Found:
    """The runs below an output folder."""
    found = Found(waiting=[], sent=[], running=[])
    for path in sorted((output / "wandb").glob("*run-*/run-*.wandb")):
        if path.parent.is_symlink():  # latest-run
            continue
        if _is_sent(path):
            found.sent.append(path)
        elif _is_running(output, path):
            found.running.append(path)
        else:
            found.waiting.append(path)
    return found


def _is_sent(path: Path) -> bool:
    return path.with_suffix(wandb_run.SYNCED).exists()


def _is_running(output: Path, path: Path) -> bool:
    """Whether the stage that a run is of has a living owner. The run's id is the stage's kind and key."""
    stage, _, key = path.stem.removeprefix("run-").partition("-")
    return any(claims.holder(folder) for folder in (output / stage).glob(f"*-{key[:KEY_DIGITS]}"))


def _say_left(found: Found) -> None:
    if found.sent:
        print(f"{len(found.sent)} run(s) were sent before")
    if found.running:
        print(f"{len(found.running)} run(s) are still going on and wait for a later sync")


def _send(output: Path, runs: list[Path]) -> int:
    """How many of the runs are on the server now, by the mark that W&B sets when all of one is there."""
    if runs:
        # W&B joins the pieces of one run (starts of one stage) in order of start when they come in one call.
        words = [sys.executable, "-m", "wandb", "sync", "--include-online", *(str(path) for path in runs)]
        environment = {**os.environ, "WANDB_SILENT": "false"}
        sys.stdout.flush()
        subprocess.run(words, cwd=output, env=environment, stdin=subprocess.DEVNULL, check=False)
    return sum(map(_is_sent, runs))


def _save(path: Path) -> bool:
    """Whether a dashboard stands on the server now."""
    try:
        workspace.write(path, workspace.board_of(path), save=True)
    except Exception as error:  # whatever W&B's library meets: the other dashboards are to be saved
        text = " ".join(str(error).split())[:200]
        print(f"{path}: not saved: {type(error).__name__}: {text}", file=sys.stderr)
    return not workspace.pending(path)


@contextlib.contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Two at once would send everything twice."""
    (output / "wandb").mkdir(exist_ok=True)
    with (output / "wandb" / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                what="another sync is under way", where=str(output / "wandb"), remedy="wait until it has ended"
            ) from error
        yield
