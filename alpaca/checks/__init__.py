"""Checks of a typed configuration: rules of single leaves, contradictions between them, and what this machine lacks.

Every function returns problems; none raises, none changes anything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from alpaca.checks import data, leaves, machine, training, weights
from alpaca.checks.training import cautions
from alpaca.checks.words import nearest
from alpaca.config import Run
from alpaca.errors import UserError

__all__ = ["cautions", "contradictions", "machine_lacks", "nearest"]


def contradictions(run: Run, names: dict[str, Iterable[str]]) -> list[UserError]:
    """Everything that is wrong with a configuration wherever it would run.

    names: known names by what they are for, "filters", "metrics" and "set".
    """
    single = list(leaves.single(run))
    told = {problem.where for problem in single}
    more = (*data.contradictions(run, names), *training.contradictions(run), *weights.problems(run))
    single += [problem for problem in more if problem.where not in told]  # one word about a leaf out of range
    # Rules between leaves compute with them, so a rule waits while one of its leaves is out of range.
    wrong = {problem.where for problem in single}
    rules = {data.pool: data.POOL_LEAVES, **training.RULES}
    return [*single, *(problem for rule, keys in rules.items() if not wrong & set(keys) for problem in rule(run))]


def machine_lacks(run: Run, stages: Collection[str], *, planned: bool = False) -> list[UserError]:
    """What keeps these stages of a run from running here: an error for a real local run, a warning in a dry run.

    planned: a dry run, which takes the GPUs that `fsdp.gpu` names for those that it will run on.
    """
    return list(machine.lacks(run, stages, planned))
