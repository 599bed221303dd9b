"""How long a checkpoint keeps training waiting, for `train.py`; alone: python benchmarks/_train_save.py.

Compared with what it would take to wait for the whole: `dcp.save` of the same state with the same writer, to the same
file system, synchronised to the disk like ours. Ours goes on in the background; how long that takes is measured too.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch.distributed.checkpoint.state_dict_saver import save

from alpaca.runtime.distributed import alone
from alpaca.stages.train.checkpoint import Checkpoints, writer

WIDTH = 1024
BYTES_PER_NUMBER = 12  # fp32 weight and the two moments of AdamW
Say = Callable[[str], None]


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def save_stall(megabytes: int = 400, repeats: int = 5, say: Say = _tell) -> dict[str, float]:
    """`save_stall_ratio`: seconds on the critical path of an asynchronous save over those of a synchronous one.

    megabytes: size of the state, at least (10^6 bytes). Medians of `repeats` interleaved pairs, after a first save that
    is told apart, since it makes the buffers that the later ones use again.
    """
    state = _state(megabytes)
    folder = Path(tempfile.mkdtemp(prefix="train-save-"))
    try:
        return _measured(folder, state, repeats, say)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _measured(folder: Path, state: dict[str, Any], repeats: int, say: Say) -> dict[str, float]:
    checkpoints = Checkpoints(folder / "ours", alone(), say)
    first, _ = _ours(checkpoints, 0, state)
    say(f"first save: {first:.3f} s on the critical path")
    stalls: list[float] = []
    wholes: list[float] = []
    waits: list[float] = []
    for step in range(1, repeats + 1):
        stall, whole = _ours(checkpoints, step, state)
        waited = _synchronous(folder / "synchronous", state)
        say(f"{step} of {repeats}: {stall:.3f} s, whole after {whole:.3f} s; synchronous {waited:.3f} s")
        for seconds, measured in ((stalls, stall), (wholes, whole), (waits, waited)):
            seconds.append(measured)
    return {
        "save_stall_ratio": median(stalls) / median(waits),
        "save_stall_seconds": median(stalls),
        "save_synchronous_seconds": median(waits),
        "save_whole_seconds": median(wholes),
        "save_first_seconds": first,
        "save_megabytes": _bytes(state) / 1e6,
    }


def _ours(checkpoints: Checkpoints, step: int, state: dict[str, Any]) -> tuple[float, float]:
    """Seconds until training goes on, and until the checkpoint is whole."""
    begin = time.monotonic()
    checkpoints.save(step, state, {"step": step})
    stall = time.monotonic() - begin
    checkpoints.wait()
    return stall, time.monotonic() - begin


def _synchronous(folder: Path, state: dict[str, Any]) -> float:
    begin = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # DCP says that there is one process
        save(state, storage_writer=writer(folder), no_dist=True)
    seconds = time.monotonic() - begin
    shutil.rmtree(folder)
    return seconds


def _state(megabytes: int) -> dict[str, Any]:
    """Weights and moments of a model of square matrices, random so that no file system can make them smaller."""
    layers = -(-megabytes * 10**6 // (WIDTH * WIDTH * BYTES_PER_NUMBER))
    names = [f"layers.{layer}.weight" for layer in range(layers)]
    moments = {
        name: {"step": torch.tensor(1.0), "exp_avg": _matrix(), "exp_avg_sq": _matrix().square()} for name in names
    }
    groups = [{"lr": 2e-5, "betas": (0.9, 0.999), "params": names}]
    return {"model": {name: _matrix() for name in names}, "optimizer": {"state": moments, "param_groups": groups}}


def _matrix() -> torch.Tensor:
    return torch.randn(WIDTH, WIDTH)


def _bytes(node: Any) -> int:
    if isinstance(node, dict):
        return sum(_bytes(value) for value in node.values())
    return node.nbytes if isinstance(node, torch.Tensor) else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    print(json.dumps(save_stall(given.megabytes, given.repeats), indent=1))


if __name__ == "__main__":
    main()
