"""`python -m alpaca diff` on made-up chains: what differs, where it begins, and the exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alpaca import artifacts
from alpaca.report.diff import compare, page, payload, settings, sides
from tests.unit.chain_folders import Chains, example
from tests.unit.commands import Run, runner


@pytest.fixture
def chains(tmp_path: Path) -> Chains:
    return Chains(output=tmp_path / "outputs")


@pytest.fixture
def run(chains: Chains, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys, chains.output, "diff")


def as_json(run: Run, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(*words, "--json")[1])
    return found


def test_a_result_equals_itself(chains: Chains, run: Run) -> None:
    score = chains.run()["score:embedded"]
    status, said = run(score, score)
    assert status == 0, said
    assert "Equal: the same settings, and the same bytes in every stage." in said


def test_the_stage_in_which_two_chains_part_is_named_with_its_keys(chains: Chains, run: Run) -> None:
    one, other = chains.run(size=4), chains.run(size=6)
    status, said = run(one["score:embedded"], other["score:embedded"])
    assert status == 1
    assert "The chains part at curate (data.size); train, respond:embedded and score:embedded differ because" in said
    found = as_json(run, one["train"], other["train"])["runs"][0]
    assert (found["origins"], found["execution"]) == (["curate"], [])
    assert [(row["role"], row["state"]) for row in found["stages"]] == [
        ("sample", "same"), ("curate", "settings differ"), ("train", "differs by its parents"),
    ]  # fmt: skip


def test_a_second_difference_further_down_is_told_too(chains: Chains, run: Run) -> None:
    one, other = chains.run(size=4, lr=0.1), chains.run(size=6, lr=0.2)
    assert "part at curate (data.size); further differences begin at train (optimizer.lr)" in " ".join(
        run(one["score:embedded"], other["score:embedded"])[1].split()
    )


def test_execution_is_told_apart_from_identity(chains: Chains, run: Run, tmp_path: Path) -> None:
    one = chains.run(world_size=1)["train"]
    other = Chains(output=tmp_path / "elsewhere").run(world_size=2)["train"]
    found = as_json(run, one, str(tmp_path / "elsewhere" / other))
    assert found["equal"]
    assert found["runs"][0]["identity"] == []
    assert [(leaf["key"], leaf["values"]) for leaf in found["runs"][0]["execution"]] == [("fsdp.world_size", [1, 2])]
    status, said = run(one, str(tmp_path / "elsewhere" / other))
    assert status == 0
    assert "(made with other execution settings)" in said


def test_equal_settings_with_other_bytes_are_different(chains: Chains, run: Run, tmp_path: Path) -> None:
    one = chains.run(size=4)["score:embedded"]
    changed = [example(0, "Another word."), *(example(number) for number in range(1, 4))]
    other = Chains(output=tmp_path / "elsewhere").run(size=4, examples=changed)["score:embedded"]
    status, said = run(one, str(tmp_path / "elsewhere" / other))
    assert status == 1
    assert "part at curate (other content)" in said
    assert "1 changed" in said
    assert "Another word." in said


def test_packages_and_code_of_the_stages_are_compared(chains: Chains, run: Run) -> None:
    chains.code = chains.snapshot("c0de", {"alpaca/a.py": "one\ntwo\n", "alpaca/gone.py": "x\n"})
    one = chains.run(size=4)["train"]
    chains.code = chains.snapshot("c1de", {"alpaca/a.py": "one\nthree\nfour\n", "alpaca/new.py": "y\n"})
    chains.packages = {"torch": "2.14.0"}
    other = chains.run(size=6)["train"]
    found = as_json(run, one, other)["runs"][0]
    assert [(file["name"], file["change"], file["plus"], file["minus"]) for file in found["code"][0]["files"]] == [
        ("alpaca/a.py", "changed", 2, 1), ("alpaca/gone.py", "removed", 0, 1), ("alpaca/new.py", "added", 1, 0),
    ]  # fmt: skip
    assert {leaf["key"]: leaf["values"] for leaf in found["packages"]} == {
        "torch": ["2.13.0", "2.14.0"], "numpy": ["2.4.6", settings.ABSENT],
    }  # fmt: skip
    assert "+three" not in run(one, other)[1]
    assert "+three" in run(one, other, "--code")[1]


def test_a_removed_snapshot_is_named(chains: Chains, run: Run) -> None:
    one = chains.run(size=4)["train"]
    chains.code = chains.snapshot("c1de", {"alpaca/a.py": "one\n"})
    assert "No longer there, so not compared: code/c0de." in run(one, chains.run(size=6)["train"])[1]


def test_examples_are_matched_by_content_then_id_then_instruction() -> None:
    before = [example(0), example(1), example(2), example(3)]
    after = [example(1), example(0), example(2, "Other."), {**example(9), "instruction": "New."}]
    found = payload.compared_examples(before, after)
    assert (found.same, found.counts) == (2, {"added": 1, "removed": 1, "changed": 1})
    assert found.changed == [(example(2), example(2, "Other."))]
    renamed = payload.compared_examples([example(1)], [{**example(1, "Other."), "id": "z"}])
    assert renamed.counts == {"added": 0, "removed": 0, "changed": 1}
    twice = payload.compared_examples([example(1), example(1)], [example(1)])
    assert (twice.same, twice.counts["removed"]) == (1, 1)
    moved = payload.compared_examples(before, before[::-1])
    assert moved.reordered
    assert not moved.is_equal


def test_losses_tell_from_which_step_on_they_differ_and_by_how_much() -> None:
    before = [{"step": step, "loss": 4.0 - step} for step in (1, 2, 3)]
    after = [*before[:1], {"step": 2, "loss": 2.5}, {"step": 3, "loss": 1.25}, {"step": 4, "loss": 0.5}]
    found = payload.compared_losses("train", before, after)
    assert (found.first, found.largest) == (2, (0.5, 2))
    longer = payload.compared_losses("train", before, [*before, {"step": 4, "loss": 0.5}])
    assert longer.first is None
    assert not longer.is_equal
    assert payload.compared_losses("train", before, before).is_equal


def test_a_metric_has_its_paired_interval_and_what_that_says(chains: Chains) -> None:
    one, other = (sides.read_side(chains.output, chains.run(size=size)["score:embedded"]) for size in (2, 12))
    (metric,) = compare.compare(one, other).runs[0].metrics
    assert metric.change is not None
    assert metric.change.estimate == pytest.approx(10 / 12)
    assert metric.verdict == "higher on these items"
    assert metric.test is not None
    # Ten items changed, all of them upwards: 2 / 2^10.
    assert (metric.test.method, metric.moved) == ("McNemar, exact", (10, 0))
    assert metric.test.p_value == pytest.approx(2 / 2**10)
    (back,) = compare.compare(other, one).runs[0].metrics
    assert back.verdict == "lower on these items"
    (none,) = compare.compare(one, sides.read_side(chains.output, chains.run(size=3)["score:embedded"])).runs[0].metrics
    assert none.verdict == "inconclusive"


def test_answers_that_differ_most_in_score_come_first(chains: Chains) -> None:
    one, other = (sides.read_side(chains.output, chains.run(size=size)["score:embedded"]) for size in (2, 5))
    (answers,) = compare.compare(one, other).runs[0].answers
    assert (answers.shared, answers.differing) == (12, 3)
    assert {pair[0]["id"] for pair in answers.pairs} == {"i2", "i3", "i4"}
    assert answers.scores[0] == "exact match 0 against 1"


def test_a_small_change_of_words_that_changes_the_score_comes_before_a_large_one_that_does_not(chains: Chains) -> None:
    def side(words: str, right: str, score: float) -> sides.Side:
        texts = {"a": words, "b": right}
        rows = [{"id": item, "instruction": item, "response": text} for item, text in texts.items()]
        respond = chains.stage("respond", "embedded", {"of": words}, {}, files={"responses.jsonl": rows})
        scores = [{"id": "a", "exact_match": 0.0}, {"id": "b", "exact_match": score}]
        files = {"scores.jsonl": scores}
        return sides.read_side(
            chains.output, chains.stage("score", "embedded", {}, {"responses": respond}, files=files)
        )

    (answers,) = compare.compare(side("one", "cats", 1.0), side("quite another", "cat", 0.5)).runs[0].answers
    assert [pair[0]["id"] for pair in answers.pairs] == ["b", "a"]


def test_points_of_two_pages_are_paired_by_factors_and_seeds(chains: Chains, run: Run) -> None:
    small, middle, large = (chains.run(size=size) for size in (2, 3, 4))
    chains.page("sweeps/one", [small, middle])
    chains.page("sweeps/other", [small, large, middle])
    status, said = run("one", "other")
    assert status == 1
    assert "1 of 2 shared points differ" in said
    assert "Only in sweeps/other: size=2, seed 0." in said
    found = as_json(run, "one", "other")
    assert [runs["origins"] for runs in found["runs"]] == [[], ["curate"]]
    assert run("one", "sweeps/one")[0] == 0


def test_pages_without_a_seed_in_common_are_compared_by_level(chains: Chains, run: Run) -> None:
    one, other = ([chains.run(size=size, seed=seed) for size in (2, 4)] for seed in (0, 7))
    chains.page("sweeps/one", one)
    chains.page("sweeps/other", other, seed=7)
    status, said = run("one", "other")
    assert status == 1
    assert "no seed is in both, so the first runs of 2 levels are compared" in said


def test_a_single_run_is_compared_with_the_nearest_point(chains: Chains, run: Run) -> None:
    small, large = chains.run(size=2), chains.run(size=4)
    chains.page("sweeps/one", [small, large])
    chains.page("runs/tiny", [large])
    found = as_json(run, "sweeps/one", "runs/tiny")
    assert [row["folders"] for row in found["runs"][0]["stages"]][2] == [large["train"], large["train"]]


def test_what_is_not_finished_is_said_and_its_files_are_not_read(chains: Chains, run: Run) -> None:
    torn = chains.stage("train", "tiny", {"a": 1}, {}, files={"loss.jsonl": '{"step": 1, "lo'}, finished=False)
    status, said = run(torn, torn)
    assert status == 1
    assert "train: not finished" in said


def test_mistakes_are_told_with_status_2(chains: Chains, run: Run, tmp_path: Path) -> None:
    train = chains.run()["train"]
    status, said = run(train, "train/tinny-00000000")
    assert status == 2
    assert "no stage train/tinny-00000000" in said
    assert train in said
    assert run(train, str(tmp_path))[0] == 2
    (chains.output / train / "stage.json").write_text("{")
    status, said = run(train, train)
    assert (status, "not JSON" in said) == (2, True)
    artifacts.write_json(chains.output / train / "stage.json", {"stage": "train"})
    assert "has no name, key" in run(train, train)[1]
    assert run(train, train, "--html", str(tmp_path / "none" / "d.html"))[0] == 2


@pytest.mark.parametrize("file", ["stage.json", "manifest.json", "provenance.json", "_SUCCESS"])
@pytest.mark.parametrize("content", [b"[]", b"\xff\xfe{", b'{"loss.jsonl": 1}'])
def test_damaged_records_are_told_with_a_remedy(chains: Chains, run: Run, file: str, content: bytes) -> None:
    train = chains.run()["train"]
    (chains.output / train / file).write_bytes(content)
    status, said = run(train, train)
    read = file == "manifest.json" or (file != "_SUCCESS" and b"loss" not in content) or file == "stage.json"
    assert status == (2 if file == "stage.json" else 1 if read else 0), said
    assert (file in said) == read
    assert "Traceback" not in said


@pytest.mark.parametrize("file", ["manifest.json", "provenance.json"])
def test_a_missing_record_stops_no_comparison_and_is_told_with_a_remedy(chains: Chains, run: Run, file: str) -> None:
    small, large = chains.run(size=2), chains.run(size=4)
    chains.page("sweeps/one", [small, large])
    chains.page("sweeps/other", [small, large])
    (chains.output / large["train"] / file).unlink()
    status, said = run("one", "other")
    assert status == 1, said
    assert "1 of 2 shared points differ" in said
    words = " ".join(said.split())
    assert file in words
    assert "run the same command again" in words
    rows = [row for runs in as_json(run, "one", "other")["runs"] for row in runs["stages"]]
    assert [row["state"] for row in rows if row["damage"]] == ["damaged"]
    assert "train: damaged" in run(large["train"], large["train"])[1]


def test_what_two_pages_themselves_hold_is_compared_too(chains: Chains, run: Run, tmp_path: Path) -> None:
    for place in (chains, Chains(output=tmp_path / "elsewhere")):
        place.page("sweeps/one", [place.run(size=2), place.run(size=4)])
    other = tmp_path / "elsewhere" / "sweeps" / "one"
    assert run("sweeps/one", str(other))[0] == 0
    (other / "report.html").write_text("<p>another page</p>")
    artifacts.publish(other, "k", {}, lambda: None)
    status, said = run("sweeps/one", str(other))
    assert status == 1
    assert "Different in the pages' own files, not in the runs." in said
    assert "Files of the pages that differ: report.html." in said
    (other / "_SUCCESS").unlink()
    status, said = run("sweeps/one", str(other))
    assert status == 1
    assert "sweeps/one is not finished" in said


@pytest.mark.parametrize("words", [("~nouser/x", "TRAIN"), ("TRAIN", "TRAIN", "--html", "."), ("TRAIN", "~nouser/x")])
def test_names_of_nobody_and_of_folders_are_told_with_status_2(chains: Chains, run: Run, words: list[str]) -> None:
    train = chains.run()["train"]
    status, said = run(*(word.replace("TRAIN", train) for word in words))
    assert status == 2, said
    assert "~nouser" in said or "--html .: a folder" in said


def test_the_page_holds_everything_and_escapes_it(chains: Chains, run: Run, tmp_path: Path) -> None:
    odd = [example(0, "<script>alert(1)</script>"), example(1)]
    one, other = chains.run(size=2)["score:embedded"], chains.run(size=1, examples=odd)["score:embedded"]
    status, said = run(one, other, "--html", str(tmp_path / "d.html"))
    assert status == 1, said
    text = (tmp_path / "d.html").read_text()
    assert "&lt;script&gt;" in text
    assert "<script" not in text
    assert "<svg" not in text.partition("<h2>Metrics</h2>")[2]
    assert all(f"<h2>{title}</h2>" in text for title in ("Stages", "Configuration", "Data", "Metrics", "Answers"))


def test_two_curves_share_one_scale() -> None:
    assert page.spark([1.0, 0.5, 0.0], 0.0, 1.0, 3) == "█▅▁"
    assert page.spark([2.0], 2.0, 2.0, 1) == "▁"
