"""`logs`: what a stage said, and what SLURM said of its job."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from alpaca import artifacts
from alpaca.checks.words import nearest
from alpaca.dispatch.slurm import records, states
from alpaca.dispatch.slurm.records import Index
from alpaca.errors import UserError

POLL_SECONDS = 1.0


def run(given: argparse.Namespace) -> int:
    """Prints the log of one stage, and follows it with -f."""
    label = find(given.output_dir, given.stage)
    index = records.index(given.output_dir)
    log = given.output_dir / label / "log.txt"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    print("\n".join(lines[-given.lines :]) if lines else f"{label} has said nothing yet: {_state(given, index, label)}")
    if given.follow:
        _follow(given, label, log)
    for path in of_job(index, label):
        text = path.read_text(encoding="utf-8", errors="replace").strip()
        if text:
            print(f"== {path.name}, what SLURM's own programs said", *text.splitlines()[-given.lines :], sep="\n")
    return 0


def find(output: Path, stage: str) -> str:
    """The label of a stage by its label, its folder, its folder's name or the digits of its key."""
    labels = sorted(path.parent.relative_to(output).as_posix() for path in output.glob("*/*/stage.json"))
    queued = {label for label in records.index(output).latest if "/" in label}
    known = sorted({*labels, *queued})
    path = Path(stage)
    if path.resolve().is_relative_to(output) and path.resolve() != output:
        stage = path.resolve().relative_to(output).as_posix()
    wanted = stage.strip("/")
    fitting = [label for label in known if wanted in (label, label.partition("/")[2], label.rpartition("-")[2])]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UserError(what=f"{stage} is several stages", where="logs", remedy="give one of: " + ", ".join(fitting))
    raise UserError(what=f"no stage {stage} in {output}", where="logs", remedy=nearest(wanted, known))


def of_job(index: Index, label: str) -> list[Path]:
    """The output files of the last job of a stage: of the batch script and of every rank."""
    element = index.latest.get(label)
    if element is None or not element.job:
        return []
    return sorted((element.array.submission / "logs").glob(f"{element.job}_*_log.out"))


def _state(given: argparse.Namespace, index: Index, label: str) -> str:
    element = index.latest.get(label)
    if element is None:
        return "not queued"
    submission = records.load(element.array.submission)
    queue = states.observe(index, submission)
    found = {each.stage.label: each for each in states.states(submission, index, queue)}
    each = found.get(label)
    return f"{each.state} {each.reason}".strip() if each else "unknown"


def _follow(given: argparse.Namespace, label: str, log: Path) -> None:
    """New lines as they come, until the stage is done or its job has ended."""
    place = log.stat().st_size if log.exists() else 0
    asked = time.monotonic()
    ended = False
    while not ended:
        ended = artifacts.is_finished(log.parent)
        if not ended and time.monotonic() - asked > 10:
            asked = time.monotonic()
            word = _state(given, records.index(given.output_dir), label)
            ended = word.startswith(states.ENDED)
        if log.exists() and log.stat().st_size > place:
            with log.open(encoding="utf-8", errors="replace") as file:
                file.seek(place)
                sys.stdout.write(file.read())
                place = file.tell()
            sys.stdout.flush()
        if not ended:
            time.sleep(POLL_SECONDS)
