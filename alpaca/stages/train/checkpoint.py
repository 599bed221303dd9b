"""Resumable checkpoints: whole or not at all, checked before they are used, written while training goes on.

step-N/        what torch.distributed.checkpoint (DCP) writes, each process its shards, and notes.json
step-N.json    the marker, written last: size and sha256 of every file, world size, names and shapes of the state
step-N.part/   one that is being written; what is left of it after a crash is removed
"""

from __future__ import annotations

import copy
import os
import shutil
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import WriteResult

from alpaca.artifacts import read_json, write_json
from alpaca.runtime.distributed import Ranks
from alpaca.stages.train import marker
from alpaca.stages.train.marker import NOTES, Digests

T = TypeVar("T")


class Says(Protocol):
    """Where a line for the user goes."""

    def __call__(self, text: str, /) -> None: ...


class Checkpoints:
    """The checkpoints of one run, in a folder that all its processes share.

    Every process of the run makes one, at the same point, and calls `save`, `restore` and `wait` together with the
    others. keep: whole checkpoints that stay; older ones go only when a newer one is whole.
    """

    saving_seconds: float
    """How long the last `save` kept its caller."""

    def __init__(self, folder: Path, ranks: Ranks, say: Says, keep: int = 2) -> None:
        self._folder, self._ranks, self._say, self._keep = folder, ranks, say, keep
        self.saving_seconds = 0.0
        self._stager = DefaultStager(_staging(ranks.device))
        # Writing goes on beside training. On one group the collectives of both would meet each other, in an order that
        # differs between the processes, and wait for ever; so nothing but the writing thread may use this group.
        self._background = dist.new_group(backend="gloo") if ranks.grouped else None
        # Not a daemon: a process that is told to end first finishes the checkpoint that it is writing.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        if not ranks.grouped:  # DCP says at every save that there is one process, which is meant
            warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)

    def save(self, step: int, state: dict[str, Any], notes: dict[str, Any]) -> None:
        """Copies the state of `step` finished steps to host memory and returns; it is written in the background.

        state: nested dictionaries of tensors, DTensors and plain values; the same names on every rank. notes: what JSON
        can hold, rank 0's. Waits for the save before, and raises what went wrong there, on every rank.
        """
        begin = time.monotonic()
        self.wait()
        staged = cast(dict[str, Any], self._stager.stage(state))
        kept = copy.deepcopy(notes) if self._ranks.main else {}
        self._writing = self._thread.submit(self._write, step, staged, kept)
        self.saving_seconds = time.monotonic() - begin

    def wait(self) -> None:
        """Returns when what is being written is whole; raises what went wrong, a full disk as OSError, on every rank.

        Must be called before the process group is left.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def restore(self, state: dict[str, Any], at: int | None = None) -> tuple[int, dict[str, Any]] | None:
        """Loads the newest whole checkpoint into `state` in place; returns its step and notes. None: start afresh.

        at: that of this step, and no other. The number of processes may differ from the one at saving. Damaged
        checkpoints are passed over, which is said, and removed. UserError: it is of another model or optimizer.
        """
        self.wait()
        found = self._newest(marker.fingerprint(state), at)
        if found is not None:
            reader = FileSystemReader(self._folder_of(found))
            # DCP's metadata is a pickle. It is this program's own file, and its sha256 was checked just now.
            _unwrapped(lambda: load(state, storage_reader=reader, no_dist=not self._ranks.grouped))
        if self._ranks.main:
            self._clean()
        notes = read_json(self._folder_of(found) / NOTES) if found is not None and self._ranks.main else None
        notes = self._ranks.agree(notes)
        return None if found is None else (found, notes)

    def forget_after(self, step: int) -> None:
        """Removes what was saved of later steps: by a run that then went back, or ended before it could say so."""
        self.wait()
        if self._ranks.main:
            for later in self.steps():
                if later > step:
                    self._remove(later)
        self._ranks.agree(None)

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, ascending."""
        return sorted(step for path in self._folder.glob("step-*.json") if (step := _step(path.stem)) is not None)

    # --- writing: in the thread -----------------------------------------------------------------------------------

    def _write(self, step: int, staged: dict[str, Any], notes: dict[str, Any]) -> None:
        part, grouped = self._folder / f"step-{step}.part", self._ranks.grouped
        try:
            self._together(lambda: self._prepare(part), self._background)
            _unwrapped(
                lambda: save(staged, storage_writer=writer(part), process_group=self._background, no_dist=not grouped)
            )
            files = self._together(lambda: self._finish(part, notes), self._background)
            self._together(lambda: self._publish(step, part, marker.fingerprint(staged), files), self._background)
        except Exception:
            if self._ranks.main:
                self._clean()
            raise

    def _prepare(self, part: Path) -> None:
        if self._ranks.main:
            self._clean()
            part.mkdir(parents=True)

    def _finish(self, part: Path, notes: dict[str, Any]) -> Digests:
        """Digests of the files that this process wrote; DCP begins their names with the rank."""
        if self._ranks.main:
            write_json(part / NOTES, notes)
        mine = [*part.glob(f"__{self._ranks.rank}_*"), *(part.glob("[!_]*") if self._ranks.main else ())]
        return marker.digests(mine)

    def _publish(self, step: int, part: Path, fingerprint: dict[str, str], files: list[Digests]) -> None:
        if not self._ranks.main:
            return
        _sync(part)
        self._remove(step)  # one of the same step is in the way
        part.rename(self._folder_of(step))
        record = {"step": step, "world_size": self._ranks.world_size, "fingerprint": fingerprint}
        marker.write(self._marker_of(step), {**record, "files": {k: v for each in files for k, v in each.items()}})
        _sync(self._folder)
        for earlier in self.steps()[: -self._keep]:
            self._remove(earlier)

    def _remove(self, step: int) -> None:
        self._marker_of(step).unlink(missing_ok=True)  # first: what has no marker is not taken for a checkpoint
        shutil.rmtree(self._folder_of(step), ignore_errors=True)

    def _clean(self) -> None:
        """Removes what is no finished checkpoint: left by a crash, by a full disk, or found to be damaged."""
        whole = {name for step in self.steps() for name in (f"step-{step}", f"step-{step}.json")}
        for path in [*self._folder.glob("step-*"), *self._folder.glob(".step-*")]:
            if path.name not in whole and path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name not in whole:
                path.unlink(missing_ok=True)

    # --- reading: where the caller is -----------------------------------------------------------------------------

    def _newest(self, fingerprint: dict[str, str], at: int | None) -> int | None:
        for step in self._ranks.agree([step for step in self._present() if at in (None, step)]):
            problem = self._problem(step, fingerprint)
            if problem is None:
                return cast(int, step)
            if self._ranks.main:
                self._say(f"checkpoint of step {step} {problem}; passed over for an earlier one, or the start")
                self._marker_of(step).unlink(missing_ok=True)
        return None

    def _present(self) -> list[int]:
        """Steps of all checkpoints, finished or not, newest first."""
        steps = {_step(path.name.split(".")[0]) for path in self._folder.glob("step-*")}
        return sorted((step for step in steps if step is not None), reverse=True)

    def _problem(self, step: int, fingerprint: dict[str, str]) -> str | None:
        path = self._marker_of(step)
        record = self._together(lambda: marker.read(path) if self._ranks.main else "")[0]
        if isinstance(record, str):
            return record
        marker.refuse_other_model(path, record["fingerprint"], fingerprint)
        # Each process reads its share of the files, so that a large checkpoint is checked as fast as it is loaded.
        names = sorted(record["files"])[self._ranks.rank :: self._ranks.world_size]
        share = {name: record["files"][name] for name in names}
        found = self._together(lambda: marker.damage(self._folder_of(step), share))
        return next((problem for problem in found if problem), None)

    # --- both -----------------------------------------------------------------------------------------------------

    def _together(self, work: Callable[[], T], group: dist.ProcessGroup | None = None) -> list[T]:
        """What `work` gave on each rank; if it failed on one, that error on all, so that none waits for another."""
        outcome: T | Exception
        try:
            outcome = work()
        except Exception as error:
            outcome = error
        outcomes: list[Any] = [outcome]
        if self._ranks.grouped:
            outcomes = [None] * self._ranks.world_size
            dist.all_gather_object(outcomes, outcome, group=group)
        for each in outcomes:
            if isinstance(each, Exception):
                raise each
        return outcomes

    def _folder_of(self, step: int) -> Path:
        return self._folder / f"step-{step}"

    def _marker_of(self, step: int) -> Path:
        return self._folder / f"step-{step}.json"


def writer(folder: Path) -> FileSystemWriter:
    """What writes a process's shards into `folder`: one file, synchronised to the disk.

    One thread: DCP loses the errors of the others, and a checkpoint that met a full disk would count as written. No
    copying ahead: the state is in host memory, and the thread must not touch a GPU (it would take the first one's).
    """
    return _Writer(folder, single_file_per_rank=True, sync_files=True, thread_count=1, per_thread_copy_ahead=0)


class _Writer(FileSystemWriter):
    def write_data(self, plan: SavePlan, planner: SavePlanner) -> torch.futures.Future[list[WriteResult]]:
        try:
            return super().write_data(plan, planner)
        except Exception as error:
            raise _system_error(error, Path(self.path)) from error


def _system_error(error: BaseException, folder: Path) -> BaseException:
    """The system's error under torch's own ("unexpected pos ..."), since causes are lost between processes."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError):
            return OSError(below.errno, below.strerror, below.filename or str(folder))
        below = below.__cause__ or below.__context__
    return error


def _unwrapped(work: Callable[[], Any]) -> None:
    """Does `work` of DCP; the error of the first process that failed comes out plain (DCP's own is no Exception)."""
    try:
        work()
    except CheckpointException as error:
        raise next(iter(error.failures.values()))[0] from error


def _staging(device: torch.device) -> StagingOptions:
    """Copying to host memory, in buffers that are kept from save to save; page-locked where there is a GPU."""
    gpu = device.type == "cuda"
    return StagingOptions(
        use_pinned_memory=gpu, use_shared_memory=False, use_async_staging=False, use_non_blocking_copy=gpu
    )


def _step(name: str) -> int | None:
    number = name.removeprefix("step-")
    return int(number) if number.isdecimal() else None


def _sync(folder: Path) -> None:
    """Makes names in a folder survive a power failure, as fsync of a file does for its content."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
