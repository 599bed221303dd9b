"""Which artifact a command means."""

from __future__ import annotations

from pathlib import Path

from alpaca.cli import logs
from alpaca.errors import UserError


def place(output: Path, name: str, command: str) -> tuple[Path, str]:
    """Output folder and label of an artifact: a folder of any output folder, else what `logs` understands."""
    path = Path(name).expanduser()
    if (path / "stage.json").is_file():
        path = path.resolve()
        return path.parents[1], "/".join(path.parts[-2:])
    if "/" in name and path.exists() and not path.resolve().is_relative_to(output):
        raise UserError(
            what="no stage.json: not the folder of a stage or a page", where=name, remedy="give outputs/STAGE/NAME-KEY"
        )
    return output, logs.find(output, name, command)
