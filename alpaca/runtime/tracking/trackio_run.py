"""One run of trackio: a dashboard on this machine, without an account. An optional extra of the project."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alpaca.errors import UserError


class TrackioRun:
    """Rows by training step, tables; trackio has no summary, so the last numbers are a last row."""

    def __init__(self, client: Any, run: Any) -> None:
        self._client, self._run, self._step = client, run, 0

    def log(self, values: dict[str, float], step: int) -> None:
        self._step = step
        self._run.log(values, step=step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        import pandas as pd  # trackio's tables are frames

        frame = pd.DataFrame([list(row) for row in rows], columns=list(columns))
        self._run.log({name: self._client.Table(dataframe=frame)}, step=self._step)

    def finish(self, summary: dict[str, Any] | None) -> None:
        numbers = {name: value for name, value in (summary or {}).items() if isinstance(value, int | float)}
        if numbers:
            self._run.log({f"summary/{name}": value for name, value in numbers.items()}, step=self._step)
        with contextlib.redirect_stdout(io.StringIO()):
            self._run.finish()


def opened(settings: dict[str, Any]) -> TrackioRun:
    """The run of a stage in the database below the output folder; a later start goes on in it.

    What trackio's own init has no place for (job type, tags) stands in the run's configuration.
    """
    os.environ["TRACKIO_DIR"] = str(Path(settings["output"]) / "trackio")
    client = load()
    with contextlib.redirect_stdout(io.StringIO()):  # a page of advice
        run = client.init(
            project=settings["project"],
            name=settings["name"],
            group=settings["group"],
            config={**settings["config"], "job_type": settings["job_type"], "tags": settings["tags"]},
            resume="allow",
            embed=False,
        )
    return TrackioRun(client, run)


def load() -> Any:
    """The package, or an error that says how to get it."""
    try:
        import trackio
    except ImportError as error:
        raise UserError(
            what=f"trackio is not installed ({error})", where="tracker=trackio", remedy="pip install trackio"
        ) from error
    return trackio
