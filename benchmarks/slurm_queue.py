"""A 200-point sweep planned, frozen and queued on a real SLURM: how long, in how many calls of sbatch, and its status.

    python benchmarks/slurm_queue.py [--quick]

2 teachers x 5 sizes x 4 models x 5 seeds: 612 stages (2 pools, 10 data sets, 200 trainings, 200 answered and 200
scored evaluations). The cluster is SLURM's own daemons on this machine (tests/slurm/cluster.py), every node of it
drained: what is measured is the queueing, not the stages. The peer in the same run is one sbatch for each stage, the
same scripts without arrays, for a sample of the stages. --quick: 2 x 2 x 2 x 2 points, nothing else.

queue_seconds: the whole command `python launch.py ...`, start of Python included; sbatch_calls: counted by a sbatch
ahead of the real one on the path; status_seconds: the whole command `python -m alpaca status`; each a median of three.
Without SLURM's packages every number is null and stderr names them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.slurm.cluster import Cluster, missing, temporary  # noqa: E402

MODELS = ("llama7b", "qwen3_0_6b", "smollm3_3b", "llama3_2_1b")
SIZES = (250, 500, 1000, 2000, 4000)
ERRORS = (0, 0.2)
SEEDS = 5
TIMES = 3
SAMPLE = 40
KEYS = (
    "queue_seconds",
    "sbatch_calls",
    "status_seconds",
    "stages",
    "points",
    "again_seconds",
    "one_by_one_ratio",
)
COUNTING = """#!/bin/sh
echo call >> "{calls}"
exec {sbatch} "$@"
"""


def overrides(quick: bool) -> list[str]:
    """The sweep's command line."""
    count = 2 if quick else 5
    models, sizes = (MODELS[:2], SIZES[:2]) if quick else (MODELS, SIZES)
    return [
        "data_gen=alpaca",
        "model=" + ",".join(models),
        "data.size=" + ",".join(map(str, sizes)),
        "teacher.error_rate=" + ",".join(map(str, ERRORS)),
        "seeds.init=" + ",".join(map(str, range(count))),
    ]


def timed(words: list[str], environment: dict[str, str]) -> tuple[float, str]:
    """Seconds of a command and what it printed; SystemExit with its words when it fails."""
    start = time.monotonic()
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stdout}{done.stderr}")
    return time.monotonic() - start, done.stdout


def environment(cluster: Cluster, folder: Path) -> tuple[dict[str, str], Path]:
    """With a counting sbatch first on the path, and weights to be fetched later."""
    calls = folder / "calls"
    shim = folder / "bin" / "sbatch"
    shim.parent.mkdir(parents=True)
    found = subprocess.run(["which", "sbatch"], capture_output=True, text=True, check=True).stdout.strip()
    shim.write_text(COUNTING.format(calls=calls, sbatch=found))
    shim.chmod(0o755)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("HF_HUB_OFFLINE")}
    path = f"{shim.parent}{os.pathsep}{os.environ['PATH']}"
    return {**plain, **cluster.env(), "PATH": path, "WANDB_MODE": "offline"}, calls


def queued(cluster: Cluster, folder: Path, quick: bool) -> dict[str, float]:
    """One launch into a fresh folder, its status, the same launch again."""
    env, calls = environment(cluster, folder)
    output = folder / "outputs"
    launch = [sys.executable, "launch.py", "-m", *overrides(quick), "cluster=slurm", "tracker=none"]
    launch.append(f"output_dir={output}")
    took, said = timed(launch, env)
    status, _ = timed([sys.executable, "-m", "alpaca", "status", "--output-dir", str(output)], env)
    again, repeated = timed(launch, env)
    stages = int(re.findall(r"(\d+) stages queued", said)[0])
    if f"{stages} queued or running already" not in repeated:
        raise SystemExit(f"the second launch did not find all {stages} stages queued: {repeated}")
    count = len(calls.read_text().splitlines())
    one_by_one = each_alone(cluster, output, env) * stages
    arrays = took - planned(launch, env)
    cluster.run("scancel", "--user", str(os.getuid()))
    print(f"{stages} stages: {took:.2f} s, {count} calls, status {status:.2f} s", file=sys.stderr, flush=True)
    return {
        "queue_seconds": took,
        "sbatch_calls": count,
        "status_seconds": status,
        "again_seconds": again,
        "stages": stages,
        "one_by_one_ratio": (arrays + one_by_one) / max(arrays, 1e-9),
    }


def planned(launch: list[str], env: dict[str, str]) -> float:
    """Seconds of the plan alone, with a folder of its own."""
    with tempfile.TemporaryDirectory() as empty:
        return timed([*launch[:-1], f"output_dir={empty}", "dry_run=true"], env)[0]


def each_alone(cluster: Cluster, output: Path, env: dict[str, str]) -> float:
    """Seconds of one sbatch for one stage without an array, from a sample."""
    script = next((output / "queue").glob("*/logs/*submission.sh")).resolve()
    lines = [line for line in script.read_text().splitlines() if "--array" not in line and "--dependency" not in line]
    alone = output.parent / "alone.sh"
    alone.write_text("\n".join(lines) + "\n")
    start = time.monotonic()
    for _ in range(SAMPLE):
        subprocess.run(["sbatch", str(alone)], env={**os.environ, **cluster.env()}, check=True, capture_output=True)
    return (time.monotonic() - start) / SAMPLE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    lacking = missing(dbd=False)
    if lacking:
        print(lacking, file=sys.stderr)
        print(json.dumps(dict.fromkeys(KEYS)))
        return
    rows = []
    with temporary(dbd=False, cpus=128, memory_mib=1_000_000) as cluster:
        cluster.scontrol("update", "nodename=ALL", "state=drain", "reason=benchmark")
        for _ in range(1 if quick else TIMES):
            with tempfile.TemporaryDirectory(prefix="slurm-queue-") as folder:
                rows.append(queued(cluster, Path(folder), quick))
    found = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    print(json.dumps({**found, "points": 16 if quick else len(MODELS) * len(SIZES) * len(ERRORS) * SEEDS}))


if __name__ == "__main__":
    main()
