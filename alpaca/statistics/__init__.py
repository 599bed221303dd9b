"""Every number that is shown with its uncertainty: intervals, tests, detectable effects, a sweep's arms."""

from __future__ import annotations

from alpaca.statistics.comparison import Comparison, Effect, compare, estimated_design
from alpaca.statistics.intervals import (
    LEVEL,
    Interval,
    bootstrap_mean,
    can_be_conclusive,
    change_interval,
    is_binary,
    mean_interval,
    simultaneous_level,
    t_interval,
    welch_interval,
    wilson,
)
from alpaca.statistics.paired import (
    PairedTest,
    holm,
    mcnemar,
    nested_bootstrap,
    paired_test,
    sign_flip_test,
    sign_test,
)
from alpaca.statistics.power import ALPHA, POWER, Design, Needed, detectable_effect, needed, untied_pairs

__all__ = [
    "ALPHA",
    "LEVEL",
    "POWER",
    "Comparison",
    "Design",
    "Effect",
    "Interval",
    "Needed",
    "PairedTest",
    "bootstrap_mean",
    "can_be_conclusive",
    "change_interval",
    "compare",
    "detectable_effect",
    "estimated_design",
    "holm",
    "is_binary",
    "mcnemar",
    "mean_interval",
    "needed",
    "nested_bootstrap",
    "paired_test",
    "sign_flip_test",
    "sign_test",
    "simultaneous_level",
    "t_interval",
    "untied_pairs",
    "welch_interval",
    "wilson",
]
