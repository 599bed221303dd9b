"""The door: `python launch.py [-m] [sweep=NAME] [GROUP=OPTION] [KEY=VALUE] [dry_run=true]`.

compose -> expand -> plan -> dispatch. Every problem of the command is found before Hydra starts, since Hydra would
stop at the first; with a Hydra flag (--help, --cfg, --info ...) Hydra alone answers.
"""

from __future__ import annotations

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until there is something to stop, Ctrl-C ends this without a word

import functools
import os
import sys
from collections.abc import Callable

import hydra
from hydra.core.hydra_config import HydraConfig

from alpaca import compose, groups, jobs
from alpaca.dispatch.launch import launch
from alpaca.errors import AlpacaError
from alpaca.sweep import Sweep, expand

OWN_FLAGS = {"-m", "--multirun"}


@functools.cache
def expanded(overrides: tuple[str, ...], multirun: bool) -> Sweep:
    """The points of a command; composed once, before Hydra starts, and used again inside it."""
    return expand(overrides, multirun=multirun)


def go(overrides: list[str], multirun: bool) -> None:
    """Plans and runs; called by Hydra's job and by the sweeper in hydra_plugins/."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    told(lambda: launch(expanded(tuple(overrides), multirun), overrides))


def check(overrides: tuple[str, ...], multirun: bool) -> int:
    """Status 0; raises ConfigurationErrors with every problem of the command."""
    expanded(overrides, multirun)
    return 0


def _stop(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def told(call: Callable[[], int]) -> None:
    """Ends the program unless the call's status is 0; an error that the user can mend has no traceback."""
    try:
        status = call()
    except AlpacaError as error:
        print(f"error: {error}", file=sys.stderr)
        status = error.exit_status
    except OSError as error:
        known = jobs.explain(error, "output_dir")
        if known is None:
            raise
        print(f"error: {known}", file=sys.stderr)
        status = known.exit_status
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it stopped", file=sys.stderr)
        status = 130
    if status:
        raise SystemExit(status)


@hydra.main(config_path="conf", config_name="config", **compose.version_base())  # type: ignore[untyped-decorator]
def run(_: object) -> None:
    """Hydra's job: the composed configuration is not used, the overrides are planned as a sweep of one."""
    go(list(HydraConfig.get().overrides.task), multirun=False)


def main() -> None:
    """Checks the whole command first, then lets Hydra run it."""
    groups.register()
    for number in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal stops the stages too, which stay resumable
        signal.signal(number, _stop)
    sys.argv[1:] = compose.in_hydras_words(sys.argv[1:])
    flags = {word for word in sys.argv[1:] if word.startswith("-")}
    overrides = tuple(word for word in sys.argv[1:] if not word.startswith("-"))
    if not flags - OWN_FLAGS:
        told(lambda: check(overrides, bool(flags)))
        if not flags and any(item.is_sweep_override() for item in compose.parse(overrides)[0]):
            flags = {"-m"}  # a question takes lists without it, which Hydra alone would refuse
        sys.argv[1:] = [*sorted(flags), *overrides]  # Hydra's parser refuses overrides on both sides of a flag
    run()


if __name__ == "__main__":
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
