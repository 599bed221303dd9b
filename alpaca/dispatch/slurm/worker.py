"""What srun starts on every task of an array element: `python -u -m alpaca.dispatch.slurm.worker ARRAYFILE`.

The element's stages one after the other, by the same call as everywhere (`alpaca.jobs`). SLURM's warning (USR2) saves a
stage and queues the job again; a failure leaves its words in the stage's stopped.json.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from alpaca import artifacts, jobs
from alpaca.errors import AlpacaError, ArtifactError, PreemptedError, UserError
from alpaca.runtime import distributed, provenance, signals

STOPPED = "stopped.json"
WAIT_SECONDS = 120.0
LAST_LINES = 12
AGAIN = "launch the same command again"


def main() -> None:
    signals.interrupt_when_asked()
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m alpaca.dispatch.slurm.worker ARRAYFILE")
    status = work(Path(sys.argv[1]).resolve())
    if distributed.inside_rank():
        distributed.leave(status)
    raise SystemExit(status)


def work(array_file: Path) -> int:
    """Runs the stages of this element; the exit status."""
    try:
        record, labels = _unit(array_file)
    except AlpacaError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_status
    join_ranks()
    for label in labels:
        folder = array_file.parents[3] / label
        status = _stage(folder, record)
        if status:
            return _after_failure(status, folder, array_file, record)
    return 0


def _unit(array_file: Path) -> tuple[dict[str, Any], list[str]]:
    """The array's record and the labels of this element."""
    if not array_file.exists():
        raise UserError(what="removed while it was queued", where=str(array_file), remedy=AGAIN)
    record, element = artifacts.read_json(array_file), os.environ.get("SLURM_ARRAY_TASK_ID", "")
    labels = record["units"].get(element)
    if labels is None:
        raise UserError(what=f"no element {element!r}", where=str(array_file), remedy="SLURM starts this, not a user")
    return record, labels


def join_ranks() -> None:
    """The variables by which the processes of one job find each other; none for a single process."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    if tasks() > 1:
        from submitit.helpers import TorchDistributedEnvironment

        TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
        os.environ |= {distributed.EXPLICIT: "1", distributed.START: f"{job()}-{restarts()}"}


def tasks() -> int:
    return int(os.environ.get("SLURM_NTASKS", "1"))


def rank() -> int:
    return int(os.environ.get("SLURM_PROCID", "0"))


def restarts() -> int:
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def job() -> str:
    """SLURM's name of this element, "123_4"."""
    return f"{os.environ.get('SLURM_ARRAY_JOB_ID', '')}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}"


def _stage(folder: Path, record: dict[str, Any]) -> int:
    """One stage, its words in its log; the exit status."""
    if not (folder / "stage.json").exists():
        print(f"error: {folder}: removed while it was queued\n    {AGAIN}", file=sys.stderr, flush=True)
        return 1
    if artifacts.is_finished(folder):
        return 0
    if rank() == 0:
        (folder / STOPPED).unlink(missing_ok=True)
        _write_to(folder / "log.txt")
        print(f"-- job {job()} (start {restarts()}) on {socket.gethostname()}", flush=True)
    if restarts() > record["max_requeues"]:
        print(f"error: {_too_often(record)}", file=sys.stderr, flush=True)
        return ArtifactError.exit_status
    try:
        return jobs.guarded(folder)
    except SystemExit as stopped:  # by a signal, outside of a training
        print("stopped by a signal; what is done is kept", flush=True)
        return int(stopped.code) if isinstance(stopped.code, int) else 1


def _too_often(record: dict[str, Any]) -> UserError:
    return UserError(
        what=f"started again {restarts()} times, and {record['max_requeues']} are allowed",
        where="cluster.max_requeues",
        remedy="a longer limit (cluster.minutes), or look in this log for what ends it each time; then retry",
    )


def _write_to(log: Path) -> None:
    """Standard output and error of this process go to the stage's log from now on."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for target in (1, 2):
        os.dup2(descriptor, target)
    os.close(descriptor)


def _after_failure(status: int, folder: Path, array_file: Path, record: dict[str, Any]) -> int:
    """Queues a warned job again; leaves word of any other end."""
    if status == PreemptedError.exit_status:
        if rank():
            time.sleep(WAIT_SECONDS)  # ending here first would make srun kill rank 0 before it has queued the job again
            return status
        if _queue_again(record):
            return status
    if rank():
        _last_words(folder, status)
        return status
    _leave_word(folder, status)
    if status != PreemptedError.exit_status:
        _reap(array_file, folder)
    return status


def _queue_again(record: dict[str, Any]) -> bool:
    """Asks SLURM to start this job again, unless it was cancelled or did so too often."""
    if restarts() >= record["max_requeues"]:
        print(f"error: {_too_often(record)}", file=sys.stderr, flush=True)
        return False
    if not signals.heard("SIGUSR2") and _state() != "RUNNING":
        print(f"not queued again: SLURM says {_state() or 'nothing'} of job {job()}", flush=True)
        return False
    print(f"queueing job {job()} again ({record['max_requeues'] - restarts() - 1} more times allowed)", flush=True)
    done = subprocess.run(["scontrol", "requeue", job()], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"error: scontrol requeue: {done.stderr.strip()}", file=sys.stderr, flush=True)
    return done.returncode == 0


def _state() -> str:
    """A cancelled job gets the same SIGTERM as one that is preempted, but is no longer RUNNING."""
    words = ["squeue", "--noheader", f"--jobs={job()}", "--format=%T"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def _leave_word(folder: Path, status: int) -> None:
    lines = _lines(folder)
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    found = {
        "job": job(),
        "restart": restarts(),
        "status": status,
        "error": told[-1] if told else "\n".join(lines[-LAST_LINES:]) or f"ended with status {status}",
        "time": provenance.now(),
        "host": socket.gethostname(),
    }
    if folder.exists():
        artifacts.write_json(folder / STOPPED, found)


def _lines(folder: Path) -> list[str]:
    path = folder / "log.txt"
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []


def _last_words(folder: Path, status: int) -> None:
    """Which rank ended, into the log that everybody reads; its own words are in its output file."""
    with (folder / "log.txt").open("a") as log:
        log.write(f"error: rank {rank()} of {tasks()} on {socket.gethostname()} ended with status {status}\n")


def _reap(array_file: Path, folder: Path) -> None:
    from alpaca.dispatch.slurm import control

    try:
        label = folder.relative_to(array_file.parents[3]).as_posix()
        removed = control.reap_after(array_file, label)
    except AlpacaError as error:
        print(f"the jobs behind this stage are not cancelled: {error}", flush=True)
        return
    if removed:
        print(f"cancelled what waited for this stage: {', '.join(removed)}", flush=True)


if __name__ == "__main__":
    main()
