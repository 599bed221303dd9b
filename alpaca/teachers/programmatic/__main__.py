"""The programmatic teacher alone: `python -m alpaca.teachers.programmatic --port 8000 --error-rate 0.1`."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from dataclasses import fields

from alpaca.teachers.programmatic import KNOBS, MODEL, Programmatic
from alpaca.teachers.programmatic.batches import BatchRules
from alpaca.teachers.programmatic.server import serve


def main() -> None:
    arguments = _parser().parse_args()
    options = Programmatic(**{name: getattr(arguments, name) for name in KNOBS})
    rules = BatchRules(seconds=arguments.batch_seconds, expired_share=arguments.batch_expired_share)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    if arguments.until_stdin_ends:
        threading.Thread(target=_set_at_the_end_of_stdin, args=[stop], daemon=True).start()
    with serve(options, arguments.port, batches=rules) as base_url:
        print(f"model {MODEL} at {base_url} (teacher=openai teacher.model={MODEL} teacher.base_url={base_url})")
        sys.stdout.flush()
        stop.wait()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m alpaca.teachers.programmatic", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: a free one, printed")
    for field in fields(Programmatic):
        if field.name in KNOBS:
            parser.add_argument(f"--{field.name.replace('_', '-')}", type=float, default=field.default)
    parser.add_argument("--batch-seconds", type=float, default=0.0, help="until a batch is completed")
    parser.add_argument("--batch-expired-share", type=float, default=0.0, help="requests that a batch leaves undone")
    parser.add_argument(
        "--until-stdin-ends", action="store_true", help="end with the process that holds the standard input open"
    )
    return parser


def _set_at_the_end_of_stdin(stop: threading.Event) -> None:
    while sys.stdin.buffer.read(1 << 16):
        pass
    stop.set()


if __name__ == "__main__":
    main()
