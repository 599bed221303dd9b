"""Claim: the embedded world gives a real data-size curve on a laptop: exact match grows with the number of examples.

    python benchmarks/data_size_curve.py [--quick]

Runs the shipped question (sweeps/data_size.yaml: 250, 1,000 and 4,000 examples, three seeds, equal steps, two runs side
by side) by launch.py in a fresh output folder. exact_match_SIZE are lists over seeds; run_seconds is the median wall
time of one fine-tuning, pretrain_seconds that of the base, wall_seconds the whole sweep's. kept_share_20000 is the
share of 20,000 candidates that passes Alpaca's filters and ROUGE-L de-duplication at 0.7. `--quick` is a smoke run: one
seed, 250 and 1,000 examples, 20 steps, 2,000 candidates; its exact match says nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def sweep(output: Path, quick: bool) -> float:
    """Runs the question; returns wall seconds."""
    fewer = ["-m", "data.size=250,1000", "seed=0", "model.steps=20", "train.budget=20 steps"] if quick else []
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "launch.py", "sweep=data_size", *fewer, f"output_dir={output}", "tracker=none"],
        cwd=ROOT,
        stdout=sys.stderr,
        check=True,
    )
    return time.perf_counter() - began


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def kept_share(candidates: int) -> float:
    """Of so many tasks drawn as the programmatic teacher draws them."""
    import random

    from alpaca.curation.dedup import RougeIndex
    from alpaca.curation.filters import dropped_by
    from alpaca.world import draw_task

    rng, index, kept = random.Random(0), RougeIndex(0.7), 0
    for _ in range(candidates):
        task = draw_task(rng)
        kept += dropped_by(task) is None and index.offer(task.instruction) is None
    return kept / candidates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as name:
        output = Path(name)
        wall = sweep(output, quick)
        (page,) = (output / "sweeps").glob("*/stage.json")
        result: dict[str, Any] = {}
        for point in read(page)["config"]["points"]:
            metrics = read(output / point["stages"]["score:embedded"] / "metrics.json")
            result.setdefault(f"exact_match_{point['factors']['data.size']}", []).append(
                round(metrics["exact_match"], 4)
            )
        result["run_seconds"] = median(read(path)["seconds"] for path in (output / "train").glob("*/provenance.json"))
        result["pretrain_seconds"] = median(
            read(path)["seconds"] for path in (output / "pretrain").glob("*/provenance.json")
        )
    result["wall_seconds"] = round(wall, 1)
    share = 2000 if quick else 20000
    result[f"kept_share_{share}"] = round(kept_share(share), 4)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
