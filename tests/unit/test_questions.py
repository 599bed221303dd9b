"""The language of question files: designs, seeds, arms, and every mistake named with its key and the way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alpaca import plan
from alpaca.errors import ConfigurationErrors
from alpaca.sweep import SWEEPS, Sweep, expand, names, read_question
from alpaca.sweep.reading import KEYS
from tests.unit.question_files import asked, problems

SIZES = "factors: {data.size: [1, 2]}\n"
GRID = "factors: {data.size: [100, 200], optimizer.lr: [1e-3, 2e-3, 3e-3]}\n"


def points(sweep: Sweep) -> list[tuple[Any, ...]]:
    """The values of each combination, in order, seeds left out."""
    return list(dict.fromkeys(tuple(point.values()) for point in sweep.points))


# --- designs


def test_factors_form_a_grid(tmp_path: Path) -> None:
    found = asked(tmp_path, GRID + "seeds: [0, 1]\n")
    assert points(found) == [(size, lr) for size in (100, 200) for lr in (1e-3, 2e-3, 3e-3)]
    assert [run.seeds.init for run in found.runs[:4]] == [0, 1, 0, 1]
    assert found.baseline == {}


def test_one_at_a_time_starts_from_the_baseline_and_moves_one_factor(tmp_path: Path) -> None:
    found = asked(tmp_path, GRID + "design: one_at_a_time\nbaseline: {optimizer.lr: 2e-3}\n")
    assert points(found) == [(100, 2e-3), (200, 2e-3), (100, 1e-3), (100, 3e-3)]
    assert found.baseline == {"data.size": 100, "optimizer.lr": 2e-3}


def test_what_is_zipped_moves_together_and_crosses_the_rest(tmp_path: Path) -> None:
    text = (
        "factors: {optimizer: [adamw, muon], optimizer.lr: [1e-3, 0.015], data.size: [100, 200]}\n"
        "zip: {tuned optimizer: [optimizer, optimizer.lr]}\n"
    )
    found = asked(tmp_path, text)
    assert points(found) == [(kind, lr, size) for kind, lr in (("adamw", 1e-3), ("muon", 0.015)) for size in (100, 200)]
    assert found.bundles == {"tuned optimizer": ["optimizer", "optimizer.lr"]}
    assert any("tuned optimizer" in text and "move together" in text for text in found.dragged)


def test_excluded_combinations_are_left_out(tmp_path: Path) -> None:
    found = asked(tmp_path, GRID + "exclude: [{data.size: 200, optimizer.lr: [0.001, 3e-3]}]\n")
    assert points(found) == [(100, 1e-3), (100, 2e-3), (100, 3e-3), (200, 2e-3)]


def test_a_conditional_factor_varies_only_where_its_condition_holds(tmp_path: Path) -> None:
    text = (
        "factors: {optimizer: [adamw, muon], optimizer.momentum: [0.9, 0.95]}\n"
        "when: {optimizer.momentum: {optimizer: muon}}\n"
    )
    found = asked(tmp_path, text)
    assert found.points == [
        {"optimizer": "adamw"},
        {"optimizer": "muon", "optimizer.momentum": 0.9},
        {"optimizer": "muon", "optimizer.momentum": 0.95},
    ]


def test_without_factors_a_question_repeats_one_configuration(tmp_path: Path) -> None:
    found = asked(tmp_path, "fixed: [data.size=100]\nseeds: [0, 1, 2]\n")
    assert found.points == [{}, {}, {}]
    assert found.is_sweep


# --- seeds and arms


def test_only_the_seeds_that_are_named_vary(tmp_path: Path) -> None:
    text = "factors: {data.size: [100, 200]}\nseeds: {order: [0, 1], init: 7}\n"
    seeds = [(run.seeds.data, run.seeds.init, run.seeds.order) for run in asked(tmp_path, text).runs]
    assert seeds == [(0, 7, 0), (0, 7, 1)] * 2


def test_arms_share_no_stage_but_the_base(tmp_path: Path) -> None:
    """Every stage that a seed reaches is computed twice, under keys that differ."""
    found = asked(tmp_path, "arms: {a: [0, 1], b: {data: [2, 3], init: [4, 5], order: [6, 7]}}\n")
    arms: dict[str, set[str]] = {"a": set(), "b": set()}
    for point, roles in zip(found.points, found.plan.runs, strict=True):
        arms[point["arm"]] |= {key for role, key in roles.items() if role != "pretrain"}
    assert len(arms["a"]) == len(arms["b"]) == 2 * 5
    assert not arms["a"] & arms["b"]
    assert found.dragged == ["the arms share pretrain, which is not repeated"]
    assert len({roles["pretrain"] for roles in found.plan.runs}) == 1


def test_a_stage_that_arms_share_is_named(tmp_path: Path) -> None:
    found = asked(tmp_path, "arms: {a: [0], b: [1]}\nfixed: [data_gen.seed=0]\n")
    assert found.dragged == ["the arms share sample, pretrain, which is not repeated"]


# --- the command line


def test_the_command_line_replaces_the_values_of_a_key(tmp_path: Path) -> None:
    text = GRID + "design: one_at_a_time\nbaseline: {optimizer.lr: 2e-3}\nseeds: [0, 1]\n"
    found = asked(tmp_path, text, "optimizer.lr=2e-3,6e-3", "seed=7", multirun=True)
    assert points(found) == [(100, 2e-3), (200, 2e-3), (100, 6e-3)]
    assert {run.seed for run in found.runs} == {7}
    assert points(asked(tmp_path, text, "data.size=50")) == [(50, 2e-3), (50, 1e-3), (50, 3e-3)]


def test_a_baseline_that_the_command_line_takes_away_is_not_replaced_in_silence(tmp_path: Path) -> None:
    found = problems(tmp_path, GRID + "baseline: {optimizer.lr: 2e-3}\n", "optimizer.lr=5e-3,6e-3", multirun=True)
    assert "optimizer.lr=0.002 is not among the values" in found
    assert "give it as well" in found


def test_lists_for_a_part_of_what_moves_together_are_refused(tmp_path: Path) -> None:
    text = "factors: {optimizer: [adamw, muon], optimizer.lr: [1e-3, 0.015]}\nzip: {o: [optimizer, optimizer.lr]}\n"
    found = problems(tmp_path, text, "optimizer=muon,adamw", multirun=True)
    assert "optimizer and optimizer.lr move together, and only optimizer is given" in found
    assert "give optimizer.lr as well, in the same order" in found
    whole = asked(tmp_path, text, "optimizer=muon,adamw", "optimizer.lr=0.02,2e-3", multirun=True)
    assert points(whole) == [("muon", 0.02), ("adamw", 2e-3)]


def seeds_of(sweep: Sweep) -> list[tuple[int, int, int]]:
    return [(run.seeds.data, run.seeds.init, run.seeds.order) for run in sweep.runs]


def test_seeds_of_a_command_are_taken_together_and_never_crossed(tmp_path: Path) -> None:
    text = "factors: {data.size: [100]}\nseeds: [0, 1]\n"
    found = asked(tmp_path, text, "seeds.data=4,5,6", "seeds.init=7,8,9", "seed=0,1,2", multirun=True)
    assert seeds_of(found) == [(4, 7, 0), (5, 8, 1), (6, 9, 2)]
    assert seeds_of(asked(tmp_path, text, "seeds.data=4,5", multirun=True)) == [(4, 0, 0), (5, 1, 1)]
    assert seeds_of(asked(tmp_path, text, "seeds.data=9")) == [(9, 0, 0), (9, 1, 1)]
    wrong = problems(tmp_path, text, "seeds.data=4,5,6", multirun=True)
    assert "seeds of the question has 2 of 3 values" in wrong
    assert "as many for each, or one" in wrong
    uneven = problems(tmp_path, text, "seed=0,1,2", "seeds.init=0,1", multirun=True)
    assert "seeds.init has 2 of 3 values" in uneven


def test_a_seed_that_the_file_holds_stays_held(tmp_path: Path) -> None:
    text = "factors: {data.size: [100]}\nseeds: {data: [0, 1], order: [0, 1], init: 5}\n"
    assert seeds_of(asked(tmp_path, text)) == [(0, 5, 0), (1, 5, 1)]
    assert seeds_of(asked(tmp_path, text, "seed=3,4,8", multirun=True)) == [(3, 5, 3), (4, 5, 4), (8, 5, 8)]


TIED = "factors: {data.size: [100, 200], optimizer.lr: [1e-3, 3e-3]}\n"


@pytest.mark.parametrize(
    "text",
    [
        TIED + "exclude: [{data.size: 100, optimizer.lr: 3e-3}, {data.size: 200, optimizer.lr: 1e-3}]\n",
        "factors: {data.size: [100, 200], optimizer.lr: [3e-3]}\nwhen: {optimizer.lr: {data.size: 200}}\n",
        "factors: {optimizer: [adamw, muon], data.size: [16]}\nwhen: {data.size: {optimizer: muon}}\n",
    ],
)
def test_factors_that_never_vary_alone_are_confounded(text: str, tmp_path: Path) -> None:
    assert "never varies by itself" in problems(tmp_path, text)


def test_a_condition_that_adds_values_to_one_level_is_no_tie(tmp_path: Path) -> None:
    text = "factors: {optimizer: [adamw, muon], optimizer.lr: [1e-2, 2e-2]}\nwhen: {optimizer.lr: {optimizer: muon}}\n"
    assert [run.optimizer.kind for run in asked(tmp_path, text).runs] == ["adamw", "muon", "muon"]


def test_a_curve_over_what_moves_with_the_length_of_training_alone(tmp_path: Path) -> None:
    zipped = "factors: {data.size: [100, 200, 300], OTHER}\nzip: {both: [data.size, KEY]}\n"
    zipped += "analysis: {curve: data.size}\n"
    rates = zipped.replace("OTHER", "optimizer.lr: [1e-3, 2e-3, 3e-3]").replace("KEY", "optimizer.lr")
    assert "data.size moves together with optimizer.lr" in problems(tmp_path, rates)
    budgets = zipped.replace("OTHER", "train.budget: ['8 steps', '9 steps', '10 steps']").replace("KEY", "train.budget")
    assert asked(tmp_path, budgets).analysis.curve == "data.size"


def test_more_seeds_and_values_are_the_same_question(tmp_path: Path) -> None:
    text = "factors: {data.size: [100, 200]}\nseeds: [0, 1]\n"

    def name(*overrides: str) -> str:
        return asked(tmp_path, text, *overrides, multirun=True).name

    assert name("seed=0,1,2") == name("data.size=100,200,400") == name("data.size=200,100", "seed=1,0,5") == "mine"
    others = (("seed=0,2",), ("data.size=100",), ("seed=0,1,2", "train.budget=3 steps"), ("seeds.data=7",))
    changed = [name(*overrides) for overrides in others]
    assert all(each.startswith("mine-") for each in changed)
    assert len(set(changed)) == 4


def test_a_question_takes_lists_without_a_flag(tmp_path: Path) -> None:
    found = asked(tmp_path, "factors: {data.size: [100, 200]}\nseeds: [0]\n", "seed=0,1,2")
    assert len(found.runs) == 6
    assert found.name == "mine"


def test_a_metric_that_nobody_measures_is_told_and_an_unknown_one_refused(tmp_path: Path) -> None:
    found = problems(tmp_path, SIZES + "metric: {exact_mach: higher, rouge_l: higher}\n")
    assert "no metric 'exact_mach'" in found
    assert "exact_match" in found
    assert "more of exact_match is better" in problems(tmp_path, SIZES + "metric: {exact_match: lower}\n")
    real = ("model=llama7b", "fsdp=full_shard", "fsdp.gpu=H100-80GB")
    sweep = asked(tmp_path, SIZES + "metric: {exact_match: higher, rouge_l: higher}\n", *real)
    (told,) = [text for text in sweep.dragged if "not measured" in text]
    assert "exact_match; user_oriented_252.rouge_l decides" in told


def test_one_level_is_compared_with_nothing_and_the_plan_says_so(tmp_path: Path) -> None:
    sweep = asked(tmp_path, "factors: {data.size: [100]}\nanalysis: {contrasts: true}\n")
    assert any("one level alone" in text for text in sweep.dragged)


def test_a_single_value_goes_with_every_place_of_a_zip(tmp_path: Path) -> None:
    text = "factors: {optimizer: [adamw, muon], optimizer.lr: [1e-3, 0.015]}\nzip: {o: [optimizer, optimizer.lr]}\n"
    assert points(asked(tmp_path, text, "optimizer.lr=1e-4")) == [("adamw", 1e-4), ("muon", 1e-4)]
    assert "optimizer has 3 of" not in problems(tmp_path, text, "optimizer.lr=1,2,3", multirun=True)


def test_the_command_line_replaces_what_a_file_fixes(tmp_path: Path) -> None:
    text = "factors: {data.size: [100, 200]}\nfixed: [optimizer=adamw, optimizer.lr=1e-3]\n"
    found = asked(tmp_path, text, "optimizer=muon").runs[0].optimizer
    assert (found.kind, found.lr) == ("muon", 1e-3)


def test_arms_keep_their_seeds(tmp_path: Path) -> None:
    assert "seeds of their own" in problems(tmp_path, "arms: {a: [0], b: [1]}\n", "seed=3")


# --- the embedded form


EMBEDDED = """\
factors: {data.size: [100, 200]}
fixed: [train.budget=2 epochs]
embedded: {fixed: [train.budget=9 steps]}
"""


def test_the_embedded_form_holds_where_the_model_is_built_here(tmp_path: Path) -> None:
    assert asked(tmp_path, EMBEDDED).runs[0].train.budget == "9 steps"
    assert asked(tmp_path, EMBEDDED, "model=tiny_small").runs[0].train.budget == "9 steps"
    assert asked(tmp_path, EMBEDDED, "model=llama7b").runs[0].train.budget == "2 epochs"
    assert asked(tmp_path, EMBEDDED, "recipe=alpaca7b").runs[0].train.budget == "2 epochs"


def test_a_model_that_cannot_be_is_told_as_anywhere(tmp_path: Path) -> None:
    assert "did you mean llama7b" in problems(tmp_path, EMBEDDED, "model=llama8b")
    assert "list the values" in problems(tmp_path, EMBEDDED, "model=glob(*)", multirun=True)


def test_a_path_can_be_meant_from_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tasks.jsonl").write_text('{"instruction": "Say it."}\n')
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    text = "seeds: [0, 1]\nfixed: [data_gen=reanswer, data_gen.path=./tasks.jsonl, data.size=1]\n"
    assert asked(tmp_path, text).runs[0].data_gen.path == str(tmp_path / "tasks.jsonl")  # type: ignore[attr-defined]


# --- metrics


def test_metrics_have_directions_and_the_first_one_that_is_measured_decides(tmp_path: Path) -> None:
    text = "factors: {data.size: [100, 200]}\nmetric: {rouge_l: higher, exact_match: higher}\n"
    found = asked(tmp_path, text)
    assert found.metric == "embedded.rouge_l"
    assert found.directions == {"embedded.rouge_l": "higher", "embedded.exact_match": "higher"}
    found = asked(tmp_path, text.replace("rouge_l: higher, ", "embedded.exact_match: higher, "))
    assert found.metric == "embedded.exact_match"
    assert "exact_match" in problems(tmp_path, text.replace("rouge_l: higher, exact_match", "exact_mach"))


def test_no_recipe_is_a_choice_too(tmp_path: Path) -> None:
    assert asked(tmp_path, SIZES, "recipe=null").points == asked(tmp_path, SIZES).points
    assert "differ in more than their factors" in problems(tmp_path, "factors: {recipe: [null, alpaca7b]}\n")


# --- mistakes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("factor: {data.size: [1]}", ["mine.yaml: factor: no such key", "did you mean factors"]),
        ("factors: [data.size]", ["factors: ['data.size'] is no map"]),
        ("factors: {data.size: 100}", ["factors.data.size", "is no list of values", "[100, ...]"]),
        (SIZES + "question: [a]", ["question", "is no text"]),
        ("factors: {data.siez: [1, 2]}", ["data.siez=1", "did you mean data.size"]),
        (SIZES + "design: gird", ["design: 'gird'", "did you mean grid"]),
        (SIZES + "baseline: {data.size: 3}", ["baseline: data.size", "one of data.size=1; data.size=2"]),
        (SIZES + "baseline: {data.siez: 3}", ["baseline: data.siez", "no factor", "data.size"]),
        (SIZES + "fixed: [data.size=3]", ["factors.data.size", "both a factor and fixed"]),
        (SIZES + "fixed: data.size", ["fixed: 'data.size' is no list"]),
        (SIZES + "fixed: [data.size]", ["fixed: 'data.size' is no override", "KEY=VALUE"]),
        (SIZES + "exclude: [{data.size: 7}]", ["exclude", "{data.size: [7]} leaves nothing out"]),
        (SIZES + "exclude: [{data.size: 1}]", ["factors: data.size", "data.size=1 is at no point"]),
        (SIZES + "exclude: [{data.size: [1, 2]}]", ["leaves out every combination"]),
        (SIZES + "exclude: [7]", ["exclude: 7 is no condition"]),
        (SIZES + "when: {data.size: {optimizer: sgd}}", ["when: optimizer", "is no factor"]),
        (SIZES + "seeds: 3", ["seeds: 3 is no list of seeds"]),
        (SIZES + "seeds: [0, x]", ["seeds: 'x' is no seed", "whole numbers"]),
        (SIZES + "seeds: [0, 0]", ["a seed given more than once"]),
        (SIZES + "seeds: {dat: [0, 1]}", ["seeds.dat: no such seed", "did you mean data"]),
        (SIZES + "seeds: {data: [0, 1], order: [0]}", ["data has 2, order has 1", "one length"]),
        ("arms: {a: [0, 1], b: [1, 2]}", ["arms.b: the data seed 1 is one of arm a too"]),
        ("arms: {a: [0], b: {data: [1]}}", ["arms.b: the init seed 0", "arms.b: the order seed 0"]),
        ("arms: {a: [0]}", ["one arm has nothing to be compared with"]),
        ("arms: {a: [0], b: [1]}\nfactors: {data.size: [1, 2]}", ["arms differ in their seeds alone"]),
        ("seeds: [0]", ["names no factor"]),
        (SIZES + "controls: [stpes]", ["controls: 'stpes'", "did you mean steps"]),
        (SIZES + "controls: [{nested: yes}]", ["controls: 'nested'", "nested_data"]),
        (SIZES + "controls: [steps, epochs]", ["steps and epochs cannot both be held equal"]),
        (SIZES + "metric: {exact_match: up}", ["metric.exact_match: 'up'", "higher, lower"]),
        (SIZES + "analysis: {curv: data.size}", ["analysis.curv", "did you mean curve"]),
        (SIZES + "analysis: {fit: lin}", ["analysis.fit: 'lin'", "none, power"]),
        (SIZES + "analysis: {curve: optimizer.lr}", ["analysis.curve: optimizer.lr", "no factor"]),
        ("factors: {optimizer: [adamw, sgd]}\nanalysis: {curve: optimizer}", ["values that are no numbers"]),
        (SIZES + "analysis: {contrasts: 3}", ["analysis.contrasts: 3"]),
        (GRID + "design: one_at_a_time\nanalysis: {interaction: [data.size, optimizer.lr]}", ["shows no interaction"]),
        (GRID + "analysis: {interaction: [data.size]}", ["does not name two factors"]),
        (SIZES + "spend: {max_usd: ten}", ["spend.max_usd: 'ten' is no amount"]),
        (SIZES + "spend: {max_usd: .nan}", ["spend.max_usd: nan is no amount", "null for no limit"]),
        (SIZES + "spend: {max_usd: .inf}", ["spend.max_usd: inf is no amount"]),
        (SIZES + "spend: {max_tokens: 1.5}", ["spend.max_tokens: 1.5 is no amount", "whole number"]),
        (SIZES + "seeds: {data: [0, 1, 0], init: [0, 1, 0]}", ["seeds: a seed given more than once"]),
        ("arms: {a: [0, 0], b: [1, 2]}", ["arms.a: a seed given more than once"]),
        (SIZES + "seeds: [4294967296]", ["seeds: 4294967296 is no seed", "4,294,967,295"]),
        ("factors: {'data size': [1, 2]}", ["factors: data size: is no key"]),
        ("factors: {5: [1, 2]}", ["factors: 5: is no key"]),
        ("factors: {'data.size=3': [1, 2]}", ["is no key"]),
        (SIZES + "baseline: {data.size: {a: 1}}", ["baseline.data.size", "is a map"]),
        (SIZES + "exclude: [{data.size: {a: 1}}]", ["is no condition"]),
        ("factors: {data.size: [1, [2, {a: b}]]}", ["has a map as a value"]),
        (SIZES + "fixed: [seed=4]", ["fixed: seed=4 holds a seed", "list seeds under"]),
        (SIZES + "fixed: ['optimizer.lr=1e-3,3e-3']", ["has several values", "one value, or a factor"]),
        (GRID + "analysis: {interaction: [data.size, data.size]}", ["cannot depend on itself"]),
        (SIZES + "spend: {max_eur: 1}", ["spend.max_eur: no such key", "max_usd"]),
        (SIZES + "embedded: {fixd: []}", ["embedded.fixd: no such key", "fixed"]),
        (SIZES + "embedded: {design: gird}", ["embedded.design: 'gird'"]),
        (GRID + "zip: {both: [data.size, optimizer.lr]}", ["zip.both: data.size has 2, optimizer.lr has 3 values"]),
        (GRID + "zip: {both: [data.size]}", ["zip.both", "does not name several factors"]),
        (GRID + "zip: {both: [data.size, optimizer.l]}", ["zip: optimizer.l: is no factor", "optimizer.lr"]),
    ],
)  # fmt: skip
def test_each_mistake_in_a_question_names_its_key_and_the_way_out(text: str, words: list[str], tmp_path: Path) -> None:
    found = problems(tmp_path, f"{text}\n")
    for word in words:
        assert word in found


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    text = "factors: {data.size: 100}\nseeds: [x]\ndesing: grid\ncontrols: [stpes]\nspend: {max_eur: 1}\n"
    assert problems(tmp_path, text).startswith("5 problems")


def test_a_file_without_keys_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("- 3\n")
    with pytest.raises(ConfigurationErrors, match=r"mine\.yaml: holds no keys"):
        expand(["sweep=mine"], multirun=False, folder=tmp_path)


def test_a_file_without_a_question_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(SIZES + "")
    with pytest.raises(ConfigurationErrors, match=r"mine\.yaml: question: is missing"):
        expand(["sweep=mine"], multirun=False, folder=tmp_path)


# --- what is shipped


SHIPPED = {
    "data_size": 9, "scale": 9, "base_model": 9, "data_properties": 21, "teacher": 12, "selection": 12,
    "optimizer": 12, "precision": 12, "alpaca52k": 3, "aa_control": 8,
}  # fmt: skip
"""Question -> points."""


def test_every_shipped_question_is_in_the_list() -> None:
    assert len(names()) == 10
    assert set(names()) == set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_question_plans_in_the_embedded_world(name: str) -> None:
    general, embedded, wrong = read_question(SWEEPS / f"{name}.yaml")
    assert wrong == []
    found = expand([f"sweep={name}", *(["model=tiny"] if name == "alpaca52k" else [])], multirun=False)
    assert len(found.runs) == SHIPPED[name]
    assert {run.model.kind for run in found.runs} == {"tiny"}
    assert found.metric == "embedded.exact_match"
    assert all("(checked)" in text for text in found.controls[:2])
    assert general.question == embedded.question == found.question
    assert plan.build(found.runs, found.promoted).nodes.keys() == found.plan.nodes.keys()


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_question_plans_with_real_models(name: str) -> None:
    several = name in ("scale", "base_model")
    chosen = "model=llama7b,opt6_7b" if several else "model=llama7b"
    found = expand([f"sweep={name}", chosen, "fsdp=full_shard", "cluster=slurm"], multirun=several)
    assert {run.model.kind for run in found.runs} == {"hub"}
    assert found.metric == "user_oriented_252.rouge_l"


def test_alpaca52k_is_the_published_recipe_and_its_rehearsal_has_the_same_form() -> None:
    whole = expand(["sweep=alpaca52k", "fsdp=full_shard"], multirun=False).runs[0]
    small = expand(["sweep=alpaca52k", "model=tiny"], multirun=False).runs[0]
    assert (whole.model.name, whole.data.size, whole.optimizer.lr) == ("llama7b", None, 2e-5)
    for run in (whole, small):
        assert (run.train.budget, run.train.global_batch, run.data.filters) == ("3 epochs", 128, [])
        assert (run.optimizer.kind, run.optimizer.schedule, run.optimizer.warmup_ratio) == ("adamw", "cosine", 0.03)


def test_every_key_of_a_question_is_described_for_those_who_write_one() -> None:
    text = (SWEEPS.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert [key for key in KEYS if f"`{key}`" not in text and f"{key}:" not in text] == []
