"""Keys: what is identity, what is execution, what is shared; and that points differ in their factors alone."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from alpaca import canonical, frozen, groups, plan
from alpaca.config import CONTENT, EXECUTION, IDENTITY, Run
from alpaca.errors import ConfigurationErrors, UserError
from alpaca.stages.sample import seeds
from alpaca.sweep import expand

ROOT = Path(__file__).resolve().parents[2]
VARIANT_COMMANDS = (
    [],
    ["model=llama7b", "fsdp=full_shard"],
    ["teacher=openai", "teacher.model=m"],
    ["optimizer=adamw"],
    ["data_gen=self_instruct"],
    ["data_gen=evolve", "data.selection=judge_score"],
    ["data_gen=reanswer", f"data_gen.path={ROOT / 'README.md'}", "data.moderation=openai"],
    ["data.decontaminate_ngram=8"],
)


def keys(*overrides: str) -> dict[str, str]:
    return plan.build(expand(list(overrides), multirun=False).runs).runs[0]


def changed(*overrides: str) -> set[str]:
    """The roles whose keys differ from the default's."""
    base, other = keys(), keys(*overrides)
    return {role for role in base if base[role] != other.get(role)}


def all_classes() -> list[type]:
    """Every configuration dataclass that can hold a leaf."""
    found, queue = [], [Run, *(variant for table in groups.VARIANTS.values() for variant in table.values())]
    while queue:
        kind = queue.pop()
        if kind in found:
            continue
        found.append(kind)
        queue += [
            item.default_factory
            for item in dataclasses.fields(kind)
            if isinstance(item.default_factory, type) and dataclasses.is_dataclass(item.default_factory)
        ]
    from alpaca.config import Evaluation

    return [*found, Evaluation]


def test_every_leaf_is_declared() -> None:
    undeclared = []
    for kind in all_classes():
        for item in dataclasses.fields(kind):
            nested = isinstance(item.default_factory, type) and (
                dataclasses.is_dataclass(item.default_factory) or item.name in ("eval", "sources", "evaluations")
            )
            if not nested and item.metadata.get("mark") not in (IDENTITY, EXECUTION, CONTENT):
                undeclared.append(f"{kind.__name__}.{item.name}")
    assert undeclared == []


NOT_A_VALUE = ("sweep", "until")
"""Leaves that say which stages are planned, and not what a stage does."""


@pytest.mark.parametrize("overrides", VARIANT_COMMANDS, ids=" ".join)
def test_every_identity_leaf_enters_the_key_of_some_stage(overrides: list[str]) -> None:
    run = expand(overrides, multirun=False).runs[0]
    read = {
        plan.leaf_prefix(role) + leaf.path
        for role, config in plan.stage_configs(run).items()
        for leaf in canonical.leaves(config)
    }
    identity = {leaf.path for leaf in canonical.leaves(run) if leaf.mark in (IDENTITY, CONTENT)}
    unread = {path for path in identity - read if not (path.startswith("teacher.") and run.data_gen.kind == "released")}
    assert unread == set()


@pytest.mark.parametrize("overrides", VARIANT_COMMANDS, ids=" ".join)
def test_changing_any_identity_leaf_changes_a_key_and_no_execution_leaf_does(overrides: list[str]) -> None:
    run = expand(overrides, multirun=False).runs[0]
    before = plan.build([run]).runs[0]
    seen = {IDENTITY: 0, EXECUTION: 0}
    for leaf in list(canonical.leaves(run)):
        unused = leaf.path.startswith("teacher.") and run.data_gen.kind == "released"
        if leaf.mark == CONTENT or leaf.path in NOT_A_VALUE or unused:
            continue
        _set(run, leaf.path, _other(leaf.value))
        after = plan.build([run]).runs[0]
        _set(run, leaf.path, leaf.value)
        assert (after != before) == (leaf.mark == IDENTITY), leaf.path
        seen[leaf.mark or ""] += 1
    assert seen[IDENTITY] >= 30
    assert seen[EXECUTION] >= 20


@pytest.mark.parametrize("key", ["data_gen.seeds", "data_gen.prompt", "eval.embedded.path"])
def test_an_input_file_counts_by_its_content_and_not_by_its_path(key: str, tmp_path: Path) -> None:
    first, copy, other = tmp_path / "first", tmp_path / "copy", tmp_path / "other"
    text = load_seed_text() if key == "data_gen.seeds" else "a"
    for path, content in ((first, text), (copy, text), (other, text + "\n\n")):
        path.write_text(content)
    found = [keys(f"{key}={path}") for path in (first, copy, other)]
    assert found[0] == found[1] != found[2]


def load_seed_text() -> str:
    return seeds.SEED_TASKS.read_text(encoding="utf-8")


def _other(value: object) -> object:
    if isinstance(value, dict):
        return {**value, "7": 1.0}
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, list):
        return [*value, "more"]
    return f"{value}x" if value is not None else 7


def _set(run: Run, path: str, value: object) -> None:
    *groups_, name = path.split(".")
    node: object = run
    for group in groups_:
        node = node[group] if isinstance(node, dict) else getattr(node, group)
    setattr(node, name, value)


def test_a_change_reaches_its_stage_and_the_stages_after_it() -> None:
    after_curate = {"curate", "train", "respond:embedded", "score:embedded"}
    assert changed("data.size=500") == after_curate
    assert changed("optimizer.lr=1e-3") == after_curate - {"curate"}
    assert changed("eval.embedded.metrics=[rouge_l]") == {"score:embedded"}
    assert changed("model.seed=1") == after_curate - {"curate"} | {"pretrain"}
    assert changed("teacher.error_rate=0.5") == {"sample"} | after_curate
    assert (
        changed(
            "cluster.parallel=7", "train.micro_batch=8", "teacher.in_flight=3", "tracker=none", "spend.max_tokens=5"
        )
        == set()
    )


def test_released_data_has_no_teacher_in_any_key() -> None:
    base = ("data_gen=released",)
    assert keys(*base) == keys(*base, "teacher.error_rate=0.5")


def test_a_local_copy_of_the_released_file_is_the_same_work(tmp_path: Path) -> None:
    copy = tmp_path / "copy.json"
    copy.write_text("[]")
    digest = canonical.file_digest(str(copy), "data_gen.path")
    assert keys("data_gen=released", f"data_gen.sha256={digest}") == keys("data_gen=released", f"data_gen.path={copy}")
    copy.write_text("[1]")
    assert keys("data_gen=released", f"data_gen.sha256={digest}") != keys("data_gen=released", f"data_gen.path={copy}")


def test_stages_of_a_grid_are_shared() -> None:
    sweep = expand(["data.size=250,1000,4000", "seed=0,1,2"], multirun=True)
    stages = [node.stage for node in plan.build(sweep.runs).nodes.values()]
    counts = {stage: stages.count(stage) for stage in dict.fromkeys(stages)}
    assert counts == {"sample": 3, "curate": 9, "pretrain": 1, "train": 9, "respond": 9, "score": 9}


def test_the_file_and_the_command_line_ask_the_same() -> None:
    by_file = expand(["sweep=data_size"], multirun=False)
    by_hand = expand(["data.size=250,1000,4000", "seed=0,1,2"], multirun=True)
    assert plan.build(by_file.runs).nodes.keys() == plan.build(by_hand.runs).nodes.keys()


def test_a_factor_of_execution_becomes_identity() -> None:
    sweep = expand(["train.micro_batch=32,64"], multirun=True)
    assert sweep.promoted == {"train.micro_batch"}
    assert len({roles["train"] for roles in plan.build(sweep.runs, sweep.promoted).runs}) == 2
    assert len({roles["train"] for roles in plan.build(sweep.runs).runs}) == 1


def test_what_no_stage_reads_cannot_be_a_factor() -> None:
    with pytest.raises(ConfigurationErrors, match=r"cluster\.parallel: no stage reads this key"):
        expand(["cluster.parallel=1,2"], multirun=True)


def test_a_factor_that_drags_others_along_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationErrors, match=r"optimizer\.lr.*train\.budget"):
        expand(["model=tiny,llama7b"], multirun=True)
    with pytest.raises(ConfigurationErrors, match=r"fsdp|train"):
        expand(["recipe=alpaca7b,alpaca13b"], multirun=True)


def test_keys_do_not_depend_on_the_process() -> None:
    code = (
        "from alpaca import plan; from alpaca.sweep import expand\n"
        "print(sorted(plan.build(expand([], multirun=False).runs).nodes))"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PATH": ""},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1


def test_planning_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; sys.argv = ['launch.py', 'dry_run=true', 'output_dir=nowhere']; import runpy\n"
        "runpy.run_path('launch.py', run_name='__main__')\n"
        "heavy = ('torch', 'transformers', 'numpy', 'openai', 'matplotlib', 'wandb')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]"), done.stdout


@pytest.mark.parametrize("value", [{1, 2}, object(), float("nan"), float("inf"), {1: 2}, b"bytes", (1, 2)])
def test_a_value_without_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(UserError, match="canonical"):
        canonical.encode({"key": value})


def test_the_encoding_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical.encode({"b": 1.0, "a": [True, None]}) == canonical.encode({"a": [True, None], "b": 1.0})


@pytest.mark.parametrize("overrides", VARIANT_COMMANDS, ids=" ".join)
def test_a_frozen_configuration_reads_back_equal(overrides: list[str]) -> None:
    graph = plan.build(expand(overrides, multirun=False).runs)
    for node in graph.nodes.values():
        plain = json.loads(json.dumps(frozen.freeze_node(node, node.parents, {})))
        assert frozen.typed(frozen.CONFIGS[node.stage], plain["config"]) == node.config


def test_a_label_that_a_model_drags_along_is_not_promoted() -> None:
    sweep = expand(["model=llama7b,opt6_7b"], multirun=True)
    assert sweep.promoted == frozenset()
    assert plan.build(sweep.runs, sweep.promoted).runs[0] == keys("model=llama7b")


def test_a_group_of_execution_alone_is_promoted() -> None:
    sweep = expand(["fsdp=none,ddp", "train.micro_batch=16"], multirun=True)
    assert {"fsdp.mode", "fsdp.world_size"} <= sweep.promoted


def test_the_order_of_a_factors_options_does_not_matter() -> None:
    for order in ("released,alpaca", "alpaca,released"):
        assert len(expand([f"data_gen={order}"], multirun=True).runs) == 2


def test_sweeps_over_execution_have_folders_of_their_own() -> None:
    names = {expand([f"train.micro_batch={values}"], multirun=True).name for values in ("32,64", "16,64")}
    assert len(names) == 2


def test_execution_and_places_do_not_rename_a_sweep() -> None:
    assert (
        expand(["sweep=data_size", "output_dir=x", "tracker=none", "cluster.parallel=1"], multirun=False).name
        == "data_size"
    )
    assert expand(["sweep=data_size", "train.global_batch=32"], multirun=False).name != "data_size"


def test_names_stay_inside_their_folder() -> None:
    graph = plan.build(expand(["model.name=../meta/llama"], multirun=False).runs)
    assert {node.slug for node in graph.nodes.values() if node.stage == "train"} == {"meta-llama"}


def test_other_weights_are_another_key(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(name.encode() * 2**23)
        found.append(canonical.file_digest(str(folder), "model.path"))
    assert found[0] != found[1]


def test_a_table_of_prices_is_found_from_the_folder_of_the_launch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prices.yaml").write_text("date: x\nsource: y\nhosts: {}\n")
    monkeypatch.chdir(tmp_path)
    graph = plan.build(expand(["spend.prices=prices.yaml"], multirun=False).runs)
    (node,) = [node for node in graph.nodes.values() if node.stage == "sample"]
    assert frozen.freeze_node(node, {}, {})["config"]["spend"]["prices"] == str(tmp_path / "prices.yaml")
