"""The sample stage: asks the teacher until the pool is full, or takes a released data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alpaca.config import SampleConfig
from alpaca.errors import UserError
from alpaca.stages.sample.alpaca_text import run_alpaca
from alpaca.stages.sample.released import run_released

if TYPE_CHECKING:
    from alpaca.artifacts import Context

# A new way to get instruction data is one module and one line here.
KINDS = {"alpaca": run_alpaca, "released": run_released}


def run(config: SampleConfig, context: Context) -> None:
    """Fills `context.folder`; started again after a crash it goes on and ends with the same bytes."""
    kind = config.data_gen.kind
    if kind not in KINDS:
        raise UserError(
            what=f"unknown way to get data {kind!r}", where="data_gen.kind", remedy=f"known: {', '.join(KINDS)}"
        )
    KINDS[kind](config, context)
