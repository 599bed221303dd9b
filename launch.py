"""The door: `python launch.py [-m] [sweep=NAME] [GROUP=OPTION] [KEY=VALUE] [dry_run=true]`.

compose -> expand -> plan -> dispatch. Every problem of the command is found before Hydra starts, since Hydra would
stop at the first; with a Hydra flag (--help, --cfg, --info ...) Hydra alone answers.
"""

from __future__ import annotations

import functools
import sys

import hydra
from hydra.core.hydra_config import HydraConfig

from alpaca import compose, groups
from alpaca.dispatch.launch import launch
from alpaca.errors import AlpacaError
from alpaca.sweep import Sweep, expand


@functools.cache
def expanded(overrides: tuple[str, ...], multirun: bool) -> Sweep:
    """The points of a command; composed once, before Hydra starts, and used again inside it."""
    return expand(overrides, multirun=multirun)


def go(overrides: list[str], multirun: bool) -> None:
    """Plans and runs; called by Hydra's job and by the sweeper in hydra_plugins/."""
    status = told(lambda: launch(expanded(tuple(overrides), multirun), overrides))
    if status:
        raise SystemExit(status)


def told(call: functools.partial[int] | object) -> int:
    """The call's status; an error that the user can mend is shown without a traceback."""
    try:
        return call()  # type: ignore[operator]
    except AlpacaError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it stopped", file=sys.stderr)
        return 130


@hydra.main(config_path="conf", config_name="config", **compose.version_base())
def run(_: object) -> None:
    go(list(HydraConfig.get().overrides.task), multirun=False)


def main() -> None:
    groups.register()
    flags = [word for word in sys.argv[1:] if word.startswith("-")]
    overrides = [word for word in sys.argv[1:] if not word.startswith("-")]
    if not set(flags) - {"-m", "--multirun"}:
        status = told(lambda: 0 if expanded(tuple(overrides), bool(flags)) else 0)
        if status:
            raise SystemExit(status)
    run()


if __name__ == "__main__":
    main()
