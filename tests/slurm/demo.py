"""A sweep through a real SLURM on this machine, from nothing to the page: `make slurm-demo`, some minutes on two cores.

A cluster of four nodes below /tmp, `launch.py sweep=data_size` queued on it, `python -m alpaca status --watch` until
everything ended, the page named, the cluster gone. Ctrl-C stops all of it; results stay in a folder of their own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.slurm.cluster import PROJECT, ClusterError, foreign, missing, temporary

# Small enough for minutes; what it says about data sizes means nothing.
SMALL = ("model.steps=200", "train.budget=100 steps", "eval.embedded.size=60", "tracker=none")
PLACE = ("cluster=slurm_cpu", "cluster.partition=dev", "cluster.parallel=8")


def main() -> int:
    """Status 0 when the sweep ended with its page, 1 when it did not or SLURM is missing, 130 after Ctrl-C."""
    lacking = missing(dbd=True)
    if lacking:
        print(f"error: {lacking}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, _stop)
    output = Path("outputs") / f"slurm-demo-{time.strftime('%Y%m%d-%H%M%S')}"
    print("Starting a SLURM cluster of 4 nodes with 2 CPUs each on this machine ...", flush=True)
    try:
        with temporary(dbd=True, gpus=0) as cluster:
            print(f"It is up; in another terminal: export SLURM_CONF={cluster.conf}", flush=True)
            return show(output, {**_clean(), **cluster.env()})
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped: the cluster and its jobs are gone, results so far are in {output}", file=sys.stderr)
        return 130


def show(output: Path, environment: Mapping[str, str]) -> int:
    """Queues the sweep, watches it, names the page."""
    queue = ["launch.py", "sweep=data_size", *PLACE, *SMALL, f"output_dir={output}"]
    watch = ["-m", "alpaca", "status", "--watch", "--output-dir", str(output)]
    started = time.monotonic()
    for command in (queue, watch):
        print(f"\n$ python {' '.join(command)}", flush=True)
        status = subprocess.run([sys.executable, *command], cwd=PROJECT, env=dict(environment), check=False).returncode
        if status:
            print(f"error: that ended with status {status}; its logs are below {output}/queue", file=sys.stderr)
            return 1
    pages = sorted((PROJECT / output).glob("sweeps/*/report.html"))
    if not pages:
        print(f"error: everything ended but no page was written below {output}/sweeps", file=sys.stderr)
        return 1
    print(f"\nThe page, after {time.monotonic() - started:.0f} s: {pages[0].relative_to(PROJECT)}")
    return 0


def _clean() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not foreign(key)}
    return {**kept, "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "ALPACA_CALIBRATE": "0"}


def _stop(number: int, _: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
