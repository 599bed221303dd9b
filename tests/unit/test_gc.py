"""`python -m alpaca gc`: what it offers, what it leaves alone, and that it never deletes unasked."""

from __future__ import annotations

import io
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from alpaca import artifacts, claims
from alpaca.cli import gc
from alpaca.dispatch import garbage, launch, local, pages
from alpaca.dispatch.slurm import records
from alpaca.sweep import expand
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


def elsewhere(chains: Chains, tmp_path: Path, kind: str) -> Path:
    """Moves a kind, or one folder of it, to another disk and leaves a link."""
    target = tmp_path / "scratch" / kind
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(chains.output / kind, target)
    (chains.output / kind).symlink_to(target)
    return target


@pytest.mark.parametrize("linked", ["sweeps", "sweeps/size", "train", "respond", "score"])
def test_what_lies_behind_a_link_needs_its_stages_and_is_not_offered(
    chains: Chains, tmp_path: Path, run: Run, linked: str
) -> None:
    kept, loose = chains.run(size=4), chains.run(size=6)
    chains.page("sweeps/size", [{"score:embedded": kept["score:embedded"]}])
    target = elsewhere(chains, tmp_path, linked)
    before = sorted(target.rglob("*"))
    free = {label for label in loose.values() if not label.startswith(f"{linked}/")} - set(kept.values())
    assert set(offered(chains.output)) == free
    assert run("--yes")[0] == 0
    assert sorted(target.rglob("*")) == before
    assert all((chains.output / label).is_dir() for label in kept.values())


def test_a_needed_link_keeps_the_stage_that_it_leads_to(chains: Chains) -> None:
    label = chains.run()["train"]
    (chains.output / "train" / "alias-0123abcd").symlink_to(chains.output / label)
    chains.page("runs/tiny", [{"train": "train/alias-0123abcd"}])
    assert label not in offered(chains.output)


def test_a_living_claim_behind_a_link_keeps_every_stage_and_the_code(chains: Chains, tmp_path: Path) -> None:
    loose = chains.run()
    train = chains.stage("train", "tiny", {"a": 1}, {"data": loose["curate"]}, finished=False)
    chains.snapshot("dead", {"alpaca/a.py": "2\n"})
    elsewhere(chains, tmp_path, "train")
    assert loose["curate"] not in offered(chains.output)  # an unfinished one behind a link keeps what it was made from
    claim = claims.acquire(chains.output / train, finished=lambda: False, on_wait=lambda _: None)
    assert claim is not None
    try:
        found = garbage.look(chains.output, paid=True)
        assert (found.wastes, found.busy) == ([], f"{train} is being made")
    finally:
        claim.release()


def test_code_that_ran_a_stage_behind_a_link_is_kept(chains: Chains, tmp_path: Path) -> None:
    code = chains.code = chains.snapshot("dead", {"alpaca/a.py": "2\n"})
    train = chains.run()["train"]
    chains.code = "code/c0de"
    chains.page("runs/tiny", [{"train": train}])
    elsewhere(chains, tmp_path, "train")
    shutil.rmtree(chains.output / "curate")
    shutil.rmtree(chains.output / "sample")
    assert code not in offered(chains.output)


@pytest.mark.parametrize("dead", ["sweeps", "train", "sweeps/size", "train/tiny-0123abcd", "queue"])
def test_a_link_to_a_disk_that_is_not_there_keeps_all_stages(chains: Chains, tmp_path: Path, dead: str) -> None:
    chains.run()
    path = chains.output / dead
    path.parent.mkdir(exist_ok=True)
    if path.exists():
        shutil.rmtree(path)
    path.symlink_to(tmp_path / "not" / "mounted")
    found = garbage.look(chains.output, paid=True)
    assert found.wastes == []
    assert f"{dead} cannot be read" in found.busy


def at_the_first_move(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Something that happens when the first folder is moved away, after the deletion has looked."""
    left, rename = [happens], Path.rename

    def renamed(path: Path, target: Path) -> Path:
        found = rename(path, target)
        if left:
            left.pop()()
        return found

    monkeypatch.setattr(Path, "rename", renamed)


@pytest.mark.parametrize("need", ["page", "child", "plan", "claim", "remaking"])
def test_what_is_needed_while_it_is_being_deleted_is_put_back(
    chains: Chains, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, need: str
) -> None:
    chains.code = chains.snapshot("dead", {"alpaca/a.py": "2\n"})
    labels, held = chains.run(), list[claims.Claim | None]()
    new, again = chains.output / "score" / "new-0123abcd", tmp_path / f"outputs{garbage.AGAIN}train-1"

    def hold(folder: Path) -> None:
        held.append(claims.acquire(folder, finished=lambda: False, on_wait=lambda _: None))

    def happens() -> None:
        if need == "page":
            chains.page("runs/tiny", [labels])
        elif need == "child":
            artifacts.freeze(new, {"key": "k", "parents": {"responses": labels["score:embedded"]}})
        elif need == "plan":
            pages.write_plan(chains.output, {"folder": "sweeps/new", "labels": list(labels.values())})
        else:
            folder = new if need == "claim" else again
            folder.mkdir()
            hold(folder)

    wastes = garbage.look(chains.output, paid=True).wastes
    assert {waste.label for waste in wastes} > set(labels.values())
    at_the_first_move(monkeypatch, happens)
    kept = garbage.delete(chains.output, wastes, paid=True)[1]
    for claim in held:
        assert claim is not None
        claim.release()
    assert {waste.label for waste in kept} >= {*labels.values(), chains.code}
    assert all((chains.output / label / "_SUCCESS").exists() for label in labels.values())
    assert (chains.output / chains.code / "alpaca" / "a.py").exists()
    assert not list(chains.output.glob(f"{garbage.TRASH}*-*"))


def test_an_interrupted_deletion_puts_everything_back(chains: Chains, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = chains.run()

    def interrupt() -> None:
        raise KeyboardInterrupt

    wastes = garbage.look(chains.output, paid=True).wastes
    monkeypatch.setattr(garbage, "_needed_again", lambda *_: interrupt())
    with pytest.raises(KeyboardInterrupt):
        garbage.delete(chains.output, wastes, paid=True)
    assert all((chains.output / label / "_SUCCESS").exists() for label in labels.values())
    assert not list(chains.output.glob(f"{garbage.TRASH}*-*"))


def test_a_deletion_waits_for_launches_and_they_not_for_each_other(
    chains: Chains, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage, "LOCK_SECONDS", 0.5)
    with garbage.lock(chains.output, alone=False):
        started = time.monotonic()
        with garbage.lock(chains.output, alone=False):
            assert time.monotonic() - started < 0.4
        with garbage.lock(chains.output, alone=True):  # after a while it goes on without
            assert time.monotonic() - started > 0.4
    with pytest.raises(OSError, match="told"), garbage.lock(chains.output / "none", alone=True):
        raise OSError("told")


def test_what_an_interrupted_launch_had_finished_is_kept_until_its_page_stands(chains: Chains) -> None:
    one, other = (chains.run(size=size) for size in (4, 6))
    labels, others = list(one.values()), list(other.values())
    record = {"folder": "sweeps/size", "labels": [*labels, "score/not-done-0123abcd"]}
    pages.write_plan(chains.output, record)
    assert set(offered(chains.output)) == set(others) - set(labels)
    pages.write_plan(chains.output, record | {"labels": others})  # the next launch of the page takes its place
    assert set(offered(chains.output)) == set(labels) - set(others)
    # A page that does not show all that is done is that of an earlier launch.
    chains.page("sweeps/size", [one])
    assert offered(chains.output) == {}
    chains.page("sweeps/size", [other])
    assert set(offered(chains.output)) == set(labels) - set(others)
    pages.forget_plan(chains.output, record)
    assert not (chains.output / "sweeps/size" / artifacts.PLANNED).exists()
    artifacts.verify(chains.output / "sweeps/size", thorough=True)


def test_a_launch_says_what_it_makes_before_anything_runs_and_forgets_it_when_the_page_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "_run_stages", interrupted)
    sweep = expand((f"output_dir={tmp_path / 'outputs'}", "tracker=none"), multirun=False)
    with pytest.raises(KeyboardInterrupt):
        launch.launch(sweep, [])
    (path,) = (tmp_path / "outputs").glob(f"runs/*/{artifacts.PLANNED}")
    labels = {folder.relative_to(tmp_path / "outputs").as_posix() for folder in (tmp_path / "outputs").glob("*/*-*")}
    assert set(pages.planned(path.parent)) == labels - {f"runs/{path.parent.name}"}
    monkeypatch.setattr(launch, "_run_stages", lambda *_: local.Outcome())
    monkeypatch.setattr(launch, "_has_results", lambda *_: True)
    monkeypatch.setattr(launch, "_report", lambda *_: (path.parent / "report.html", False))
    launch.launch(sweep, [])
    assert path.exists()
    monkeypatch.setattr(launch, "_report", lambda *_: (path.parent / "report.html", True))
    launch.launch(sweep, [])
    assert not path.exists()


def test_a_plan_of_another_launch_is_not_removed_and_one_that_cannot_be_read_keeps_all(chains: Chains) -> None:
    record = {"folder": "sweeps/size", "labels": list(chains.run().values())}
    pages.write_plan(chains.output, record)
    path = chains.output / "sweeps/size" / artifacts.PLANNED
    artifacts.write_json(path, artifacts.read_json(path) | {"by": {"pid": 1}})
    pages.forget_plan(chains.output, record)
    assert path.exists()
    path.write_text("{")
    found = garbage.look(chains.output, paid=True)
    assert (found.wastes, "planned.json cannot be read" in found.busy) == ([], True)


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
