"""Experiment tracking of the training jobs: Weights & Biases, online with a key and offline without, or nothing.

A tracker never stops or prompts: every failure becomes one log line and tracking ends there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol


class Tracker(Protocol):
    """What a job needs of a tracker."""

    def log(self, values: dict[str, float], step: int) -> None: ...

    def finish(self, summary: dict[str, Any]) -> None: ...


class NullTracker:
    """Tracks nothing."""

    def log(self, values: dict[str, float], step: int) -> None:
        return None

    def finish(self, summary: dict[str, Any]) -> None:
        return None


class WandbTracker:
    """One W&B run; the first failure is reported by `tell` and ends the tracking, not the job."""

    def __init__(self, run: Any, tell: Callable[[str], None]) -> None:
        self._run, self._tell = run, tell

    def log(self, values: dict[str, float], step: int) -> None:
        self._guarded(lambda: self._run.log({**values, "train/step": step}))

    def finish(self, summary: dict[str, Any]) -> None:
        self._guarded(lambda: (self._run.summary.update(summary), self._run.finish()))

    def _guarded(self, call: Callable[[], Any]) -> None:
        if self._run is None:
            return
        try:
            call()
        except Exception as error:  # whatever the tracker's client, service or disk does, the job goes on
            self._tell(f"tracking stopped: {type(error).__name__}: {error}")
            self._run = None


def open_tracker(settings: dict[str, Any], output: Path, tell: Callable[[str], None]) -> Tracker:
    """The tracker of one training job.

    settings: kind, project, entity, group, job_type, id, name, tags, config (from stage.json). Offline files and
    staged artifacts lie below `output`, so that they can be moved and synchronised as one.
    """
    if settings.get("kind") != "wandb":
        return NullTracker()
    try:
        return WandbTracker(_init(settings, output), tell)
    except Exception as error:  # no tracker failure may stop a training job
        tell(f"tracking is off: {type(error).__name__}: {error}")
        return NullTracker()


def _init(settings: dict[str, Any], output: Path) -> Any:
    folder = output / "wandb"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # offline mode would still resolve a host name for it
    os.environ.setdefault("WANDB_DATA_DIR", str(folder))  # staged artifacts would else lie in the home folder
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    run = wandb.init(
        project=settings["project"],
        entity=settings["entity"],
        group=settings["group"],
        job_type=settings["job_type"],
        id=settings["id"],
        name=settings["name"],
        tags=settings["tags"],
        config=settings["config"],
        resume="allow",
        mode="online" if _has_key() else "offline",
        dir=str(output),
        settings=wandb.Settings(init_timeout=60, console="off", disable_git=True),
    )
    run.define_metric("*", step_metric="train/step")
    return run


def _has_key() -> bool:
    """Whether W&B can log in without asking: a key in the environment or in the netrc file, and no offline wish."""
    if os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
        return False
    if os.environ.get("WANDB_API_KEY"):
        return True
    import netrc

    try:
        found = netrc.netrc().authenticators("api.wandb.ai")
    except (OSError, netrc.NetrcParseError):
        return False
    return bool(found and found[2])
