"""What srun starts on every task of an array element: `python -u -m alpaca.dispatch.slurm.worker ARRAYFILE`.

The element's stages one after the other, each by the same call as everywhere (`python -m alpaca.jobs FOLDER`) in a
process of its own: no settings of one stage (threads, number formats, random state) reach the next, and what the system
kills for its memory leaves somebody who says so. This process hears the signals, passes them on, queues the job again
after SLURM's warning, and leaves word of a failure in the stage's stopped.json.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alpaca import artifacts, claims
from alpaca.errors import AlpacaError, PreemptedError, UserError
from alpaca.runtime import distributed, provenance, signals

WAIT_SECONDS = 120.0
"""How long a rank that was asked to stop waits to be ended: if it ended first, srun would kill rank 0, which queues the
job again."""
GATHER_SECONDS = 1.0
"""How long a rank that lost its partners waits for the warning that they may have heard before it."""
WORDS_SECONDS = 5.0
"""How long rank 0 waits for the last words of the others, which may be the reason of its own failure."""
PATIENCE_SECONDS = 60.0  # for one call of SLURM's programs
POLL_SECONDS = 0.1
LAST_LINES = 12
OTHER_RANK = "rank"
AGAIN = "give the same command again: it queues what is missing"
FOREIGN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def main() -> None:
    warnings = signals.Warnings().listen()  # to the very end: at no moment may a warning kill this process
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m alpaca.dispatch.slurm.worker ARRAYFILE")
    try:
        worker = Worker.of(Path(sys.argv[1]).resolve(), warnings)
        worker.task.join()
        status = worker.run()
    except AlpacaError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        status = error.exit_status
    except OSError as error:  # its array's record cannot be read
        print(f"error: {error}", file=sys.stderr, flush=True)
        status = UserError.exit_status
    raise SystemExit(status)


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """This process's place in its job.

    job: SLURM's name of the element, "123_4"; restart: how often SLURM has started it again.
    """

    job: str
    restart: int
    rank: int
    tasks: int
    host: str

    @classmethod
    def here(cls) -> Task:
        """By SLURM's environment; UserError outside of an array's element."""
        try:
            return cls(
                job=f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}",
                restart=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
                rank=int(os.environ.get("SLURM_PROCID", "0")),
                tasks=int(os.environ.get("SLURM_NTASKS", "1")),
                host=socket.gethostname(),
            )
        except (KeyError, ValueError) as error:
            raise UserError(
                what=f"not inside an element of a SLURM job array ({error})",
                where="environment",
                remedy="srun starts this; `python launch.py cluster=slurm` queues the jobs",
            ) from error

    def join(self) -> None:
        """Sets the variables by which the processes of one training find each other; removes them for a single one."""
        for name in (*FOREIGN, distributed.EXPLICIT, distributed.STORE):
            os.environ.pop(name, None)
        os.environ[distributed.START] = f"{self.job}-{self.restart}"
        if self.tasks > 1:
            os.environ.setdefault("SUBMITIT_LOG_LEVEL", "NOCONFIG")
            os.environ.setdefault("SUBMITIT_EXECUTOR", "slurm")  # so that submitit knows where it is
            from submitit.helpers import TorchDistributedEnvironment

            TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
            os.environ[distributed.EXPLICIT] = "1"


@dataclass(kw_only=True, slots=True)
class Worker:
    """The stages of one element and what is done about their ends."""

    array_file: Path
    labels: list[str]
    max_requeues: int
    task: Task
    warnings: signals.Warnings
    said: deque[str] = field(default_factory=lambda: deque(maxlen=200))
    """The last lines of a rank other than 0, whose words do not go to the log."""

    @classmethod
    def of(cls, array_file: Path, warnings: signals.Warnings) -> Worker:
        """Reads the record of the array; UserError where it is gone or holds no such element."""
        task = Task.here()
        if not array_file.exists():
            raise UserError(what="removed while its job was queued", where=str(array_file), remedy=AGAIN)
        record, element = artifacts.read_json(array_file), os.environ["SLURM_ARRAY_TASK_ID"]
        if element not in record["units"]:
            known = ", ".join(record["units"])
            raise UserError(what=f"no element {element}, only {known}", where=str(array_file), remedy=AGAIN)
        limit = int(record["max_requeues"])
        return cls(
            array_file=array_file, labels=record["units"][element], max_requeues=limit, task=task, warnings=warnings
        )

    @property
    def output(self) -> Path:
        return self.array_file.parents[3]

    def run(self) -> int:
        """All stages in order up to the first failure; the exit status."""
        return next((status for label in self.labels if (status := self._guarded(self.output / label))), 0)

    def _guarded(self, folder: Path) -> int:
        try:
            return self._stage(folder)
        except OSError as error:  # a full disk, a folder of somebody else
            print(f"error: {error}", file=sys.stderr, flush=True)
            if self.task.rank == 0:
                self._reap(folder)
            return UserError.exit_status

    def _stage(self, folder: Path) -> int:
        if self.task.rank and folder.parent.name != "train":
            return 0  # only a training has work for more than one process
        if not (folder / "stage.json").exists():
            print(f"error: {folder}: removed while its job was queued\n    {AGAIN}", file=sys.stderr, flush=True)
            if self.task.rank == 0:
                self._reap(folder)
            return UserError.exit_status
        if artifacts.is_finished(folder):
            return 0
        start = self._open_log(folder)
        if self.task.restart > self.max_requeues:
            self._say_error(self._too_often())
            return self._failed(folder, start, UserError.exit_status)
        status = PreemptedError.exit_status if self.warnings.all else self._run(folder)
        if status == 0 and self.task.rank:  # srun may end a job soon after its first process has ended
            self._linger(lambda: artifacts.is_finished(folder) or self.warnings.all, math.inf)
            status = PreemptedError.exit_status
        if artifacts.is_finished(folder):
            return 0
        if self._was_asked(folder, status):
            return self._asked(folder, start)
        return self._failed(folder, start, status or UserError.exit_status)

    def _was_asked(self, folder: Path, status: int) -> bool:
        """Whether the stage stopped for a signal and did not fail.

        After SLURM's warning whatever happens counts as that: ranks hear it one after the other, and lose each other.
        A mere SIGTERM is also what srun sends when another rank has failed, which then has left word.
        """
        if self.task.rank and status not in (0, PreemptedError.exit_status):
            self._linger(lambda: "SIGUSR2" in self.warnings.all, GATHER_SECONDS)  # this rank may be the last to hear
        if "SIGUSR2" in self.warnings.all:
            return True
        return status == PreemptedError.exit_status and not self._is_mine(artifacts.stopped(folder))

    def _open_log(self, folder: Path) -> int:
        """Rank 0 speaks in the stage's log; the size of the log before this start."""
        path = folder / "log.txt"
        start = path.stat().st_size if path.exists() else 0
        if self.task.rank == 0:
            if not self._is_mine(artifacts.stopped(folder)):  # another rank of this start may have failed already
                (folder / artifacts.STOPPED).unlink(missing_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            for target in (1, 2):
                os.dup2(descriptor, target)
            os.close(descriptor)
            print(f"-- job {self.task.job} (start {self.task.restart}) on {self.task.host}", flush=True)
        return start

    def _run(self, folder: Path) -> int:
        """The stage in a process of its own; its exit status, 128 + N where signal N ended it."""
        command = [sys.executable, "-u", "-m", "alpaca.jobs", str(folder)]
        out, err = (subprocess.PIPE, subprocess.STDOUT) if self.task.rank else (None, None)
        # The child ends when its standard input does, so that it never outlives this process.
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=err)
        reader = threading.Thread(target=self._echo, args=(process.stdout or (),), daemon=True)
        reader.start()
        status = self._wait(process)
        reader.join(GATHER_SECONDS)
        if status in signals.ENDINGS and self.warnings.all:
            return PreemptedError.exit_status
        if status < 0:
            cause = " (by the system, if memory ran out)" if status == -signal.SIGKILL else ""
            self._say_error(f"killed by {signal.Signals(-status).name}{cause}")
        return status if status >= 0 else 128 - status

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        """Until it ends; SLURM sends its signals to the child too, but a user or a site may not."""
        passed: set[str] = set()
        while process.poll() is None:
            for name in set(self.warnings.all) - passed:
                passed.add(name)
                process.send_signal(signal.Signals[name])
            time.sleep(POLL_SECONDS)
        return process.returncode

    def _echo(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            text = line.decode("utf-8", errors="replace").rstrip("\n")
            self.said.append(text)
            print(text, flush=True)

    def _say_error(self, text: str) -> None:
        self.said.append(f"error: {text}")
        print(f"error: {text}", file=sys.stderr, flush=True)

    def _asked(self, folder: Path, start: int) -> int:
        """After a signal that asks for a stop: rank 0 queues the job again, the others wait for the end."""
        if self.task.rank:
            self._linger(lambda: artifacts.is_finished(folder), WAIT_SECONDS)
            return PreemptedError.exit_status
        if self._is_cancelled():
            print("cancelled", flush=True)  # by our own command, so it is no failure
            return PreemptedError.exit_status
        refusal = self._queue_again()
        if refusal:
            self._say_error(refusal)
            self._failed(folder, start, PreemptedError.exit_status)
        else:
            (folder / artifacts.STOPPED).unlink(missing_ok=True)  # of a rank that lost its partners
        return PreemptedError.exit_status

    def _is_cancelled(self) -> bool:
        from alpaca.dispatch.slurm import records

        return self.task.job in records.cancelled(self.array_file.parents[1])

    def _linger(self, over: Callable[[], object], seconds: float) -> None:
        """Waits until it is over, until SIGTERM comes (again), or so long."""
        before, deadline = self.warnings.all.count("SIGTERM"), time.monotonic() + seconds
        while not over() and self.warnings.all.count("SIGTERM") == before and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)

    def _queue_again(self) -> str:
        """Asks SLURM to start this job again; why not, where it cannot be."""
        if self.task.restart >= self.max_requeues:
            return self._too_often()
        if "SIGUSR2" not in self.warnings.all:
            # Preemption, cancellation and time limit send the same SIGTERM; only the first leaves the job running.
            state, problem = _slurm("squeue", "--all", "--noheader", f"--jobs={self.task.job}", "--format=%T")
            if state != "RUNNING":
                return f"stopped by SIGTERM and not queued again: SLURM says {state or problem or 'nothing'} of the job"
        left = self.max_requeues - self.task.restart - 1
        print(f"queueing job {self.task.job} again ({left} more times allowed)", flush=True)
        _, problem = _slurm("scontrol", "requeue", self.task.job)
        return f"not queued again: scontrol says {problem}" if problem else ""

    def _too_often(self) -> str:
        return str(
            UserError(
                what=f"started again {self.task.restart} times, and {self.max_requeues} are allowed",
                where="cluster.max_requeues",
                remedy="a longer limit (cluster.minutes), or see in this log what ends it each time; then retry",
            )
        )

    def _failed(self, folder: Path, start: int, status: int) -> int:
        """Leaves word of a failure; the exit status."""
        if self.task.rank == 0 and claims.holder(folder):  # another start took over, so this one has nothing to say
            return status
        if self.task.rank == 0:
            if self.task.tasks > 1:
                told = f"error: {OTHER_RANK} "
                self._linger(
                    lambda: any(line.startswith(told) for line in _lines(folder / "log.txt", start)), WORDS_SECONDS
                )
            self._leave_word(folder, status, _last_error(_lines(folder / "log.txt", start)))
            self._reap(folder)
            return status
        text = f"{OTHER_RANK} {self.task.rank} of {self.task.tasks} on {self.task.host}: {_last_error(list(self.said))}"
        with suppress(OSError), (folder / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"error: {text}\n")
        if not self._is_mine(artifacts.stopped(folder)):  # rank 0 adds to it, unless srun ends it before
            self._leave_word(folder, status, text)
        return status

    def _is_mine(self, word: dict[str, Any]) -> bool:
        return (word.get("job"), word.get("restart")) == (self.task.job, self.task.restart)

    def _leave_word(self, folder: Path, status: int, error: str) -> None:
        word = {
            "job": self.task.job,
            "restart": self.task.restart,
            "status": status,
            "error": error or f"ended with status {status}",
            "time": provenance.now(),
            "host": self.task.host,
        }
        try:
            artifacts.write_json(folder / artifacts.STOPPED, word)
        except OSError as problem:  # a full disk, or the folder is gone: the log and SLURM's own state remain
            print(f"no {artifacts.STOPPED}: {problem}", file=sys.stderr, flush=True)

    def _reap(self, folder: Path) -> None:
        """Takes back the jobs that wait for this stage, where SLURM is told not to do that itself."""
        from alpaca.dispatch.slurm import control

        try:
            removed = control.reap_after(self.array_file, folder.relative_to(self.output).as_posix(), self.task.job)
        except (AlpacaError, OSError) as error:
            print(f"the jobs behind this stage are not cancelled: {error}", flush=True)
            return
        if removed:
            print(f"cancelled what waited for this stage: {', '.join(removed)}", flush=True)


def _slurm(*command: str) -> tuple[str, str]:
    """What one of SLURM's programs printed, and what went wrong."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"{command[0]}: {error}"
    problem = done.stderr.strip() or f"status {done.returncode}"
    return done.stdout.strip(), problem if done.returncode else ""


def _lines(log: Path, start: int) -> list[str]:
    """What this start said: the log from a size on."""
    try:
        with log.open("rb") as file:
            file.seek(start)
            return file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _last_error(lines: list[str]) -> str:
    """All errors with their remedies, the first one first; else the end of what was said (a traceback)."""
    told, inside = list[str](), False
    for line in lines:
        inside = line.startswith("error: ") or (inside and line.startswith(" "))
        told += [line.removeprefix("error: ")] if inside else []
    return "\n".join(told) or "\n".join(lines[-LAST_LINES:])


if __name__ == "__main__":
    main()
