"""`python -m alpaca reproduce` on made-up stages whose frozen code is a program of a few lines."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from alpaca import artifacts, jobs
from alpaca.dispatch import garbage, pages, reproduce
from alpaca.report import answers
from tests.unit.chain_folders import PACKAGES, Chains
from tests.unit.commands import Run, runner
from tests.unit.report_folders import data_size_sweep

# What stands in for the frozen worker: writes two files and publishes them, as alpaca.jobs does.
WORKER = """
import hashlib, json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
settings = json.loads((folder / "stage.json").read_text())
assert "tracking" not in settings
if {fails}:
    print("error: no weights here"); sys.exit(1)
files = {{"loss.jsonl": {loss!r}, "metrics.json": {metrics!r}, "raw.jsonl": {raw!r}}}
manifest = {{}}
for name, text in files.items():
    (folder / name).write_text(text)
    manifest[name] = {{"sha256": hashlib.sha256(text.encode()).hexdigest(), "bytes": len(text)}}
(folder / "manifest.json").write_text(json.dumps(manifest))
(folder / "provenance.json").write_text(json.dumps({{"summary": "made again"}}))
(folder / "_SUCCESS").write_text(json.dumps({{"key": settings["key"]}}))
"""
FILES = {
    "loss.jsonl": '{"step":1,"loss":3.0}\n{"step":2,"loss":2.0}\n{"step":3,"loss":1.0}\n',
    "metrics.json": '{"items": 4, "exact_match": 0.5}',
    "raw.jsonl": "{}\n",
}


@pytest.fixture
def chains(tmp_path: Path) -> Chains:
    return Chains(output=tmp_path / "outputs")


@pytest.fixture
def run(chains: Chains, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys, chains.output, "reproduce")


def stage(chains: Chains, *, fails: bool = False, kind: str = "train", **second: str) -> str:
    """A finished stage with FILES; `second`: what its code makes of them the second time (loss, metrics, raw)."""
    data = chains.stage("curate", "4", {"size": 4}, {}, files={"examples.jsonl": [{"id": "e"}]})
    return made_by_code(chains, {"data": data}, fails=fails, kind=kind, **second)


def made_by_code(
    chains: Chains,
    parents: dict[str, str],
    *,
    fails: bool = False,
    kind: str = "train",
    teacher: str = "",
    **second: str,
) -> str:
    texts = {name.partition(".")[0]: text for name, text in FILES.items()} | second
    worker = WORKER.format(fails=fails, **texts)
    code = hashlib.sha256(worker.encode()).hexdigest()[:12]
    chains.code = chains.snapshot(code, {"alpaca/__init__.py": "", "alpaca/jobs.py": worker})
    return chains.stage(kind, "tiny", {"code": code, "teacher": {"kind": teacher}}, parents, files=FILES)


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        path.relative_to(folder).as_posix(): (path.lstat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_stage_that_comes_out_the_same_is_bit_equal_and_leaves_nothing_behind(chains: Chains, run: Run) -> None:
    label = stage(chains)
    before = tree(chains.output)
    status, said = run(label)
    assert status == 0, said
    assert "bit-equal: all 2 files of the result have the same sha256" in said
    assert tree(chains.output) == before
    assert list(chains.output.parent.iterdir()) == [chains.output]


def test_what_differs_in_every_execution_does_not_count(chains: Chains, run: Run) -> None:
    status, said = run(stage(chains, raw='{"other": 1}\n'))
    assert status == 0, said
    assert "differs in every execution" in said


def test_how_far_off_it_is_is_said_and_the_second_making_is_kept(chains: Chains, run: Run) -> None:
    loss = FILES["loss.jsonl"].replace("2.0", "2.25").replace("1.0", "1.125")
    label = stage(chains, loss=loss, metrics='{"items": 4, "exact_match": 0.75}')
    before = tree(chains.output)
    status, said = run(label)
    assert status == 1, said
    assert "loss: differs from step 2 on, by at most 0.25 (at step 2)" in said
    assert "exact_match: 0.5 then, 0.75 now (+0.25)" in said
    assert "not bit-equal: 2 of 2 files of the result differ" in said
    (kept,) = [path for path in chains.output.parent.iterdir() if path != chains.output]
    assert (kept / label / "loss.jsonl").read_text() == loss
    assert f"python -m alpaca diff {chains.output / label}" in said
    assert tree(chains.output) == before


def test_parents_are_linked_not_copied_and_outlive_the_second_making(chains: Chains, run: Run) -> None:
    label = stage(chains)
    with reproduce.prepared([reproduce.recipe(chains.output, label)]) as place:
        (parent,) = (place / "curate").iterdir()
        assert parent.is_symlink()
    reproduce.remove(place)
    assert not place.exists()
    assert (chains.output / "curate" / parent.name / "examples.jsonl").exists()


def test_a_dry_run_tells_the_way_back_and_runs_nothing(chains: Chains, run: Run) -> None:
    chains.packages = {**PACKAGES, "torch": "1.0"}
    label = stage(chains, fails=True)
    status, said = run(label, "--dry-run")
    assert status == 0, said
    told = ("python launch.py data.size=4", "0123456789abcdef", "torch==1.0", chains.code, "packages here differ")
    for word in told:
        assert word in said, word
    assert list(chains.output.parent.iterdir()) == [chains.output]


def test_a_stage_that_fails_says_why_and_where_its_log_is(chains: Chains, run: Run) -> None:
    status, said = run(stage(chains, fails=True))
    assert status == 1
    assert "no weights here" in said
    assert "log.txt" in said


def test_without_its_snapshot_the_present_code_runs_and_that_is_said(chains: Chains) -> None:
    chains.code = "code/gone"
    label = chains.stage("train", "tiny", {}, {}, files=FILES)
    made = reproduce.recipe(chains.output, label)
    assert made.code is None
    with reproduce.prepared([made]) as place:
        (code,) = (place / "code").iterdir()
    assert (code / "alpaca" / "jobs.py").exists()


def test_answers_that_cost_money_are_not_asked_again_unless_told_to(chains: Chains, run: Run) -> None:
    label = chains.stage("sample", "alpaca", {"teacher": {"kind": "openai"}}, {}, files=FILES)
    status, said = run(label)
    assert status == 1
    assert "paid for again" in said
    assert "--paid" in said
    assert run(label, "--dry-run")[0] == 0
    assert not reproduce.recipe(chains.output, stage(chains)).paid


@pytest.mark.parametrize("damage", ["unfinished", "changed", "parent gone", "parent changed"])
def test_what_cannot_be_made_again_is_told(chains: Chains, run: Run, damage: str) -> None:
    label = stage(chains)
    folder = chains.output / label
    (parent,) = (chains.output / "curate").iterdir()
    if damage == "unfinished":
        (folder / "_SUCCESS").unlink()
    elif damage == "changed":
        (folder / "metrics.json").write_text("{}")
    elif damage == "parent gone":
        (parent / "_SUCCESS").unlink()
    else:
        record = folder / "provenance.json"
        record.write_text(record.read_text().replace('"parents": {}', '"parents": {"data": "another"}'))
    status, said = run(label)
    words = {
        "unfinished": "not finished", "changed": "metrics.json has", "parent gone": "no longer there",
        "parent changed": "made from another data",
    }  # fmt: skip
    assert status == 1
    assert words[damage] in said, said
    assert "Traceback" not in said


@pytest.mark.parametrize("file", ["stage.json", "manifest.json", "provenance.json", "_SUCCESS"])
@pytest.mark.parametrize("content", [b"[]", b"\xff\xfe{", None])
def test_damaged_records_are_told_with_their_file(
    chains: Chains, run: Run, file: str, content: bytes | None
) -> None:
    path = chains.output / stage(chains) / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    status, said = run(str(path.parent) if file != "stage.json" else path.parent.name)
    assert status == 1
    assert file in said or "not finished" in said or "no stage" in said
    assert "Traceback" not in said


def test_gc_keeps_everything_while_it_is_being_read(chains: Chains, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "QUIET_SECONDS", 0.0)
    label = stage(chains)
    (parent,) = (chains.output / "curate").iterdir()
    with reproduce.prepared([reproduce.recipe(chains.output, label)]):
        found = garbage.look(chains.output, paid=True)
        assert (found.wastes, "is being made from what is here" in found.busy) == ([], True)
    assert f"curate/{parent.name}" in {waste.label for waste in garbage.look(chains.output, paid=True).wastes}


def chained(chains: Chains, **first: str) -> list[str]:
    """Three stages, each made by code, of which the first one's makes other files the second time."""
    sample = made_by_code(chains, {}, kind="sample", **first)
    data = made_by_code(chains, {"pool": sample}, kind="curate")
    return [sample, data, made_by_code(chains, {"data": data, "again": data})]


def test_a_whole_chain_is_made_again_in_order_and_told_stage_by_stage(chains: Chains, run: Run) -> None:
    labels = chained(chains)
    before = tree(chains.output)
    status, said = run(labels[-1], "--chain")
    assert status == 0, said
    told = [said.index(f"{label}: bit-equal: all 2 files") for label in labels]
    assert told == sorted(told)
    assert "3 of 3 stages are bit-equal" in said
    assert tree(chains.output) == before
    assert list(chains.output.parent.iterdir()) == [chains.output]


def test_a_chain_names_the_stages_that_differ_and_keeps_them(chains: Chains, run: Run) -> None:
    labels = chained(chains, loss="{}\n", metrics='{"items": 4, "exact_match": "n/a"}')
    status, said = run(labels[-1], "--chain")
    assert status == 1, said
    assert f"{labels[0]}: not bit-equal: 2 of 2 files" in said
    assert "2 of 3 stages are bit-equal" in said
    (kept,) = [path for path in chains.output.parent.iterdir() if path != chains.output]
    assert not any((kept / label).is_symlink() for label in labels)
    assert f"diff {chains.output / labels[0]} {kept / labels[0]}" in said
    assert run(labels[-1])[0] == 0  # by itself, of its parents as they are


@pytest.mark.parametrize("again", [True, False])
def test_times_on_a_page_count_only_where_its_stages_are_the_same(chains: Chains, again: bool) -> None:
    train = stage(chains)
    page = chains.page("runs/tiny", [{"train": train}])
    recipes = reproduce.chain(chains.output, page)
    assert [made.label for made in recipes][-2:] == [train, page]
    with reproduce.prepared(recipes if again else recipes[-1:]) as place:
        for file in ("results.json", "results.csv"):
            (place / page / file).write_bytes((chains.output / page / file).read_bytes())
        (place / page / "report.html").write_text("<p>took longer</p>")
        artifacts.publish(place / page, "k", {}, lambda: None)
        found = reproduce.verdict(recipes[-1], place)
    assert [file.name for file in found.files if file.state == reproduce.DIFFERS] == ["report.html"]
    assert found.bit_equal == again


def test_what_costs_money_anywhere_in_a_chain_is_asked_about(chains: Chains, run: Run) -> None:
    labels = chained(chains, teacher="openai")
    status, said = run(labels[-1], "--chain")
    assert (status, labels[0] in said, "--paid" in said) == (1, True, True)
    assert list(chains.output.parent.iterdir()) == [chains.output]
    assert run(labels[-1], "--chain", "--dry-run")[0] == 0
    assert run(labels[-1], "--chain", "--paid")[0] == 0
    assert run(labels[-1])[0] == 0


def test_a_page_with_a_hypothesis_earlier_answers_and_failures_is_bit_equal(
    chains: Chains, run: Run, tmp_path: Path
) -> None:
    output = chains.output
    world, config = data_size_sweep(output, items=20, seeds=2)
    config.hypothesis = "More is better."
    lost = config.points[-1].stages["score:embedded"]
    for label, folder in world.parents.items():
        record, key = artifacts.read_json(folder / "provenance.json"), artifacts.read_json(folder / "stage.json")["key"]
        if label != lost:
            artifacts.publish(folder, key, record | {"parents": {}}, lambda: None)
    (output / lost / "log.txt").write_text("error: no memory left for that\n")
    found = pages.record(config, "size", "sweeps/size", list(world.parents), "c", {"argv": ["launch.py"]})
    folder = output / "sweeps" / "size"
    answers.add(folder, answers.Row(recorded="2026-11-19T08:00:00+00:00", hypothesis="More is better."))
    answers.add(folder, answers.Row(recorded="2026-11-19T09:00:00+00:00", hypothesis="", answer="Not yet known."))
    assert pages.freeze(output, found) == folder
    jobs.execute(folder)
    text = (folder / "report.html").read_text()
    assert all(words in text for words in ("before the first result", "Not yet known.", "no memory left for that"))
    later = answers.Row(recorded="2999-01-01T00:00:00+00:00", hypothesis="Less is better.")
    answers.add(folder, later)  # of a launch that has not made its page yet
    status, said = run("sweeps/size")
    assert status == 0, said
    assert answers.read(folder)[-1] == later
