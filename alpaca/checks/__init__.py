"""Checks of a typed configuration: rules of single leaves, contradictions between them, and what this machine lacks.

Every function returns problems; none raises, none changes anything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from alpaca.checks import data, leaves, machine, training
from alpaca.checks.training import cautions
from alpaca.checks.words import nearest
from alpaca.config import Run
from alpaca.errors import UserError

__all__ = ["cautions", "contradictions", "machine_lacks", "nearest"]


def contradictions(run: Run, names: dict[str, Iterable[str]]) -> list[UserError]:
    """Everything that is wrong with a configuration wherever it would run.

    names: known names by what they are for, "filters", "metrics" and "set".
    """
    single = [*leaves.single(run), *data.contradictions(run, names), *training.contradictions(run)]
    # Rules between leaves compute with them, so a rule waits while one of its leaves is out of range.
    wrong = {problem.where for problem in single}
    rules = {data.pool: data.POOL_LEAVES, **training.RULES}
    return [*single, *(problem for rule, keys in rules.items() if not wrong & set(keys) for problem in rule(run))]


def machine_lacks(run: Run, stages: Collection[str]) -> list[UserError]:
    """What keeps these stages of a run from running here: an error for a real local run, a warning in a dry run."""
    return list(machine.lacks(run, stages))
