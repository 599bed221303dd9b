"""`python -m alpaca ...` on an output folder as a submission leaves it; SLURM answers from files and is counted."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alpaca import artifacts
from alpaca.cli.commands import main
from alpaca.dispatch.slurm import queue, records
from tests.conftest import ROOT
from tests.unit.commands import Run, runner
from tests.unit.slurm_folder import CHAIN, CURATE, NAME, RESPOND, SCORE, TRAIN, Folder, chain, waiting


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    found = Folder(tmp_path)
    monkeypatch.setenv("PATH", found.path)
    return found


@pytest.fixture
def run(folder: Folder, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys, folder.output)


def process(folder: Folder, *words: str, **more: str) -> subprocess.Popen[str]:
    """`python -m alpaca ...` as a user starts it."""
    command = [sys.executable, "-m", "alpaca", *words, "--output-dir", str(folder.output)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **more}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=folder.root, env=env, text=True, stdout=pipe, stderr=subprocess.STDOUT, preexec_fn=_hear_ctrl_c
    )


def _hear_ctrl_c() -> None:
    """As from a terminal: what a script starts in the background ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def states_of(run: Run, *words: str) -> dict[str, str]:
    status, said = run("status", *words, "--json")
    assert status == 0, said
    return {item["stage"]: item["state"] for view in json.loads(said) for item in view["stages"]}


def forget(folder: Folder) -> None:
    """As ten seconds later: the next look asks SLURM."""
    queue.forget(folder.output)


# --- status


def test_every_state_is_told_with_what_belongs_to_it(folder: Folder, run: Run) -> None:
    kinds = ["done", "running", "queued", "waiting", "failed", "skipped", "cancelled", "lost", "unqueued", "timeout"]
    stages = {f"train/{kind}-0000000{number}": () for number, kind in enumerate(kinds)}
    labels = dict(zip(kinds, stages, strict=True))
    stages[labels["waiting"]] = (labels["running"],)
    stages[labels["skipped"]] = (labels["failed"],)
    submission = folder.submission(stages)
    array = folder.queued(submission, "500", *[label for label in stages if "unqueued" not in label])
    element = {label: number for number, (label,) in array.units.items()}
    folder.finish(labels["done"])
    artifacts.write_json(folder.output / labels["done"] / "provenance.json", {"seconds": 3723.4})
    artifacts.write_json(
        folder.output / labels["running"] / "progress.json", {"done": 30, "total": 120, "text": "loss 1.25"}
    )
    folder.says(array, element[labels["running"]], "RUNNING", used="1-00:01:05")
    folder.says(array, element[labels["queued"]], "PENDING", "Resources")
    folder.says(array, element[labels["waiting"]], "PENDING", "Dependency")
    folder.says(array, element[labels["failed"]], "FAILED")
    folder.stopped(labels["failed"], f"500_{element[labels['failed']]}", "batch.txt: no such file\n    remedy")
    folder.says(array, element[labels["skipped"]], "CANCELLED")
    folder.says(array, element[labels["cancelled"]], "CANCELLED")
    folder.says(array, element[labels["timeout"]], "TIMEOUT")
    expected = dict(zip(labels.values(), kinds, strict=True))
    expected |= {labels["unqueued"]: "not queued", labels["timeout"]: "failed"}
    assert states_of(run) == expected
    status, said = run("status")
    assert status == 0
    rows = {line.split()[0]: line for line in said.splitlines() if line.startswith("train/")}
    assert list(rows) == list(stages)
    for kind, words in {
        "done": ["1:02:03"],
        "running": ["500_1", "24:01:05", "25 %, loss 1.25"],
        "queued": ["500_2", "Resources"],
        "waiting": ["after train/running-00000001"],
        "failed": ["500_4", "batch.txt: no such file"],
        "skipped": [f"{labels['failed']} is not done"],
        "timeout": ["TIMEOUT", "minutes"],
        "lost": ["ended without a word"],
    }.items():
        assert all(word in rows[labels[kind]] for word in words), rows[labels[kind]]
    assert "1/10 done" in said
    assert f"python -m alpaca logs {labels['failed']} --output-dir" in said
    assert f"python -m alpaca retry {NAME} --output-dir" in said


def test_a_stage_that_waits_for_another_in_its_own_job_says_so(folder: Folder, run: Run) -> None:
    _, queued = chain(folder)
    folder.finish(TRAIN)
    folder.says(queued[1], 0, "RUNNING")
    assert states_of(run) == {CURATE: "done", TRAIN: "done", RESPOND: "running", SCORE: "waiting"}
    assert "runs next in the same job" in run("status")[1]


def test_a_job_that_can_never_start_is_skipped_and_status_removes_nothing(folder: Folder, run: Run) -> None:
    _, queued = chain(folder)
    folder.says(queued[0], 0, "FAILED")
    folder.says(queued[1], 0, "PENDING", "DependencyNeverSatisfied")
    found = states_of(run)
    assert (found[TRAIN], found[RESPOND], found[SCORE]) == ("failed", "skipped", "skipped")
    assert "python -m alpaca reap" in run("status")[1]
    assert folder.calls("scancel") == []
    assert "1 jobs removed that could never start: 102_0" in run("reap")[1]
    assert folder.calls("scancel") == ["scancel --quiet 102_0"]


def test_a_job_without_a_recorded_number_is_found_by_its_name(folder: Folder, run: Run) -> None:
    submission = folder.submission(CHAIN)
    folder.finish(CURATE)
    array = folder.queued(submission, None, TRAIN)
    folder.says(array, 0, "RUNNING")
    assert states_of(run)[TRAIN] == "running"
    assert array.path.with_suffix(".job").read_text() == "77\n"


def test_jobs_that_squeue_has_forgotten_are_told_by_sacct(folder: Folder, run: Run) -> None:
    _, queued = chain(folder)
    folder.remembers(queued[0], 0, "CANCELLED by 0", used="00:02:03")
    folder.remembers(queued[1], 0, "CANCELLED by 0")
    found = states_of(run)
    assert (found[TRAIN], found[RESPOND]) == ("cancelled", "skipped")
    assert "2:03" in run("status")[1]


def test_without_accounting_what_left_no_word_is_lost_and_that_is_said(folder: Folder, run: Run) -> None:
    chain(folder)
    folder.fails("sacct", "Slurm accounting storage is disabled")
    found = states_of(run)
    assert (found[TRAIN], found[RESPOND]) == ("lost", "skipped")
    assert "no accounting" in run("status")[1]


def test_where_slurm_does_not_answer_nothing_is_called_lost(folder: Folder, run: Run) -> None:
    chain(folder)
    folder.fails("squeue", "slurm_load_jobs error: Unable to contact slurm controller")
    found = states_of(run)
    assert (found[CURATE], found[TRAIN]) == ("done", "unknown")
    status, said = run("status")
    assert status == 0
    assert "Unable to contact slurm controller" in said


def test_the_report_has_a_row_of_its_own(folder: Folder, run: Run) -> None:
    _, queued = chain(folder)
    waiting(folder, queued)

    def row() -> str:
        forget(folder)
        (found,) = [line for line in run("status", NAME)[1].splitlines() if line.startswith("report ")]
        return found

    assert "waiting" in row()
    assert "103_0" in row()
    folder.finish(*CHAIN)
    folder.says(queued[2], 0, "RUNNING")
    assert "running" in row()
    folder.says(queued[2], 0, "FAILED")
    assert "failed" in row()
    folder.page(*CHAIN)
    assert "done" in row()
    assert "report.html" in run("status", NAME)[1]


def test_a_report_of_fewer_stages_than_are_done_is_not_the_last_word(folder: Folder, run: Run) -> None:
    _, queued = chain(folder)
    folder.page(CURATE)
    folder.finish(*CHAIN)
    folder.says(queued[2], 0, "PENDING", "Priority")
    assert json.loads(run("status", NAME, "--json")[1])[0]["page"] == "queued"
    folder.says(queued[2], 0, "COMPLETED")
    forget(folder)
    assert json.loads(run("status", NAME, "--json")[1])[0]["page"] != "done"
    assert f"python launch.py sweep={NAME}" in run("status", NAME)[1]


def test_a_report_that_will_be_made_anew_is_not_done(folder: Folder, run: Run) -> None:
    _, queued = chain(folder)
    waiting(folder, queued)
    folder.page(CURATE)
    assert json.loads(run("status", NAME, "--json")[1])[0]["page"] == "waiting"
    folder.finish(*CHAIN)
    assert json.loads(run("status", NAME, "--json")[1])[0]["page"] == "waiting"
    folder.page(*CHAIN)
    assert json.loads(run("status", NAME, "--json")[1])[0]["page"] == "done"
    assert len(folder.calls("squeue")) == 1


def test_without_a_name_all_that_has_something_left_newest_first_and_the_last_finished(
    folder: Folder, run: Run
) -> None:
    for name in ("first", "second"):
        folder.submission({f"sample/{name}-1": ()}, name)
        folder.finish(f"sample/{name}-1")
        folder.page(f"sample/{name}-1", name=name)
    for name in ("third", "fourth"):
        folder.submission({f"sample/{name}-1": ()}, name)

    def names(*words: str) -> list[str]:
        return [view["name"] for view in json.loads(run("status", "--json", *words)[1])]

    assert names() == ["fourth", "third", "second"]
    assert names("--all") == ["fourth", "third", "second", "first"]
    assert names("first") == ["first"]


def test_status_again_and_again_asks_slurm_once(folder: Folder, run: Run) -> None:
    for name in ("one", "two"):
        submission = folder.submission({f"train/{name}-1": (), f"score/{name}-2": (f"train/{name}-1",)}, name)
        array = folder.queued(submission, "300" if name == "one" else "400", f"train/{name}-1 score/{name}-2")
        folder.says(array, 0, "RUNNING")
    for words in ([], ["one"], ["two"], ["--all"], []):
        run("status", *words)
    run("logs", "train/one-1")
    assert len(folder.calls("squeue")) == 1
    assert folder.calls("sacct") == []


def test_nothing_is_asked_where_everything_is_done(folder: Folder, run: Run) -> None:
    chain(folder)
    folder.finish(*CHAIN)
    folder.page(*CHAIN)
    said = run("status", NAME)[1]
    assert "4/4 done" in said
    assert "SLURM asked" not in said
    assert not (folder.root / "calls").exists()


def test_six_hundred_stages_are_one_question_and_a_short_table(folder: Folder, run: Run) -> None:
    labels = [f"train/t-{number:08d}" for number in range(600)]
    submission = folder.submission(dict.fromkeys(labels, ()))
    for number in range(3):
        array = folder.queued(submission, str(600 + number), *labels[200 * number : 200 * number + 200], number=number)
        for index in range(200):
            folder.rows.append(f"{array.job}|{index}|{'RUNNING' if index < 2 else 'PENDING'}|None|1:00|{array.name}|me")
    (folder.root / "rows").write_text("\n".join(folder.rows) + "\n")
    folder.finish(labels[0])
    started = time.monotonic()
    said = run("status")[1]
    assert time.monotonic() - started < 5
    assert len(folder.calls("squeue")) == 1
    assert "594 queued" in said
    assert [line.split()[0] for line in said.splitlines() if line.startswith("train/")] == [
        labels[1], labels[200], labels[201], labels[400], labels[401],
    ]  # fmt: skip
    assert sum(line.startswith("train/") for line in run("status", "--all")[1].splitlines()) == 600


def test_no_more_failures_are_listed_than_can_be_read(folder: Folder, run: Run) -> None:
    labels = [f"train/t-{number:08d}" for number in range(100)]
    array = folder.queued(folder.submission(dict.fromkeys(labels, ())), "600", *labels)
    for index in range(100):
        folder.rows.append(f"600|{index}|FAILED|None|1:00|{array.name}|me")
    (folder.root / "rows").write_text("\n".join(folder.rows) + "\n")
    said = run("status")[1]
    assert sum(line.startswith("train/") for line in said.splitlines()) == 60
    assert "40 more" in said


def test_watching_tells_changes_and_ends_when_the_report_stands(folder: Folder) -> None:
    _, queued = chain(folder)
    waiting(folder, queued)
    watch = process(folder, "status", "--watch")
    assert watch.stdout
    assert TRAIN in read_until(watch, "running")
    folder.finish(*CHAIN)
    read_until(watch, f"done      {SCORE}")
    assert watch.poll() is None, "the report is not there yet"
    folder.page(*CHAIN)
    rest = watch.communicate(timeout=20)[0]
    assert "done      report" in rest
    assert watch.returncode == 0, rest
    assert len(folder.calls("squeue")) <= 2


def read_until(process: subprocess.Popen[str], word: str) -> str:
    """The line that holds a word."""
    assert process.stdout
    for line in process.stdout:
        if word in line:
            return line
    raise AssertionError(f"it ended without saying {word!r}")


@pytest.mark.parametrize("page", [True, False])
def test_watching_ends_with_1_where_nothing_is_left_to_wait_for(folder: Folder, run: Run, page: bool) -> None:
    _, queued = chain(folder)
    if page:  # every stage is done, and the job of the page failed
        folder.finish(*CHAIN)
        folder.says(queued[2], 0, "FAILED")
    else:
        folder.says(queued[0], 0, "FAILED")
        folder.page(CURATE)
    status, said = run("status", "--watch")
    assert status == 1, said


def test_ctrl_c_ends_a_watch_without_a_traceback(folder: Folder) -> None:
    _, queued = chain(folder)
    waiting(folder, queued)
    watch = process(folder, "status", "--watch")
    read_until(watch, "running")
    watch.send_signal(signal.SIGINT)
    said = watch.communicate(timeout=20)[0]
    assert watch.returncode == 130, said
    assert "Traceback" not in said


# --- logs


def said_by(folder: Folder, label: str, count: int) -> None:
    (folder.output / label / "log.txt").write_text("".join(f"line {number}\n" for number in range(1, count + 1)))


@pytest.mark.parametrize("name", [TRAIN, "tiny-00000002", "00000002", "PATH", "FILE"])
def test_a_stage_is_found_by_its_label_its_folder_its_digits_or_a_path(folder: Folder, run: Run, name: str) -> None:
    chain(folder)
    said_by(folder, TRAIN, 3)
    path = folder.output / TRAIN
    given = {"PATH": str(path), "FILE": str(path / "log.txt")}.get(name, name)
    status, said = run("logs", given)
    assert (status, said) == (0, "line 1\nline 2\nline 3\n")


def test_the_last_lines_and_what_the_job_said(folder: Folder, run: Run) -> None:
    submission, _ = chain(folder)
    said_by(folder, TRAIN, 3000)
    for rank, text in {0: "srun: task 1: Killed\n", 1: "  \n", 2: "rank 2 speaks\n"}.items():
        (submission.folder / "logs" / f"101_0_{rank}_log.out").write_text(text)
    said = run("logs", TRAIN)[1].splitlines()
    assert said[0] == "line 1001"
    assert said[1999] == "line 3000"
    assert said[2000].startswith("== 101_0_0_log.out")
    assert said[2001] == "srun: task 1: Killed"
    assert said[2002].startswith("== 101_0_2_log.out")
    assert run("logs", TRAIN, "-n", "2")[1].splitlines()[:2] == ["line 2999", "line 3000"]
    assert "line" not in run("logs", TRAIN, "-n", "0")[1].replace("log.out", "")
    assert run("logs", TRAIN, "-n", "-3")[0] == 2


def test_a_stage_without_a_log_says_where_it_is(folder: Folder, run: Run) -> None:
    _, queued = chain(folder)
    waiting(folder, queued)
    assert f"waiting after {TRAIN}" in run("logs", RESPOND)[1]


def test_unknown_and_ambiguous_stages_are_told_with_the_near_ones(folder: Folder, run: Run) -> None:
    folder.submission({"train/tiny-00000001": (), "score/tiny-00000001": ()})
    status, said = run("logs", "00000001")
    assert status == 1
    assert "score/tiny-00000001, train/tiny-00000001" in said
    status, said = run("logs", "train/tiny-00000009")
    assert status == 1
    assert "did you mean train/tiny-00000001" in said


def test_following_ends_with_the_stage_and_loses_nothing(folder: Folder) -> None:
    _, queued = chain(folder)
    waiting(folder, queued)
    said_by(folder, TRAIN, 1)
    follow = process(folder, "logs", TRAIN, "-f")
    read_until(follow, "line 1")
    log = (folder.output / TRAIN / "log.txt").open("ab")
    for part in ("grün".encode()[:3], "grün".encode()[3:] + b"\n"):  # a character written in two parts
        log.write(part)
        log.flush()
        time.sleep(1.5)
    log.write(b"the end\n")
    log.close()
    folder.finish(TRAIN)
    said = follow.communicate(timeout=20)[0]
    assert follow.returncode == 0
    assert said.startswith("grün\nthe end\n"), said


def test_following_ends_at_once_where_the_job_is_gone(folder: Folder, run: Run) -> None:
    _, queued = chain(folder)
    folder.says(queued[0], 0, "FAILED")
    said_by(folder, TRAIN, 2)
    started = time.monotonic()
    status, said = run("logs", TRAIN, "-f")
    assert status == 0
    assert time.monotonic() - started < 5
    assert said.startswith("line 1\nline 2\n")
    assert "failed" in said


# --- cancel, retry


def test_cancel_keeps_what_another_sweep_waits_for(folder: Folder, run: Run) -> None:
    _, queued = chain(folder)
    waiting(folder, queued)
    other = folder.submission({CURATE: (), TRAIN: (CURATE,)}, "other")
    page = folder.queued(other, "201", "sweeps/other")
    folder.says(page, 0, "PENDING", "Dependency")
    status, said = run("cancel", NAME, "-y")
    assert status == 0
    assert "2 jobs cancelled" in said
    assert f"another sweep waits for it: {TRAIN}" in said
    assert folder.calls("scancel") == ["scancel --quiet 102_0 103_0"]


@pytest.mark.parametrize("command", [("cancel", NAME, "-y"), ("reap",), ("retry", NAME)])
def test_nothing_is_changed_where_slurm_does_not_answer(folder: Folder, run: Run, command: tuple[str, ...]) -> None:
    submission, queued = chain(folder)
    waiting(folder, queued)
    folder.fails("squeue", "Unable to contact slurm controller")
    status, said = run(*command)
    assert status == 1, said
    assert said.startswith("error: ")
    assert "Unable to contact slurm controller" in said
    assert not submission.cancelled
    assert len(records.index(folder.output).submissions) == 1


@pytest.mark.parametrize(("answer", "cancelled"), [("y\n", 1), ("n\n", 0), ("", 0)])
def test_cancel_asks_on_a_terminal(
    folder: Folder, run: Run, monkeypatch: pytest.MonkeyPatch, answer: str, cancelled: int
) -> None:
    _, queued = chain(folder)
    waiting(folder, queued)
    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    status, said = run("cancel", NAME)
    assert status == 1 - cancelled, said
    assert len(folder.calls("scancel")) == cancelled


def half_failed(folder: Folder) -> list[str]:
    """Two points; the first failed, with what follows it; the second was cancelled. Returns the labels."""
    labels = ["train/a-01", "score/a-02", "train/b-03", "score/b-04"]
    submission = folder.submission({labels[0]: (), labels[1]: labels[:1], labels[2]: (), labels[3]: labels[2:3]})
    trains = folder.queued(submission, "201", labels[0], labels[2])
    scores = folder.queued(submission, "202", labels[1], labels[3], number=2)
    for array, index, state in ((trains, 0, "FAILED"), (trains, 1, "CANCELLED"), (scores, 0, "CANCELLED")):
        folder.says(array, index, state)
    folder.says(scores, 1, "CANCELLED")
    return labels


@pytest.mark.parametrize(("words", "expected"), [(["--failed"], slice(0, 2)), ([], slice(0, 4))])
def test_retry_queues_what_failed_or_everything_missing(
    folder: Folder, run: Run, words: list[str], expected: slice
) -> None:
    labels = half_failed(folder)
    first = records.index(folder.output).submissions[0]
    status, said = run("retry", NAME, *words)
    assert status == 0, said
    found = records.index(folder.output).submissions
    again = [label for array in records.arrays_of(found[-1].folder) for unit in array.units.values() for label in unit]
    assert sorted(again) == sorted([*labels[expected], f"sweeps/{NAME}"])
    assert len(found) == 2
    assert (found[1].cluster, found[1].code, found[1].stages) == (first.cluster, first.code, first.stages)
    assert f"{len(labels[expected])} stages queued" in said
    assert f"python -m alpaca status {NAME} --watch" in said


def test_retry_says_why_there_is_nothing_to_do(folder: Folder, run: Run) -> None:
    _, queued = chain(folder)
    waiting(folder, queued)
    status, said = run("retry", NAME)
    assert status == 1
    assert "on its way" in said
    for array in queued:
        folder.says(array, 0, "CANCELLED")
    forget(folder)
    status, said = run("retry", NAME, "--failed")
    assert status == 1
    assert "nothing failed" in said
    assert f"python -m alpaca retry {NAME}" in said
    folder.finish(*CHAIN)
    status, said = run("retry", NAME)
    assert status == 1
    assert "every stage is done" in said
    assert folder.calls("sbatch") == []


@pytest.mark.parametrize("lost", ["code/c0de", f"{TRAIN}/stage.json"])
def test_retry_refuses_what_could_not_run(folder: Folder, run: Run, lost: str) -> None:
    _, queued = chain(folder)
    folder.says(queued[0], 0, "FAILED")
    path = folder.output / lost
    path.rmdir() if path.is_dir() else path.unlink()
    status, said = run("retry", NAME)
    assert status == 1
    assert lost in said
    assert f"python launch.py sweep={NAME}" in said
    assert folder.calls("sbatch") == []


# --- mistakes


@pytest.mark.parametrize("command", ["status", "cancel", "retry"])
def test_an_unknown_sweep_is_an_error_with_the_known_ones(folder: Folder, run: Run, command: str) -> None:
    chain(folder)
    status, said = run(command, "data_siez", *(["-y"] if command == "cancel" else []))
    assert status == 1
    assert said.startswith("error: ")
    assert NAME in said


@pytest.mark.parametrize("words", [["status"], ["cancel", NAME, "-y"], ["retry", NAME], ["reap"]])
def test_without_slurm_the_missing_program_is_named(folder: Folder, words: list[str]) -> None:
    chain(folder)
    done = process(folder, *words, PATH="/nonexistent")
    said = done.communicate(timeout=30)[0]
    assert done.returncode == (0 if words == ["status"] else 1), said
    assert "there is no squeue on this machine" in said
    assert "Traceback" not in said


def test_no_folder_nothing_queued_and_no_command_are_errors(folder: Folder, run: Run) -> None:
    status, said = run("status")
    assert status == 1
    assert "nothing was queued" in said
    folder.output.rename(folder.root / "elsewhere")
    status, said = run("status")
    assert status == 1
    assert "no such folder" in said
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2


def test_a_broken_pipe_says_nothing(folder: Folder) -> None:
    chain(folder)
    (folder.output / TRAIN / "log.txt").write_text(f"{'x' * 100}\n" * 20_000)
    command = f"{sys.executable} -m alpaca logs {TRAIN} -n 20000 --output-dir {folder.output} | head -n 1"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, shell=True, env=env, capture_output=True, text=True, timeout=30, check=True)
    assert (len(done.stdout.splitlines()), done.stderr) == (1, "")


def test_the_commands_start_without_the_heavy_libraries() -> None:
    heavy = ("torch", "transformers", "submitit")
    code = f"import sys, alpaca.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
