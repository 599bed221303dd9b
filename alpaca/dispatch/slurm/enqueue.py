"""A launch on SLURM: the graph of the session queued, the prompt back in seconds."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from alpaca.config import SlurmCluster, TrainConfig
from alpaca.dispatch.prepare import Session
from alpaca.dispatch.slurm import submit
from alpaca.dispatch.slurm.graph import Stage
from alpaca.dispatch.slurm.records import Draft
from alpaca.dispatch.slurm.resources import Asked

ROOT = Path(__file__).resolve().parents[3]


def enqueue(
    session: Session, report: dict[str, Any], freeze: Callable[[Collection[str]], None], out: Console
) -> int:
    """Queues what is missing and says how to follow it.

    report: what the page is made from; freeze: is given the labels of stages on their way and freezes the others.
    """
    started = time.monotonic()
    cluster = session.run.cluster
    assert isinstance(cluster, SlurmCluster)
    draft = Draft(
        name=session.group or Path(report["folder"]).name,
        command=shlex.join(["python", *sys.argv]),
        cluster=cluster,
        code=report["extra"]["code"],
        stages=stages_of(session),
        report={} if session.run.until == "sample" else report,  # a raw pool has nothing to show
    )
    try:
        with submit.alone(session.output, lambda text: out.print(text, markup=False)) as claim:
            outcome = submit.submit(draft, session.output, claim, freeze=freeze)
    except KeyboardInterrupt:
        out.print("interrupted before anything was queued; what was queued before goes on", markup=False)
        return 130
    show(outcome, draft.name, session.output, time.monotonic() - started, out)
    return 0


def stages_of(session: Session) -> list[Stage]:
    """The stages of a plan as the queue knows them, parents before children."""
    roles = {key: role for run in session.plan.runs for role, key in run.items()}
    return [
        Stage(
            label=session.label(key),
            role=roles[key],
            parents=tuple(dict.fromkeys(session.label(parent) for parent in node.parents.values())),
            processes=node.config.fsdp.world_size if isinstance(node.config, TrainConfig) else 1,
        )
        for key, node in session.plan.nodes.items()
    ]


def show(outcome: submit.Outcome, name: str, output: Path, seconds: float, out: Console) -> None:
    """The arrays as a table, and what to do next."""
    if outcome.queued:
        out.print(_table(outcome))
    count = sum(len(labels) for record, array, _ in outcome.queued if array for labels in record.units.values())
    told = [f"{count} stages queued in {outcome.calls} job arrays in {seconds:.1f} s"]
    if outcome.queued and not count:
        told = [f"only the report is queued ({seconds:.1f} s), behind what is on its way"]
    told += [f"{outcome.finished} found finished"] if outcome.finished else []
    if outcome.again:
        told[0] += f", {len(outcome.again)} of them stopped before"
    told += [f"{outcome.adopted} queued or running already, with the settings of then"] if outcome.adopted else []
    out.print("; ".join(told), markup=False, soft_wrap=True)
    out.print(f"follow it: {follow(name, output)}", markup=False, soft_wrap=True)


def follow(name: str, output: Path) -> str:
    """The command that watches a submission, as it works from the current folder on."""
    here = Path.cwd()
    place = output.relative_to(here) if output.is_relative_to(here) else output
    where = "" if output == here / "outputs" else f" --output-dir {shlex.quote(str(place))}"
    command = f"python -m alpaca status {name} --watch"
    if here == ROOT:
        return command + where
    return f"cd {shlex.quote(str(ROOT))} && {command} --output-dir {shlex.quote(str(output))}"


def _table(outcome: submit.Outcome) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("job", "stages", "elements", "each", "after"):
        table.add_column(column, overflow="fold")
    for record, array, dependency in outcome.queued:
        kinds = dict.fromkeys(label.partition("/")[0] for labels in record.units.values() for label in labels)
        each = _each(array.asked) if array else ""
        name = " + ".join(kinds) if array else "report"
        table.add_row(str(record.job), name, str(len(record.units)), each, _brief(dependency))
    return table


def _each(asked: Asked) -> str:
    parts = [f"{asked.nodes} nodes x {asked.tasks} processes"] if asked.nodes * asked.tasks > 1 else []
    parts += [f"{asked.gpus} GPU"] if asked.gpus else []
    return ", ".join([*parts, f"{asked.cpus} CPU", f"{asked.memory_gib:g} GiB", f"{asked.minutes} min"])


def _brief(dependency: str) -> str:
    return dependency if len(dependency) <= 60 else f"{dependency[:56]} ..."


