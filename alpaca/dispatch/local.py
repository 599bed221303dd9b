"""The graph on this machine: bounded parallelism, one process per stage, failures kept apart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from alpaca import artifacts, jobs
from alpaca.config import Cluster
from alpaca.dispatch.display import Display

POLL_SECONDS = 0.05
# A shell inside another launcher has these; our own training processes get theirs from the train stage.
FOREIGN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
PATIENCE_SECONDS = 20.0  # after a stop was asked for, before a stage is killed


@dataclass(kw_only=True, slots=True)
class Task:
    """A stage to do. parents: keys of the tasks of this launch that must be finished before."""

    key: str
    label: str
    folder: Path
    parents: set[str]


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What became of the tasks, by key."""

    done: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    """Key -> the error as the stage told it."""
    skipped: set[str] = field(default_factory=set)
    """Not started because a parent failed."""


def run(tasks: list[Task], cluster: Cluster, display: Display) -> Outcome:
    """Does all tasks whose parents succeed; a failure stops its descendants and nothing else.

    KeyboardInterrupt stops the running stages, which stay resumable, and is raised again.
    """
    start = _in_process if cluster.kind == "debug" else _start
    outcome, running = Outcome(), dict[str, "_Running"]()
    waiting = {task.key: task for task in tasks}
    try:
        while waiting or running:
            _skip_orphans(waiting, outcome, display)
            for task in _ready(waiting, outcome)[: max(0, cluster.parallel - len(running))]:
                display.started(task.label, task.folder)
                running[task.key] = start(waiting.pop(task.key), cluster)
            for key in [key for key, item in running.items() if item.finished()]:
                _settle(running.pop(key), outcome, display)
            display.refresh()
            time.sleep(POLL_SECONDS if running else 0)
    except BaseException:
        _stop_all(list(running.values()))
        raise
    return outcome


@dataclass(kw_only=True, slots=True)
class _Running:
    task: Task
    since: float
    status: Callable[[], int | None]
    process: subprocess.Popen[bytes] | None = None
    log: IO[bytes] | None = None
    log_start: int = 0
    """Size of the log when this start began: what stands before it was said by earlier starts."""

    def finished(self) -> bool:
        return self.status() is not None


def _start(task: Task, cluster: Cluster) -> _Running:
    settings = artifacts.read_json(task.folder / "stage.json")
    code = task.folder.parents[1] / settings["code"]
    log = (task.folder / "log.txt").open("ab")
    start = log.tell()
    process = subprocess.Popen(
        [sys.executable, "-m", "alpaca.jobs", str(task.folder)],
        cwd=code,
        env=environment(code, cluster.threads),
        stdout=log,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    return _Running(task=task, since=time.monotonic(), status=process.poll, process=process, log=log, log_start=start)


def _in_process(task: Task, cluster: Cluster) -> _Running:
    """cluster=debug: the stage runs here and now, so that a debugger sees it; its log goes to the terminal."""
    since = time.monotonic()
    status = jobs.guarded(task.folder)
    return _Running(task=task, since=since, status=lambda: status)


def environment(code: Path, threads: int) -> dict[str, str]:
    """Of a worker on this machine: what is inherited, without the place of another launcher."""
    inherited = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    return {**inherited, **worker_variables(code, threads)}


def worker_variables(code: Path, threads: int) -> dict[str, str]:
    """What every worker needs: the frozen code first on the path, its share of the cores, no telemetry of libraries."""
    count = str(threads)
    return {
        "PYTHONPATH": str(code),
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "TOKENIZERS_PARALLELISM": "false",
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",  # packs differ in every pass, and a kernel is kept for each shape
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
    }


def _ready(waiting: dict[str, Task], outcome: Outcome) -> list[Task]:
    """Tasks whose parents are all done; parents finished before this launch are not named in a task."""
    return [task for task in waiting.values() if task.parents <= outcome.done]


def _skip_orphans(waiting: dict[str, Task], outcome: Outcome, display: Display) -> None:
    lost = outcome.failed.keys() | outcome.skipped
    for task in [task for task in waiting.values() if task.parents & lost]:
        outcome.skipped.add(task.key)
        display.skipped(task.label)
        del waiting[task.key]
        lost = outcome.failed.keys() | outcome.skipped


def _settle(item: _Running, outcome: Outcome, display: Display) -> None:
    if item.log:
        item.log.close()
    seconds = time.monotonic() - item.since
    if item.status() == 0 and artifacts.is_finished(item.task.folder):
        outcome.done.add(item.task.key)
        display.finished(item.task.label, seconds, summary(item))
        return
    outcome.failed[item.task.key] = _error(item)
    display.failed(item.task.label, seconds, outcome.failed[item.task.key])


def summary(item: _Running) -> str:
    """What the stage said last."""
    return str(artifacts.read_json(item.task.folder / "provenance.json")["summary"])


def _log_lines(item: _Running) -> list[str]:
    path = item.task.folder / "log.txt"
    if not path.exists():
        return []
    return path.read_bytes()[item.log_start :].decode("utf-8", errors="replace").splitlines()


def _error(item: _Running) -> str:
    """What the stage said when it stopped: its "error:" lines, else the end of its log."""
    lines, status = _log_lines(item), item.status()
    if status is not None and status < 0:
        return f"killed by {signal.Signals(-status).name} (by the system, if memory ran out)"
    starts = [index for index, line in enumerate(lines) if line.startswith("error: ")]
    told = lines[starts[-1] :] if starts else lines[-12:]
    return "\n".join(told).removeprefix("error: ") or f"ended with status {status}; see {item.task.folder}"


def _stop_all(running: list[_Running]) -> None:
    """Asks the stages to stop and kills those that do not, each by its own process group."""
    alive = [item.process for item in running if item.process and item.process.poll() is None]
    for process in alive:
        os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE_SECONDS
    for process in alive:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
