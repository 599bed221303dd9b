"""`python -m alpaca reproduce` on made-up stages whose frozen code is a program of a few lines."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from alpaca.dispatch import reproduce
from tests.unit.chain_folders import PACKAGES, Chains
from tests.unit.commands import Run, runner

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
    texts = {name.partition(".")[0]: text for name, text in FILES.items()} | second
    worker = WORKER.format(fails=fails, **texts)
    code = hashlib.sha256(worker.encode()).hexdigest()[:12]
    chains.code = chains.snapshot(code, {"alpaca/__init__.py": "", "alpaca/jobs.py": worker})
    data = chains.stage("curate", "4", {"size": 4}, {}, files={"examples.jsonl": [{"id": "e"}]})
    return chains.stage(kind, "tiny", {"code": code}, {"data": data}, files=FILES)


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
    folder = reproduce.prepare(reproduce.recipe(chains.output, label))
    (parent,) = (folder.parents[1] / "curate").iterdir()
    assert parent.is_symlink()
    reproduce.remove(folder)
    assert not folder.parents[1].exists()
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
    folder = reproduce.prepare(made)
    (code,) = (folder.parents[1] / "code").iterdir()
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
