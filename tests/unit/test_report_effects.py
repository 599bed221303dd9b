"""What a page says of effects: baseline, bundles, arms, directions and interactions, on made-up folders."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import scipy

from alpaca.config import Analysis, ReportConfig
from alpaca.records import read_jsonl, write_jsonl
from alpaca.report import wording
from alpaca.report.naming import told_apart
from alpaca.statistics import compare
from tests.unit.report_folders import World, arms_sweep, data_size_sweep, interaction_sweep, properties_sweep
from tests.unit.test_report import Page, results_of

MAIN = "embedded.exact_match"


def effects_of(results, metric=MAIN):
    return results["effects"]["metrics"][metric]["levels"]


def scores_of(world: World, point):
    folder = world.parents[point.stages["score:embedded"]]
    return [row["exact_match"] for row in read_jsonl(folder / "scores.jsonl")]


def test_one_factor_at_a_time_is_compared_with_the_named_baseline_wherever_it_sorts(tmp_path):
    world, config = properties_sweep(tmp_path)
    folder = world.run(config)
    results = results_of(folder)
    assert results["effects"]["metrics"][MAIN]["baseline"] == config.baseline
    names = [row["name"] for row in effects_of(results)]
    assert names == ["data.selection = diverse", "data.label_noise = 0.3", "data.input_share = 0.3"]
    assert [row["verdict"] for row in effects_of(results)] == ["inconclusive", "lower (worse)", "inconclusive"]
    assert results["answer"].startswith("Against the baseline, data.label_noise = 0.3 costs ")
    assert "are inconclusive (the smallest detectable effects were" in results["answer"]
    row = effects_of(results)[1]
    shown = [-100 * row[key] for key in ("estimate", "high", "low")]
    assert f"costs {shown[0]:.1f} points of exact match ({shown[1]:.1f} to {shown[2]:.1f})" in results["answer"]
    # Named levels, the baseline first: no axis that only one factor's values lie on.
    drawing = re.findall(r"<svg.*?</svg>", Page(folder).source, flags=re.DOTALL)[0]
    assert drawing.index(">baseline<") < drawing.index(">data.selection = diverse<")


def test_without_its_baseline_nothing_is_compared_and_the_page_says_so(tmp_path):
    world, config = properties_sweep(tmp_path, items=20)
    for point in config.points[:3]:
        world.lose(point.stages["score:embedded"])
    folder = world.run(config)
    assert results_of(folder)["effects"]["metrics"] == {}
    assert results_of(folder)["answer"].startswith("Exact match on embedded is ")
    assert (
        "The baseline (data.selection = random, data.label_noise = 0, data.input_share = null) has no"
        in Page(folder).text
    )


@pytest.mark.parametrize(
    ("direction", "verb", "verdict"),
    [
        ("higher", "costs", "lower (worse)"),
        ("lower", "takes off", "lower (better)"),
        ("", "takes off", "lower"),
    ],
)
def test_the_direction_that_is_better_decides_the_words(tmp_path, direction, verb, verdict):
    world = World(output=tmp_path)
    points = [
        world.point({"teacher": name}, seed, skill) for name, skill in (("a", 0.9), ("b", 0.2)) for seed in range(3)
    ]
    directions = {MAIN: direction} if direction else {}
    results = results_of(world.run(ReportConfig(title="t", factors=["teacher"], directions=directions, points=points)))
    assert effects_of(results)[0]["verdict"] == verdict
    assert f"teacher = b {verb} " in results["answer"]
    assert ("which is better" in results["answer"]) is (direction == "lower")


def test_two_arms_of_one_configuration_are_told_as_a_control(tmp_path):
    world, config = arms_sweep(tmp_path)
    results = results_of(world.run(config))
    row = effects_of(results)[0]
    assert results["answer"].startswith("No difference found: against arm a, arm b changes exact match by ")
    assert f"the smallest detectable effect was {wording.size(100 * row['detectable'])} points" in results["answer"]
    assert "would show a difference" not in results["answer"]


def test_a_difference_between_arms_is_told_as_a_false_alarm(tmp_path):
    world = World(output=tmp_path)
    points = [world.point({"arm": arm}, seed, skill) for arm, skill in (("a", 0.2), ("b", 0.9)) for seed in range(3)]
    results = results_of(world.run(ReportConfig(title="aa", factors=["arm"], points=points)))
    assert results["answer"].startswith("A difference where there is none (one such control in 20 gives one): against")


def test_factors_that_move_together_have_one_name():
    start = {"optimizer": "adamw", "optimizer.lr": 0.003, "data.size": 250}
    bundles = {"optimizer at its rate": ["optimizer", "optimizer.lr"]}
    other = {**start, "optimizer": "muon", "optimizer.lr": 0.015}
    assert told_apart(other, start, bundles) == "optimizer at its rate = muon / 0.015"
    # A rate that two optimizers share is still named with its optimizer.
    assert told_apart({**start, "optimizer": "muon"}, start, bundles) == "optimizer at its rate = muon / 0.003"
    assert told_apart({**other, "data.size": 500}, start, {}).endswith("optimizer.lr = 0.015 and data.size = 500")


def test_a_factor_that_does_not_vary_everywhere_has_a_gap_not_another_factors_value(tmp_path):
    world = World(output=tmp_path, items=20)
    settings = [{"optimizer": "adamw", "optimizer.beta2": 0.99}, {"optimizer": "muon"}]
    points = [world.point(setting, seed, 0.5) for setting in settings for seed in range(3)]
    page = Page(world.run(ReportConfig(title="t", factors=["optimizer", "optimizer.beta2"], points=points)))
    assert re.search(r'<td class="">muon</td><td class=""><span class="none">–</span></td>', page.source)


@pytest.mark.parametrize(("together", "depends"), [(0.0, False), (0.35, True)])
def test_an_interaction_is_a_difference_of_differences_with_its_interval(tmp_path, together, depends):
    world, config = interaction_sweep(tmp_path, together, items=300)
    folder = world.run(config)
    results = results_of(folder)
    (row,) = results["effects"]["interaction"]["rows"]
    means = [level["metrics"][MAIN]["estimate"] for level in results["levels"]]
    assert row["estimate"] == pytest.approx(means[3] - means[2] - means[1] + means[0])
    assert (row["low"] > 0.0) is depends
    start = (
        "The effect of model depends on data.size" if depends else "Inconclusive whether the effect of model depends"
    )
    assert results["answer"].startswith(start)
    assert f"({100 * row['low']:.1f} to {100 * row['high']:.1f})".replace("-", "−") in results["answer"]
    assert "difference of differences: what the two changes do together" in Page(folder).text


def test_the_interval_of_an_interaction_is_that_of_sums_of_runs(tmp_path):
    world, config = interaction_sweep(tmp_path, 0.2)
    neither, long, big, both = (
        [scores_of(world, point) for point in config.points[at : at + 3]] for at in (0, 3, 6, 9)
    )
    added = {
        "apart": [[a + b for a, b in zip(x, y, strict=True)] for x, y in zip(long, big, strict=True)],
        "together": [[a + b for a, b in zip(x, y, strict=True)] for x, y in zip(both, neither, strict=True)],
    }
    expected = compare(added, "apart").effects[0].interval
    (row,) = results_of(world.run(config))["effects"]["interaction"]["rows"]
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))


def test_an_interaction_of_levels_that_were_not_measured_is_not_invented(tmp_path):
    world, config = interaction_sweep(tmp_path, items=20)
    lost = replace(config, points=config.points[:9])
    folder = world.run(lost)
    assert results_of(folder)["effects"]["interaction"]["rows"] == []
    assert "No four levels that would tell were measured" in Page(folder).text


def test_effects_of_scores_that_are_no_shares_are_told_in_their_own_unit(tmp_path):
    world, config = data_size_sweep(tmp_path)
    for point in config.points:
        path = world.parents[point.stages["score:embedded"]] / "scores.jsonl"
        write_jsonl(path, [{**row, "exact_match": 5 * row["exact_match"]} for row in list(read_jsonl(path))])
    answer = results_of(world.run(config))["answer"]
    assert "points" not in answer
    assert re.match(r"16x the data \(250 to 4,000\) adds \d\.\d+ of exact match \(", answer)


def test_numbers_without_a_positive_start_have_no_ratio(tmp_path):
    world = World(output=tmp_path)
    points = [world.point({"teacher.error_rate": rate}, seed, 0.9 - rate) for rate in (0.0, 0.6) for seed in range(3)]
    config = ReportConfig(title="t", factors=["teacher.error_rate"], points=points, directions={MAIN: "higher"})
    assert results_of(world.run(config))["answer"].startswith("From 0 to 0.6 teacher.error_rate costs ")


def test_a_single_factor_of_numbers_with_contrasts_is_drawn_by_name(tmp_path):
    world = World(output=tmp_path, items=20)
    points = [world.point({"train.epochs": n}, seed, 0.5) for n in (1, 3) for seed in range(3)]
    config = ReportConfig(title="t", factors=["train.epochs"], points=points, analysis=Analysis(contrasts=True))
    assert "The dashed line is the baseline's mean." in Page(world.run(config)).text


def test_three_sizes_have_a_law_that_is_not_to_be_carried_on(tmp_path):
    world, config = data_size_sweep(tmp_path, items=100)
    folder = world.run(config)
    law = results_of(folder)["effects"]["laws"][""]
    assert [row["size"] for row in law["at"]] == [250, 1000, 4000]
    assert law["reach"] == 4000
    page = Page(folder).text
    assert "Power law through 3 values of data.size: exact match tends to " in page
    assert "nothing here tests its form: read it from 250 to 4,000 and not beyond" in page
    assert "The line is the fitted power law" in page


@pytest.mark.parametrize(
    ("last", "text"), [(0.79, "It may be carried on as far as it was tested, 4 times"), (0.3, "not")]
)
def test_more_sizes_test_the_law_at_the_largest(tmp_path, last, text):
    sizes = {250: 0.1, 1000: 0.5, 4000: 0.7, 16000: last}
    world, config = data_size_sweep(tmp_path, sizes=sizes, items=300)
    folder = world.run(config)
    law = results_of(folder)["effects"]["laws"][""]
    assert law["foretold"]["holds"] is (text != "not")
    assert law["reach"] == (64000 if text != "not" else 16000)
    page = Page(folder).text
    assert "Fitted without 16,000, it foretells" in page
    assert (text if text != "not" else "is not to be carried on beyond 16,000") in page


def test_values_that_no_law_follows_are_told_and_no_line_is_drawn(tmp_path):
    world, config = data_size_sweep(tmp_path, sizes={250: 0.05, 1000: 0.3, 4000: 0.98}, items=600)
    folder = world.run(config)
    law = results_of(folder)["effects"]["laws"][""]
    assert 4000 in {row["size"] for row in law["missed"]}
    page = Page(folder).text
    assert "No power law that stays between 0 and 1 describes these values: the nearest misses " in page
    assert "at 4,000, where it has" in page
    assert "The line is the fitted power law" not in page


def test_a_question_may_do_without_a_fit(tmp_path):
    world, config = data_size_sweep(tmp_path, items=20)
    config.analysis = Analysis(curve="data.size", fit="none")
    folder = world.run(config)
    assert results_of(folder)["effects"]["laws"] == {}
    assert "power law" not in Page(folder).text


# --- the same by other methods


def test_other_methods_are_paired_by_seed_and_item(tmp_path):
    world, config = properties_sweep(tmp_path)
    found = results_of(world.run(config))["effects"]["metrics"]["embedded.exact_match"]
    rows = {row["name"]: row for row in found["other_methods"]}
    assert rows.keys() == {row["name"] for row in found["levels"]}
    noise = rows["data.label_noise = 0.3"]
    assert noise["paired_seeds"] == 3
    assert noise["over_items"]["method"] == "sign flips, sampled"
    assert noise["items"]["won"] < noise["items"]["lost"]
    low, high = noise["share_won"]
    assert low < noise["items"]["won"] / sum(noise["items"].values()) < high < 0.5
    level = next(row for row in found["levels"] if row["name"] == noise["name"])
    assert noise["nested_bootstrap"][0] < level["estimate"] < noise["nested_bootstrap"][1]


def test_two_runs_that_are_right_or_wrong_are_tested_by_mcnemar(tmp_path):
    world = World(output=tmp_path, items=80)
    points = [world.point({"teacher": name}, 0, skill) for name, skill in (("a", 0.3), ("b", 0.8))]
    folder = world.run(ReportConfig(title="t", factors=["teacher"], points=points))
    (row,) = results_of(folder)["effects"]["metrics"]["embedded.exact_match"]["other_methods"]
    assert row["over_items"]["method"] == "McNemar, exact"
    pairs = list(zip(*(scores_of(world, point) for point in points), strict=True))
    won, lost = pairs.count((0.0, 1.0)), pairs.count((1.0, 0.0))
    assert row["items"] == {"won": won, "lost": lost}
    # On right-or-wrong items McNemar's exact test is the sign test of the items that changed.
    assert row["over_items"]["p"] == pytest.approx(scipy.stats.binomtest(won, won + lost).pvalue)
    page = Page(folder)
    assert "The same comparisons by other methods" in page.text
    assert f"{won} : {lost}" in page.text


def test_arms_without_a_seed_in_common_have_no_pairs(tmp_path):
    world = World(output=tmp_path, items=40)
    points = [world.point({"arm": arm}, seed, 0.5) for arm, seeds in (("a", (0, 1)), ("b", (2, 3))) for seed in seeds]
    folder = world.run(ReportConfig(title="t", factors=["arm"], points=points))
    assert results_of(folder)["effects"]["metrics"]["embedded.exact_match"]["other_methods"] == []
    assert "by other methods" not in Page(folder).text
