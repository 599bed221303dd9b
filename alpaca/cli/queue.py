"""`cancel`, `retry` and `reap`: what changes the queue."""

from __future__ import annotations

import argparse
import sys
import time

from rich.console import Console

from alpaca import artifacts
from alpaca.dispatch.slurm import control, enqueue, records, states, submit
from alpaca.dispatch.slurm.graph import Stage
from alpaca.dispatch.slurm.records import Submission
from alpaca.errors import UserError


def _tell(text: str) -> None:
    print(text, flush=True)


def cancel(given: argparse.Namespace) -> int:
    """Takes back the jobs of all submissions of a name."""
    submission = records.chosen(records.index(given.output_dir), given.sweep)
    if not given.yes and sys.stdin.isatty():
        answer = input(f"cancel the jobs of {submission.name}? What is done is kept. [y/N] ")
        if answer.strip().lower() not in ("y", "yes"):
            print("nothing was cancelled")
            return 1
    with submit.alone(given.output_dir, _tell):
        found = control.cancel(records.index(given.output_dir), submission)
    print(f"{len(found.jobs)} jobs cancelled; what is done is kept")
    if found.kept:
        print(f"kept, since another sweep waits for it: {', '.join(sorted(set(found.kept)))}")
    return 0


def retry(given: argparse.Namespace) -> int:
    """Queues again what is missing of a sweep, as it was frozen."""
    before = records.chosen(records.index(given.output_dir), given.sweep)
    started = time.monotonic()

    def make() -> Submission:
        return records.create(
            before.output,
            name=before.name,
            command=before.command,
            cluster=before.cluster,
            code=before.code,
            stages=before.stages,
            report=before.report,
        )

    with submit.alone(before.output, _tell):
        wanted = _failed(before) if given.failed else None
        outcome = submit.submit(
            make, before.output, before.stages, lambda stage: wanted is None or stage.label in wanted
        )
    if not outcome.queued:
        done = all(artifacts.is_finished(before.output / stage.label) for stage in before.stages)
        raise UserError(
            what="nothing to queue: " + ("every stage is done" if done else "what is missing is on its way"),
            where=before.name,
            remedy=f"see python -m alpaca status {before.name}",
        )
    enqueue.show(outcome, before.name, before.output, time.monotonic() - started, Console(highlight=False))
    return 0


def _failed(submission: Submission) -> set[str]:
    """What failed or was lost, and what was skipped for it."""
    index = records.index(submission.output)
    found = states.states(submission, index, states.observe(index, submission, fresh=True))
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
    with submit.alone(given.output_dir, _tell):
        jobs = control.reap(records.index(given.output_dir), given.output_dir)
    names = ": " + ", ".join(job.id for job in jobs) if jobs else ""
    print(f"{len(jobs)} jobs removed that could never start{names}")
    return 0
