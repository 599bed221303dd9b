"""The ways to choose among the examples left: each an order of them, of which curation takes the first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alpaca.curation import selection
from alpaca.errors import UserError

if TYPE_CHECKING:
    from alpaca.stages.curate.steps import Curation


def _ids(curation: Curation) -> list[str]:
    return [example.id for example in curation.examples]


def _random(curation: Curation) -> list[int]:
    return selection.hash_order(_ids(curation), curation.config.seeds.data)


def _longest(curation: Curation) -> list[int]:
    return _by_length(curation, longest=True)


def _shortest(curation: Curation) -> list[int]:
    return _by_length(curation, longest=False)


def _by_length(curation: Curation, *, longest: bool) -> list[int]:
    outputs = [example.output for example in curation.examples]
    return selection.by_length(outputs, _ids(curation), curation.config.seeds.data, longest=longest)


def _diverse(curation: Curation) -> list[int]:
    """All in hash order where all are wanted: then there is nothing to choose, and the work would be quadratic."""
    wanted = curation.config.data.size
    if wanted is None or wanted > len(curation.examples):
        return _random(curation)
    return selection.farthest_first(
        [example.instruction for example in curation.examples],
        _ids(curation),
        curation.config.seeds.data,
        wanted,
        tell=lambda done: curation.context.progress(done, wanted, "farthest first"),
    )


def _judged(curation: Curation) -> list[int]:
    """By score, at least `judge_least`; an unreadable score comes behind all others and is below every bound."""
    ratings, least = curation.ratings, curation.config.data.judge_least
    if ratings is None:
        raise UserError(
            what="no judge's scores to select by",
            where="data.selection",
            remedy="run from launch.py, which rates the pool first, or choose another selection",
        )
    scores = [ratings[example.id] for example in curation.examples]
    values = [float("-inf") if score is None else score for score in scores]
    order = selection.by_value(values, _ids(curation), curation.config.seeds.data)
    return order if least is None else [index for index in order if values[index] >= least]


def _listed(curation: Curation) -> list[int]:
    """The positions of the list whose examples came through all steps, in the order of the list."""
    path = curation.config.data.indices
    if path is None:
        raise UserError(
            what="no list of positions given", where="data.indices", remedy="data.indices=FILE, a JSON list"
        )
    pool = curation.pool.examples
    place = {example.id: index for index, example in enumerate(curation.examples)}
    wanted = selection.positions(Path(path).expanduser(), len(pool))
    return [place[pool[index].id] for index in wanted if pool[index].id in place]


ORDERS: dict[str, Callable[[Curation], Sequence[int]]] = {
    "random": _random,
    "longest": _longest,
    "shortest": _shortest,
    "diverse": _diverse,
    "judge_score": _judged,
    "indices": _listed,
}
"""`data.selection` -> the order of the examples left, of which the first `data.size` are taken."""
