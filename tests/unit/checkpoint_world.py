"""What the tests of checkpoints run in processes of their own.

checkpoint_world.py kill FOLDER      one process that dies at one moment of a save after another
checkpoint_world.py ranks FOLDER     one of several ranks: saving under load, errors, restoring
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.filesystem import FileSystem, FileSystemWriter
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict
from torch.distributed.fsdp import fully_shard

from alpaca.runtime.distributed import Ranks, leave, setup
from alpaca.stages.train import marker
from alpaca.stages.train.checkpoint import Checkpoints

ALONE = Ranks(rank=0, world_size=1, device=torch.device("cpu"), grouped=False)
WIDTHS = (7, 11, 5)  # not divisible by two: uneven shards
MOMENTS = ("before the files", "amid a file", "before the name", "before the marker", "amid the marker", "amid removal")


class Training:
    """A small model and its optimizer; sharded when there are several ranks."""

    def __init__(self, ranks: Ranks, seed: int, widths: tuple[int, ...] = WIDTHS) -> None:
        torch.manual_seed(seed)
        self.module = nn.Sequential(*(nn.Linear(first, second) for first, second in pairwise(widths)))
        self.ranks, self.width = ranks, widths[0]
        if ranks.grouped:
            for layer in self.module:
                fully_shard(layer)
            fully_shard(self.module)
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=1e-2)

    def step(self) -> None:
        """One step on a batch of its own; with several ranks it has collectives on the default group."""
        self.optimizer.zero_grad()
        self.module(torch.randn(3, self.width)).square().sum().backward()
        self.optimizer.step()

    def state(self) -> dict[str, Any]:
        model, optimizer = get_state_dict(self.module, self.optimizer)
        return {"model": model, "optimizer": optimizer}

    def whole(self) -> dict[str, torch.Tensor]:
        """Every tensor of model and optimizer by its name, whole, a copy; on rank 0 only."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = get_state_dict(self.module, self.optimizer, options=options)
        found = {}
        for part, node in zip(("model", "optimizer"), state, strict=True):
            for name, leaf in marker._leaves(node):
                if torch.is_tensor(leaf):
                    found[f"{part}.{name}"] = leaf.clone()
        return found


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    """Whether names, types and every bit agree."""
    names = left.keys() == right.keys()
    return names and all(left[k].dtype == right[k].dtype and torch.equal(left[k], right[k]) for k in left)


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


class Ending:
    """A file at whose fifth write something happens."""

    def __init__(self, stream: Any, happens: Callable[[], None]) -> None:
        self.stream, self.happens, self.left = stream, happens, 5

    def write(self, data: Any) -> int:
        self.left -= 1
        if not self.left:
            self.stream.flush()
            self.happens()
        return self.stream.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def ending(happens: Callable[[], None]) -> Callable[..., Any]:
    """Instead of DCP's files such as end like this."""

    @contextlib.contextmanager
    def create_stream(self: FileSystem, path: Path, mode: str) -> Iterator[Any]:
        with Path(path).open(mode) as stream:
            yield Ending(stream, happens)

    return create_stream


def no_space() -> None:
    """What the system says of a full disk. Torch wraps it in an error of its own when a file has begun already."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# --- killed -----------------------------------------------------------------------------------------------------------


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def half_then_die(path: Path, *_: Any) -> None:
    path.with_name(f".{path.name}.{os.getpid()}").write_text('{"step": ')
    die()


def die_removing(path: Path, real: Callable[..., None] = shutil.rmtree, **rest: Any) -> None:
    if path.name == "step-1":  # the earlier checkpoint, not what may be in the way of the new one
        die()
    real(path, **rest)


DEATHS: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    MOMENTS[0]: (FileSystemWriter, "write_data", die),
    MOMENTS[1]: (FileSystem, "create_stream", ending(die)),
    MOMENTS[2]: (Path, "rename", die),
    MOMENTS[3]: (marker, "write", die),
    MOMENTS[4]: (marker, "write", half_then_die),
    MOMENTS[5]: (shutil, "rmtree", die_removing),
}


def environment() -> dict[str, str]:
    """Of a process that runs this file."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"}


def numbers(value: float) -> dict[str, Any]:
    """A state of which every number is `value`."""
    return {"model": {f"weight{index}": torch.full((5, 3), value) for index in range(4)}}


def killed(folder: Path) -> None:
    """For each moment a child with a whole checkpoint of step 1 that dies there in the save of step 2."""
    for moment in MOMENTS:
        if os.fork() == 0:
            be_killed(folder / moment, moment)
        _, status = os.wait()
        assert os.WTERMSIG(status) == signal.SIGKILL, (moment, status)


def be_killed(folder: Path, moment: str) -> None:
    checkpoints = Checkpoints(folder, ALONE, print, keep=1)
    checkpoints.save(1, numbers(1.0), {"step": 1})
    checkpoints.wait()
    setattr(*DEATHS[moment])
    checkpoints.save(2, numbers(2.0), {"step": 2})
    checkpoints.wait()
    os._exit(0)


# --- ranks ------------------------------------------------------------------------------------------------------------


def rank(folder: Path) -> None:
    """FOLDER/one holds a checkpoint of one process, FOLDER/one.pt what it is of; leaves FOLDER/two and two.pt."""
    torch.set_num_threads(1)
    ranks = setup()
    loaded_from_one(folder, ranks)
    under_load(folder, ranks)
    full_on_one_rank(folder, ranks)
    damaged_on_one_rank(folder, ranks)
    leave()


def loaded_from_one(folder: Path, ranks: Ranks) -> None:
    training = Training(ranks, seed=5)
    found = Checkpoints(folder / "one", ranks, print).restore(training.state())
    assert found == (4, {"of": "one"}), found
    whole = training.whole()
    assert not ranks.main or same(whole, torch.load(folder / "one.pt"))


def under_load(folder: Path, ranks: Ranks) -> None:
    """Training steps while writing is slow; the checkpoint holds what was when `save` was called."""
    training = Training(ranks, seed=1)
    checkpoints = Checkpoints(folder / "two", ranks, print)
    training.step()
    real, beside = FileSystemWriter.write_data, 0

    def slow(self: Any, plan: Any, planner: Any) -> Any:
        time.sleep(0.3 + 0.2 * ranks.rank)
        return real(self, plan, planner)

    with replaced(FileSystemWriter, "write_data", slow):
        for step in range(1, 5):
            checkpoints.save(step, training.state(), {"step": step})
            expected = training.whole()
            for _ in range(10):
                training.step()
                beside += not checkpoints._writing.done()  # type: ignore[union-attr]
        checkpoints.wait()
    assert beside >= 20, f"{beside} of 40 steps beside the writing"
    assert checkpoints.steps() == [3, 4]
    again = Training(ranks, seed=2)
    assert checkpoints.restore(again.state()) == (4, {"step": 4})
    restored, gone_on = again.whole(), training.whole()
    if ranks.main:
        assert same(restored, expected)
        assert not same(restored, gone_on)
        torch.save(expected, folder / "two.pt")


def full_on_one_rank(folder: Path, ranks: Ranks) -> None:
    """The last rank's disk is full: every rank hears of it, and the checkpoint before is untouched."""
    training = Training(ranks, seed=3)
    checkpoints = Checkpoints(folder / "two", ranks, print)
    last = ranks.rank == ranks.world_size - 1
    with replaced(FileSystem, "create_stream", ending(no_space)) if last else contextlib.nullcontext():
        checkpoints.save(5, training.state(), {})
        with pytest.raises(OSError) as caught:
            checkpoints.wait()
    assert caught.value.errno == errno.ENOSPC
    assert checkpoints.steps() == [3, 4]
    assert ranks.agree(not list((folder / "two").glob("step-5*")))
    checkpoints.save(5, training.state(), {})
    checkpoints.wait()
    assert checkpoints.steps() == [4, 5]


def damaged_on_one_rank(folder: Path, ranks: Ranks) -> None:
    """What the last rank finds in its share of the files is known to all."""
    if ranks.main:
        path = folder / "two" / "step-5" / "__0_0.distcp"  # in the last rank's share
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    ranks.agree(None)
    said: list[str] = []
    training = Training(ranks, seed=4)
    assert Checkpoints(folder / "two", ranks, said.append).restore(training.state()) == (4, {"step": 4})
    whole = training.whole()
    if ranks.main:
        assert len(said) == 1
        assert "step 5 has another sha256" in said[0], said
        assert same(whole, torch.load(folder / "two.pt"))


if __name__ == "__main__":
    {"kill": killed, "ranks": rank}[sys.argv[1]](Path(sys.argv[2]))
