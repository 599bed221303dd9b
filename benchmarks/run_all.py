"""Runs every script of this folder and repeats their JSON lines: `make bench`, or `FULL=1 make bench`.

    python benchmarks/run_all.py [--quick]

Fails when a script fails or its last line on stdout is not one JSON object of numbers, lists of numbers or nulls.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def scripts() -> list[Path]:
    """Every benchmark; modules that start with an underscore are shared code."""
    return sorted(
        path for path in HERE.glob("*.py") if path != Path(__file__).resolve() and not path.name.startswith("_")
    )


def result_of(path: Path, arguments: list[str]) -> dict[str, object]:
    """The script's JSON object. Raises SystemExit with what is wrong."""
    done = subprocess.run(
        [sys.executable, str(path), *arguments], cwd=HERE.parent, stdout=subprocess.PIPE, text=True, check=False
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise SystemExit(f"{path.name} ended with status {done.returncode} and {len(lines)} lines on stdout")
    found = json.loads(lines[-1])
    wrong = [key for key, value in found.items() if not _is_number(value)]
    if wrong:
        raise SystemExit(f"{path.name}: not numbers: {', '.join(wrong)}")
    return dict(found)


def _is_number(value: object) -> bool:
    if isinstance(value, list):
        return all(_is_number(item) for item in value)
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def main() -> None:
    for path in scripts():
        print(f"== {path.name}", file=sys.stderr)
        print(json.dumps({"benchmark": path.stem, **result_of(path, sys.argv[1:])}), flush=True)


if __name__ == "__main__":
    main()
