"""The programmatic teacher alone: `python -m alpaca.teachers.programmatic --port 8000 --error-rate 0.1`."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from dataclasses import fields

from alpaca.teachers.programmatic import MODEL, Programmatic
from alpaca.teachers.programmatic.server import serve

KNOBS = ("error_rate", "verbosity", "diversity", "latency")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m alpaca.teachers.programmatic", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: a free one, printed")
    for field in fields(Programmatic):
        if field.name in KNOBS:
            parser.add_argument(f"--{field.name.replace('_', '-')}", type=float, default=field.default)
    arguments = vars(parser.parse_args())
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with serve(Programmatic(**{name: arguments[name] for name in KNOBS}), arguments["port"]) as base_url:
        print(f"model {MODEL} at {base_url} (teacher=openai teacher.model={MODEL} teacher.base_url={base_url})")
        sys.stdout.flush()
        stop.wait()


if __name__ == "__main__":
    main()
