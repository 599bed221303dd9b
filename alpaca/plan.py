"""Runs -> one graph of stages, united by key. Pure: no torch, no network, no writing."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any

from alpaca import canonical
from alpaca.artifacts import KEY_DIGITS
from alpaca.config import (
    AskedDataGen,
    CurateConfig,
    DataSeed,
    EvalSource,
    ModerateConfig,
    Point,
    PretrainConfig,
    RateConfig,
    ReportConfig,
    RespondConfig,
    Run,
    SampleConfig,
    ScoreConfig,
    TinyModel,
    TrainConfig,
    TrainSeeds,
)

VERSIONS = {
    "sample": 2,
    "rate": 1,
    "moderate": 1,
    "curate": 2,
    "pretrain": 2,
    "train": 2,
    "respond": 1,
    "score": 1,
    "report": 1,
}
"""Of each stage's code: raised when the same identity gives another result than before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """One stage to be done once: what it is (key), what it reads, what it waits for."""

    stage: str
    slug: str
    key: str
    identity: dict[str, Any]
    config: Any
    parents: dict[str, str]
    """Role -> key of the parent."""
    promoted: tuple[str, ...] = ()
    """Execution leaves of `config` that the sweep made identity."""

    @property
    def label(self) -> str:
        return f"{self.stage}/{self.slug}-{self.key[:KEY_DIGITS]}"


@dataclass(kw_only=True, slots=True)
class Plan:
    """The graph in an order in which every parent stands before its children, and what each run is made of."""

    nodes: dict[str, Node] = field(default_factory=dict)
    runs: list[dict[str, str]] = field(default_factory=list)
    """Per run: role -> key of the stage."""

    def add(self, node: Node) -> str:
        self.nodes.setdefault(node.key, node)
        return node.key


def build(runs: list[Run], promoted: frozenset[str] = frozenset()) -> Plan:
    """The graph of all runs: stages with equal keys are one node.

    promoted: execution leaves that the sweep made a factor (see `canonical.identity`).
    """
    plan = Plan()
    for run in runs:
        plan.runs.append(_chain(plan, run, promoted))
    return plan


def _chain(plan: Plan, run: Run, promoted: frozenset[str]) -> dict[str, str]:
    """Adds the stages of one run; returns role -> key."""
    configs = stage_configs(run)
    roles: dict[str, str] = {}

    def add(role: str, slug: str, parents: dict[str, str]) -> str:
        roles[role] = plan.add(_node(role, slug, configs[role], parents, promoted))
        return roles[role]

    pool = {"pool": add("sample", run.data_gen.kind, {})}
    for role in ("rate", "moderate"):
        if role in configs:
            pool[role] = add(role, run.data_gen.kind, {"pool": roles["sample"]})
    if run.until == "sample":
        return roles
    parents = {"data": add("curate", _size_name(run), pool)}
    if run.until == "curate":
        return roles
    if "pretrain" in configs:
        parents["base"] = add("pretrain", run.model.name, {})
    model = add("train", run.model.name, parents)
    for name in run.eval if run.until == "score" else ():
        answers = add(f"respond:{name}", name, {"model": model})
        add(f"score:{name}", name, {"responses": answers})
    return roles


def stage_configs(run: Run) -> dict[str, Any]:
    """Role -> the part of the configuration that this stage may read. What is not here cannot change a result."""
    configs: dict[str, Any] = {
        "sample": SampleConfig(
            data_gen=run.data_gen,
            spend=run.spend,
            teacher=run.teacher if isinstance(run.data_gen, AskedDataGen) else None,
        ),
        "curate": CurateConfig(data=run.data, seeds=DataSeed(data=run.seeds.data), evaluations=_decontaminated(run)),
        "train": TrainConfig(
            model=run.model,
            train=run.train,
            optimizer=run.optimizer,
            precision=run.precision,
            fsdp=run.fsdp,
            seeds=TrainSeeds(init=run.seeds.init, order=run.seeds.order),
        ),
    }
    if run.data.selection == "judge_score":
        configs["rate"] = RateConfig(teacher=run.teacher, temperature=run.data.judge_temperature, spend=run.spend)
    if run.data.moderation != "none":
        configs["moderate"] = ModerateConfig(
            kind=run.data.moderation, model=run.data.moderation_model, base_url=run.data.moderation_url
        )
    if isinstance(run.model, TinyModel):
        configs["pretrain"] = PretrainConfig(model=run.model)
    for name, item in run.eval.items():
        shared = {spec.name: getattr(item, spec.name) for spec in dataclasses.fields(RespondConfig)}
        configs[f"respond:{name}"] = RespondConfig(**shared)
        configs[f"score:{name}"] = ScoreConfig(metrics=item.metrics)
    return configs


def _decontaminated(run: Run) -> dict[str, EvalSource]:
    if run.data.decontaminate_lcs is None and run.data.decontaminate_ngram is None:
        return {}
    names = [spec.name for spec in dataclasses.fields(EvalSource)]
    return {name: EvalSource(**{each: getattr(item, each) for each in names}) for name, item in run.eval.items()}


def leaf_prefix(role: str) -> str:
    """What stands before a stage configuration's leaf in the whole configuration ("eval.NAME." for evaluations)."""
    return f"eval.{role.partition(':')[2]}." if ":" in role else ""


def _node(role: str, slug: str, config: Any, parents: dict[str, str], promoted: frozenset[str]) -> Node:
    stage, prefix = role.partition(":")[0], leaf_prefix(role)
    own = tuple(sorted(path.removeprefix(prefix) for path in promoted if path.startswith(prefix)))
    found = canonical.identity(config, frozenset(own))
    key = canonical.key_of(stage, VERSIONS[stage], found, parents)
    return Node(
        stage=stage, slug=folder_name(slug), key=key, identity=found, config=config, parents=parents, promoted=own
    )


def folder_name(text: str) -> str:
    """A name as part of a path: letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-") or "unnamed"


def _size_name(run: Run) -> str:
    return "all" if run.data.size is None else str(run.data.size)


def report_node(config: ReportConfig, parents: dict[str, str], slug: str, code: str) -> Node:
    """The page's node: made anew when the question, a point, the content of a finished stage or our code changes.

    parents: folder name below the output folder -> content digest, of the finished stages only.
    """
    found = {**dataclasses.asdict(config), "code": code}
    key = canonical.key_of("report", VERSIONS["report"], found, parents)
    return Node(stage="report", slug=slug, key=key, identity=found, config=config, parents=parents)


def point(roles: dict[str, str], labels: dict[str, str], factors: dict[str, Any], run: Run) -> Point:
    """One run as the report sees it. roles: role -> key; labels: key -> folder name below the output folder."""
    seeds = {"data": run.seeds.data, "init": run.seeds.init, "order": run.seeds.order}
    name = ", ".join(f"{key}={value}" for key, value in factors.items()) or run.model.name
    return Point(name=name, factors=factors, seeds=seeds, stages={role: labels[key] for role, key in roles.items()})
