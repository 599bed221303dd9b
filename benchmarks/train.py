"""Claim: packing with a shared template prefix trains twice as fast as the original's way, and changes no result.

    python benchmarks/train.py [--quick] [--threads 1] [--repeats 7]

Speed: one optimizer step on a global batch of 128 examples of Alpaca's lengths (random tokens, real preamble lengths),
fp32, AdamW, clipping at 1, the same data and the same number of threads (1 unless told) for all. packing_ratio is this
project's packed loop without shared prefix, full_ratio with it, both over the original's way: transformers' Trainer set
up as stanford_alpaca's train.py, random batches of 4 padded to their longest row and accumulated. trl_ratio is the full
way over TRL's SFTTrainer with the quickest of its ways on this device, prefix_ratio shared prefix over plain packing.
No suffix: 4 layers of width 256 (5 million parameters); _tiny: 2 layers of width 128. The ways take turns; a ratio is
the median over the turns (7, after one that is not counted) of both ways' seconds in the same turn. Tokens are the
examples' own, before any sharing; every step has the same ones, for the peers in another order. Of the trainers only
the time between on_step_begin and on_step_end is counted (not their start, not their loading of batches); of this
project's loop everything. *_ratio_cpu is the same in processor time, which a machine shared with others disturbs less;
spread_* is (largest - smallest) / median of a way's repeats.

Exactness, relative, against transformers' own model and loss on one example at a time, for packing (`loss_error`,
`gradient_error`) and with the shared prefix (`prefix_*`): weights, norms and loss in fp64, and as they come (`_fp32`).
accumulation_error: many passes against one. resume_mismatch: recorded losses of the train stage that differ after an
interruption. fsdp_loss_error: two gloo processes (full_shard) against one, with AdamW and with Muon (`_muon`).
save_stall_ratio and forecast_*: see _train_save.py and _train_forecast.py.

`--quick` is a smoke run: 16 examples, one repeat; its ratios say little.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from _train_data import SHAPES, Shape, model, rows, tokens  # noqa: E402
from _train_ours import Ours  # noqa: E402
from _train_peers import TRL_WAYS, Peer, original, trl  # noqa: E402
from transformers.utils import logging  # noqa: E402

from alpaca import config  # noqa: E402

SAMPLE = 48
"""Examples on which TRL's ways are compared before the quickest is measured."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def quickest_of_trl(shape: Shape, sample: int) -> str:
    """Of TRL's ways of batching, the one that takes least processor time for one step."""
    batch = rows(sample, shape.vocabulary, seed=3)
    seconds = {name: trl(model(shape), batch, way).steps().cpu[0] for name, way in TRL_WAYS.items()}
    say("TRL: " + ", ".join(f"{name} {tokens(batch) / took:.0f} tokens/s" for name, took in seconds.items()))
    return min(seconds, key=lambda name: seconds[name])


def ways(shape: Shape, examples: int, trl_way: str) -> dict[str, Ours | Peer]:
    """What takes turns, each with a model of its own on the same examples."""
    batch = rows(examples, shape.vocabulary)
    return {
        "original": original(model(shape), batch),
        "trl": trl(model(shape), batch, TRL_WAYS[trl_way]),
        "packed": Ours(model(shape), batch, config.Train(batching="packed", shared_prefix=False)),
        "full": Ours(model(shape), batch, config.Train(batching="packed")),
    }


def in_turns(turning: dict[str, Ours | Peer], repeats: int, warm_up: bool) -> None:
    """One optimizer step of each way after the other, `repeats` times; the warm-up's are not kept."""
    for turn in range(repeats + warm_up):
        watches = {name: way.steps() for name, way in turning.items()}
        say(f"turn {turn + 1}: " + ", ".join(f"{name} {watch.wall[-1]:.2f} s" for name, watch in watches.items()))
        if turn < warm_up:
            for watch in watches.values():
                watch.wall.clear()
                watch.cpu.clear()


def speed(name: str, suffix: str, quick: bool, repeats: int) -> dict[str, float]:
    """Ratios and tokens per second of one size."""
    shape, examples = SHAPES[name], 16 if quick else 128
    turning = ways(shape, examples, next(iter(TRL_WAYS)) if quick else quickest_of_trl(shape, SAMPLE))
    in_turns(turning, repeats, warm_up=not quick)
    wall = {way: each.watch.wall for way, each in turning.items()}
    cpu = {way: each.watch.cpu for way, each in turning.items()}
    real, middle = tokens(rows(examples, shape.vocabulary)), {way: median(each) for way, each in wall.items()}
    result = ratios(wall) | {f"{key}_cpu": value for key, value in ratios(cpu).items()}
    result |= {f"tokens_per_second_{way}": real / took for way, took in middle.items()}
    result |= {f"spread_{way}": (max(each) - min(each)) / middle[way] for way, each in wall.items()}
    return {key + suffix: round(value, 3) for key, value in result.items()}


RATIOS = {
    "packing_ratio": ("original", "packed"),
    "full_ratio": ("original", "full"),
    "prefix_ratio": ("packed", "full"),
    "trl_ratio": ("trl", "full"),
}


def ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Medians over the turns of one way's seconds over another's in the same turn, for the same examples."""
    pairs = {key: zip(seconds[slow], seconds[quick], strict=True) for key, (slow, quick) in RATIOS.items()}
    return {key: median(slow / quick for slow, quick in each) for key, each in pairs.items()}


def exactness(quick: bool) -> dict[str, float]:
    """What packing, accumulation, resuming and sharding change: rounding at most."""
    from _train_exact import accumulation_error, errors
    from _train_stage import prepare, resume_mismatch, sharded_errors

    examples = 8 if quick else 32
    result = {**errors(examples), "accumulation_error": accumulation_error(examples)}
    say(json.dumps(result))
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name))
        result["resume_mismatch"] = resume_mismatch(Path(name))
        result |= sharded_errors(Path(name))
    return result


def others(quick: bool) -> dict[str, float]:
    """The checkpoint's stall, and the forecast against what is measured."""
    from _train_save import save_stall

    stall = save_stall(40, 1, say) if quick else save_stall(400, 5, say)
    return stall | forecast("steps=4, turns=1" if quick else "")


def forecast(settings: str) -> dict[str, float]:
    """From a small process: one that starts here would count this process's memory as its own peak (getrusage(2))."""
    code = f"import json, _train_forecast as it; print(json.dumps(it.forecast_errors({settings})))"
    command, folder = [sys.executable, "-c", code], Path(__file__).resolve().parent
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # of the processes that are started here
    logging.set_verbosity_error()
    repeats = 1 if arguments.quick else arguments.repeats
    result: dict[str, Any] = exactness(arguments.quick)
    say(json.dumps(result))
    for name, suffix in (("tiny", "_tiny"), ("small", "")):
        result |= speed(name, suffix, arguments.quick, repeats)
    print(json.dumps(result | others(arguments.quick)))


if __name__ == "__main__":
    main()
