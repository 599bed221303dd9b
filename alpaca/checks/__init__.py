"""Checks of a typed configuration: rules of single leaves, contradictions between them, and what this machine lacks.

Every function returns problems; none raises, none changes anything.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from alpaca import canonical, teachers
from alpaca.config import (
    AlpacaDataGen,
    AskedDataGen,
    Data,
    Evaluation,
    HubModel,
    MixtureDataGen,
    ReanswerDataGen,
    ReleasedDataGen,
    Run,
    SelfInstructDataGen,
    TinyModel,
)
from alpaca.curation.language import LANGUAGES
from alpaca.errors import UserError
from alpaca.records import given
from alpaca.runtime import provenance
from alpaca.runtime.budget import Budget
from alpaca.teachers.openai import KEY_VARIABLE, OPENAI_URL, key_for, url_problem
from alpaca.teachers.prices import price_of
from alpaca.teachers.spending import unpriced

SOURCE_NAME = re.compile("[A-Za-z][A-Za-z0-9_-]*")
KINDS_OF_PATH = {"file": "a file", "folder": "a folder in the transformers format"}
BYTES_PER_PARAMETER = 16
"""fp32 weights, gradients and two AdamW states."""


def nearest(word: str, known: Iterable[str]) -> str:
    """ "did you mean a, b?" or the list of what is known, for a remedy."""
    names = sorted(set(known))
    close = difflib.get_close_matches(word, names, n=3, cutoff=0.6)
    if close:
        return "did you mean " + ", ".join(close) + "?"
    return "known: " + ", ".join(names[:40]) + (" …" if len(names) > 40 else "")


def contradictions(run: Run, names: dict[str, Iterable[str]]) -> list[UserError]:
    """Everything that is wrong with a configuration wherever it would run.

    names: known names by what they are for, "filters", "metrics" and "set".
    """
    single = [
        *_leaf_rules(run),
        *_named(run, names),
        *_budget(run),
        *_evaluations(run),
        *_sources(run),
        *_published(run),
        *_mixture(run),
        *_shape(run),
        *_teacher(run),
        *_heard(run),
        *_money(run),
        *_selection(run),
    ]
    # Rules between leaves compute with them, so a rule waits while one of its leaves is out of range.
    wrong = {problem.where for problem in single}
    rules = {
        _pool: ("data.size", "data_gen.num_examples", "data_gen.seeds_per_prompt", "data_gen.tasks_per_request"),
        _batch: ("train.global_batch", "train.micro_batch", "fsdp.world_size"),
        _sharding: ("fsdp.mode", "fsdp.world_size", "fsdp.shard_size"),
    }
    return [*single, *(problem for rule, keys in rules.items() if not wrong & set(keys) for problem in rule(run))]


def machine_lacks(run: Run, stages: Collection[str]) -> list[UserError]:
    """What keeps these stages of a run from running here: an error for a real local run, a warning in a dry run."""
    problems: list[UserError] = []
    if "train" in stages:
        problems += [*_processes(run), *_memory(run), *_weights(run)]
    return [*problems, *_key(run, stages)]


def _leaf_rules(run: Run) -> Iterator[UserError]:
    for leaf in canonical.leaves(run):
        choices, least, most = (leaf.rules.get(rule) for rule in ("choices", "least", "most"))
        value = leaf.value
        if choices and value not in choices:
            yield UserError(
                what=f"{value!r} is not one of its values", where=leaf.path, remedy=nearest(str(value), choices)
            )
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield from _bounds(leaf.path, value, least, most)
        if leaf.mark == "content" and value is not None and not Path(value).expanduser().exists():
            yield UserError(
                what=f"no such file or folder: {value!r}",
                where=leaf.path,
                remedy="give an existing path (relative paths start at the current folder)",
            )


def _bounds(path: str, value: float, least: float | None, most: float | None) -> Iterator[UserError]:
    if not (value == value and abs(value) != float("inf")):
        yield UserError(what=f"{value} is no finite number", where=path, remedy="give a finite number")
    elif least is not None and value < least:
        yield UserError(
            what=f"{value} is below the least allowed, {least:g}", where=path, remedy=f"give at least {least:g}"
        )
    elif most is not None and value > most:
        yield UserError(
            what=f"{value} is above the most allowed, {most:g}", where=path, remedy=f"give at most {most:g}"
        )


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


def _budget(run: Run) -> Iterator[UserError]:
    try:
        Budget.parse(run.train.budget)
    except UserError as error:
        yield UserError(what=error.what, where="train.budget", remedy=error.remedy)


def _sources(run: Run) -> Iterator[UserError]:
    """Input files that are folders, weights that are a file, downloads without a digest, addresses with a secret."""
    if not run.output_dir.strip():
        yield UserError(what="empty path", where="output_dir", remedy="give a folder, for example output_dir=outputs")
    for leaf in canonical.leaves(run):
        place = Path(leaf.value).expanduser() if leaf.mark == "content" and leaf.value else None
        if leaf.mark == "content" and leaf.value == "":
            yield UserError(what="empty path", where=leaf.path, remedy=f"give a path, or {leaf.path}=null")
        elif place is not None and place.exists() and leaf.rules["takes"] == ("file" if place.is_dir() else "folder"):
            kind = KINDS_OF_PATH[leaf.rules["takes"]]
            remedy = f"give {kind}"
            if given.is_data_set(leaf.path):
                remedy += f", or the folder of a finished stage that made {given.EXAMPLES}"
            yield UserError(what=f"{leaf.value!r} is not {kind}", where=leaf.path, remedy=remedy)
        elif place is not None and place.exists() and (wrong := given.problem_of(leaf.path, place)):
            yield wrong
    problem = url_problem(getattr(run.teacher, "base_url", None) or OPENAI_URL)
    if problem:
        yield UserError(
            what=problem,
            where="teacher.base_url",
            remedy="for example http://127.0.0.1:8000/v1; keys come from OPENAI_API_KEY",
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


def _shape(run: Run) -> Iterator[UserError]:
    model = run.model
    if isinstance(model, TinyModel) and model.width % (2 * model.heads):
        yield UserError(
            what=f"{model.heads} heads do not divide a width of {model.width} into even parts",
            where="model.heads",
            remedy="model.width must be a multiple of 2 * model.heads",
        )


def _teacher(run: Run) -> Iterator[UserError]:
    """What the kind of the teacher says of its options."""
    if _asks(run) and run.teacher.kind in teachers.KINDS:
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


def _asks(run: Run) -> bool:
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
    if run.spend.max_usd is not None and not known and _asks(run):
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


def _pool(run: Run) -> Iterator[UserError]:
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


def _batch(run: Run) -> Iterator[UserError]:
    train, world = run.train, run.fsdp.world_size
    if train.global_batch % world:
        yield UserError(
            what=f"{train.global_batch} examples cannot be split over {world} processes",
            where="train.global_batch",
            remedy=f"use a multiple of fsdp.world_size={world}",
        )
    elif (train.global_batch // world) % min(train.micro_batch, train.global_batch // world):
        yield UserError(
            what=f"{train.micro_batch} does not divide the {train.global_batch // world} examples of each process "
            f"(global batch {train.global_batch} over {world} processes)",
            where="train.micro_batch",
            remedy=f"use a divisor of {train.global_batch // world}",
        )


def _sharding(run: Run) -> Iterator[UserError]:
    fsdp = run.fsdp
    if fsdp.mode != "none" and fsdp.world_size < 2:
        yield UserError(
            what=f"mode {fsdp.mode} needs at least 2 processes, {fsdp.world_size} given",
            where="fsdp.world_size",
            remedy="set fsdp.world_size to the number of GPUs, or fsdp=none",
        )
    if fsdp.mode == "none" and fsdp.world_size > 1:
        yield UserError(
            what=f"{fsdp.world_size} processes without a sharding mode",
            where="fsdp.mode",
            remedy="use fsdp=full_shard, shard_grad_op, hybrid_shard or ddp, or fsdp.world_size=1",
        )
    if fsdp.mode == "hybrid_shard":
        shard = fsdp.shard_size or fsdp.world_size // 2
        if shard < 2 or fsdp.world_size % shard or fsdp.world_size == shard:
            yield UserError(
                what=f"{fsdp.world_size} processes cannot form two or more groups of {shard}",
                where="fsdp.shard_size",
                remedy="hybrid_shard needs at least 4 processes; shard_size must divide fsdp.world_size",
            )
    if fsdp.offload and fsdp.mode in ("none", "ddp"):
        yield UserError(
            what=f"offload is not possible with mode {fsdp.mode}",
            where="fsdp.offload",
            remedy="use a sharding mode, or fsdp.offload=false",
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


def _key(run: Run, stages: Collection[str]) -> Iterator[UserError]:
    """Keys that stages of this run will want; a teacher that has a URL or may have one is asked over the network."""
    asks = (isinstance(run.data_gen, AskedDataGen) and "sample" in stages) or "rate" in stages
    if asks and run.teacher.kind in teachers.KINDS:
        yield from teachers.KINDS[run.teacher.kind].lacks(run.teacher)
    if asks and hasattr(run.teacher, "base_url"):
        yield from _keyless(run.teacher.base_url, "teacher.base_url")
    if "moderate" in stages:
        yield from _keyless(run.data.moderation_url, "data.moderation_url")


def _keyless(url: str | None, where: str) -> Iterator[UserError]:
    try:
        key_for(url or OPENAI_URL)
    except UserError as error:
        yield UserError(
            what=error.what, where=where, remedy=f"export {KEY_VARIABLE}=..., or set {where} to a server of your own"
        )


def _processes(run: Run) -> Iterator[UserError]:
    gpus, cores, wanted = provenance.gpu_count(), os.cpu_count() or 1, run.fsdp.world_size
    if wanted > max(gpus, 0 if gpus else cores):
        here = f"{gpus} GPUs" if gpus else f"no GPU and {cores} CPU cores"
        yield UserError(
            what=f"{wanted} processes wanted, this machine has {here}",
            where="fsdp.world_size",
            remedy="lower fsdp.world_size, or run where there are so many",
        )
    if run.fsdp.offload and not gpus:
        yield UserError(
            what="offload moves tensors off a GPU, and this machine has none",
            where="fsdp.offload",
            remedy="use fsdp.offload=false",
        )


def _memory(run: Run) -> Iterator[UserError]:
    if provenance.gpu_count():
        return  # what fits on a GPU depends on the sharding and is found by the training stage
    needed, present = run.model.parameters * BYTES_PER_PARAMETER, provenance.memory_bytes()
    if needed > present:
        yield UserError(
            what=f"training {run.model.name} needs about {needed / 2**30:.0f} GiB for weights, gradients and states, "
            f"this machine has {present / 2**30:.0f} GiB and no GPU",
            where="model",
            remedy="use a smaller model, or run on a machine with GPUs",
        )


def _weights(run: Run) -> Iterator[UserError]:
    if not isinstance(run.model, HubModel):
        return
    if run.model.path is None and not _in_hub_cache(run.model.id):
        offline = os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
        if offline:
            yield UserError(
                what=f"{run.model.id} is not in the hub cache and HF_HUB_OFFLINE is set",
                where="model.id",
                remedy="set model.path to a local folder in the transformers format",
            )


def _in_hub_cache(model_id: str) -> bool:
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface"))
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    return (cache.expanduser() / f"models--{model_id.replace('/', '--')}").exists()
