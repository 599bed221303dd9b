"""The sample stage: asks the teacher until the pool is full, or takes a released data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alpaca.config import SampleConfig
from alpaca.errors import UserError
from alpaca.stages.sample.evolve import run_evolve
from alpaca.stages.sample.mixture import run_mixture
from alpaca.stages.sample.one_step import run_alpaca
from alpaca.stages.sample.reanswer import run_reanswer
from alpaca.stages.sample.released import run_released
from alpaca.stages.sample.self_instruct import run_self_instruct

if TYPE_CHECKING:
    from alpaca.artifacts import Context

# A new way to get instruction data is one module and one line here.
KINDS = {
    "alpaca": run_alpaca,
    "self_instruct": run_self_instruct,
    "reanswer": run_reanswer,
    "evolve": run_evolve,
    "released": run_released,
    "mixture": run_mixture,
}


def run(config: SampleConfig, context: Context) -> None:
    """Fills `context.folder`; started again after a crash it goes on and ends with the same bytes."""
    kind = config.data_gen.kind
    if kind not in KINDS:
        raise UserError(
            what=f"unknown way to get data {kind!r}", where="data_gen.kind", remedy=f"known: {', '.join(KINDS)}"
        )
    KINDS[kind](config, context)
