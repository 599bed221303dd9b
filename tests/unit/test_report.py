"""The report on made-up folders: the answer, its intervals, what is missing, what is escaped, what is equal twice."""

from __future__ import annotations

import csv
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from alpaca.config import ReportConfig
from alpaca.errors import ArtifactError, UserError
from alpaca.records import read_jsonl, write_jsonl
from alpaca.report import export, wording
from alpaca.statistics import Interval, compare, wilson
from tests.unit.report_folders import (
    FAMILIES,
    HOSTILE,
    World,
    data_size_sweep,
    grid_sweep,
    named_sweep,
    single_run,
)


class Page(HTMLParser):
    """Tags, ids, links and visible text of a page."""

    def __init__(self, folder: Path, file: str = "report.html") -> None:
        super().__init__()
        self.source = (folder / file).read_text(encoding="utf-8")
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value for name, value in attrs if name == "href" and tag == "a"]

    def handle_data(self, data):
        if self.lasttag != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def written(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def results_of(folder: Path):
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    world, config = single_run(tmp_path_factory.mktemp("run"), histograms=True)
    return world.run(config, "runs/tiny-00000000")


def compared(results, of="embedded.exact_match", start=0):
    """What `compare` says of the levels' scores, read from the files that the page was made of; `start`: baseline."""
    levels = list(dict.fromkeys(json.dumps(point["factors"]) for point in results["points"]))
    scores = {level: [] for level in levels}
    for point in results["points"]:
        scores[json.dumps(point["factors"])].append(point["scores"][of])
    return compare(scores, levels[start])


def with_scores(world: World, results):
    """The results with every point's scores by item, in the order of the file."""
    for point in results["points"]:
        rows = list(read_jsonl(world.parents[point["stages"]["score:embedded"]] / "scores.jsonl"))
        point["scores"] = {f"embedded.{key}": [row[key] for row in rows] for key in ("exact_match", "rouge_l")}
    return results


@pytest.fixture(scope="module")
def sweep_world(tmp_path_factory):
    return data_size_sweep(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def sweep_folder(sweep_world):
    world, config = sweep_world
    return world.run(config)


def test_a_sweep_is_answered_with_what_the_factor_adds_its_interval_seeds_and_items(sweep_world, sweep_folder):
    results = with_scores(sweep_world[0], results_of(sweep_folder))
    middle, end = compared(results).effects
    shown = [(100 * one.interval.estimate, 100 * one.interval.low, 100 * one.interval.high) for one in (end, middle)]
    of_end, of_middle = (f"({low:.1f} to {high:.1f})" for _, low, high in shown)
    assert results["answer"] == (
        f"16x the data (250 to 4,000) adds {shown[0][0]:.1f} points of exact match {of_end}; "
        f"4x adds {shown[1][0]:.1f} points {of_middle}; 3 seeds per level, 60 items."
    )
    assert results["answer"] in Page(sweep_folder).text


def test_every_level_has_its_calibrated_effect_against_the_baseline(sweep_world, sweep_folder):
    results = with_scores(sweep_world[0], results_of(sweep_folder))
    for metric in ("embedded.exact_match", "embedded.rouge_l"):
        shown = results["effects"]["metrics"][metric]["levels"]
        for effect, row in zip(compared(results, metric).effects, shown, strict=True):
            numbers = (effect.interval.low, effect.interval.high, effect.corrected_p, effect.detectable)
            assert (row["low"], row["high"], row["corrected_p"], row["detectable"]) == numbers
    last = results["differences"][-1]
    assert (last["pairs"], last["verdict"], last["method"]) == ("run", "higher", "crossed t")
    page = Page(sweep_folder).text
    assert "p by Holm" in page
    assert "They speak of new seeds and of new items like these" in page


def test_the_csv_is_long_with_factors_seeds_every_metric_and_every_family(sweep_folder):
    rows = list(csv.DictReader((sweep_folder / "results.csv").open(encoding="utf-8")))
    whole = [row for row in rows if not row["family"]]
    assert len(whole) == 9 * 2
    assert len(rows) == 9 * 2 * (1 + len(FAMILIES))
    assert {row["data.size"] for row in rows} == {"250", "1000", "4000"}
    assert [row["seeds.init"] for row in whole[:6:2]] == ["0", "1", "2"]
    first = whole[0]
    assert (first["metric"], first["n"], first["method"]) == ("embedded.exact_match", "60", "Wilson")
    assert float(first["low"]) < float(first["value"]) < float(first["high"])
    assert (sweep_folder.parents[1] / first["artifact"] / "scores.jsonl").is_file()


def test_one_run_has_the_interval_over_items_and_says_what_it_leaves_out(run_folder):
    results = results_of(run_folder)
    point = results["points"][0]["metrics"]["embedded.exact_match"]
    expected = wilson(round(point["estimate"] * 60), 60)
    assert (point["low"], point["high"], point["n"]) == (expected.low, expected.high, 60)
    assert results["answer"] == f"Exact match on embedded is {wording.full(expected)}; 1 seed, 60 items."
    assert "variation between seeds is not covered" in Page(run_folder).text


def test_a_run_shows_its_families_and_loss_curves_and_its_card_the_lengths(run_folder):
    labels = re.findall(r'aria-label="([^"]*)"', Page(run_folder).source)
    assert sum("exact match by family: classify" in label for label in labels) == 2
    assert any(label.startswith("Training loss of 1 run") for label in labels)
    assert any(label.startswith("Pretraining loss") for label in labels)
    (card,) = (run_folder / "data").glob("*.html")
    labels = re.findall(r'aria-label="([^"]*)"', card.read_text(encoding="utf-8"))
    assert any(label.startswith("Histograms of words: instruction mean") for label in labels)


def test_two_renders_are_equal_to_the_byte(tmp_path):
    world, config = data_size_sweep(tmp_path, items=20)
    first = written(world.run(config))
    assert written(world.run(config)) == first
    names = {name for name in first if not name.startswith("data/")}
    assert names == {"report.html", "report.md", "results.json", "results.csv", "answers.jsonl"}
    assert len(first) == 5 + 2 * 9


def test_the_page_can_be_moved_with_its_output_folder(tmp_path):
    here, there = (single_run(tmp_path / name, items=20, histograms=True) for name in ("here", "there"))
    pages = [written(world.run(config)) for world, config in (here, there)]
    assert pages[0] == pages[1]
    assert not any(str(tmp_path).encode() in page for page in pages[0].values())


@pytest.mark.parametrize("make", [single_run, data_size_sweep, grid_sweep, named_sweep])
def test_every_link_exists_every_figure_is_described_and_nothing_is_loaded(tmp_path, make):
    world, config = make(tmp_path, items=20)
    folder = world.run(config)
    page = Page(folder)
    assert len(page.links) > 10
    assert [link for link in page.links if link[0] != "#" and not (folder / unquote(link)).exists()] == []
    assert {link[1:] for link in page.links if link[0] == "#"} <= set(page.ids)
    assert "script" not in page.tags
    assert len(page.ids) == len(set(page.ids))
    drawings = re.findall(r"<svg.*?</svg>", page.source, flags=re.DOTALL)
    assert drawings
    assert all('role="img" aria-label="' in drawing for drawing in drawings)
    references = re.findall(r'(?:xlink:href="#|url\(#)([^")]*)', page.source)
    assert references
    assert set(references) <= set(page.ids)
    for drawing in drawings:
        ElementTree.fromstring(drawing.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def test_hostile_text_is_shown_and_never_obeyed(tmp_path):
    world = World(output=tmp_path, items=20, response=HOSTILE)
    points = [world.point({"teacher": HOSTILE[:30].replace("/", "")}, 0, 0.5), world.point({"teacher": "b"}, 0, 0.9)]
    config = ReportConfig(
        title=HOSTILE,
        question=HOSTILE,
        command=HOSTILE,
        factors=["teacher"],
        controls=[HOSTILE],
        notes=[HOSTILE],
        points=points,
    )
    page = Page(world.run(config))
    assert not {"script", "b"} & set(page.tags)
    assert page.text.count(HOSTILE) >= 6


def test_a_missing_arm_is_named_and_the_rest_still_answers(tmp_path):
    world, config = data_size_sweep(tmp_path)
    lost = [name for name in world.parents if "size4000-" in name]
    world.lose(*lost)
    folder = world.run(config)
    results, page = results_of(folder), Page(folder)
    assert "3 of 9 runs did not finish" in page.text
    assert all(name in page.source for name in lost)
    assert "(250 to 1,000) adds" in results["answer"]
    assert "4,000" not in results["answer"]
    assert [point["missing"] for point in results["points"][:6]] == [[]] * 6
    assert lost[0] in results["points"][6]["missing"]
    rows = list(csv.DictReader((folder / "results.csv").open(encoding="utf-8")))
    assert [row["missing"].count(" ") for row in rows if not row["metric"]] == [2, 2, 2]


def test_a_page_is_made_even_where_nothing_finished(tmp_path):
    world, config = data_size_sweep(tmp_path, items=10)
    world.lose(*list(world.parents))
    page = Page(world.run(config))
    assert "No run has finished scoring" in page.text
    assert "9 of 9 runs did not finish" in page.text


def test_one_lost_seed_changes_the_method_where_too_few_are_left(tmp_path):
    world, config = data_size_sweep(tmp_path)
    world.lose(*[name for name in world.parents if "size250-s2" in name])
    folder = world.run(config)
    levels = [level["metrics"]["embedded.exact_match"] for level in results_of(folder)["levels"]]
    assert [level["method"] == "Student t" for level in levels] == [False, True, True]
    assert "data.size = 250: 95 % intervals over items" in Page(folder).text
    assert results_of(folder)["answer"].endswith("2 to 3 seeds per level, 60 items.")


def test_seeds_that_agree_exactly_do_not_become_certainty(tmp_path):
    world = World(output=tmp_path, items=30)
    config = ReportConfig(title="perfect", points=[world.point({}, seed, 1.0) for seed in range(3)])
    folder = world.run(config)
    level = results_of(folder)["levels"][0]["metrics"]["embedded.exact_match"]
    expected = wilson(30, 30)
    assert (level["estimate"], level["low"], level["high"]) == (1.0, expected.low, expected.high)
    assert "Where all seeds agree exactly" in Page(folder).text


def test_equal_arms_are_not_called_different(tmp_path):
    world = World(output=tmp_path)
    points = [world.point({"train.global_batch": size}, seed, 0.6) for size in (16, 32) for seed in range(3)]
    results = results_of(world.run(ReportConfig(title="aa", factors=["train.global_batch"], points=points)))
    assert results["differences"][0]["verdict"] == "inconclusive"
    effect = results["effects"]["metrics"]["embedded.exact_match"]["levels"][0]
    assert results["answer"].startswith(
        "Inconclusive: against train.global_batch = 16, train.global_batch = 32 changes"
    )
    assert f"the smallest detectable effect was {wording.size(100 * effect['detectable'])} points" in results["answer"]
    assert "would show a difference as large as the one seen" in results["answer"]


def answered(tmp_path: Path, skills: dict[str, float], seeds: int = 1, items: int = 60):
    """Results of named arms of the given skill."""
    world = World(output=tmp_path, items=items)
    points = [world.point({"teacher": name}, seed, skill) for name, skill in skills.items() for seed in range(seeds)]
    return results_of(world.run(ReportConfig(title="teachers", factors=["teacher"], points=points)))


def test_more_levels_than_are_listed_keep_their_doubt(tmp_path):
    answer = answered(tmp_path, dict.fromkeys("abcdef", 0.5), seeds=3)["answer"]
    assert answer.startswith("Inconclusive: none of 5 levels is found to differ from teacher = a; the largest ")
    assert "the smallest detectable effects were" in answer


def test_one_conclusive_difference_does_not_silence_the_others(tmp_path):
    results = answered(tmp_path, {"p": 0.3, "q": 0.3, "r": 0.95}, seeds=3)
    assert [one["verdict"] for one in results["differences"]] == ["inconclusive", "higher"]
    assert results["answer"].startswith("Against teacher = p, teacher = r adds ")
    assert "; teacher = q is inconclusive (the smallest detectable effect was " in results["answer"]


def test_a_trend_names_the_levels_between_that_are_inconclusive(tmp_path):
    world = World(output=tmp_path)
    skills = {1: 0.3, 2: 0.3, 3: 0.95}
    points = [world.point({"train.epochs": n}, seed, skill) for n, skill in skills.items() for seed in range(3)]
    answer = results_of(world.run(ReportConfig(title="epochs", factors=["train.epochs"], points=points)))["answer"]
    assert answer.startswith("3x train.epochs (1 to 3) adds ")
    assert "; train.epochs = 2 is inconclusive (the smallest" in answer


def test_one_item_is_no_comparison(tmp_path):
    results = answered(tmp_path, {"bad": 0.0, "good": 1.0}, items=1)
    assert results["differences"] == []
    assert results["answer"].startswith("Nothing can be compared with teacher = bad; 1 level without items in common")


@pytest.mark.parametrize(("items", "conclusive"), [(5, False), (6, True)])
def test_equal_changes_of_too_few_items_are_no_certainty(tmp_path, items, conclusive):
    results = answered(tmp_path, {"bad": 0.0, "good": 1.0}, items=items)
    difference = results["differences"][0]
    assert difference["verdict"] == ("higher, of these two runs" if conclusive else "inconclusive")
    assert difference["low"] < 1.0
    assert ("adds" in results["answer"]) is conclusive


def test_changes_that_differ_are_no_more_conclusive_than_their_number_allows(tmp_path):
    world, config = data_size_sweep(tmp_path, seeds=1, items=2)
    for point, values in zip(config.points, ((0.1, 0.2), (0.5, 0.7), (0.8, 0.95)), strict=True):
        path = world.parents[point.stages["score:embedded"]] / "scores.jsonl"
        rows = list(read_jsonl(path))
        write_jsonl(path, [{**row, "rouge_l": value} for row, value in zip(rows, values, strict=True)])
    config.metric = "embedded.rouge_l"
    results = results_of(world.run(config))
    assert {one["verdict"] for one in results["differences"]} == {"inconclusive"}


def test_the_interval_of_single_runs_is_said_to_speak_of_these_very_runs(tmp_path):
    world, config = data_size_sweep(tmp_path, seeds=1)
    folder = world.run(config)
    results = results_of(folder)
    assert results["differences"][-1]["verdict"] == "higher, of these two runs"
    assert results["answer"].endswith("; the interval speaks of these very runs, another seed may change it.")
    page = Page(folder).text
    assert "one run of a level says nothing of another seed" in page
    assert "higher, of these two runs" in page


def test_arms_without_common_seeds_and_of_unequal_number_are_compared_with_all_their_runs(tmp_path):
    world = World(output=tmp_path)
    plan = {"a": (0.3, (0, 1, 2, 3)), "b": (0.8, (2, 3))}
    points = [world.point({"teacher": name}, seed, skill) for name, (skill, seeds) in plan.items() for seed in seeds]
    config = ReportConfig(title="uneven", factors=["teacher"], points=points)
    results = with_scores(world, results_of(world.run(config)))
    (expected,) = compared(results).effects
    difference = results["differences"][0]
    assert (difference["pairs"], difference["runs"]) == ("run", {"from": 4, "to": 2})
    assert (difference["low"], difference["high"]) == (expected.interval.low, expected.interval.high)
    levels = [level["metrics"]["embedded.exact_match"]["estimate"] for level in results["levels"]]
    assert difference["estimate"] == pytest.approx(levels[1] - levels[0])


def test_points_with_one_trained_model_are_one_replication(tmp_path):
    world = World(output=tmp_path)
    points = []
    for name, skill in (("a", 0.3), ("b", 0.9)):
        first = world.point({"teacher": name}, 0, skill)
        points += [
            type(first)(name=first.name, factors=first.factors, seeds={"data": seed}, stages=first.stages)
            for seed in range(3)
        ]
    folder = world.run(ReportConfig(title="one", factors=["teacher"], points=points))
    results = results_of(folder)
    assert [level["runs"] for level in results["levels"]] == [1, 1]
    assert results["differences"][0]["pairs"] == "item"
    assert "; 1 seed per level, 60 items; the interval speaks of these very runs" in results["answer"]
    assert "4 points have the trained model of another point of the same level" in Page(folder).text


def test_levels_without_an_item_in_common_are_not_called_identical(tmp_path):
    world, config = data_size_sweep(tmp_path, seeds=1, items=10)
    path = world.parents[config.points[0].stages["score:embedded"]] / "scores.jsonl"
    write_jsonl(path, [{**row, "id": f"other {row['id']}"} for row in read_jsonl(path)])
    answer = results_of(world.run(config))["answer"]
    assert "identical" not in answer
    assert "2 levels without items in common" in answer


def test_an_item_that_appears_twice_is_refused_by_folder_and_id(tmp_path):
    world, config = single_run(tmp_path, items=10)
    path = world.parents[config.points[0].stages["score:embedded"]] / "scores.jsonl"
    rows = list(read_jsonl(path))
    write_jsonl(path, [*rows, rows[3]])
    with pytest.raises(ArtifactError, match=r"score/embedded-.*scores\.jsonl.*'embedded_0003'"):
        world.run(config)


def test_an_arm_compared_with_its_copy_is_identical(tmp_path):
    world = World(output=tmp_path)
    twin = world.point({"fsdp.mode": "none"}, 0, 0.6)
    points = [twin, type(twin)(name="b", factors={"fsdp.mode": "ddp"}, seeds=twin.seeds, stages=twin.stages)]
    results = results_of(world.run(ReportConfig(title="aa", factors=["fsdp.mode"], points=points)))
    assert results["differences"][0]["verdict"] == "identical on every item"
    assert results["answer"].startswith("The levels are identical on every item")


def test_the_tiny_models_scores_on_a_foreign_set_are_marked_as_meaningless(tmp_path):
    sets = {"embedded": "embedded", "user_oriented_252": "user_oriented"}
    for kind, expected in (("tiny", True), ("hub", False)):
        world, config = single_run(tmp_path / kind, items=20, model_kind=kind, evaluations=sets)
        page = Page(world.run(config))
        assert ("scores on user_oriented_252 mean nothing" in page.text) is expected
        assert "scores on embedded mean nothing" not in page.text
        # Before the results, not at the end.
        assert not expected or page.source.index("mean nothing") < page.source.index("<h2>")


def test_the_programmatic_teacher_is_named_on_the_data_card(run_folder):
    page = Page(run_folder)
    card = page.source[page.source.index("<h2>Data</h2>") :]
    assert "The teacher is a program that computes its answers" in card
    assert "deduplication" in card
    assert ">655<" in card


def test_each_pool_is_shown_once_with_all_the_sizes_cut_from_it(sweep_folder):
    page = Page(sweep_folder)
    assert re.findall(r"Pool \d: [^<]*", page.source) == ["Pool 1: seed 0", "Pool 2: seed 1", "Pool 3: seed 2"]
    first = page.source[page.source.index("Pool 1:") : page.source.index("Pool 2:")]
    assert [f">{size}<" in first for size in ("250", "1,000", "4,000")] == [True] * 3
    assert ">selection<" not in first


def test_versions_of_the_code_that_differ_are_said_aloud(tmp_path, run_folder):
    assert "versions of the code" not in Page(run_folder).text
    world, config = single_run(tmp_path, items=10)
    record = world.parents[config.points[0].stages["train"]] / "provenance.json"
    record.write_text(record.read_text(encoding="utf-8").replace("a1b2c3d4e5f6", "ffffffffffff"), encoding="utf-8")
    assert "made by 2 versions of the code" in Page(world.run(config)).text


def test_samples_show_the_same_items_for_every_arm_and_the_largest_differences_first(sweep_folder):
    page = Page(sweep_folder)
    section = page.source[page.source.index("Sample responses") : page.source.index("<h2>Training")]
    articles = section.split('<article class="sample">')[1:]
    assert len(articles) == 6
    scores = [sorted(re.findall(r"exact match (\d)", article)) for article in articles]
    assert all(len(found) == 3 and found[0] == "0" and found[-1] == "1" for found in scores)
    families = re.findall(r'reference<span class="score">(\w+),', section)
    assert len(set(families)) == 6


def test_costs_are_counted_once_per_folder(sweep_folder):
    page = Page(sweep_folder)
    # Three pools, nine training sets, one base model, nine each of train, respond, score.
    assert re.search(r"total 40 ", page.text)


def test_money_has_a_column_only_where_a_stage_recorded_some(tmp_path, sweep_folder):
    assert "USD" not in Page(sweep_folder).text
    world, config = data_size_sweep(tmp_path, items=10, usd=1.47)
    assert "$4.41" in Page(world.run(config)).text


def test_truncated_is_a_share_of_the_examples_kept_and_those_left_out_are_counted_beside(sweep_folder):
    page = Page(sweep_folder)
    assert "Left out: examples with no room for an answer within the maximum length" in page.text
    table = page.source[page.source.index("left out</th>") :]
    # 10 of 4,000 cut; 8 more had no room for an answer.
    assert re.search(r'>4,000</td>\s*<td class="right">0\.2\s%</td><td class="right">8</td>', table)


def test_the_forecast_stands_beside_the_measurement(tmp_path):
    world, config = single_run(tmp_path)
    (train,) = (tmp_path / "train").iterdir()
    forecast, measured = (
        {"step_seconds": seconds, "peak_memory_gib": memory} for seconds, memory in ((0.3, 0.96), (0.25, 1.0))
    )
    guarded = {"left_out_steps": 3, "rollbacks": 1, "spikes": 0}
    held = {"held_out_examples": 50, "best_holdout_loss": 1.25, "best_step": 40, "exported_step": 40}
    for file, added in (
        ("stage.json", {"forecast": forecast}),
        ("provenance.json", {"cost": {**measured, "tokens_per_second": 12345.6}}),
        ("training.json", {**guarded, **held}),
    ):
        (train / file).write_text(json.dumps(json.loads((train / file).read_text()) | added))
    text = Page(world.run(config, "runs/tiny-00000000")).text
    assert "seconds a step peak memory real tokens a second" in text
    assert "0.25 s (0.3 s, +20%) 1 GiB (0.96 GiB, -4%) 12,346" in text
    assert "3 steps whose batch was left out; 1 returns to an earlier checkpoint; lowest loss on 50 held-out" in text
    assert re.search(r"after step 40; the weights of step 40 of \d+ are the ones kept\.", text)
    assert "spikes" not in text


def test_of_speed_and_memory_only_what_was_measured_is_shown(run_folder):
    text = Page(run_folder).text
    assert "real tokens a second tiny, seed 0 28,000" in text
    assert "seconds a step" not in text
    assert "peak memory" not in text


def test_an_unknown_metric_is_refused_with_the_known_ones(tmp_path):
    world, config = single_run(tmp_path, items=10)
    config.metric = "embedded.bleu"
    with pytest.raises(UserError, match=r"(?s)embedded\.bleu.*embedded\.exact_match, embedded\.rouge_l"):
        world.run(config)


def test_a_metric_without_values_for_some_items_counts_those_it_has(tmp_path):
    world, config = single_run(tmp_path, items=20)
    path = world.parents[config.points[0].stages["score:embedded"]] / "scores.jsonl"
    rows = list(read_jsonl(path))
    rows[0]["exact_match"] = None
    write_jsonl(path, rows)
    assert results_of(world.run(config))["points"][0]["metrics"]["embedded.exact_match"]["n"] == 19


def test_levels_follow_their_numbers_and_null_comes_last(tmp_path):
    world = World(output=tmp_path, items=10)
    points = [world.point({"data.size": size}, 0, 0.5) for size in (None, 4000, 250)]
    results = results_of(world.run(ReportConfig(title="sizes", factors=["data.size"], points=points)))
    assert [level["factors"]["data.size"] for level in results["levels"]] == [250, 4000, None]


def interval(estimate: float, low: float, high: float) -> Interval:
    return Interval(estimate=estimate, low=low, high=high, n=9, method="bootstrap")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (interval(0.2114, 0.141, 0.2811), "0.21 (0.14 to 0.28)"),
        (interval(0.99012, 0.9861, 0.9941), "0.990 (0.986 to 0.994)"),
        (interval(-0.101, -0.2, -0.001), "−0.10 (−0.20 to 0.00)"),
        (interval(44.21, 42.6, 45.83), "44.2 (42.6 to 45.8)"),
        (interval(1234.5, 1200.0, 1269.0), "1,234 (1,200 to 1,269)"),
        (interval(1.0, 1.0, 1.0), "1.00 (1.00 to 1.00)"),
    ],
)
def test_numbers_have_as_many_digits_as_their_interval_supports(given, text):
    assert wording.full(given) == text


@pytest.mark.parametrize(("estimate", "text"), [(0.02, "+0.02"), (1e-17, "0.00"), (-0.02, "−0.02")])
def test_a_difference_that_is_rounding_only_has_no_sign(estimate, text):
    assert wording.signed(interval(estimate, -0.1, 0.1)) == text


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (4000, "4,000"),
        (2e-5, "2e-5"),
        (0.024, "0.024"),
        (True, "true"),
        (None, "null"),
        (["a", "b"], "a + b"),
        ([], "none"),
    ],
)
def test_configuration_values_are_written_as_people_write_them(item, text):
    assert wording.value(item) == text


@pytest.mark.parametrize(("seconds", "text"), [(3.21, "3.2 s"), (95, "1.6 min"), (3700, "1 h 02 min")])
def test_durations(seconds, text):
    assert wording.duration(seconds) == text


def test_families_are_shown_where_they_have_items_enough_and_by_the_metrics_own_interval():
    from alpaca.report.results import Scores, family_intervals

    values = {f"a{n}": 0.0 for n in range(12)} | {f"b{n}": 0.3 + n / 100 for n in range(12)} | {"c0": 1.0}
    scores = Scores(values=values, families={item: item[0] for item in values}, interval=None)
    shown = family_intervals(scores)
    assert sorted(shown) == ["a", "b"]
    assert shown["a"].high == 0.0  # twelve zeros of a graded metric are not twelve failures of a yes-or-no one


def test_the_csv_tells_null_from_a_factor_that_is_not_set(tmp_path):
    world = World(output=tmp_path, items=10)
    given = [{"data.dedup": None}, {"data.dedup": ["a", "b"]}, {"data.dedup": True}, {"data.dedup": "rouge"}, {}]
    points = [world.point({"data.size": size, **factors}, 0, 0.5) for size, factors in enumerate(given, 1)]
    folder = world.run(ReportConfig(title="t", factors=["data.size", "data.dedup"], points=points))
    rows = csv.DictReader((folder / "results.csv").open(encoding="utf-8", newline=""))
    cells = {row["data.size"]: row["data.dedup"] for row in rows}
    assert cells == {"1": "null", "2": '["a", "b"]', "3": "true", "4": "rouge", "5": ""}


@pytest.mark.parametrize("value", [None, False, 1e-05, [], "a, b", "null", "250", "true", "", '"x"', "[1", " ", "NaN"])
def test_every_value_in_the_csv_reads_back(value):
    text = export.cell(value)
    assert text
    try:
        found = json.loads(text)
    except ValueError:
        found = text
    assert (type(found), found) == (type(value), value)


def test_each_level_leads_to_the_first_row_of_its_runs(tmp_path):
    world, config = grid_sweep(tmp_path, items=20)
    page = Page(world.run(config))
    places = [f"runs-{number}" for number in range(1, 7)]
    assert [one for one in page.ids if one.startswith("runs-")] == places
    assert {link for link in page.links if link[0] == "#"} == {f"#{place}" for place in places}
    row = page.source.partition('id="runs-3"')[2].partition("</tr>")[0]
    assert "1,000" in row
    assert "adamw" in row


def test_the_code_that_ran_is_linked_where_it_is_still_there(tmp_path):
    world, config = single_run(tmp_path, items=20)
    for folder in world.parents.values():
        record = json.loads((folder / "provenance.json").read_text())
        record["git"]["diff"] = "dirty-0123.diff"
        (folder / "provenance.json").write_text(json.dumps(record))
    assert "/code/" not in " ".join(Page(world.run(config, "runs/gone")).links)
    (tmp_path / "code" / "a1b2c3d4e5f6").mkdir(parents=True)
    (tmp_path / "code" / "a1b2c3d4e5f6" / "dirty-0123.diff").write_text("-a")
    folder = world.run(config, "runs/there")
    page = Page(folder)
    found = {(folder / link).resolve() for link in page.links if "/code/" in link}
    assert found == {tmp_path / "code" / "a1b2c3d4e5f6", tmp_path / "code" / "a1b2c3d4e5f6" / "dirty-0123.diff"}


@pytest.mark.parametrize(
    ("mean", "n", "method", "text"),
    [
        (0.075, 60, "Wilson", "0.075"),
        (0.075, 6, "Wilson", "0.07"),
        (0.125, 3, "Student t", "0.125"),
        (12.34, 60, "bootstrap", "12.3"),
    ],
)
def test_a_share_has_as_many_digits_as_its_difference_in_points(mean, n, method, text):
    given = Interval(estimate=mean, low=mean - 0.05 * mean, high=mean + 0.05 * mean, n=n, method=method)
    wide = Interval(estimate=mean, low=mean * 0.3, high=mean * 1.7, n=n, method=method)
    assert wording.estimate(wide if mean < 1 else given) == text
