"""Resumable checkpoints: whole or not at all, checked before they are used, never pickled code."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from alpaca.artifacts import read_json, sha256_file, write_json
from alpaca.errors import UserError


class Says(Protocol):
    """Where a line for the user goes."""

    def __call__(self, text: str, /) -> None: ...


@dataclass(kw_only=True, slots=True)
class Checkpoints:
    """The checkpoints of one stage in its work folder: `step-N.pt` with `step-N.json`, its size and sha256."""

    folder: Path
    say: Says

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Writes a checkpoint of `step` finished steps; earlier ones are removed only when this one is whole."""
        path, temporary = self._weights(step), self.folder / "step.part"
        with temporary.open("wb") as out:
            torch.save(state, out)
            out.flush()
            os.fsync(out.fileno())
        digest, size = sha256_file(temporary), temporary.stat().st_size
        temporary.replace(path)
        write_json(self._marker(step), {"sha256": digest, "bytes": size})
        for earlier in self.steps():
            if earlier < step:
                self._marker(earlier).unlink(missing_ok=True)
                self._weights(earlier).unlink(missing_ok=True)

    def newest(self) -> tuple[int, dict[str, Any]] | None:
        """The newest whole checkpoint and its step; torn ones are passed over, and said so. None: start afresh."""
        for step in reversed(self.steps()):
            problem = self._problem(step)
            if problem is None:
                return step, torch.load(self._weights(step), map_location="cpu", weights_only=True)
            self.say(f"checkpoint of step {step} {problem}; passed over for an earlier one, or the start")
        return None

    def steps(self) -> list[int]:
        """Steps of all checkpoints, whole or torn, ascending."""
        return sorted(int(path.stem.removeprefix("step-")) for path in self.folder.glob("step-*.pt"))

    def _problem(self, step: int) -> str | None:
        if not self._marker(step).exists():
            return "was not finished"
        try:
            recorded = read_json(self._marker(step))
        except UserError:
            return "has a torn record"
        if self._weights(step).stat().st_size != recorded["bytes"]:
            return f"has {self._weights(step).stat().st_size} bytes instead of {recorded['bytes']}"
        return None if sha256_file(self._weights(step)) == recorded["sha256"] else "has another sha256 than recorded"

    def _weights(self, step: int) -> Path:
        return self.folder / f"step-{step}.pt"

    def _marker(self, step: int) -> Path:
        return self.folder / f"step-{step}.json"
