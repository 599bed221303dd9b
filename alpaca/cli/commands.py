"""`python -m alpaca ...`: what follows the queue (status, logs, cancel, retry, reap), reads results or sends them."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from alpaca.cli import logs, queue, status, sync
from alpaca.errors import AlpacaError, UserError

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    found = argparse.ArgumentParser(prog="python -m alpaca", description=__doc__)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--output-dir", type=Path, default=Path("outputs"), help="default: outputs")
    found.set_defaults(trouble=0)  # the status after an error, where a command has one of its own
    commands = found.add_subparsers(dest="command", required=True)

    one = commands.add_parser("status", parents=[shared], help="the stages of a sweep and what they do")
    one.add_argument("sweep", nargs="?", help="default: all that have something left, and the last finished one")
    one.add_argument("--watch", action="store_true", help="until everything has ended")
    one.add_argument("--all", action="store_true", help="a row for every stage, and finished sweeps too")
    one.add_argument("--json", action="store_true", help="for programs")
    one.set_defaults(run=status.run)

    one = commands.add_parser("logs", parents=[shared], help="what a stage said")
    one.add_argument("stage", help="its folder, or the digits of its key")
    one.add_argument("-f", "--follow", action="store_true", help="until the stage has ended")
    one.add_argument("-n", "--lines", type=_count, default=2000, help="at most so many of the last lines")
    one.set_defaults(run=logs.run)

    one = commands.add_parser("cancel", parents=[shared], help="takes the jobs of a sweep back")
    one.add_argument("sweep")
    one.add_argument("-y", "--yes", action="store_true", help="without asking")
    one.set_defaults(run=queue.cancel)

    one = commands.add_parser("retry", parents=[shared], help="queues again what is neither done nor on its way")
    one.add_argument("sweep")
    one.add_argument("--failed", action="store_true", help="only what failed, and what waited for it")
    one.set_defaults(run=queue.retry)

    one = commands.add_parser("sync", parents=[shared], help="sends offline runs and dashboards to W&B")
    one.add_argument("--dry-run", action="store_true", help="only says what would be sent")
    one.set_defaults(run=sync.run)

    one = commands.add_parser("reap", parents=[shared], help="removes jobs that can never start")
    one.set_defaults(run=queue.reap)
    _add_results(commands, shared)
    return found


def _add_results(commands: Commands, shared: argparse.ArgumentParser) -> None:
    """What looks at results; their folders are named as for `logs`."""
    one = commands.add_parser("diff", parents=[shared], help="what two results have not in common")
    which = "a stage's or a page's folder, its name, or the digits of its key"
    one.add_argument("first", metavar="RUN_A", type=_artifact, help=which)
    one.add_argument("second", metavar="RUN_B", type=_artifact)
    one.add_argument("--code", action="store_true", help="with the changed lines of code")
    one.add_argument("--html", type=Path, metavar="FILE", help="as a page of its own")
    one.add_argument("--json", action="store_true", help="for programs")
    one.set_defaults(run=_later("diff"), trouble=2)

    one = commands.add_parser("reproduce", parents=[shared], help="makes a finished stage again, and compares")
    one.add_argument("artifact", type=_artifact, help=which)
    one.add_argument("--dry-run", action="store_true", help="only tells the command, the commit and the packages")
    one.add_argument("--packages", action="store_true", help="every package, as name==version")
    one.add_argument("--chain", action="store_true", help="first makes everything again that it was made from")
    one.add_argument("--keep", action="store_true", help="keeps the second making where it is bit-equal too")
    one.add_argument("--paid", action="store_true", help="also asks a teacher again that may cost money")
    one.set_defaults(run=_later("reproduce"))

    one = commands.add_parser("gc", parents=[shared], help="what can be deleted, and how much that frees")
    one.add_argument("-y", "--yes", action="store_true", help="deletes without asking")
    one.add_argument("--paid", action="store_true", help="offers answers of teachers too, which were paid for")
    one.set_defaults(run=_later("gc"))

    one = commands.add_parser("index", parents=[shared], help="makes the list of all sweeps and runs anew")
    one.set_defaults(run=_later("index"))


def _later(name: str) -> Callable[[argparse.Namespace], int]:
    """A command whose module is imported when it is given: scipy and jinja2 take a second, and status needs neither."""

    def run(given: argparse.Namespace) -> int:
        code: int = importlib.import_module(f"alpaca.cli.{name}").run(given)
        return code

    return run


def main(arguments: Sequence[str] | None = None) -> None:
    """One command; ends the program with its status."""
    given = parser().parse_args(arguments)
    try:
        given.output_dir = _existing(given.output_dir)
        code = given.run(given)
        sys.stdout.flush()
    except AlpacaError as error:
        print(f"error: {error}", file=sys.stderr)
        code = given.trouble or error.exit_status
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:  # a folder of somebody else, a full disk
        print(f"error: {error}", file=sys.stderr)
        code = given.trouble or 1
    raise SystemExit(code)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of lines")
    return int(text)


def _artifact(text: str) -> str:
    try:
        Path(text).expanduser()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} names the home of nobody here ({error})") from error
    return text


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        remedy = "nothing was launched here yet, or name the launch's output_dir: --output-dir FOLDER"
        raise UserError(what="no such folder", where=str(folder), remedy=remedy)
    return folder.resolve()
