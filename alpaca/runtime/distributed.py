"""Starting several processes of one stage on this machine, and joining their group. Imports torch only to join."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from alpaca.errors import PreemptedError, UserError
from alpaca.runtime.signals import ENDINGS, Warnings

if TYPE_CHECKING:
    import torch

STORE = "ALPACA_RENDEZVOUS"
"""Environment variable: the file through which ranks started by `launch_ranks` find each other."""
EXPLICIT = "ALPACA_RANKS"
"""Environment variable: 1 says that torchrun or srun started this process as one rank of several."""
START = "ALPACA_START"
"""Environment variable: names this start of a SLURM job. Of several ranks the others wait until rank 0 has begun it,
and each process of a stage ends with the worker that started it."""
PLACE = ("RANK", "WORLD_SIZE")
JOINED_SECONDS = 3600.0
"""How long ranks wait for each other: one of them may be downloading a model meanwhile."""
POLL_SECONDS = 0.05
TERMINATION_SECONDS = 15.0  # ranks that are told to end save a checkpoint first
LAST_WORDS = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """This process among the processes that train together."""

    rank: int
    world_size: int
    device: torch.device
    grouped: bool
    """Whether a process group exists."""

    @property
    def main(self) -> bool:
        """Whether this process writes and logs."""
        return self.rank == 0

    def agree(self, value: Any) -> Any:
        """Rank 0's value, on every rank. Every rank must call it."""
        if self.world_size == 1:
            return value
        import torch.distributed as dist

        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over all ranks, in place. Every rank must call it."""
        if self.world_size > 1:
            import torch.distributed as dist

            dist.all_reduce(value)
        return value

    def any(self, *flags: bool) -> list[bool]:
        """For each flag whether it is set on some rank. Every rank must call it."""
        if self.world_size == 1:
            return list(flags)
        import torch
        import torch.distributed as dist

        found = torch.tensor(flags, dtype=torch.int32, device=self.device)
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return [bool(flag) for flag in found.tolist()]

    def close(self) -> None:
        """Leaves the group."""
        if self.grouped:
            import torch.distributed as dist

            dist.destroy_process_group()


def inside_rank() -> bool:
    """Whether this process was started as one rank of several: by `launch_ranks`, or with ALPACA_RANKS=1.

    RANK alone does not say so: job systems set it in shells and containers that run a stage in one process.
    """
    return STORE in os.environ or os.environ.get(EXPLICIT) == "1"


def holds_the_claim() -> bool:
    """Whether this process claims and publishes a stage: alone, or rank 0 where torchrun or srun started the ranks.

    Ranks started by `launch_ranks` do not: their launcher does.
    """
    return not inside_rank() or (STORE not in os.environ and os.environ.get("RANK") == "0")


def speaks_to_its_starter() -> bool:
    """Whether this is rank 0 of those that `launch_ranks` started, whose numbers its starter hands on."""
    return inside_rank() and STORE in os.environ and os.environ.get("RANK") == "0"


def alone() -> Ranks:
    """A single process without a group, whatever the environment says."""
    return Ranks(rank=0, world_size=1, device=_device(0), grouped=False)


def setup() -> Ranks:
    """Joins the group when this process is one rank of several (`inside_rank`), else stays alone.

    One GPU per process with NCCL where there are GPUs, else gloo. Ranks started by `launch_ranks` meet through a file,
    all others through MASTER_ADDR and MASTER_PORT.
    """
    if not inside_rank():
        return alone()
    rank, world_size = _place()
    device = _device(_local_rank())
    _join(device, rank, world_size)
    return Ranks(rank=rank, world_size=world_size, device=device, grouped=True)


def _place() -> tuple[int, int]:
    """RANK and WORLD_SIZE."""
    missing = [name for name in PLACE if not os.environ.get(name, "").isdecimal()]
    if missing:
        raise UserError(
            what=f"{EXPLICIT}=1 says that this is one rank of several, but not which: no {' and no '.join(missing)}",
            where="environment",
            remedy=f"start with torchrun, set {', '.join(PLACE)} for each process, or unset {EXPLICIT}",
        )
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def _local_rank() -> int:
    """Which process of this machine this is: torchrun's name for it, or SLURM's."""
    for name in ("LOCAL_RANK", "SLURM_LOCALID"):
        if os.environ.get(name, "").isdecimal():
            return int(os.environ[name])
    raise UserError(
        what="one rank of several, but not which of this machine: no LOCAL_RANK and no SLURM_LOCALID",
        where="environment",
        remedy="start with torchrun or srun, or set LOCAL_RANK for each process",
    )


def _device(local_rank: int) -> torch.device:
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    present = torch.cuda.device_count()
    if local_rank >= present:
        raise UserError(
            what=f"process {local_rank} of this machine has no GPU of its own: {present} present",
            where="fsdp.world_size",
            remedy=f"at most {present} processes on this machine",
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def _join(device: torch.device, rank: int, world_size: int) -> None:
    import torch.distributed as dist

    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    patience = timedelta(seconds=JOINED_SECONDS)
    if STORE in os.environ:
        end_with_parent()
        place = f"file://{os.environ[STORE]}"
    else:
        place = "env://"
    dist.init_process_group(backend, init_method=place, rank=rank, world_size=world_size, timeout=patience)


def end_with_parent() -> None:
    """Ends this process when the launcher is gone: it holds the other end of our standard input.

    Otherwise ranks would outlive a launcher killed by SIGKILL and write into a folder that is no longer theirs.
    """

    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def leave(status: int = 0) -> NoReturn:
    """Ends a rank at once, its output flushed.

    The interpreter's own end races with the threads of the process group and has aborted ranks that had succeeded.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def launch_ranks(command: list[str], world_size: int, check: Callable[[], None] = lambda: None) -> None:
    """Runs `command` in `world_size` processes on this machine and waits for all of them.

    Each finds RANK, LOCAL_RANK and WORLD_SIZE in its environment; they meet through a file in a fresh folder, so that
    no port has to be guessed. check: called while waiting; what it raises ends the ranks. When a rank fails, the others
    are ended and a UserError carries its last words. A signal that asks for a stop is passed on to the ranks, which
    save themselves; then PreemptedError is raised.
    """
    with tempfile.TemporaryDirectory(prefix="alpaca-ranks-") as folder:
        ranks: list[subprocess.Popen[bytes]] = []
        with Warnings() as warnings:
            try:
                for rank in range(world_size):
                    ranks.append(_start(command, rank, world_size, Path(folder)))
                _wait(ranks, Path(folder), check, warnings)
            finally:
                _end(ranks)


def _start(command: list[str], rank: int, world_size: int, folder: Path) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        STORE: str(folder / "store"),
        "PYTHONPATH": _same_code(),
    }
    with _words(folder, rank).open("wb") as words:
        # Rank 0 speaks for all on standard output; what the others print there belongs to their last words.
        output: IO[bytes] | None = None if rank == 0 else words
        return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=output, stderr=words)


def _same_code() -> str:
    """The import path with this very package first, wherever the command is started."""
    return os.pathsep.join(filter(None, [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH")]))


def _wait(ranks: list[subprocess.Popen[bytes]], folder: Path, check: Callable[[], None], warnings: Warnings) -> None:
    told = False
    while True:
        if warnings.heard and not told:  # once: a second signal could meet ranks that are on their way out
            told = True
            _pass_on(ranks, signal.Signals[warnings.heard])
        states = [process.poll() for process in ranks]
        failed = [rank for rank, state in enumerate(states) if state]
        stopped = ENDINGS if warnings.heard else {PreemptedError.exit_status}
        if failed and all(states[rank] in stopped for rank in failed):
            _end(ranks)  # the others are on their way out, having saved the same checkpoint
            raise PreemptedError(what=_last_error(folder, failed[0]), remedy=PreemptedError.REMEDY)
        if failed:
            raise UserError(
                what="\n".join(_obituary(rank, len(ranks), states[rank], folder) for rank in failed),
                where="fsdp",
                remedy="mend what the first failed process says, and run the same again",
            )
        if all(state == 0 for state in states):
            return
        check()
        time.sleep(POLL_SECONDS)


def _pass_on(ranks: list[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    for process in ranks:
        if process.poll() is None:
            process.send_signal(number)


def _last_error(folder: Path, rank: int) -> str:
    """The first line of the last error that a rank told."""
    lines = _words(folder, rank).read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return errors[-1] if errors else "stopped by a signal; a checkpoint is saved"


def _obituary(rank: int, world_size: int, status: int | None, folder: Path) -> str:
    lines = _words(folder, rank).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    words = "\n".join(f"    {line}" for line in lines[-LAST_WORDS:]) or "    (no last words)"
    if status is not None and status < 0:
        end = f"was killed by {signal.Signals(-status).name} (by the system, if memory ran out)"
    else:
        end = f"ended with status {status}"
    return f"process {rank} of {world_size} {end}; its last words:\n{words}"


def _words(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}.err"


def _end(ranks: list[subprocess.Popen[bytes]]) -> None:
    for process in ranks:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + TERMINATION_SECONDS
    for process in ranks:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin:
            process.stdin.close()
