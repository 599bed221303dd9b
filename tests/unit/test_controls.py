"""Controlled means checked: what confounds is refused by name, what is dragged along is told."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from alpaca import canonical, frozen
from alpaca.config import Analysis, ReportConfig, Run
from alpaca.dispatch import bill, briefing, launch, prepare, tracked
from alpaca.errors import ConfigurationErrors
from alpaca.statistics import Design, detectable_effect
from alpaca.sweep import Sweep, expand
from alpaca.sweep.amounts import amounts
from alpaca.sweep.question import Limit
from tests.unit.question_files import asked, problems

SIZES = "factors: {data.size: [250, 1000]}\n"


def refused(*overrides: str) -> str:
    with pytest.raises(ConfigurationErrors) as caught:
        expand(list(overrides), multirun=True)
    return str(caught.value)


# --- confounded


def test_a_rate_that_moves_with_the_size_must_be_declared(tmp_path: Path) -> None:
    tied = "factors: {data.size: [250, 1000], optimizer.lr: [1e-3, 2e-3]}\n"
    text = problems(tmp_path, f"{tied}zip: [[data.size, optimizer.lr]]\n")
    assert "data.size, optimizer.lr: what moves together cannot be told apart" in text
    assert "zip: {NAME: [data.size, optimizer.lr]}" in text
    assert "optimizer.lr: is no factor" in problems(tmp_path, f"{SIZES}zip: {{both: [data.size, optimizer.lr]}}\n")


def test_a_rate_tied_to_a_factor_by_interpolation_is_refused_by_name(tmp_path: Path) -> None:
    text = problems(tmp_path, "factors: {model.muon_lr: [0.01, 0.02]}\nfixed: ['optimizer.lr=${model.muon_lr}']\n")
    assert "differ in more than their factors and seeds: optimizer.lr" in text


def test_other_evaluation_items_are_refused_by_name(tmp_path: Path) -> None:
    text = problems(tmp_path, f"{SIZES}fixed: ['eval.embedded.size=${{data.size}}']\n")
    assert "different evaluation items: eval.embedded.size" in text


def test_items_that_are_a_factor_are_told_and_not_declared_equal(tmp_path: Path) -> None:
    items = "factors: {eval.embedded.size: [50, 100]}\n"
    assert any("eval.embedded.size" in text and "same items" in text for text in asked(tmp_path, items).dragged)
    text = problems(tmp_path, f"{items}controls: [evaluation_items]\n")
    assert "controls: evaluation_items: declared equal, but a factor changes eval.embedded.size" in text


def test_a_stray_override_of_some_points_is_refused_by_name(tmp_path: Path) -> None:
    text = problems(tmp_path, f"{SIZES}fixed: ['train.global_batch=${{data.size}}']\n")
    assert "differ in more than their factors and seeds: train.global_batch" in text


# --- factors without an effect


def test_a_factor_that_no_stage_reads_is_refused_by_name() -> None:
    text = refused("data_gen=released", "teacher.error_rate=0,0.2")
    assert "teacher.error_rate: no stage reads this key" in text
    assert "data_gen=released asks no teacher" in text


def test_a_factor_behind_the_last_stage_is_refused_by_name() -> None:
    text = refused("until=curate", "optimizer.lr=1e-3,2e-3")
    assert "optimizer.lr: changes no stage" in text
    assert "until=curate" in text


def test_a_factor_hidden_in_a_zip_is_found(tmp_path: Path) -> None:
    text = (
        "factors: {data.size: [100, 200], teacher.error_rate: [0.0, 0.2]}\nfixed: [data_gen=released]\n"
        "zip: {both: [data.size, teacher.error_rate]}\n"
    )
    assert "teacher.error_rate: no stage reads this key" in problems(tmp_path, text)


def test_points_that_are_the_same_work_are_refused_by_name() -> None:
    text = refused("data_gen=alpaca,released", "teacher.error_rate=0,0.2")
    assert "one and the same work: data_gen=released, teacher.error_rate=0; data_gen=released" in text
    assert "`when`" in text


def test_a_condition_is_the_way_out(tmp_path: Path) -> None:
    text = (
        "factors: {data_gen: [alpaca, released], teacher.error_rate: [0.0, 0.2]}\n"
        "when: {teacher.error_rate: {data_gen: alpaca}}\n"
    )
    assert len(asked(tmp_path, text).points) == 3


# --- the length of training


def test_epochs_declared_over_a_budget_in_steps_are_refused_naming_both(tmp_path: Path) -> None:
    text = problems(tmp_path, f"{SIZES}controls: [epochs]\n")
    assert "controls: epochs: declared equal, but train.budget=400 steps holds steps equal" in text


@pytest.mark.parametrize(
    ("control", "budget", "factors", "words"),
    [
        ("steps", "3 epochs", SIZES, "train.budget=3 epochs holds epochs equal"),
        ("steps", "9 steps", "factors: {train.budget: [9 steps, 18 steps]}\n", "the points differ: 9, 18"),
        ("compute", "9 steps", "factors: {model: [tiny_small, tiny]}\n", "the points differ"),
        ("compute", "3 epochs", "factors: {optimizer.lr: [1.0, 2.0]}\nfixed: [data.size=null]\n", "cannot be checked"),
        ("budget", "9 steps", SIZES, "gives other epochs"),
        ("budget", "9 steps", "factors: {train.budget: [9 steps, 18 steps]}\n", "train.budget=9 steps, 18 steps"),
    ],
)
def test_a_length_that_is_not_held_equal_is_refused(
    control: str, budget: str, factors: str, words: str, tmp_path: Path
) -> None:
    given = [] if "train.budget" in factors else [f"train.budget={budget}"]
    assert words in problems(tmp_path, f"{factors}controls: [{control}]\n", *given)


def test_compute_can_be_held_equal_by_a_budget_for_each_model(tmp_path: Path) -> None:
    flop = {name: amounts(run(f"model={name}")).compute or 0.0 for name in ("tiny_small", "tiny")}
    steps = round(400 * flop["tiny"] / flop["tiny_small"])
    text = (
        f"factors: {{model: [tiny_small, tiny], train.budget: [{steps} steps, 400 steps]}}\n"
        "zip: {size at equal compute: [model, train.budget]}\ncontrols: [compute]\n"
    )
    assert "compute (checked)" in asked(tmp_path, text).controls[0]


def run(*overrides: str) -> Run:
    return expand(list(overrides), multirun=False).runs[0]


def test_amounts_follow_from_the_budget() -> None:
    steps = amounts(run("train.budget=100 steps", "data.size=640"))
    assert (steps.steps, steps.epochs) == (100, 10)
    epochs = amounts(run("train.budget=3 epochs", "data.size=640"))
    assert (epochs.steps, epochs.epochs) == (30, 3)
    held_out = amounts(run("train.budget=3 epochs", "data.size=640", "train.holdout=320"))
    assert held_out.steps == 15
    tokens = amounts(run("train.budget=14000 tokens", "data.size=1000"))
    assert tokens.tokens == 14000
    assert tokens.epochs == pytest.approx(1.0, rel=0.03)
    whole = amounts(run("model=llama7b", "fsdp=full_shard"))
    assert whole.steps == 1219  # 3 x 52,002 / 128, rounded up
    assert amounts(run("data.size=null", "train.budget=3 epochs")).steps is None


def test_what_the_size_drags_along_is_told_and_stands_in_the_notes(tmp_path: Path) -> None:
    found = asked(tmp_path, f"{SIZES}controls: [steps]\nseeds: [0, 1]\n")
    (text,) = found.dragged
    assert text == "data.size changes the epochs of training at equal steps: 102 at 250, 25.6 at 1000"
    assert text in launch.notes(found)
    found = asked(tmp_path, f"{SIZES}controls: [epochs]\n", "train.budget=3 epochs")
    assert [text.partition(":")[0] for text in found.dragged] == [
        f"data.size changes the {name} of training at equal epochs" for name in ("steps", "tokens", "FLOP")
    ]


def test_other_examples_may_have_another_length(tmp_path: Path) -> None:
    (text,) = asked(tmp_path, "factors: {data.selection: [random, longest]}\n").dragged
    assert text.startswith("other examples may be longer or shorter (data.selection)")


def test_what_a_group_brings_along_is_told(tmp_path: Path) -> None:
    (text,) = asked(tmp_path, "factors: {precision: [fp32, bf16]}\n").dragged
    assert text == "precision brings along precision.compute"


def test_controls_of_stages_that_are_not_reached_are_left_out(tmp_path: Path) -> None:
    text = f"{SIZES}controls: [steps, nested_data, evaluation_items, 'in words']\nmetric: {{exact_match: higher}}\n"
    found = asked(tmp_path, text, "until=curate")
    assert [item.partition(" (")[0] for item in found.controls] == ["nested data", "in words"]
    assert (found.metric, found.directions) == ("", {})  # nothing is measured, and the page would look for it


# --- nested data


def test_sets_that_are_chosen_otherwise_at_each_size_are_not_nested(tmp_path: Path) -> None:
    tied = (
        "factors: {data.size: [250, 1000], data.selection: [longest, random]}\n"
        "zip: {set: [data.size, data.selection]}\ncontrols: [nested_data]\n"
    )
    assert "sets of different sizes differ in data.selection too" in problems(tmp_path, tied)


def test_sets_from_other_pools_are_not_nested(tmp_path: Path) -> None:
    tied = (
        "factors: {data.size: [250, 1000], data_gen.num_examples: [1000, 4000]}\n"
        "zip: {set: [data.size, data_gen.num_examples]}\ncontrols: [nested_data]\n"
    )
    assert "sets of different sizes differ in data_gen.num_examples too" in problems(tmp_path, tied)


def test_exchanged_outputs_are_not_nested(tmp_path: Path) -> None:
    text = f"{SIZES}controls: [nested_data]\nfixed: [data.shuffled_outputs=0.2]\n"
    assert "others at another size" in problems(tmp_path, text)


def test_nested_sets_in_a_grid_pass(tmp_path: Path) -> None:
    text = "factors: {data.size: [250, 1000], data.selection: [longest, random]}\ncontrols: [nested_data]\n"
    assert len(asked(tmp_path, text).runs) == 4


# --- the plan


def shown(sweep: Sweep, output: Path) -> str:
    session = prepare.open_session(sweep.plan, sweep.runs[0], sweep.name)
    out = io.StringIO()
    Console(file=out, width=200).print(briefing.table(sweep, session))
    return out.getvalue()


def test_the_plan_tells_all_of_it(tmp_path: Path) -> None:
    text = (
        "hypothesis: More is better.\nfactors: {data.size: [250, 1000], data.label_noise: [0.0, 0.3]}\n"
        "design: one_at_a_time\nseeds: [3, 4]\ncontrols: [steps, 'said in words']\n"
        "metric: {rouge_l: higher}\nanalysis: {curve: data.size, contrasts: true}\nspend: {max_usd: 5}\n"
    )
    told = shown(asked(tmp_path, text, f"output_dir={tmp_path}"), tmp_path)
    rows = [" ".join(row.split()) for row in told.splitlines()]
    for row in (
        "question q",
        "hypothesis More is better.",
        "factors data.size, data.label_noise",
        "baseline data.size=250, data.label_noise=0.0",
        "points data.size=1000",
        "data.label_noise=0.3",
        "seeds 3, 4",
        "held equal steps (checked): the same number of optimizer steps at every point (400 steps)",
        "said in words",
        "measured by embedded.rouge_l (higher is better)",
        "analysis data.size as a curve, fit: power; each value against the baseline",
        "limit $5.00 for all stages together",
    ):
        assert row in rows
    assert any(row.startswith("dragged along data.size changes the epochs") for row in rows)


def test_equal_budgets_of_data_sets_of_unknown_size_cannot_be_checked(tmp_path: Path) -> None:
    epochs = "factors: {data.size: [1000, null]}\nfixed: [train.budget=3 epochs]\ncontrols: [budget]\n"
    assert "how many examples there are hangs on data.size" in problems(tmp_path, epochs)
    rates = epochs.replace("data.size: [1000, null]", "optimizer.lr: [1e-3, 2e-3]")
    # The same data at every point, however large.
    assert asked(tmp_path, rates.replace("[train", "[data.size=null, train")).controls


def test_equal_compute_of_chosen_examples_cannot_be_checked(tmp_path: Path) -> None:
    text = "factors: {data.selection: [shortest, longest]}\nfixed: [data.size=200]\ncontrols: [compute]\n"
    assert "examples chosen by data.selection may be longer or shorter" in problems(tmp_path, text)


@pytest.mark.parametrize(
    "factors", ["optimizer.lr: [1e-3, 2e-3]", "data_gen.num_examples: [1200, 1500]", "data: [curated, as_released]"]
)
def test_nested_data_needs_sizes_that_differ_and_nothing_else(factors: str, tmp_path: Path) -> None:
    found = problems(tmp_path, f"factors: {{{factors}}}\ncontrols: [nested_data]\n")
    assert "controls: nested_data" in found
    assert "declared, but" in found


def test_the_plan_tells_the_smallest_effect_it_can_detect(tmp_path: Path) -> None:
    text = "factors: {data.size: [250, 1000, 4000]}\nseeds: [0, 1, 2]\ncontrols: [steps]\n"
    told = shown(asked(tmp_path, text, f"output_dir={tmp_path}"), tmp_path)
    design = Design(
        items=400, seeds=3, comparisons=2, seed_sd=0.02, item_sd=0.5, same_arm=0.35, across_arms=0.25
    )
    assert f"{100 * detectable_effect(design):.1f} points with 80 % power: 400 items, 3 seeds, 2 comparisons" in told
    assert f"{100 * detectable_effect(replace(design, seeds=5)):.1f} with 5 seeds" in told
    alone = shown(asked(tmp_path, text.replace("[0, 1, 2]", "[7]"), f"output_dir={tmp_path}"), tmp_path)
    assert "these very runs" in alone
    assert "detectable" not in shown(asked(tmp_path, text, "until=train", f"output_dir={tmp_path}"), tmp_path)


def test_a_graded_metric_over_a_published_set_has_a_guess_of_its_own(tmp_path: Path) -> None:
    text = "factors: {data.size: [250, 1000, 4000]}\nseeds: [0, 1, 2]\nmetric: {rouge_l: higher}\n"
    told = shown(asked(tmp_path, text, "model=llama7b", f"output_dir={tmp_path}"), tmp_path)
    design = Design(items=252, seeds=3, comparisons=2, seed_sd=0.008, item_sd=0.2, same_arm=0.35, across_arms=0.25)
    assert f"{100 * detectable_effect(design):.1f} points with 80 % power: 252 items, 3 seeds, 2 comparisons" in told
    assert f"{100 * detectable_effect(replace(design, seeds=5)):.1f} with 5 seeds)" in told  # the set has no more items
    some = asked(tmp_path, text, "model=llama7b", "eval.user_oriented_252.size=200", f"output_dir={tmp_path}")
    assert "with 252 items" in shown(some, tmp_path)


def test_of_one_arm_the_interval_of_its_mean_is_told(tmp_path: Path) -> None:
    def told(seeds: str) -> str:
        text = f"fixed: [model=llama7b]\nseeds: {seeds}\nmetric: {{rouge_l: higher}}\n"
        return shown(asked(tmp_path, text, f"output_dir={tmp_path}"), tmp_path)

    three, two = told("[0, 1, 2]"), told("[0, 1]")
    # t(2) = 4.303; a run's mean varies by 0.008 over seeds and by 0.2^2 x 0.65 / 252 over answers.
    half = 4.303 * ((0.008**2 + 0.2**2 * 0.65 / 252) / 3) ** 0.5
    assert "expected interval" in three
    assert f"+/- {100 * half:.1f} points (95 %) around the mean: 252 items, 3 seeds (a guess" in three
    assert "detectable" not in three
    half = 1.96 * 0.2 * ((0.35 + 0.65 / 2) / 252) ** 0.5
    assert f"+/- {100 * half:.1f} points (95 %) around the mean: 252 items, 2 seeds, over items alone" in two


def test_what_a_page_measured_stands_beside_the_guess(tmp_path: Path) -> None:
    text = "factors: {data.size: [250, 1000]}\nseeds: [0, 1, 2]\ncontrols: [steps]\n"
    page = tmp_path / "sweeps" / "mine" / "results.json"
    page.parent.mkdir(parents=True)
    rows = [{"detectable": 0.05, "runs": {"from": 3, "to": 3}}, {"detectable": 0.07, "runs": {"from": 3, "to": 2}}]
    found = {"effects": {"metrics": {"embedded.exact_match": {"items": 400, "levels": rows}}}}
    page.write_text(json.dumps(found))
    told = shown(asked(tmp_path, text, f"output_dir={tmp_path}"), tmp_path)
    assert "5.0 to 7.0 points as the present page measured it: 400 items, 2 runs of a level" in told
    for damaged in ("{", "[]", '{"effects": {"metrics": {}}}'):
        page.write_text(damaged)
        assert "80 % power" in shown(asked(tmp_path, text, f"output_dir={tmp_path}"), tmp_path)


def test_the_bill_counts_what_is_left_to_do(tmp_path: Path) -> None:
    words = ["model=llama7b", "fsdp=full_shard", "fsdp.gpu=H100-80GB", f"output_dir={tmp_path}"]
    found = expand(tuple(words), multirun=False)
    session = prepare.open_session(found.plan, found.runs[0], found.name)
    first = bill.bill(session)
    (hours,) = first.gpu_hours.values()
    assert first.gpu_hours.keys() == {"H100-80GB"}
    assert first.usd == pytest.approx(hours * first.prices.usd_per_hour["H100-80GB"])
    assert any("$500" in line for line in first.told())
    assert not list(first.beyond(Limit(max_usd=first.usd + 0.01, max_tokens=0)))
    assert "is above the limit" in str(*first.beyond(Limit(max_usd=first.usd / 2)))
    folders = {session.plan.nodes[key].stage: folder for key, folder in session.folders.items()}
    for stage, left in (("train", ["answers", "together"]), ("respond", [])):
        folders[stage].mkdir(parents=True)
        (folders[stage] / "_SUCCESS").write_text("{}")
        assert [line.split()[0].strip(":") for line in bill.bill(session).told()] == left


def test_a_gpu_without_a_price_has_none_made_up(tmp_path: Path) -> None:
    words = ["model=llama7b", "fsdp=full_shard", "fsdp.gpu=V100-32GB", "precision=fp16", f"output_dir={tmp_path}"]
    found = expand(tuple(words), multirun=False)
    session = prepare.open_session(found.plan, found.runs[0], found.name)
    due = bill.bill(session)
    assert due.usd == 0
    assert any("price unknown" in line for line in due.told())
    assert "V100-32GB" in str(*due.beyond(Limit(max_usd=1000.0)))


def test_a_training_of_unknown_length_is_not_within_a_limit_of_money(tmp_path: Path) -> None:
    words = ["model=llama7b", "fsdp=full_shard", "fsdp.gpu=H100-80GB", f"output_dir={tmp_path}"]
    words += ["data_gen.hub=owner/name", "data_gen.revision=" + "0" * 40]
    found = expand(tuple(words), multirun=False)
    session = prepare.open_session(found.plan, found.runs[0], found.name)
    due = bill.bill(session)
    assert due.untimed
    assert "train/" in str(*due.beyond(Limit(max_usd=1000.0)))


def test_without_a_limit_nothing_is_forecast_before_a_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = expand((f"output_dir={tmp_path}",), multirun=False)
    session = prepare.open_session(found.plan, found.runs[0], found.name)
    monkeypatch.setattr(bill, "bill", lambda session: pytest.fail("forecast"))
    assert list(bill.over_limit(session, found.spend)) == []


def bill_of(output: Path, *overrides: str) -> bill.Bill:
    found = expand((*overrides, f"output_dir={output}"), multirun=False)
    return bill.bill(prepare.open_session(found.plan, found.runs[0], found.name))


HUB = ["data_gen=released", "data_gen.hub=owner/name", "data_gen.revision=" + "0" * 40, "data.selection=judge_score"]
PAID = ["teacher=openai", "teacher.model=gpt-6-luna", "until=curate"]


def test_an_unknown_number_of_requests_is_within_no_limit(tmp_path: Path) -> None:
    found = bill_of(tmp_path, *HUB, *PAID)
    assert any(line.startswith("teachers: the number of requests is not known of rate/") for line in found.told())
    money, tokens = map(str, found.beyond(Limit(max_usd=1000.0, max_tokens=10**9)))
    for text, key in ((money, "spend.max_usd"), (tokens, "spend.max_tokens")):
        assert f"{key} of the question: the number of requests is not known of rate/" in text
        assert f"until=sample); or no {key} in the question file" in text


def test_a_teacher_that_is_free_is_within_any_limit_of_money(tmp_path: Path) -> None:
    found = bill_of(tmp_path, *HUB, "teacher=programmatic", "until=curate")
    assert list(found.beyond(Limit(max_usd=0.01))) == []
    assert "max_tokens" in str(*found.beyond(Limit(max_tokens=10)))


def test_instructions_in_another_form_are_within_no_limit_that_they_break(tmp_path: Path) -> None:
    turns = {"messages": [{"role": "user", "content": "Do"}, {"role": "assistant", "content": "Done"}]}
    (tmp_path / "chats.json").write_text(json.dumps([turns] * 50_000))
    found = bill_of(tmp_path, "data_gen=reanswer", f"data_gen.path={tmp_path / 'chats.json'}", *PAID)
    money, tokens = map(str, found.beyond(Limit(max_usd=0.01, max_tokens=1000)))
    assert "a guess of $5.60 is above the limit of $0.01" in money  # 50,000 x (120 x $0.10 + 200 x $0.50) / 1e6
    assert "a guess of 16 M tokens is above the limit of 1,000" in tokens


def test_an_unknown_price_has_a_way_out(tmp_path: Path) -> None:
    words = ["teacher=openai", "teacher.model=m", "teacher.base_url=http://127.0.0.1:9/v1", "until=curate"]
    (problem,) = bill_of(tmp_path, *words).beyond(Limit(max_usd=1.0))
    assert "the price is not known of sample/" in str(problem)
    assert "spend.prices=FILE" in str(problem)


LLAMA = ["model=llama7b", "fsdp=full_shard", "fsdp.gpu=H100-80GB"]


def test_answers_on_gpus_are_in_the_bill(tmp_path: Path) -> None:
    with_answers, without = bill_of(tmp_path, *LLAMA), bill_of(tmp_path, *LLAMA, "until=train")
    # 4 batches x 128 tokens, each of 6.6e9 weights of 4 bytes at half of 3,350 GB/s; 8 s to start, 13.5 to load.
    answering = (4 * 128 * 6.607e9 * 4 / 1.675e12 + 8 + 13.476) / 3600
    hours = (found.gpu_hours["H100-80GB"] for found in (with_answers, without))
    assert next(hours) - next(hours) == pytest.approx(answering, rel=0.01)
    assert with_answers.told()[0].startswith("training and answers: about ")
    assert without.told()[0].startswith("training: about ")


def test_answers_to_nobody_knows_how_many_items_are_within_no_limit_of_money(tmp_path: Path) -> None:
    found = bill_of(tmp_path, *LLAMA, "eval.user_oriented_252.items=null")
    (problem,) = found.beyond(Limit(max_usd=1000.0))
    assert "the time is not known of respond/" in str(problem)
    assert any(line.startswith("GPUs: the time is not known of respond/") for line in found.told())
    assert "without what is not known" in found.told()[-1]
    assert list(found.beyond(Limit(max_tokens=1))) == []


def test_answers_on_a_processor_want_no_money(tmp_path: Path) -> None:
    assert list(bill_of(tmp_path).beyond(Limit(max_usd=0.01))) == []


def test_seeds_of_arms_stand_apart(tmp_path: Path) -> None:
    told = shown(asked(tmp_path, "arms: {a: [0, 1], b: {data: [2], init: [3], order: [4]}}\n"), tmp_path)
    assert "a: 0, 1" in told
    assert "b: data 2/init 3/order 4" in told


def test_stages_are_counted_by_their_state(tmp_path: Path) -> None:
    found = asked(tmp_path, f"{SIZES}", f"output_dir={tmp_path}")
    session = prepare.open_session(found.plan, found.runs[0], found.name)
    assert briefing.counted(briefing.states(session)) == "10 stages: 0 cached, 10 to run"
    key = next(iter(session.folders))
    session.folders[key].mkdir(parents=True)
    (session.folders[key] / "claim-1").write_text("{}")
    assert briefing.states(session)[key] == prepare.PARTIAL
    assert briefing.counted({"a": "cached", "b": "queued"}) == "2 stages: 1 cached, 1 queued, 0 to run"


@pytest.mark.parametrize(
    ("spend", "extra", "words"),
    [
        ("{max_tokens: 1000}", [], "976 k tokens is above the limit of 1,000"),
        ("{max_usd: 0.1}", ["teacher=openai", "teacher.model=gpt-6-luna"], "is above the limit of $0.10"),
        ("{max_usd: 1}", ["teacher=openai", "teacher.model=m", "teacher.base_url=http://127.0.0.1:9/v1"], "not known"),
    ],
)
def test_a_plan_over_its_limit_is_refused_before_anything_starts(
    spend: str, extra: list[str], words: str, tmp_path: Path
) -> None:
    found = asked(tmp_path, f"{SIZES}spend: {spend}\n", *extra, f"output_dir={tmp_path / 'out'}", "tracker=none")
    with pytest.raises(ConfigurationErrors, match="of the question") as caught:
        launch.launch(found, ["sweep=mine"])
    assert words in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_page_gets_what_the_question_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "recorded", lambda session: {})
    text = (
        "hypothesis: h\nfactors: {data.size: [250, 1000]}\nbaseline: {data.size: 1000}\ncontrols: [steps]\n"
        "metric: {exact_match: higher}\nanalysis: {curve: data.size}\n"
    )
    found = asked(tmp_path, text, f"output_dir={tmp_path}")
    session = prepare.open_session(found.plan, found.runs[0], found.name)
    session.points = tracked.points(session, found)
    config = launch.page_record(found, session, ["sweep=mine"])["config"]
    assert config["hypothesis"] == "h"
    assert config["baseline"] == {"data.size": 1000}
    assert config["directions"] == {"embedded.exact_match": "higher"}
    assert config["analysis"]["curve"] == "data.size"
    assert config["controls"][0].startswith("steps (checked): ")
    assert any("changes the epochs" in note for note in config["notes"])
    assert canonical.encode(config)
    assert frozen.typed(ReportConfig, config).analysis == Analysis(curve="data.size")


def test_a_page_from_before_these_fields_still_loads() -> None:
    old = {"title": "t", "question": "q", "factors": ["data.size"], "points": []}
    assert frozen.typed(ReportConfig, old) == ReportConfig(title="t", question="q", factors=["data.size"])
