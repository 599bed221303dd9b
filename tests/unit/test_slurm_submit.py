"""Submissions into an output folder that others use too; SLURM answers from files and is counted."""

from __future__ import annotations

import getpass
import subprocess
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from alpaca import artifacts, claims
from alpaca.dispatch.slurm import control, queue, records, states, submit
from alpaca.dispatch.slurm.records import Draft, Submission
from alpaca.dispatch.slurm.submit import UnclearError
from alpaca.errors import ArtifactError, PreemptedError, UserError
from tests.conftest import ROOT, command, environment
from tests.unit.slurm_folder import CHAIN, CURATE, NAME, RESPOND, SCORE, TRAIN, Folder, chain, waiting


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    found = Folder(tmp_path)
    monkeypatch.setenv("PATH", found.path)
    return found


def submitted(folder: Folder, draft: Draft, frozen: list[Collection[str]] | None = None) -> submit.Outcome:
    """One submission to its end. frozen: gets the labels that were not to be frozen."""
    with submit.alone(folder.output, print) as claim:
        return submit.submit(draft, folder.output, claim, freeze=(frozen if frozen is not None else []).append)


def another(submission: Submission, name: str) -> Draft:
    """A sweep of the same stages under another name."""
    report = {**submission.report, "folder": f"sweeps/{name}"}
    return Draft(
        name=name, command="", cluster=submission.cluster, code="code/c0de", stages=submission.stages, report=report
    )


def dependencies(folder: Folder) -> set[str]:
    """What the job arrays were told to wait for, by their batch scripts."""
    lines = [line for path in folder.output.glob("queue/*/logs/*.sh") for line in path.read_text().splitlines()]
    return {line.partition("--dependency=")[2] for line in lines if "--dependency=" in line}


def test_stages_on_their_way_stay_as_they_were_frozen(folder: Folder) -> None:
    first, queued = chain(folder)
    waiting(folder, queued)
    kept: list[Collection[str]] = []
    outcome = submitted(folder, another(first, "other"), kept)
    assert [sorted(labels) for labels in kept] == [sorted([TRAIN, RESPOND, SCORE])]
    assert (outcome.adopted, outcome.finished) == (3, 1)


def test_a_page_is_queued_behind_what_others_do_and_only_once(folder: Folder) -> None:
    first, queued = chain(folder)
    waiting(folder, queued)
    outcome = submitted(folder, another(first, "other"))
    (record, array, dependency), *more = outcome.queued
    assert (array, more) == (None, [])
    assert dependency == "afterany:101:102"
    assert dependencies(folder) == {dependency}
    folder.says(record, 0, "PENDING", "Dependency")
    assert submitted(folder, another(first, "other")).queued == []
    assert len(folder.calls("sbatch")) == 1
    index = records.index(folder.output)
    found = states.states(first, index, states.observe(index, first.output))
    assert [each.state for each in found] == ["done", "running", "waiting", "waiting"]


def test_a_page_that_waits_for_other_jobs_is_not_enough(folder: Folder) -> None:
    first, queued = chain(folder)
    waiting(folder, queued)
    page = folder.queued(first, "150", f"sweeps/{NAME}", number=9)
    record = artifacts.read_json(page.path)
    artifacts.write_json(page.path, record | {"follows": ["101"]})
    folder.says(page, 0, "PENDING", "Dependency")
    assert len(submitted(folder, first).queued) == 1


def test_a_submission_is_newer_than_one_by_a_clock_that_is_ahead(folder: Folder) -> None:
    ahead = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="milliseconds")
    first, _ = chain(folder)
    path = first.folder / "submission.json"
    artifacts.write_json(path, artifacts.read_json(path) | {"created": ahead})
    outcome = submitted(folder, first)
    assert outcome.queued
    found = records.index(folder.output)
    assert [item.created > ahead for item in found.submissions] == [False, True]
    assert found.latest[TRAIN].array.submission == found.submissions[-1].folder


def test_a_sweep_without_a_job_keeps_nobodys_stages(folder: Folder) -> None:
    first, queued = chain(folder)
    waiting(folder, queued)
    folder.submission(CHAIN, "dead")
    with submit.alone(folder.output, print):
        found = control.cancel(records.index(folder.output), first)
    assert (len(found.jobs), found.kept) == (3, [])
    assert records.cancelled(first.folder) == {"101_0", "102_0", "103_0"}


def test_a_page_that_is_made_anew_is_cancelled_too(folder: Folder) -> None:
    first, _ = chain(folder)
    folder.finish(*CHAIN)
    folder.page(CURATE)
    again = folder.queued(first, "190", f"sweeps/{NAME}", number=9)
    folder.says(again, 0, "PENDING", "Priority")
    with submit.alone(folder.output, print):
        assert control.cancel(records.index(folder.output), first).jobs == ["190_0"]


def test_jobs_of_other_users_are_left_to_them(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    first, queued = chain(folder)
    for array in queued[1:]:
        folder.says(array, 0, "PENDING", queue.NEVER)
    monkeypatch.setattr(getpass, "getuser", lambda: "somebody")
    removed, left = control.reap(records.index(folder.output), folder.output)
    assert removed == []
    assert [(job.id, job.user) for job in left] == [("102_0", "me"), ("103_0", "me")]
    assert folder.calls("scancel") == []
    folder.fails("scancel", "Access/permission denied")
    outcome = submitted(folder, first)  # queues what the doomed jobs were to do, and leaves them
    assert next(labels for record, _, _ in outcome.queued for labels in record.units.values()) == [TRAIN]


def test_more_names_than_an_argument_bears_are_chosen_here(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    first, queued = chain(folder)
    waiting(folder, queued)
    folder.rows.append("900|0|RUNNING|None|0:00|somebody.elses|you")
    folder.says(queued[0], 0, "RUNNING")
    monkeypatch.setattr(queue, "LONGEST", 10)
    seen = states.observe(records.index(folder.output), first.output)
    assert sorted(seen.jobs) == ["101_0", "102_0", "103_0"]
    assert "--name" not in folder.calls("squeue")[-1]


def test_a_program_that_cannot_be_started_is_told(folder: Folder) -> None:
    with pytest.raises(UserError, match=r"squeue cannot be started.*too long"):
        queue.call(["squeue", "x" * 200_000])


def test_a_submitter_taken_for_dead_queues_nothing_more(folder: Folder) -> None:
    first, _ = chain(folder)
    script = folder.root / "bin" / "sbatch"
    successor = folder.output / "queue" / "claim-000002"
    script.write_text(script.read_text() + f'\necho "{{}}" > "{successor}"\n')
    with pytest.raises(ArtifactError, match="1 of 3 stages are queued"):
        submitted(folder, first)
    assert len(folder.calls("sbatch")) == 1
    assert successor.exists()  # not ours to remove


def test_a_folder_that_may_only_be_looked_at_is_asked_about_as_rarely(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, queued = chain(folder)
    waiting(folder, queued)

    def refuse(path: Path, value: object) -> None:
        raise PermissionError(f"{path}: read-only file system")

    monkeypatch.setattr(queue, "write_json", refuse)
    for _ in range(3):
        states.observe(records.index(folder.output), first.output)
    assert len(folder.calls("squeue")) == 1
    queue.forget(folder.output)
    states.observe(records.index(folder.output), first.output)
    assert len(folder.calls("squeue")) == 2


def test_an_element_that_squeue_forgot_before_its_siblings_is_looked_up(folder: Folder) -> None:
    labels = ["train/a-01", "train/b-02"]
    first = folder.submission(dict.fromkeys(labels, ()))
    array = folder.queued(first, "101", *labels)
    folder.says(array, 1, "RUNNING")
    folder.remembers(array, 0, "TIMEOUT")
    index = records.index(folder.output)
    found = states.states(first, index, states.observe(index, first.output))
    assert [each.state for each in found] == ["failed", "running"]
    assert "time limit" in found[0].reason


def test_a_row_of_a_range_stands_for_its_own_elements_alone(folder: Folder) -> None:
    labels = [f"train/{letter}-0{number}" for number, letter in enumerate("abcd")]
    first = folder.submission(dict.fromkeys(labels, ()))
    array = folder.queued(first, "101", *labels)
    folder.says(array, 0, "RUNNING")
    folder.rows.append(f"101|[1-2%1]|CANCELLED|None|0:00|{array.name}|me")
    (folder.root / "rows").write_text("\n".join(folder.rows) + "\n")
    folder.history += [f"101_[2-3%8]|{array.name}|CANCELLED|0|me", f"101_3|{array.name}|OUT_OF_MEMORY|00:01:00|me"]
    (folder.root / "history").write_text("\n".join(folder.history) + "\n")
    index = records.index(folder.output)
    found = [each.state for each in states.states(first, index, states.observe(index, first.output))]
    assert found == ["running", "cancelled", "cancelled", "failed"]


def test_cancel_leaves_the_jobs_of_others_and_marks_only_its_own(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, queued = chain(folder)
    waiting(folder, queued)
    folder.rows = [row.replace("|me", "|you") if row.startswith("102|") else row for row in folder.rows]
    folder.says(queued[0], 0, "RUNNING")
    old = folder.submission({CURATE: ()})
    monkeypatch.setattr(getpass, "getuser", lambda: "me")
    with submit.alone(folder.output, print):
        found = control.cancel(records.index(folder.output), first)
    assert found.jobs == ["101_0", "103_0"]
    assert [job.id for job in found.others] == ["102_0"]
    assert records.cancelled(first.folder) == {"101_0", "103_0"}
    assert not old.cancelled


def test_one_refused_batch_does_not_keep_the_others(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    first, queued = chain(folder)
    waiting(folder, queued)
    monkeypatch.setattr(control, "AT_ONCE", 1)
    folder.fails("scancel", "Access/permission denied")
    with submit.alone(folder.output, print), pytest.raises(UserError, match="permission denied"):
        control.cancel(records.index(folder.output), first)
    assert len(folder.calls("scancel")) == 3


def test_an_old_page_does_not_stand_for_the_one_that_is_frozen(folder: Folder) -> None:
    first, queued = chain(folder)
    folder.finish(*CHAIN)
    page = folder.page(*CHAIN)
    assert states.is_complete(first)
    artifacts.write_json(page / "stage.json", artifacts.read_json(page / "stage.json") | {"key": "new"})
    assert not states.is_complete(first)
    assert queued[2].name in states.wanted(records.index(folder.output), folder.output)


def test_plans_ask_slurm_no_more_often_than_others(folder: Folder) -> None:
    first, queued = chain(folder)
    waiting(folder, queued)
    for _ in range(3):
        states.observe(records.index(folder.output), first.output, history=False)
    assert len(folder.calls("squeue")) == 1


def test_what_waits_in_another_sweep_is_taken_back_by_its_own_setting(folder: Folder) -> None:
    first = folder.submission({TRAIN: ()})
    own = folder.queued(first, "101", TRAIN)
    other = folder.submission({TRAIN: (), RESPOND: (TRAIN,)}, "other")
    path = other.folder / "submission.json"
    record = artifacts.read_json(path)
    artifacts.write_json(path, record | {"cluster": record["cluster"] | {"kill_on_invalid_dep": False}})
    folder.queued(other, "201", RESPOND)
    assert control.reap_after(own.path, TRAIN, "101_0") == ["201_0"]


def test_a_launch_without_a_page_that_only_waits_is_recorded_once(folder: Folder) -> None:
    first, queued = chain(folder)
    waiting(folder, queued)
    draft = another(first, "other")
    draft.report = {}
    for _ in range(2):
        assert submitted(folder, draft).queued == []
    index = records.index(folder.output)
    assert [item.name for item in index.submissions] == [NAME, "other"]
    with submit.alone(folder.output, print):
        assert control.cancel(index, first).kept == [TRAIN, RESPOND, SCORE]


def test_a_number_that_cannot_be_written_down_is_found_later(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = chain(folder)

    def full(array: object, job: str) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(records, "write_job", full)
        with pytest.raises(UnclearError, match="may be queued or not"):
            submitted(folder, another(first, "other"))
    element = records.index(folder.output).latest[TRAIN]
    folder.says(element.array, 0, "PENDING", "Priority")
    assert submitted(folder, another(first, "other")).adopted == 1


@pytest.mark.parametrize("squeue", [True, False])
def test_an_array_that_was_cancelled_as_a_whole_is_not_lost(folder: Folder, squeue: bool) -> None:
    first = folder.submission({"train/a-01": (), "train/b-02": ()})
    array = folder.queued(first, "101", "train/a-01", "train/b-02")
    if squeue:
        folder.rows.append(f"101|N/A|CANCELLED|None|0:00|{array.name}|me")
        (folder.root / "rows").write_text("\n".join(folder.rows) + "\n")
    else:
        folder.history.append(f"101_[0-1%8]|{array.name}|CANCELLED by 0|00:00:00|me")
        (folder.root / "history").write_text("\n".join(folder.history) + "\n")
    index = records.index(folder.output)
    found = states.states(first, index, states.observe(index, first.output))
    assert [each.state for each in found] == ["cancelled", "cancelled"]


def test_a_stage_that_was_cancelled_by_hand_is_not_called_failed(folder: Folder) -> None:
    first, queued = chain(folder)
    folder.says(queued[0], 0, "CANCELLED")
    word = {"job": "101_0", "restart": 0, "status": PreemptedError.exit_status, "error": "stopped by SIGTERM"}
    artifacts.write_json(folder.output / TRAIN / artifacts.STOPPED, word)
    index = records.index(folder.output)
    found = {each.stage.label: each.state for each in states.states(first, index, states.observe(index, first.output))}
    assert found[TRAIN] == "cancelled"


def test_a_failing_stage_takes_back_what_follows_but_not_its_own_job(folder: Folder) -> None:
    stages: dict[str, tuple[str, ...]] = {RESPOND: (), SCORE: (RESPOND,), "score/y-05": (RESPOND,)}
    first = folder.submission(stages)
    path = first.folder / "submission.json"
    record = artifacts.read_json(path)
    artifacts.write_json(path, record | {"cluster": record["cluster"] | {"kill_on_invalid_dep": False}})
    own = folder.queued(first, "101", f"{RESPOND} {SCORE}")
    folder.queued(first, "102", "score/y-05", number=2)
    assert control.reap_after(own.path, RESPOND, "101_0") == ["102_0"]
    assert folder.calls("scancel") == ["scancel --quiet 102_0"]


def test_a_refused_submission_leaves_no_trace(folder: Folder) -> None:
    first, _ = chain(folder)
    folder.fails("sbatch", "sbatch: error: Batch job submission failed: Invalid partition name specified\n")
    with pytest.raises(UserError, match="nothing was queued"):
        submitted(folder, another(first, "other"))
    assert [item.name for item in records.index(folder.output).submissions] == [NAME]
    folder.fails("scontrol", "slurm_load_ctl_conf error")
    with pytest.raises(UserError, match="nothing was queued"):
        submitted(folder, another(first, "other"))
    assert [item.name for item in records.index(folder.output).submissions] == [NAME]


def test_a_policy_names_the_keys_that_it_may_concern(folder: Folder) -> None:
    first, _ = chain(folder)
    folder.fails("sbatch", "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy\n")
    with pytest.raises(UserError, match=r"cluster\.qos"):
        submitted(folder, first)


def test_a_refused_amount_of_memory_names_memory_alone(folder: Folder) -> None:
    first, _ = chain(folder)
    words = ("Memory specification can not be satisfied", "Requested node configuration is not available")
    folder.fails("sbatch", "".join(f"sbatch: error: {text}\n" for text in words))
    with pytest.raises(UserError, match=r"^cluster\.(stages\.train\.)?memory_gib=\S+: sbatch refused"):
        submitted(folder, first)


def test_what_was_cancelled_is_queued_again_though_it_is_still_ending(folder: Folder) -> None:
    first, queued = chain(folder)
    waiting(folder, queued)
    with submit.alone(folder.output, print):
        control.cancel(records.index(folder.output), first)
    folder.says(queued[0], 0, "COMPLETING")
    index = records.index(folder.output)
    found = {each.stage.label: each.state for each in states.states(first, index, states.observe(index, first.output))}
    assert set(found.values()) == {"done", "cancelled"}
    assert [array.kind for _, array, _ in submitted(folder, first).queued if array] == ["train", "respond"]


def test_the_children_of_what_was_never_queued_are_not_skipped(folder: Folder) -> None:
    first = folder.submission(CHAIN)
    folder.finish(CURATE)
    index = records.index(folder.output)
    found = [each.state for each in states.states(first, index, states.observe(index, first.output))]
    assert found == ["done", "not queued", "not queued", "not queued"]


def test_the_way_out_of_a_program_that_is_not_there_is_kept(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = chain(folder)
    (folder.root / "bin" / "squeue").unlink()
    monkeypatch.setenv("PATH", str(folder.root / "bin"))
    with pytest.raises(UserError, match="choose cluster=local; nothing was queued"):
        submitted(folder, first)


def test_where_sbatch_does_not_say_what_it_did_the_job_is_found_later(folder: Folder) -> None:
    first, _ = chain(folder)
    folder.fails("sbatch", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n")
    with pytest.raises(UnclearError, match="nothing was queued"):
        submitted(folder, another(first, "other"))
    index = records.index(folder.output)
    element = index.latest[TRAIN]
    assert element.job is None
    folder.says(element.array, 0, "PENDING", "Priority")  # it was queued after all
    (folder.root / "sbatch.fails").unlink()
    outcome = submitted(folder, another(first, "other"))
    assert outcome.adopted == 1
    assert records.index(folder.output).latest[TRAIN].job == "77_0"


def test_a_full_disk_in_the_middle_says_what_is_queued(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = chain(folder)
    write, count = records.write_array, iter(range(9))

    def full(submission: Submission, array: object) -> object:
        if next(count):
            raise OSError(28, "No space left on device", str(submission.folder))
        return write(submission, array)  # type: ignore[arg-type]

    monkeypatch.setattr(records, "write_array", full)
    with pytest.raises(UserError, match=r"(?s)no space left.*1 of 3 stages are queued"):
        submitted(folder, first)


def test_sigterm_in_the_middle_says_what_is_queued(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, _ = chain(folder)

    def stop(*_: object) -> None:
        raise SystemExit(143)

    monkeypatch.setattr(submit, "_queue_page", stop)
    with pytest.raises(SystemExit):
        submitted(folder, first)
    assert "3 of 3 stages are queued" in capsys.readouterr().err


def test_the_queue_is_free_again_after_a_failure(folder: Folder) -> None:
    first, _ = chain(folder)
    folder.fails("squeue", "Unable to contact slurm controller")
    with pytest.raises(UserError, match="nothing was queued"):
        submitted(folder, first)
    assert claims.holder(folder.output / "queue") is None
    assert not list((folder.output / "queue").glob("claim-*"))


def test_a_raw_pool_has_no_page(folder: Folder) -> None:
    words = ["cluster=slurm_cpu", "until=sample", "data_gen.num_examples=40"]
    done = subprocess.run(
        command(folder.root, words), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (submission,) = records.index(folder.output).submissions
    assert submission.page == ""
    assert len(folder.calls("sbatch")) == 1
