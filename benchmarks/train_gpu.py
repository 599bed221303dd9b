"""Claim: LLaMA-7B is trained on Alpaca near the limit of one GPU: MFU of 0.55 and 4 times the original's way.

    python benchmarks/train_gpu.py [--small] [--quick] [--steps 5] [--precision bf16_sr] [--pack-tokens 16384]
                                   [--recompute none|selective|full] [--compile] [--profile] [--ways ours,original,trl]

The architecture of LLaMA-7B with random weights, made on the GPU in bf16; 128 examples of Alpaca's lengths (random
tokens, real preamble lengths, 40 % of the tokens supervised) are one optimizer step. Each way has the GPU alone, two
steps to warm up, then `--steps` that count (medians). ours: packed with shared prefix, as many tokens in a pass as the
memory takes (halved until it fits); original: transformers' Trainer as stanford_alpaca's train.py sets it up, random
batches of 4 padded to their longest row, bf16 weights and AdamW; trl: SFTTrainer in the quickest of its ways (left out
where trl is not installed, and said so on stderr).

tokens_per_second_* counts the examples' own tokens. mfu_* is 6 operations per parameter and real token over the GPU's
dense 16-bit peak; mfu_computed_ours counts only what was computed: matrices (no embedding) times tokens after sharing,
and attention's causal pairs. null where that is not known. peak_gib_*: the most that tensors held on the GPU.
recipe_minutes: 3 epochs of the 52,002 examples (19.98 million tokens) at our rate.

Without a GPU, and with `--small`, the architecture has 5 million parameters, in fp32 on a CPU: a test of the script.
`--quick` is that with the smallest model and one step.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from _train_data import SHAPES, Shape, model, rows, tokens
from _train_ours import Ours
from _train_peers import GPU_TRL_WAYS, TRL_WAYS, Peer, original, trl
from transformers.utils import logging

from alpaca import config
from alpaca.footprint import gpus

WARM_UP = 2
RECIPE_TOKENS = 3 * 6.66e6
PRECISIONS = {
    "bf16_sr": config.Precision(compute="bf16", parameters="bf16", states="bf16", rounding="stochastic"),
    "bf16_plain": config.Precision(compute="bf16", parameters="bf16", states="bf16"),
    "bf16": config.Precision(compute="bf16"),
    "fp8": config.Precision(compute="fp8"),
    "tf32": config.Precision(compute="tf32"),
    "fp32": config.Precision(),
}
"""By the names in conf/precision."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("--small", "--quick", "--compile", "--profile"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--examples", type=int, default=128)
    parser.add_argument("--precision", choices=PRECISIONS, default=None)
    parser.add_argument("--pack-tokens", type=int, default=16384)
    parser.add_argument("--recompute", choices=("none", "selective", "full"), default="none")
    parser.add_argument("--ways", default="ours,original,trl")
    given = parser.parse_args()
    if given.quick or not torch.cuda.is_available():
        given.small = True
    if given.quick:
        given.steps, given.examples = 1, 16
    given.warm_up = 0 if given.quick else WARM_UP
    given.device = "cpu" if given.small else "cuda"
    given.precision = given.precision or ("fp32" if given.small else "bf16_sr")
    return given


def stored(given: argparse.Namespace) -> torch.dtype:
    """The peers' weights: as ours, or in bf16 where the memory allows no more."""
    return torch.float32 if given.small else torch.bfloat16


def fresh(given: argparse.Namespace, shape: Shape, dtype: torch.dtype) -> Any:
    return model(shape, dtype=dtype, device=given.device)


def measure(name: str, given: argparse.Namespace, make: Callable[[], Ours | Peer]) -> dict[str, float]:
    """Median seconds of a step, and the peak of memory; what was there before is given back first."""
    gc.collect()
    if given.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    way = make()
    seconds = way.steps(given.warm_up + given.steps).wall[given.warm_up :]
    peak = torch.cuda.max_memory_allocated() / 2**30 if given.device == "cuda" else 0.0
    say(f"{name}: {', '.join(f'{each:.3f}' for each in seconds)} s, {peak:.1f} GiB")
    if given.profile and isinstance(way, Ours):
        profile(way)
    return {"seconds": median(seconds), "peak": peak}


def profile(way: Ours) -> None:
    """The table of one step, by time on the device."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recorder

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with recorder(activities=activities) as recorded:
        way.steps(1)
    order = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    say(recorded.key_averages().table(sort_by=order, row_limit=40, max_name_column_width=80))


def ours(given: argparse.Namespace, shape: Shape) -> tuple[dict[str, float], float]:
    """Our way with the largest passes that fit; and the operations that one step really computes."""
    precision, budget = PRECISIONS[given.precision], given.pack_tokens
    dtype = torch.bfloat16 if precision.parameters == "bf16" else torch.float32
    examples = rows(given.examples, shape.vocabulary)
    made: list[Ours] = []

    def make() -> Ours:
        train = config.Train(
            batching="packed", pack_tokens=budget, recompute=given.recompute, compile=given.compile, loss_chunk=4096
        )
        made[:] = [Ours(fresh(given, shape, dtype), examples, train, precision)]
        return made[0]

    while True:
        try:
            found = measure(f"ours, passes of {budget}", given, make)
            return {**found, "pack_tokens": budget}, computed_flops(made[0], shape)
        except torch.OutOfMemoryError:
            made.clear()
            budget //= 2
            say(f"out of memory; passes of {budget} tokens")
            if budget < 1024:
                raise


def computed_flops(way: Ours, shape: Shape) -> float:
    """Forward and backward of one step: 6 for each matrix number and token, 12 for each causal pair and width."""
    pairs = 0
    for pack in way.packs():
        pairs += sum(length * length // 2 for length in pack.layout.prefixes)
        for run in pack.layout.runs:
            pairs += run.count * run.length * (run.length // 2 + pack.layout.before(run))
    return 6.0 * matrices(shape) * way.computed_tokens() + 12.0 * shape.layers * shape.width * pairs


def matrices(shape: Shape) -> int:
    """Numbers in weight matrices that every token meets: the head, not the embedding."""
    attention = 2 * shape.width * shape.width * (1 + 1 / shape.groups)
    return int(shape.layers * (attention + 3 * shape.width * shape.inner) + shape.width * shape.vocabulary)


def quickest_of_trl(given: argparse.Namespace, shape: Shape) -> dict[str, float] | None:
    """TRL's SFTTrainer in the way that takes least time; None where it is not installed."""
    try:
        import datasets  # noqa: F401
        import trl.trainer.sft_trainer  # noqa: F401
    except ImportError as error:
        say(f"trl is left out: {error}")
        return None
    found, examples = list[dict[str, float]](), rows(given.examples, shape.vocabulary)
    for name, way in (TRL_WAYS if given.device == "cpu" else GPU_TRL_WAYS).items():
        try:
            found.append(measure(f"trl {name}", given, lambda way=way: trl_way(given, shape, examples, way)))  # type: ignore[misc]
        except Exception as error:  # a way that this version or this GPU does not have
            say(f"trl {name} failed: {type(error).__name__}: {str(error)[:300]}")
        if given.quick:
            break
    return min(found, key=lambda each: each["seconds"], default=None)


def trl_way(given: argparse.Namespace, shape: Shape, examples: list[Any], way: dict[str, Any]) -> Peer:
    return trl(fresh(given, shape, stored(given)), examples, way, **fused(given))


def fused(given: argparse.Namespace) -> dict[str, Any]:
    """The peers' optimizer: AdamW, on a GPU in one kernel."""
    return {} if given.device == "cpu" else {"optim": "adamw_torch_fused"}


def peers(given: argparse.Namespace, shape: Shape) -> dict[str, dict[str, float]]:
    """The ways of others that can run here."""
    found, chosen = dict[str, dict[str, float]](), given.ways.split(",")
    if "original" in chosen:
        examples = rows(given.examples, shape.vocabulary)
        found["original"] = measure(
            "original", given, lambda: original(fresh(given, shape, stored(given)), examples, **fused(given))
        )
    best = quickest_of_trl(given, shape) if "trl" in chosen else None
    return found | ({"trl": best} if best else {})


def main() -> None:
    given = arguments()
    logging.set_verbosity_error()
    shape = SHAPES["tiny" if given.quick else "small" if given.small else "7b"]
    gpu = gpus.of_driver(torch.cuda.get_device_name()) if given.device == "cuda" else None
    say(f"{torch.cuda.get_device_name() if given.device == 'cuda' else 'CPU'}, torch {torch.__version__}")
    real, peak = tokens(rows(given.examples, shape.vocabulary)), gpu.tflops * 1e12 if gpu else None
    naive = 6.0 * (matrices(shape) + shape.width * shape.vocabulary) * real
    mine, computed = ours(given, shape)
    found = {"ours": mine, **peers(given, shape)}
    rate = real / mine["seconds"]
    result: dict[str, float | None] = {
        "mfu_computed_ours": computed / mine["seconds"] / peak if peak else None,
        "recipe_minutes": None if given.small else RECIPE_TOKENS / rate / 60,
        "pack_tokens": mine["pack_tokens"],
    }
    for name, each in found.items():
        result[f"tokens_per_second_{name}"] = round(real / each["seconds"], 1)
        result[f"mfu_{name}"] = naive / each["seconds"] / peak if peak else None
        result[f"peak_gib_{name}"] = None if given.small else round(each["peak"], 2)
        if name != "ours":
            result[f"{name}_ratio"] = round(each["seconds"] / mine["seconds"], 3)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
