"""Hydra's `-m` handed over whole: the raw overrides go to alpaca.sweep, which composes once per set of groups.

No `from __future__ import annotations` and no heavy import here: Hydra executes this module at every start, before it
is in sys.modules.
"""

from collections.abc import Callable
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper

ConfigStore.instance().store(
    group="hydra/sweeper", name="alpaca", node={"_target_": "hydra_plugins.alpaca_sweeper.sweeper.AlpacaSweeper"}
)


class AlpacaSweeper(Sweeper):
    """Never composes a point and needs no launcher."""

    def setup(self, *, hydra_context: Any, task_function: Callable[..., Any], config: Any) -> None:
        self.task_module = task_function.__globals__

    def sweep(self, arguments: list[str]) -> None:
        """arguments: the overrides as typed."""
        self.task_module["go"](arguments, multirun=True)
