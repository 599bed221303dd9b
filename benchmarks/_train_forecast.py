"""The forecast of peak memory and step time against a real run of the training loop, each in a process of its own.

    python benchmarks/_train_forecast.py tiny|small [EXAMPLES] [STEPS]

Memory: the largest resident size after training less that before the model is made (interpreter and imports), with
checkpoints saved under way, whose copies stay. Time: the median of the loop's steps after two, of one thread in its own
processor seconds, which are those of an idle machine. Prints one JSON object.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from alpaca import config  # noqa: E402
from alpaca.footprint import GIB, Lengths, Shape, fullest, memory, settings_of, speed, step  # noqa: E402

EXAMPLES, STEPS, TURNS = 64, 8, 3
STEPS_BETWEEN = 3
"""Between two checkpoints, by the forecast: most steps meet none, so the median is theirs."""
KEYS = {"small": "", "tiny": "_tiny"}


def forecast_errors(examples: int = EXAMPLES, steps: int = STEPS, turns: int = TURNS) -> dict[str, float]:
    """forecast_memory_error, forecast_seconds_error (and both with _tiny): |median of forecast / measured - 1|.

    In each turn the processor is measured anew, and each size is run once: the load of a shared machine comes and goes.
    """
    ratios: dict[str, list[float]] = {}
    for _ in range(turns):
        _fresh_rates.cache_clear()
        for name, suffix in KEYS.items():
            told, measured = forecast(name, examples), _elsewhere(name, examples, steps)
            for key in told:
                ratios.setdefault(f"forecast_{key}_error{suffix}", []).append(told[key] / measured[key])
                print(f"{name}: {key} {told[key]:.4g} forecast, {measured[key]:.4g} measured", file=sys.stderr)
    return {key: abs(median(each) - 1) for key, each in ratios.items()}


def _elsewhere(name: str, examples: int, steps: int) -> dict[str, float]:
    command = [sys.executable, str(Path(__file__).resolve()), name, str(examples), str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def settings(name: str, examples: int) -> config.TrainConfig:
    """The run that is measured: the released recipe's optimizer, in fp32, packed with shared beginnings."""
    return config.TrainConfig(
        model=config.Model(kind="hub", name=name, parameters=0.0),
        train=config.Train(global_batch=examples, batching="packed"),
        optimizer=config.AdamW(),
        precision=config.Precision(),
        fsdp=config.Fsdp(),
        seeds=config.TrainSeeds(),
    )


def forecast(name: str, examples: int) -> dict[str, float]:
    """GiB and seconds of an optimizer step."""
    from _train_data import SHAPES

    size, chosen = SHAPES[name], settings(name, examples)
    shape = Shape(
        layers=size.layers,
        width=size.width,
        feed_forward=size.inner,
        heads=size.heads,
        kv_heads=size.heads // size.groups,
        head_size=size.width // size.heads,
        vocabulary=size.vocabulary,
        tied=False,
        gated=True,
    )
    asked = settings_of(chosen, on_gpu=False)
    peak = memory(shape, fullest(chosen.train, Lengths()), asked)
    rates = _fresh_rates(_threads())
    if rates is None:
        raise SystemExit("this processor could not be measured: python -m alpaca.stages.train.calibrate 1")
    seconds = speed.cpu_seconds(shape, step(chosen.train, Lengths()), asked, rates)
    return {"memory": (peak.total - peak.libraries) / GIB, "seconds": seconds}


@functools.cache
def _fresh_rates(threads: int) -> speed.Rates | None:
    """Measured now: a record of this machine under another load would be another machine's."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, {"ALPACA_CACHE": folder}):
        speed.measure(threads)
        return speed.cached_rates(threads)


def _threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS", "1"))


def measure(name: str, examples: int, steps: int) -> dict[str, float]:
    """The same run, really done in this process."""
    import torch
    from _train_data import PAD, SHAPES, model, preambles, rows

    from alpaca.artifacts import Context
    from alpaca.runtime.distributed import alone
    from alpaca.runtime.signals import Warnings
    from alpaca.stages.train import packing, parallel, probe
    from alpaca.stages.train.batches import Form
    from alpaca.stages.train.loop import Job, train
    from alpaca.stages.train.meter import WARMUP_STEPS

    torch.set_num_threads(_threads())
    chosen, vocabulary = settings(name, examples), SHAPES[name].vocabulary
    chosen.train.checkpoint_seconds = STEPS_BETWEEN * forecast(name, examples)["seconds"]
    data = rows(examples * steps, vocabulary)
    resident, moments = _resident(), list[float]()
    clock = time.thread_time if _threads() == 1 else time.perf_counter  # not that of the thread that writes checkpoints
    placed = parallel.place(model(SHAPES[name]), chosen.fsdp, chosen.precision, alone(), chunk=chosen.train.loss_chunk)
    shared = packing.beginnings(data, preambles(vocabulary))
    form = Form(batching="packed", pad=PAD, pack_tokens=chosen.train.pack_tokens, shared=shared)
    form = probe.settle(placed, form, data, lambda text: print(text, file=sys.stderr))
    job = Job(
        batch=lambda index: data[index * examples : (index + 1) * examples],
        steps=steps,
        form=form,
        optimizer=chosen.optimizer,
        rules=chosen.train,
        seed=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        context = Context(folder=Path(folder), work=Path(folder), parents={})
        context.check = lambda: moments.append(clock())  # called before each step
        train(job, placed, context, Warnings())
    took = [after - before for before, after in itertools.pairwise(moments)]
    return {"memory": (_resident() - resident) / GIB, "seconds": median(took[WARMUP_STEPS:])}


def _resident() -> int:
    """Largest resident size so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[2:]]
    print(json.dumps(measure(sys.argv[1], *(numbers + [EXAMPLES, STEPS][len(numbers) :]))))
