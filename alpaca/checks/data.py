"""Contradictions in what data is made of, by whom, and how answers are scored."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from alpaca import teachers
from alpaca.checks.words import nearest
from alpaca.config import (
    AlpacaDataGen,
    AskedDataGen,
    Data,
    Evaluation,
    MixtureDataGen,
    ReanswerDataGen,
    ReleasedDataGen,
    Run,
    SelfInstructDataGen,
)
from alpaca.curation.language import LANGUAGES
from alpaca.errors import UserError
from alpaca.records import given
from alpaca.teachers.prices import price_of
from alpaca.teachers.spending import unpriced

POOL_LEAVES = ("data.size", "data_gen.num_examples", "data_gen.seeds_per_prompt", "data_gen.tasks_per_request")
"""What must be in range before `pool` can be looked at."""
SOURCE_NAME = re.compile("[A-Za-z][A-Za-z0-9_-]*")


def contradictions(run: Run, names: dict[str, Iterable[str]]) -> Iterator[UserError]:
    """Of data, teacher and evaluations. names: see `alpaca.checks.contradictions`."""
    yield from _named(run, names)
    for rule in (_evaluations, _published, _mixture, _teacher, _heard, _money, _selection):
        yield from rule(run)


def _named(run: Run, names: dict[str, Iterable[str]]) -> Iterator[UserError]:
    for name in run.data.filters:
        if name not in names["filters"]:
            yield UserError(
                what=f"unknown filter {name!r}", where="data.filters", remedy=nearest(name, names["filters"])
            )
    for key, item in run.eval.items():
        if item.set not in names["set"]:
            yield UserError(
                what=f"unknown evaluation set {item.set!r}",
                where=f"eval.{key}.set",
                remedy=nearest(item.set, names["set"]),
            )
        for metric in item.metrics:
            if metric not in names["metrics"]:
                yield UserError(
                    what=f"unknown metric {metric!r}",
                    where=f"eval.{key}.metrics",
                    remedy=nearest(metric, names["metrics"]),
                )


def _published(run: Run) -> Iterator[UserError]:
    """Published data sets that are named nowhere, or by what is no id of the hub."""
    parts: dict[str, Any] = {"data_gen": run.data_gen}
    parts |= {f"data_gen.sources.{name}": part for name, part in getattr(run.data_gen, "sources", {}).items()}
    for key, part in parts.items():
        if isinstance(part, ReleasedDataGen):
            if part.hub is not None and not given.HUB_ID.fullmatch(part.hub):
                yield UserError(what=f"{part.hub!r} is no id of a data set", where=f"{key}.hub", remedy="owner/name")
            if not (part.path or part.hub or part.url):
                yield UserError(what="no data given", where=f"{key}.path", remedy="set path, hub, or url and sha256")


def _mixture(run: Run) -> Iterator[UserError]:
    """No parts, parts without a weight, and names that cannot stand in an example's id."""
    if not isinstance(run.data_gen, MixtureDataGen):
        return
    if not run.data_gen.sources:
        yield UserError(
            what="no data sets to mix",
            where="data_gen.sources",
            remedy="for each of them: +data_gen.sources.NAME.path=FILE +data_gen.sources.NAME.weight=2",
        )
    for name, source in run.data_gen.sources.items():
        where = f"data_gen.sources.{name}"
        if not SOURCE_NAME.fullmatch(str(name)):
            yield UserError(
                what=f"{name!r} cannot be a name", where=where, remedy="letters, digits, - and _, a letter first"
            )
        if source.weight == 0:
            yield UserError(what="0 takes nothing of it", where=f"{where}.weight", remedy="give more than 0")


def _teacher(run: Run) -> Iterator[UserError]:
    """What the kind of the teacher says of its options."""
    if asks(run) and run.teacher.kind in teachers.KINDS:
        yield from teachers.KINDS[run.teacher.kind].problems(run.teacher)


def _heard(run: Run) -> Iterator[UserError]:
    """Wishes that the embedded teacher, a program with one language, cannot hear."""
    source = run.data_gen
    if not isinstance(source, AlpacaDataGen) or run.teacher.kind != "programmatic":
        return
    for name in ("language", "topics"):
        if getattr(source, name) is not None:
            yield UserError(
                what="the programmatic teacher writes tasks of its own little world and would not heed it",
                where=f"data_gen.{name}",
                remedy=f"another teacher, or data_gen.{name}=null",
            )


def asks(run: Run) -> bool:
    """Whether a teacher is asked at all."""
    return isinstance(run.data_gen, AskedDataGen) or run.data.selection == "judge_score"


def _money(run: Run) -> Iterator[UserError]:
    """A table of prices that cannot be read, and a bound on money that could not be kept."""
    try:
        price = price_of(run.teacher, run.spend.prices)
    except UserError as error:
        yield error
        return
    tier = getattr(run.teacher, "service_tier", None)
    known = price is not None and price.factor(tier) is not None
    if run.spend.max_usd is not None and not known and asks(run):
        yield unpriced(run.spend.max_usd, tier if price is not None else None)


def _selection(run: Run) -> Iterator[UserError]:
    """Knobs of one selection without it, and a selection without its knob."""
    data = run.data
    needs = {
        "indices": (data.indices, "indices", "give a JSON list of positions in the pool"),
        "judge_least": (data.judge_least, "judge_score", ""),
    }
    if data.selection == "indices" and data.indices is None:
        yield UserError(what="no file of positions given", where="data.indices", remedy=needs["indices"][2])
    for name, (value, selection, _) in needs.items():
        if value is not None and data.selection != selection:
            yield UserError(
                what=f"{value} has no effect with data.selection={data.selection}",
                where=f"data.{name}",
                remedy=f"data.selection={selection}, or data.{name}=null",
            )
    if data.input_share is not None and data.selection == "diverse":
        yield UserError(
            what=f"{data.input_share:g} cannot be kept with data.selection=diverse, which orders no more than it takes",
            where="data.input_share",
            remedy="another data.selection, or data.input_share=null",
        )
    plain = Data()
    if data.judge_temperature != plain.judge_temperature and data.selection != "judge_score":
        yield UserError(
            what=f"{data.judge_temperature:g} has no effect with data.selection={data.selection}",
            where="data.judge_temperature",
            remedy="data.selection=judge_score, or leave it out",
        )
    for name in ("moderation_model", "moderation_url"):
        if data.moderation == "none" and getattr(data, name) != getattr(plain, name):
            yield UserError(
                what=f"{getattr(data, name)!r} has no effect with data.moderation=none",
                where=f"data.{name}",
                remedy="data.moderation=openai, or leave it out",
            )
    if "other_language" in data.filters and data.language not in LANGUAGES:
        yield UserError(
            what=f"{data.language!r} is no code of a language that can be told apart",
            where="data.language",
            remedy=f"one of {', '.join(LANGUAGES)}",
        )
    if isinstance(run.data_gen, ReanswerDataGen) and run.data_gen.path is None:
        yield UserError(
            what="no instructions to be answered", where="data_gen.path", remedy="a data set: data_gen.path=FILE"
        )


def pool(run: Run) -> Iterator[UserError]:
    """More examples wanted than there will be, and prompts without room for a new task."""
    pool = run.data_gen.num_examples if hasattr(run.data_gen, "num_examples") else None
    if pool is not None and run.data.size is not None and run.data.size > pool and run.until != "sample":
        yield UserError(
            what=f"{run.data.size} examples wanted from a pool of {pool}",
            where="data.size",
            remedy=f"set data_gen.num_examples={run.data.size} or more, or a smaller data.size",
        )
    source = run.data_gen
    if isinstance(source, AlpacaDataGen) and source.machine_share > 0:
        yield from _machine(source)
    if isinstance(source, (AlpacaDataGen, SelfInstructDataGen)) and source.seeds_per_prompt >= source.tasks_per_request:
        yield UserError(
            what=f"{source.seeds_per_prompt} seeds fill a list of {source.tasks_per_request}",
            where="data_gen.seeds_per_prompt",
            remedy="set it below data_gen.tasks_per_request",
        )


def _machine(source: AlpacaDataGen) -> Iterator[UserError]:
    """A share of machine-written tasks that no request would show."""
    new = max(1, source.tasks_per_request - source.seeds_per_prompt)
    if not round(source.machine_share * source.seeds_per_prompt):
        yield UserError(
            what=f"{source.machine_share:g} of {source.seeds_per_prompt} tasks shown is less than half a task",
            where="data_gen.machine_share",
            remedy="raise it, or data_gen.seeds_per_prompt",
        )
    elif source.num_examples <= source.machine_lag * new:
        yield UserError(
            what=f"{source.num_examples:,} examples may need no more than the {source.machine_lag} requests that show "
            "seed tasks alone, so the share would mean nothing",
            where="data_gen.machine_share",
            remedy=f"data_gen.num_examples above {source.machine_lag * new:,}, or a smaller data_gen.machine_lag",
        )


def _evaluations(run: Run) -> Iterator[UserError]:
    if not run.eval:
        yield UserError(what="no evaluation named", where="eval", remedy="for example eval=[embedded]")
    for name, item in run.eval.items():
        yield from _metrics(name, item)


def _metrics(name: str, item: Evaluation) -> Iterator[UserError]:
    if not item.metrics:
        yield UserError(what="no metric named", where=f"eval.{name}.metrics", remedy="for example [rouge_l]")
    if "exact_match" in item.metrics and item.set == "user_oriented":
        yield UserError(
            what="exact_match needs references that are the one right answer",
            where=f"eval.{name}.metrics",
            remedy="these items have free-form references: use rouge_l",
        )
