"""`logs`: what a stage said, and what SLURM said of its job."""

from __future__ import annotations

import argparse
import codecs
import math
import sys
import time
from contextlib import suppress
from pathlib import Path

from alpaca import artifacts
from alpaca.checks.words import nearest
from alpaca.cli import view
from alpaca.dispatch.slurm import queue, records, states
from alpaca.dispatch.slurm.records import Index
from alpaca.dispatch.slurm.states import StageState
from alpaca.errors import AlpacaError, UserError

POLL_SECONDS = 1.0
PROGRESS_SECONDS = 5.0


def run(given: argparse.Namespace) -> int:
    """Prints the log of one stage, and follows it with -f."""
    output: Path = given.output_dir
    label = find(output, given.stage)
    tail = Tail(output / label / "log.txt")
    lines = tail.more().splitlines(keepends=True)
    sys.stdout.write("".join(_last(lines, given.lines)))
    if given.follow:
        _follow(output, label, tail)
    told = [path for path in of_job(records.index(output), label) if path.read_bytes().strip()]
    if not (lines or told or given.follow):
        print(f"{label} has said nothing yet: {_word(state_of(output, label))}")
    for path in told:
        text = path.read_text(encoding="utf-8", errors="replace").strip()
        print(f"== {path.name}, what its job said beside that", *_last(text.splitlines(), given.lines), sep="\n")
    return 0


class Tail:
    """A file that grows. `more` is what came since, without the first bytes of a character that is being written."""

    def __init__(self, path: Path) -> None:
        self.path, self.place = path, 0
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def more(self) -> str:
        try:
            with self.path.open("rb") as file:
                file.seek(self.place)
                found = file.read()
        except FileNotFoundError:
            return ""
        self.place += len(found)
        return self.decoder.decode(found)


def _last(lines: list[str], count: int) -> list[str]:
    return lines[-count:] if count else []


def find(output: Path, stage: str, command: str = "logs") -> str:
    """The label of a stage by its label, its folder, its folder's name or the digits of its key. command: who asks."""
    labels = sorted(path.parent.relative_to(output).as_posix() for path in output.glob("*/*/stage.json"))
    queued = {label for label in records.index(output).latest if "/" in label}
    known = sorted({*labels, *queued})
    path = Path(stage)
    if path.resolve().is_relative_to(output) and path.resolve() != output:
        stage = path.resolve().relative_to(output).as_posix()
        stage = "/".join(Path(stage).parts[:2])  # also a file of the stage
    wanted = stage.strip("/")
    fitting = [label for label in known if wanted in (label, label.partition("/")[2], label.rpartition("-")[2])]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UserError(what=f"{stage} is several stages", where=command, remedy="give one of: " + ", ".join(fitting))
    raise UserError(what=f"no stage {stage} in {output}", where=command, remedy=nearest(wanted, known))


def of_job(index: Index, label: str) -> list[Path]:
    """The output files of the last job of a stage: of the batch script and of every rank."""
    element = index.latest.get(label)
    if element is None or not element.job:
        return []
    return sorted((element.array.submission / "logs").glob(f"{element.job}_*_log.out"))


def state_of(output: Path, label: str) -> StageState | None:
    """What a stage does by SLURM's last word; None where it was never queued."""
    index = records.index(output)
    element = index.latest.get(label)
    if element is None:
        return None
    submission = records.load(element.array.submission)
    (found,) = view.views(index, output, [submission])
    return next((each for each in found.rows if each.stage.label == label), None)


def _progress(folder: Path) -> str:
    """How far a stage says it is; a training writes no line for each step."""
    with suppress(OSError, AlpacaError, KeyError):
        found = artifacts.read_json(folder / "progress.json")
        return f"{100 * found['done'] / max(1, found['total']):.0f} %, {found['text']}"
    return ""


def _word(state: StageState | None) -> str:
    return f"{state.state} {state.reason.partition(chr(10))[0]}".strip() if state else states.NOT_QUEUED


def _follow(output: Path, label: str, tail: Tail) -> None:
    """New lines as they come, and how far it is, until the stage is done or its job has ended."""
    asked, state, ended = -math.inf, None, False
    far, told = "", -math.inf
    while not ended:
        ended = artifacts.is_finished(output / label)
        if not ended and time.monotonic() - asked > queue.PAUSE_SECONDS:
            asked, state = time.monotonic(), state_of(output, label)
            ended = state is None or state.state in states.ENDED
        sys.stdout.write(tail.more())
        if time.monotonic() - told > PROGRESS_SECONDS and (now := _progress(output / label)) != far:
            far, told = now, time.monotonic()
            sys.stdout.write(f"-- {far}\n" if far else "")
        sys.stdout.flush()
        if not ended:
            time.sleep(POLL_SECONDS)
    if not artifacts.is_finished(output / label):
        print(f"== {label}: {_word(state)}")
