"""The sample and curate stages as the worker runs them, timed and killed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from alpaca.artifacts import Context
from alpaca.config import AlpacaDataGen, CurateConfig, Data, DataSeed, SampleConfig
from alpaca.stages import curate, sample
from alpaca.teachers.programmatic import Programmatic

FILTERS = ["length", "keywords", "write_a_program", "punctuation", "non_ascii"]
ROOT = Path(__file__).resolve().parents[1]
LATENCY = 0.1  # seconds of the killed runs' server, so that kills fall into every part of the work
Say = Callable[[str], None]


def stages(folder: Path, count: int, *, in_flight: int = 16, latency: float = 0.0) -> Context:
    """Both stages in one folder each; returns the context of the first."""
    places = [folder / "sample", folder / "curate"]
    for place in places:
        (place / "work").mkdir(parents=True, exist_ok=True)
    context = Context(folder=places[0], work=places[0] / "work", parents={})
    teacher = Programmatic(in_flight=in_flight, latency=latency)
    sample.run(SampleConfig(data_gen=AlpacaDataGen(num_examples=count), teacher=teacher), context)
    if not (places[1] / "examples.jsonl").exists():
        second = Context(folder=places[1], work=places[1] / "work", parents={"pool": places[0]})
        curate.run(CurateConfig(data=Data(size=count // 2, filters=FILTERS), seeds=DataSeed()), second)
    return context


def fill(folder: Path, count: int, say: Say) -> dict[str, float]:
    """kept_52k_seconds and cost_error, with what they were measured on."""
    place = folder / "sample"
    (place / "work").mkdir(parents=True)
    context = Context(folder=place, work=place / "work", parents={})
    started, cpu = time.monotonic(), time.process_time()
    sample.run(SampleConfig(data_gen=AlpacaDataGen(num_examples=count), teacher=Programmatic()), context)
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    pool = json.loads((place / "pool.json").read_text(encoding="utf-8"))
    final = context.cost["prompt_tokens"] + context.cost["completion_tokens"]
    projected = context.cost["projected_tokens"]
    say(f"{pool['kept']:,} kept in {seconds:.1f} s ({cpu:.1f} CPU-seconds of this process)")
    say(f"tokens projected after 50 requests: {projected:,.0f}, in the end {final:,.0f}")
    return {
        "kept_52k_seconds": seconds,
        "kept": pool["kept"],
        "client_cpu_seconds": cpu,
        "kept_share": pool["kept_share"],
        "cost_error": abs(projected / final - 1),
    }


def kills(folder: Path, count: int, times: int, say: Say) -> dict[str, float]:
    """distinct_hashes over runs at three numbers in flight, and runs killed `times` times at random moments."""
    hashes = []
    for in_flight in (1, 16, 256):
        latency = 0.0 if in_flight == 1 else LATENCY
        stages(folder / f"flight{in_flight}", count, in_flight=in_flight, latency=latency)
        hashes.append(_digest(folder / f"flight{in_flight}"))
    seconds = _run_killed(folder / "uninterrupted", count, None)
    hashes.append(_digest(folder / "uninterrupted"))
    rng, landed, tried = random.Random(0), 0, 0
    while landed < times:  # a kill that came after the end does not count
        place = folder / f"killed{tried}"
        landed += _run_killed(place, count, rng.uniform(0.2, 1.0) * seconds) > 0
        _run_killed(place, count, None)
        hashes.append(_digest(place))
        tried += 1
        say(f"{landed} of {times} killed before the end, {len(set(hashes))} distinct")
    return {"distinct_hashes": len(set(hashes)) - 1, "hashes": len(hashes), "kills": landed}


def _run_killed(folder: Path, count: int, after: float | None) -> float:
    """Both stages in a process of their own, killed after so many seconds; its seconds, 0.0 where it ended before."""
    code = f"from pathlib import Path; from _end_to_end import *; " \
        f"stages(Path({str(folder)!r}), {count}, latency=LATENCY)"  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "benchmarks")))}
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return time.monotonic() - started
    if process.returncode:
        raise SystemExit(f"the stages ended with status {process.returncode}")
    return time.monotonic() - started if after is None else 0.0


def _digest(folder: Path) -> str:
    content = b"".join((folder / name).read_bytes() for name in ("sample/responses.jsonl", "curate/examples.jsonl"))
    return hashlib.sha256(content).hexdigest()
