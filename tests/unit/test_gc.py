"""`python -m alpaca gc`: what it offers, what it leaves alone, and that it never deletes unasked."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import pytest

from alpaca import artifacts, claims
from alpaca.cli import gc
from alpaca.dispatch import garbage
from alpaca.dispatch.slurm import records
from tests.unit.chain_folders import Chains
from tests.unit.commands import Run, runner
from tests.unit.slurm_folder import CHAIN, CURATE, TRAIN, Folder, chain


@pytest.fixture
def chains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chains:
    monkeypatch.setattr(garbage, "QUIET_SECONDS", 0.0)
    made = Chains(output=tmp_path / "outputs")
    made.code = made.snapshot("c0de", {"alpaca/a.py": "1\n"})
    return made


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Without a terminal, unless `answer` is given."""

    def found(*words: str, answer: str | None = None) -> tuple[int, str]:
        text = io.StringIO(f"{answer}\n")
        text.isatty = lambda: answer is not None  # type: ignore[method-assign]
        monkeypatch.setattr("sys.stdin", text)
        return runner(capsys, tmp_path / "outputs", "gc")(*words)

    return found


def offered(output: Path, *, paid: bool = False) -> dict[str, str]:
    return {waste.label: waste.why for waste in garbage.look(output, paid=paid).wastes}


def test_what_a_page_shows_is_kept_with_everything_it_was_made_from(chains: Chains) -> None:
    kept, loose = chains.run(size=4), chains.run(size=6)
    chains.page("runs/tiny", [{"score:embedded": kept["score:embedded"]}])
    found = offered(chains.output)
    assert set(found) == set(loose.values()) - set(kept.values())
    assert set(found.values()) == {garbage.UNREFERENCED}


def test_answers_of_a_teacher_are_offered_only_when_asked_for(chains: Chains, run: Run) -> None:
    sample = chains.run()["sample"]
    assert sample not in offered(chains.output)
    assert sample in offered(chains.output, paid=True)
    said = run()[1]
    assert "1 stage(s) (" in said
    assert "--paid" in said
    assert run("--yes")[0] == 0
    assert (chains.output / sample).is_dir()
    assert run("--yes", "--paid")[0] == 0
    assert not (chains.output / sample).exists()


def test_nothing_is_deleted_without_a_terminal_or_a_yes(chains: Chains, run: Run) -> None:
    labels = chains.run().values()
    status, said = run()
    assert status == 0
    assert "there is no terminal to ask at" in said
    status, said = run(answer="n")
    assert (status, "nothing was deleted" in said) == (1, True)
    assert all((chains.output / label).is_dir() for label in labels)
    status, said = run(answer="y")
    assert status == 0, said
    assert [label for label in labels if (chains.output / label).exists()] == [next(iter(labels))]
    assert "nothing to delete" in run()[1]
    assert [path.name for path in chains.output.iterdir() if path.name.startswith(".gc-")] == []


def test_failed_and_torn_work_is_offered_with_its_reason_and_its_parents_stay(chains: Chains) -> None:
    data = chains.run()["curate"]
    failed = chains.stage("train", "tiny", {"a": 1}, {"data": data}, finished=False)
    torn = chains.stage("train", "tiny", {"a": 2}, {"data": data}, finished=False)
    artifacts.write_json(chains.output / failed / artifacts.STOPPED, {"error": "no memory\n  try less"})
    (chains.output / torn / "work").mkdir()
    (chains.output / torn / "work" / "step-4").write_text("x" * 1000)
    wastes = {waste.label: waste for waste in garbage.look(chains.output, paid=False).wastes}
    assert (wastes[failed].why, wastes[failed].note) == (garbage.FAILED, "no memory")
    assert wastes[torn].why == garbage.TORN
    assert "goes on from there" in wastes[torn].note
    assert wastes[torn].size > 1000
    assert data not in wastes


def test_a_living_claim_keeps_every_stage_and_the_code(chains: Chains) -> None:
    chains.run()
    train = chains.stage("train", "tiny", {"a": 1}, {}, finished=False)
    chains.snapshot("dead", {"alpaca/a.py": "2\n"})
    claim = claims.acquire(chains.output / train, finished=lambda: False, on_wait=lambda _: None)
    assert claim is not None
    try:
        found = garbage.look(chains.output, paid=True)
        assert found.wastes == []
        assert found.busy == f"{train} is being made"
    finally:
        claim.release()
    assert train in offered(chains.output)


def test_a_folder_that_was_just_touched_is_no_waste(chains: Chains, monkeypatch: pytest.MonkeyPatch) -> None:
    label = chains.run()["train"]
    monkeypatch.setattr(garbage, "QUIET_SECONDS", 600.0)
    assert "touched in the last 10 minutes" in garbage.look(chains.output, paid=False).busy
    for path in chains.output.rglob("*"):
        os.utime(path, (1, 1))
    assert label in offered(chains.output)


def test_looking_does_not_make_a_dead_claim_look_alive(chains: Chains, monkeypatch: pytest.MonkeyPatch) -> None:
    label = chains.stage("train", "tiny", {"a": 1}, {}, finished=False)
    (chains.output / label / "claim-000001").write_text('{"released": true}')
    for path in chains.output.rglob("*"):
        os.utime(path, (1, 1))
    monkeypatch.setattr(garbage, "QUIET_SECONDS", 600.0)
    assert label in offered(chains.output)
    assert label in offered(chains.output)


def test_checkpoints_of_a_finished_stage_and_unused_code_are_offered(chains: Chains, run: Run) -> None:
    kept = chains.run()
    chains.page("runs/tiny", [kept])
    (chains.output / kept["train"] / "work").mkdir()
    (chains.output / kept["train"] / "work" / "old").write_text("x")
    chains.snapshot("dead", {"alpaca/a.py": "2\n"})
    assert offered(chains.output) == {f"{kept['train']}/work": garbage.SCRATCH, "code/dead": garbage.SNAPSHOT}
    assert run("--yes")[0] == 0
    assert (chains.output / kept["train"] / "loss.jsonl").exists()
    assert (chains.output / "code" / "c0de").is_dir()
    assert offered(chains.output) == {}


def test_links_are_neither_offered_nor_followed(chains: Chains, tmp_path: Path, run: Run) -> None:
    label = chains.run()["train"]
    outside = tmp_path / "outside"
    shutil.copytree(chains.output / "curate", outside)
    shutil.rmtree(chains.output / "curate")
    (chains.output / "curate").symlink_to(outside)
    (chains.output / "train" / "linked-0123abcd").symlink_to(outside)
    (chains.output / "train" / "alias-0123abcd").symlink_to(chains.output / label)
    (chains.output / label / "model").symlink_to(outside)
    before = sorted(path.name for path in outside.rglob("*"))
    assert not [name for name in offered(chains.output) if name.startswith("curate") or "0123abcd" in name]
    assert run("--yes")[0] == 0
    assert not (chains.output / label).exists()
    assert sorted(path.name for path in outside.rglob("*")) == before


def test_a_folder_of_somebody_else_is_no_stage(chains: Chains) -> None:
    (chains.output / "train" / "my-notes").mkdir(parents=True)
    (chains.output / "sweeps" / "figures").mkdir(parents=True)
    (chains.output / "train" / "tiny-0123abcd").mkdir()
    assert offered(chains.output) == {"train/tiny-0123abcd": garbage.TORN, "code/c0de": garbage.SNAPSHOT}


def test_a_page_that_cannot_be_read_keeps_all_stages(chains: Chains) -> None:
    page = chains.page("runs/tiny", [chains.run()])
    (chains.output / page / "stage.json").write_text("{")
    found = garbage.look(chains.output, paid=True)
    assert found.wastes == []
    assert "cannot be read" in found.busy


def test_what_is_needed_again_since_it_was_shown_is_kept(chains: Chains) -> None:
    labels = chains.run()
    wastes = garbage.look(chains.output, paid=False).wastes
    chains.page("runs/tiny", [{"train": labels["train"]}])
    done, kept = garbage.delete(chains.output, wastes, paid=False)
    assert {waste.label for waste in kept} == {labels["curate"], labels["train"]}
    assert (chains.output / labels["train"]).is_dir()
    assert {waste.label for waste in done} == {labels["respond:embedded"], labels["score:embedded"]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    found = Folder(tmp_path)
    monkeypatch.setenv("PATH", found.path)
    monkeypatch.setattr(garbage, "QUIET_SECONDS", 0.0)
    return found


def test_what_a_queued_job_needs_is_kept_and_all_of_it_where_slurm_does_not_answer(folder: Folder) -> None:
    _, queued = chain(folder)
    folder.says(queued[0], 0, "PENDING")
    found = garbage.look(folder.output, paid=True)
    assert (found.wastes, found.busy, found.protected) == ([], "", 4)
    folder.fails("squeue", "no controller")
    assert garbage.look(folder.output, paid=True).wastes == []


def test_after_its_jobs_ended_what_failed_is_offered_and_what_is_done_waits_for_retry(folder: Folder, run: Run) -> None:
    _, queued = chain(folder)
    folder.says(queued[0], 0, "FAILED")
    found = offered(folder.output)
    assert set(found) == set(CHAIN) - {CURATE}
    assert found[TRAIN] == garbage.TORN
    status, said = run("--yes")
    assert status == 0, said
    assert not (folder.output / TRAIN).exists()
    assert (folder.output / CURATE).is_dir()


def test_records_of_what_is_over_expire(folder: Folder, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    submission, _ = chain(folder)
    folder.finish(*CHAIN)
    folder.page(*CHAIN)
    assert offered(folder.output) == {}
    monkeypatch.setattr(garbage, "RECORD_DAYS", 0)
    assert offered(folder.output) == {f"queue/{submission.folder.name}": garbage.RECORD}
    status, said = run("--yes")
    assert status == 0, said
    assert records.index(folder.output).submissions == []


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 * 2**40, "5.0 TiB")])
def test_bytes_for_people(size: int, text: str) -> None:
    assert gc.human(size) == text
