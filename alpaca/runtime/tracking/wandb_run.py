"""One run of Weights & Biases, online with a key and offline without; never a prompt."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from alpaca.runtime.tracking import keys

INIT_SECONDS = 10
"""For the server to answer at the start; after that the run is an offline one."""
UNREACHED, RETRY_SECONDS = "unreached", 300.0
"""File whose time says when the server was last out of reach, and how long that is believed."""
SYNCED = ".wandb.synced"
"""W&B's own mark beside a run's file: it is on the server, and `wandb sync` leaves it out."""


class WandbRun:
    """Rows by training step, tables, a summary."""

    def __init__(self, run: Any, marker: Path | None) -> None:
        self._run, self._marker = run, marker

    def log(self, values: dict[str, float], step: int) -> None:
        # By the job's own step: what a start after a crash does again, the client knows already and leaves out.
        self._run.log(values, step=step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        import wandb

        self._run.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def finish(self, summary: dict[str, Any] | None) -> None:
        self._run.summary.update(summary or {})
        self._run.finish(exit_code=0 if summary is not None else 1)
        if self._marker:
            self._marker.touch()


def opened(settings: dict[str, Any]) -> WandbRun:
    """The run of a stage; a server that refuses or does not answer makes it an offline one."""
    output = Path(settings["output"])
    (output / "wandb").mkdir(exist_ok=True)
    quiet(output)
    if keys.online(settings["mode"]) and not failed_lately(output):
        try:
            run = _init(settings, output, "online")
            return WandbRun(run, Path(run.settings.sync_file).with_suffix(SYNCED))
        except Exception as error:  # no server, a key that is not valid, a project that is not ours
            text = " ".join(str(error).split())[:200]
            print(f"tracking goes on offline: {text}; `python -m alpaca sync` sends it later", flush=True)
            _give_up(settings, output)
    return WandbRun(_init(settings, output, "offline"), None)


def quiet(output: Path) -> None:
    """What W&B should know of before it is imported."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # offline mode would still resolve a host name for it
    os.environ.setdefault("WANDB_DATA_DIR", str(output / "wandb"))  # staged tables would else lie in the home folder
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.pop("WANDB_MODE", None)


def failed_lately(output: Path) -> bool:
    """Whether another stage has found the server out of reach just now: not each of hundreds should wait for it."""
    try:
        return time.time() - (output / "wandb" / UNREACHED).stat().st_mtime < RETRY_SECONDS
    except OSError:
        return False


def _give_up(settings: dict[str, Any], output: Path) -> None:
    """Ends the attempt's service, which would keep the run's id for itself; what it began holds nothing to send."""
    import wandb

    wandb.teardown()
    (output / "wandb" / UNREACHED).touch()
    for begun in (output / "wandb").glob(f"run-*-{settings['id']}/run-*.wandb"):
        begun.with_suffix(SYNCED).touch()


def _init(settings: dict[str, Any], output: Path, mode: Literal["online", "offline"]) -> Any:
    import wandb

    return wandb.init(
        project=settings["project"],
        entity=settings["entity"],
        group=settings["group"],
        job_type=settings["job_type"],
        id=settings["id"],
        name=settings["name"],
        tags=settings["tags"],
        config=settings["config"],
        resume="allow",
        mode=mode,
        dir=str(output),
        settings=wandb.Settings(
            init_timeout=INIT_SECONDS,
            console="off",
            disable_git=True,
            x_stats_pid=settings["pid"],  # the memory and processors of the job, not of this process
        ),
    )
