"""Claim: planning is quick. 200 points in under 5 s; `--help` and a dry run under 1.5 s; a finished run under 3 s.

    python benchmarks/planning.py [--quick]

Every time is the median wall time of whole processes, interleaved; hydra_help_seconds is the peer: a bare Hydra
application with the same number of groups and one schema, asked for --help in the same run. `--quick` takes one
repetition and 20 points less.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
BARE = """
import hydra
@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def run(config): pass
run()
"""
SMALL = [
    "model.steps=2",
    "model.batch=4",
    "train.budget=2 steps",
    "train.global_batch=4",
    "train.micro_batch=4",
    "data_gen.num_examples=20",
    "data.size=10",
    "eval.embedded.size=10",
    "tracker=none",
]
GRID = [
    "-m",
    "data.size=250,500,1000,2000,4000",
    "optimizer.lr=1e-3,2e-3,4e-3,8e-3",
    "seed=range(0,10)",
    "dry_run=true",
]


def seconds(command: list[str], folder: Path) -> float:
    """Wall time of one process; raises when it fails."""
    began = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env={**os.environ, "WANDB_MODE": "offline"}, check=False
    )
    took = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return took


def bare_application(folder: Path) -> Path:
    """The peer: as many groups as conf/ has, one option each."""
    groups = sorted(path.name for path in (ROOT / "conf").iterdir() if path.is_dir())
    (folder / "conf").mkdir()
    for group in groups:
        (folder / "conf" / group).mkdir()
        (folder / "conf" / group / "one.yaml").write_text("value: 1\n")
    (folder / "conf" / "config.yaml").write_text(
        "defaults:\n" + "".join(f"  - {group}: one\n" for group in groups) + "  - _self_\n"
    )
    (folder / "bare.py").write_text(BARE)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    repeats = 1 if parser.parse_args().quick else 7
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        output = f"output_dir={folder / 'outputs'}"
        print("one finished run to find again ...", file=sys.stderr)
        seconds([sys.executable, "launch.py", *SMALL, output], ROOT)
        bare = bare_application(folder)
        commands = {
            "hydra_help_seconds": ([sys.executable, "bare.py", "--help"], bare),
            "help_seconds": ([sys.executable, "launch.py", "--help"], ROOT),
            "plan_1_seconds": ([sys.executable, "launch.py", "dry_run=true", output], ROOT),
            "second_run_seconds": ([sys.executable, "launch.py", *SMALL, output], ROOT),
            "plan_200_seconds": ([sys.executable, "launch.py", *GRID, output], ROOT),
        }
        times: dict[str, list[float]] = {key: [] for key in commands}
        for turn in range(repeats):
            for key, (command, place) in commands.items():
                times[key].append(seconds(command, place))
            print(
                f"turn {turn + 1} of {repeats}: "
                + ", ".join(f"{key} {values[-1]:.2f}" for key, values in times.items()),
                file=sys.stderr,
            )
    result = {key: round(median(values), 3) for key, values in times.items()}
    peer = result["hydra_help_seconds"]
    result |= {
        "help_ratio": round(result["help_seconds"] / peer, 2),
        "plan_1_ratio": round(result["plan_1_seconds"] / peer, 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
