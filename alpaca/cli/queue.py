"""`cancel`, `retry` and `reap`: what changes the queue."""

from __future__ import annotations

import argparse
import sys
import time

from rich.console import Console

from alpaca import artifacts
from alpaca.claims import Claim
from alpaca.cli import view
from alpaca.dispatch.slurm import control, enqueue, records, states, submit
from alpaca.dispatch.slurm.graph import Stage
from alpaca.dispatch.slurm.records import Submission
from alpaca.errors import UserError


def tell(text: str) -> None:
    """A line now, not when the buffer is full."""
    print(text, flush=True)


def cancel(given: argparse.Namespace) -> int:
    """Takes back the jobs of all submissions of a name."""
    submission = records.chosen(records.index(given.output_dir), given.sweep)
    question = f"cancel the jobs of {submission.name}? What is done is kept. [y/N] "
    if not given.yes and sys.stdin.isatty() and not agreed(question):
        print("nothing was cancelled")
        return 1
    with submit.alone(given.output_dir, tell):
        found = control.cancel(records.index(given.output_dir), submission)
    print(f"{len(found.jobs)} jobs cancelled; what is done is kept")
    if found.others:
        print("left to their users: " + ", ".join(f"{job.id} ({job.user})" for job in found.others))
    if found.kept:
        print(f"kept, since another sweep waits for it: {', '.join(sorted(set(found.kept)))}")
    return 0


def agreed(question: str) -> bool:
    """Whether the answer at the terminal is yes."""
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def retry(given: argparse.Namespace) -> int:
    """Queues again what is missing of a sweep, as it was frozen."""
    before = records.chosen(records.index(given.output_dir), given.sweep)
    started = time.monotonic()

    with submit.alone(before.output, tell) as claim:
        wanted = _failed(before) if given.failed else None
        _refuse_removed(before, wanted)
        outcome = _again(before, claim, wanted)
    if not outcome.queued:
        raise _nothing(before, outcome, failed_only=given.failed)
    enqueue.show(outcome, before.name, before.output, time.monotonic() - started, Console(highlight=False))
    return 0


def _again(before: Submission, claim: Claim, wanted: set[str] | None) -> submit.Outcome:
    try:
        return submit.submit(
            before, before.output, claim, wanted=lambda stage: wanted is None or stage.label in wanted
        )
    except UserError as error:
        remedy = f"{error.remedy}\n    retry queues it as it was; with other settings: {before.command}"
        raise type(error)(what=error.what, where=error.where, remedy=remedy) from error


def _refuse_removed(submission: Submission, wanted: set[str] | None) -> None:
    """A job without its code or its stage's configuration would only fail. wanted: labels, None: all."""
    output = submission.output
    labels = [stage.label for stage in submission.stages if wanted is None or stage.label in wanted]
    left = [label for label in labels if not artifacts.is_finished(output / label)]
    needed = [submission.code, *(f"{label}/stage.json" for label in left)] if left else []
    gone = [path for path in needed if not (output / path).exists()]
    if gone:
        raise UserError(
            what="removed since it was queued, so that it cannot be queued again as it was",
            where=", ".join(gone[:5]) + (f" and {len(gone) - 5} more" if len(gone) > 5 else ""),
            remedy=f"give the launch again, which freezes it anew: {submission.command}",
        )


def _nothing(submission: Submission, outcome: submit.Outcome, *, failed_only: bool) -> UserError:
    """Why there is nothing to queue."""
    name, where = submission.name, view.where(submission.output)
    if outcome.finished == len(submission.stages):
        word, remedy = "every stage is done", f"for a new page: {submission.command}"
    elif outcome.finished + outcome.adopted == len(submission.stages):
        word, remedy = "what is missing is on its way", f"see python -m alpaca status {name}{where}"
    elif failed_only:
        word, remedy = "nothing failed", f"python -m alpaca retry {name}{where} queues all that is missing"
    else:
        word, remedy = "what is missing waits for stages that are neither done nor queued", submission.command
    return UserError(what=f"nothing to queue: {word}", where=name, remedy=remedy)


def _failed(submission: Submission) -> set[str]:
    """What failed or was lost, and what was skipped for it."""
    index = records.index(submission.output)
    found = states.states(submission, index, states.observe(index, submission.output, fresh=True))
    wanted: set[str] = set()
    by_label: dict[str, Stage] = {stage.label: stage for stage in submission.stages}
    for each in found:
        bad = each.state in (states.FAILED, states.LOST)
        behind = each.state not in (states.DONE, states.RUNNING) and wanted & set(by_label[each.stage.label].parents)
        if bad or behind:
            wanted.add(each.stage.label)
    return wanted


def reap(given: argparse.Namespace) -> int:
    """Removes jobs that wait for something that failed."""
    with submit.alone(given.output_dir, tell):
        removed, others = control.reap(records.index(given.output_dir), given.output_dir)
    names = ": " + ", ".join(job.id for job in removed) if removed else ""
    print(f"{len(removed)} jobs removed that could never start{names}")
    if others:
        print("left to their users: " + ", ".join(f"{job.id} ({job.user})" for job in others))
    return 0
