"""What outlives the remaking of a page (hypothesis, earlier answers), and its parts beside effects: order, failures."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from alpaca import artifacts
from alpaca.config import ReportConfig
from alpaca.dispatch import pages
from alpaca.errors import UserError
from alpaca.records import read_jsonl
from alpaca.report import answers
from alpaca.teachers import prices
from tests.unit.report_folders import FAMILIES, World, data_size_sweep, properties_sweep, single_run
from tests.unit.test_report import Page, results_of


def record_of(config: ReportConfig, name="sweeps/data_size"):
    return {"config": {"hypothesis": config.hypothesis}, "folder": name}


def test_parts_of_the_page_stand_in_the_order_in_which_they_are_asked_for(tmp_path):
    world, config = properties_sweep(tmp_path)
    world.lose(config.points[-1].stages["train"])
    config.controls, config.notes = ["the same steps"], ["more data is seen less often"]
    source = Page(world.run(config)).source
    chapters = ("Effects", "Every seed", "What was controlled", "Sample", "By family", "Training", "Data", "Cost")
    heads = [config.question, "Hypothesis", "Against the baseline", "<figure"]
    heads += [f"<h2>{name}" for name in (*chapters, "Failures", "Provenance")]
    places = [source.index(head) for head in heads]
    assert places == sorted(places)


def test_more_seeds_update_the_answer_and_keep_the_earlier_one(tmp_path):
    world, config = data_size_sweep(tmp_path, seeds=4)
    fewer = replace(config, points=[point for point in config.points if point.seeds["data"] < 3])
    first = results_of(world.run(fewer))
    folder = world.run(config)
    second = results_of(folder)
    assert "3 seeds" in first["answer"]
    assert "4 seeds" in second["answer"]
    assert [row["answer"] for row in second["earlier_answers"]] == [first["answer"]]
    text = Page(folder).text
    assert "1 earlier answer 2026-11-20 10:09 UTC, 9 of 9 runs" in text
    assert first["answer"] in text
    # A third time with nothing new.
    assert results_of(world.run(config)) == second


def test_an_answer_of_before_that_comes_again_is_kept_with_the_one_between(tmp_path):
    for answer in ("a", "b", "a"):
        answers.add(tmp_path, answers.Row(recorded="t", hypothesis="", answer=answer))
    assert [row.answer for row in answers.history(tmp_path, "a").earlier] == ["a", "b"]


def test_a_hypothesis_is_written_before_anything_runs_and_outlives_the_page(tmp_path):
    world, config = data_size_sweep(tmp_path, items=20)
    config.hypothesis = "More is better."
    pages.write_hypothesis(tmp_path, record_of(config))
    pages.write_hypothesis(tmp_path, record_of(config))
    path = tmp_path / "sweeps/data_size/answers.jsonl"
    rows = list(read_jsonl(path))
    assert [(row["hypothesis"], row["answer"]) for row in rows] == [("More is better.", "")]
    # As if the launch had been the day before the first stage ended.
    path.write_text(json.dumps({**rows[0], "recorded": "2026-11-19T08:00:00+00:00"}) + "\n", encoding="utf-8")
    text = Page(world.run(config)).text
    kept = path.read_bytes()
    pages.write_hypothesis(tmp_path, record_of(config))
    assert path.read_bytes() == kept
    assert "Hypothesis More is better. (written down 2026-11-19 08:00 UTC, before the first result)" in text
    short = (tmp_path / "sweeps/data_size/report.md").read_text(encoding="utf-8")
    assert "written down 2026-11-19 08:00 UTC, before the first result" in short.replace("\\", "")
    assert results_of(tmp_path / "sweeps/data_size")["hypothesis_recorded"].endswith("before the first result")


def test_a_hypothesis_that_comes_after_an_answer_is_never_called_earlier(tmp_path):
    world, config = data_size_sweep(tmp_path, items=20)
    folder = world.run(config)
    config.hypothesis = "More is better."
    pages.write_hypothesis(tmp_path, record_of(config))
    path = folder / "answers.jsonl"
    answer, hypothesis = read_jsonl(path)
    assert answer["answer"]
    # Recorded before the scores that there are now, as where these were made again.
    rows = ({**answer, "recorded": "2026-11-18"}, {**hypothesis, "recorded": "2026-11-19T08:00:00+00:00"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    text = Page(world.run(config)).text
    assert "written down 2026-11-19 08:00 UTC, after an earlier answer of this question" in text
    assert "before the first result" not in text


def test_another_hypothesis_does_not_make_a_finished_page_look_damaged(tmp_path):
    world, config = data_size_sweep(tmp_path, items=20)
    config.hypothesis = "More is better."
    folder = world.run(config)
    artifacts.publish(folder, "k", {}, lambda: None)
    config.hypothesis = "Less is better."
    pages.write_hypothesis(tmp_path, record_of(config))
    assert len(list(read_jsonl(folder / "answers.jsonl"))) == 2
    artifacts.verify(folder, thorough=True)


def test_a_hypothesis_that_comes_with_the_results_is_not_called_earlier(tmp_path):
    world, config = data_size_sweep(tmp_path, items=20)
    config.hypothesis = "More is better."
    text = Page(world.run(config)).text
    assert "nothing shows that it was written down before them" in text
    assert "before the first result" not in text


def test_a_changed_hypothesis_is_shown_as_changed_later_and_the_first_one_stays(tmp_path):
    world, config = data_size_sweep(tmp_path, items=20)
    config.hypothesis = "More is better."
    world.run(config)
    config.hypothesis = "I knew it all along."
    folder = world.run(config)
    text = Page(folder).text
    assert "Hypothesis More is better." in text
    assert "Changed later I knew it all along." in text
    assert results_of(folder)["hypothesis"] == "More is better."
    assert results_of(folder)["earlier_answers"] == []
    assert "changed later" in (folder / "report.md").read_text(encoding="utf-8")


def test_a_run_without_a_question_keeps_no_answers(tmp_path):
    world, config = single_run(tmp_path, items=20)
    assert not (world.run(config, "runs/tiny") / "answers.jsonl").exists()


def test_a_question_without_results_records_no_answer(tmp_path):
    world, config = data_size_sweep(tmp_path, items=10)
    world.lose(*list(world.parents))
    assert not (world.run(config) / "answers.jsonl").exists()


def test_a_level_without_a_score_has_its_row_among_the_effects(tmp_path):
    world, config = properties_sweep(tmp_path, items=20)
    world.lose(*(point.stages["score:embedded"] for point in config.points[-3:]))
    assert "data.input_share = 0.3 missing: no run of it was scored" in Page(world.run(config)).text


def test_failures_are_told_in_the_words_of_the_stage_and_name_who_needs_it(tmp_path):
    world, config = data_size_sweep(tmp_path, items=20)
    small, middle, large = (config.points[at].stages["train"] for at in (0, 3, 6))
    world.lose(small, middle, large)
    (tmp_path / small / "log.txt").write_text("step 3\nerror: loss is nan\n    lower the rate\n", encoding="utf-8")
    (tmp_path / middle / "stopped.json").write_text(json.dumps({"error": "out of time"}), encoding="utf-8")
    folder = world.run(config)
    text = Page(folder).text
    assert f"{small} loss is nan lower the rate data.size = 250, seed 0" in text
    assert f"{middle} out of time data.size = 1,000, seed 0" in text
    assert f"{large} not finished; it left no error data.size = 4,000, seed 0" in text
    assert "loss is nan lower the rate" in (folder / "report.md").read_text(encoding="utf-8")


def test_families_have_a_row_with_an_interval_for_every_level(tmp_path):
    world, config = data_size_sweep(tmp_path, items=60)
    page = Page(world.run(config))
    section = page.source[page.source.index("<h2>By family") : page.source.index("<h2>Training")]
    assert section.count("<tr>") == 1 + len(FAMILIES)
    assert section.count(" to ") >= 3 * len(FAMILIES)
    assert "no finding" in section


def test_the_page_in_short_has_every_effect_with_its_interval_and_p(tmp_path):
    world, config = properties_sweep(tmp_path)
    folder = world.run(config)
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# data_properties\n\nAgainst the baseline, ")
    assert "| effect | 95 % interval | corrected p | detectable | verdict |" in text
    rows = [
        line for line in text.splitlines() if line.startswith("| data.label\\_noise") or "label_noise = 0.3 |" in line
    ]
    assert any(" to " in row and "< 0.001" in row.replace("\\", "") and "lower (worse)" in row for row in rows)
    assert "The baseline: data.selection = random, data.label" in text.replace("\\", "")
    assert "Noise costs more than selection brings." in text


def test_the_plan_of_training_stands_beside_what_it_took(tmp_path):
    world, config = single_run(tmp_path, items=20)
    forecast(tmp_path / "train", {"step_seconds": 0.5})
    # 300 steps.
    assert "train 1 2.5 min 1.6 min" in Page(world.run(config, "runs/tiny")).text


def forecast(stage: Path, found: dict[str, object], gpus: str = "") -> None:
    """Puts a forecast into the one folder of a stage, and GPUs under it."""
    (folder,) = stage.iterdir()
    frozen = json.loads((folder / "stage.json").read_text())
    (folder / "stage.json").write_text(json.dumps(frozen | {"forecast": found}))
    record = json.loads((folder / "provenance.json").read_text())
    record["hardware"] |= {"gpus": 8 if gpus else 0, "gpu": gpus or None}
    (folder / "provenance.json").write_text(json.dumps(record))


def test_planned_money_stands_beside_what_was_spent_on_teachers_and_gpus(tmp_path):
    world, config = single_run(tmp_path, items=20, usd=1.47)
    forecast(tmp_path / "sample", {"teacher_usd": 2.0, "tokens": 500_000})
    forecast(tmp_path / "train", {"seconds": 120, "gpu_hours": 0.5, "usd_per_gpu_hour": 4.0}, gpus="NVIDIA H200")
    (train,) = (tmp_path / "train").iterdir()
    seconds = json.loads((train / "provenance.json").read_text())["seconds"]
    spent = 1.47 + 4.0 * seconds / 3600
    text = Page(world.run(config, "runs/tiny")).text
    assert f"Teachers and GPUs together: $4.00 planned, ${spent:,.2f} spent. The original's recipe cost" in text
    assert "sample 1 " in text
    assert "500,000" in text


def test_a_gpu_that_the_plan_did_not_price_costs_what_the_table_says(tmp_path):
    world, config = single_run(tmp_path, items=20)
    forecast(tmp_path / "train", {}, gpus="NVIDIA H200")
    (train,) = (tmp_path / "train").iterdir()
    seconds = json.loads((train / "provenance.json").read_text())["seconds"]
    spent = seconds / 3600 * prices.gpu_prices().usd_per_hour["H200"]
    assert f"${spent:,.2f} spent" in Page(world.run(config, "runs/tiny")).text
    forecast(tmp_path / "train", {}, gpus="NVIDIA of tomorrow")
    assert "spent" not in Page(world.run(config, "runs/tiny")).text


def test_seeds_that_do_not_vary_are_named_as_not_covered(tmp_path):
    world = World(output=tmp_path, items=20)
    points = [world.point({"teacher": name}, seed, 0.5) for name in "ab" for seed in range(2)]
    points = [replace(point, seeds={**point.seeds, "data": 0}) for point in points]
    text = Page(world.run(ReportConfig(title="t", factors=["teacher"], points=points))).text
    assert "differ in the seeds of init and order; the seed of data is one and the same" in text


def test_a_run_that_scored_nothing_has_a_row_that_names_what_is_missing(tmp_path):
    world, config = data_size_sweep(tmp_path, items=20)
    world.lose(config.points[0].stages["score:embedded"])
    rows = list(csv.DictReader((world.run(config) / "results.csv").open(encoding="utf-8")))
    (row,) = [row for row in rows if not row["metric"]]
    assert (row["value"], row["missing"]) == ("", config.points[0].stages["score:embedded"])


def test_a_field_of_another_version_stops_nothing_and_stays(tmp_path):
    foreign = {"recorded": "t", "hypothesis": "", "answer": "a", "runs": "1 of 1 run", "author": "x"}
    (tmp_path / answers.FILE).write_text(json.dumps(foreign) + "\n", encoding="utf-8")
    answers.add(tmp_path, answers.Row(recorded="u", hypothesis="", answer="b"))
    assert [row.answer for row in answers.read(tmp_path)] == ["a", "b"]
    assert next(read_jsonl(tmp_path / answers.FILE)) == foreign


NO_ROWS = ('{"recorded": "t", "hypo', "[1]", '{"answer": "a"}', '{"recorded": 1, "hypothesis": "h"}')


@pytest.mark.parametrize("line", NO_ROWS)
def test_a_row_that_cannot_be_read_names_its_line_and_the_way_out(tmp_path, line):
    path = tmp_path / answers.FILE
    path.write_text('{"recorded": "t", "hypothesis": "h"}\n' + line, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        answers.add(tmp_path, answers.Row(recorded="u", hypothesis="", answer="b"))
    assert caught.value.where == f"{path}:2"
    assert "mend or delete this line" in caught.value.remedy


def test_an_answer_to_another_design_and_one_of_more_runs_are_told_as_such(tmp_path):
    world, config = data_size_sweep(tmp_path, items=20)
    config.notes = ["settings of the first point: tiny: 400 steps, muon at 0.015"]
    world.run(config)
    points = config.points
    config.points = points[:3]
    fewer = Page(world.run(config)).text
    assert "An earlier answer of this page rests on 9 runs, this one on 3" in fewer
    assert "another metric, other controls or settings" not in fewer
    config.notes = ["settings of the first point: tiny: 400 steps, muon at 0.005"]
    config.points = points
    other = Page(world.run(config)).text
    assert "3 of 3 runs, with another metric, other controls or settings" in other
    assert "rests on" not in other
    config.notes, config.points = ["settings of the first point: tiny: 400 steps, muon at 0.001"], points[:3]
    assert "rests on" not in Page(world.run(config)).text  # nothing else was asked of nine runs


def test_an_answer_is_not_dated_before_its_hypothesis(tmp_path):
    world, config = data_size_sweep(tmp_path, items=20)
    folder = world.run(config)
    config.hypothesis = "Less is better."
    pages.write_hypothesis(tmp_path, record_of(config))
    world.run(config)
    rows = list(read_jsonl(folder / "answers.jsonl"))
    written = next(row["recorded"] for row in rows if row["hypothesis"] and not row["answer"])
    assert rows[-1]["answer"]
    assert rows[-1]["recorded"] >= written
