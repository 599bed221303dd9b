"""Where a training step goes: a trace for a viewer and a table for the eye."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Protocol

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from alpaca.artifacts import Context

FOLDER = "profile"
SKIPPED, WARMUP, ACTIVE = 2, 1, 3
"""Steps that are passed over, warmed up on, and recorded."""
ROWS = 40


class Profiler(Protocol):
    """What the loop needs of a profiler."""

    def step(self) -> None: ...


class NoProfiler:
    """Records nothing."""

    def step(self) -> None:
        return None


def of(wanted: bool, context: Context, main: bool) -> Any:
    """A context manager around the loop that gives a Profiler; it records a few early steps of rank 0."""
    if not (wanted and main):
        return nullcontext(NoProfiler())
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    return profile(
        activities=activities,
        schedule=schedule(skip_first=SKIPPED, wait=0, warmup=WARMUP, active=ACTIVE, repeat=1),
        on_trace_ready=lambda recorded: _write(recorded, context),
        record_shapes=True,
        profile_memory=True,
    )


def _write(recorded: Any, context: Context) -> None:
    folder = context.folder / FOLDER
    folder.mkdir(exist_ok=True)
    recorded.export_chrome_trace(str(folder / "trace.json.gz"))
    order = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    table = recorded.key_averages().table(sort_by=order, row_limit=ROWS)
    (folder / "table.txt").write_text(f"{ACTIVE} steps, by {order}\n{table}\n", encoding="utf-8")
    context.log(f"profile of {ACTIVE} steps: {FOLDER}/table.txt, {FOLDER}/trace.json.gz")
