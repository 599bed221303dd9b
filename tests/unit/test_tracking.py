"""The pipe to the tracking process, what a stage's record says for the tracker, the dashboard, and sync's choices."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alpaca import claims, outcomes, plan
from alpaca.artifacts import Context
from alpaca.cli import sync
from alpaca.cli.commands import main
from alpaca.dispatch import prepare, tracked
from alpaca.runtime import tracking
from alpaca.runtime.tracking import keys, process, relay, trackio_run, wandb_run, workspace
from alpaca.runtime.tracking.workspace import Board
from alpaca.sweep import Sweep, expand

SETTINGS = {
    "kind": "wandb", "mode": "auto", "patience": 5, "project": "p", "entity": None, "group": "g", "job_type": "train",
    "id": "train-abc", "name": "train/x", "tags": [], "config": {},
}  # fmt: skip


def beside(code: str, patience: float = 60) -> tuple[tracking.ProcessTracker, list[str]]:
    """A tracker whose process is this program, and what it tells."""
    told: list[str] = []
    program = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, bufsize=0, start_new_session=True)
    return tracking.ProcessTracker(program, patience, told.append), told


def test_a_process_that_takes_nothing_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "MOST_WAITING", 100)
    tracker, told = beside("import time; time.sleep(600)", patience=0.2)
    for step in range(5000):  # several times what a pipe holds
        tracker.log({"loss": 1.0}, step)
    tracker.finish({})
    assert [text.partition(":")[0].partition(" after")[0] for text in told] == [
        "tracking falls behind",
        "tracking was given up",
    ]
    assert tracker._process.returncode == -9


def test_a_process_that_ends_is_told_once() -> None:
    tracker, told = beside("raise SystemExit(7)")
    tracker._process.wait()
    for step in range(3):
        tracker.log({"loss": 1.0}, step)
    tracker.finish({})
    assert told == ["tracking stopped: its process ended (status 7)"]


def test_a_process_that_said_why_it_ends_is_not_told_again() -> None:
    tracker, told = beside(f"raise SystemExit({tracking.TOLD_ITSELF})")
    tracker._process.wait()
    tracker.log({"loss": 1.0}, 1)
    tracker.finish({})
    assert told == []


def test_everything_arrives_in_order_however_slowly_it_is_read(tmp_path: Path) -> None:
    code = f"import sys, time; time.sleep(0.3); open({str(tmp_path / 'got')!r}, 'wb').write(sys.stdin.buffer.read())"
    tracker, told = beside(code)
    for step in range(3000):
        tracker.log({"loss": 1.0}, step)
    tracker.finish({"final_loss": 1.0})
    rows = [json.loads(line) for line in (tmp_path / "got").read_text().splitlines()]
    assert [row["step"] for row in rows[:-1]] == list(range(3000))
    assert rows[-1] == {"do": "finish", "summary": {"final_loss": 1.0}}
    assert told == []


def test_without_a_tracker_no_process_is_started(tmp_path: Path) -> None:
    assert isinstance(tracking.open_tracker({}, tmp_path, print), tracking.NullTracker)
    assert isinstance(tracking.open_tracker({"kind": "none"}, tmp_path, print), tracking.NullTracker)


def test_a_process_that_cannot_be_started_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    told: list[str] = []
    assert isinstance(tracking.open_tracker(SETTINGS, tmp_path, told.append), tracking.NullTracker)
    assert told[0].startswith("tracking is off: FileNotFoundError")


# --- the process


class Client:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def log(self, values: dict[str, float], step: int) -> None:
        self.calls.append((step, values))

    def table(self, name: str, columns: Any, rows: Any) -> None:
        raise RuntimeError("no such artifact")

    def finish(self, summary: dict[str, Any] | None) -> None:
        self.calls.append(summary)


def served(monkeypatch: pytest.MonkeyPatch, output: Path, *messages: dict[str, Any]) -> list[Any]:
    client = Client()
    monkeypatch.setitem(process.OPEN, "wandb", lambda settings: client)
    lines = [json.dumps(each).encode() for each in ({**SETTINGS, "output": str(output)}, *messages)]
    process.serve(io.BytesIO(b"\n".join(lines)))
    return client.calls


def test_a_table_that_fails_costs_no_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = {"do": "table", "name": "samples", "columns": ["a"], "rows": [["x"]]}
    calls = served(monkeypatch, tmp_path, table, {"do": "finish", "summary": {"x": 1}})
    assert calls == [{"x": 1}]
    assert "table samples is left out: RuntimeError: no such artifact" in capsys.readouterr().out


def test_a_job_that_died_leaves_its_run_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert served(monkeypatch, tmp_path, {"do": "log", "values": {"loss": 2.0}, "step": 1}) == [
        (1, {"loss": 2.0}),
        None,
    ]


def test_without_a_key_nothing_is_asked_and_with_one_it_is_online(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not keys.online()
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert keys.online()
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert not keys.online(), "the key of another server"
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert keys.online()
    assert not keys.online("offline")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert not keys.online()


def test_a_server_out_of_reach_is_not_waited_for_by_every_stage(tmp_path: Path) -> None:
    (tmp_path / "wandb").mkdir()
    assert not wandb_run.failed_lately(tmp_path)
    mark = tmp_path / "wandb" / wandb_run.UNREACHED
    mark.touch()
    assert wandb_run.failed_lately(tmp_path)
    old = mark.stat().st_mtime - 2 * wandb_run.RETRY_SECONDS
    os.utime(mark, (old, old))
    assert not wandb_run.failed_lately(tmp_path)


# --- trackio


def test_trackio_that_is_missing_is_an_error_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alpaca.checks import machine

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "trackio" else real(name))
    found = expand([f"output_dir={tmp_path}", "tracker=trackio"], multirun=False)
    (problem,) = (each for each in machine.lacks(found.runs[0], {"score"}) if each.where == "tracker")
    assert problem.remedy == "pip install trackio"
    assert not [each for each in machine.lacks(found.runs[0], {"curate"}) if each.where == "tracker"]


def test_trackio_gets_what_its_init_has_no_place_for_as_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a module that takes what trackio 0.43's `init` takes, so that it runs where trackio is not installed."""
    rows, given = [], {}

    class Run:
        def log(self, metrics: dict[str, Any], step: int | None = None) -> None:
            rows.append((step, metrics))

        def finish(self) -> None:
            rows.append("finished")

    def init(project: str, name: str, group: str, config: dict[str, Any], resume: str, embed: bool) -> Run:
        given.update(project=project, name=name, group=group, config=config, resume=resume)
        return Run()

    monkeypatch.setitem(sys.modules, "trackio", types.SimpleNamespace(init=init))
    monkeypatch.setenv("TRACKIO_DIR", "elsewhere")
    run = trackio_run.opened({**SETTINGS, "tags": ["data.size=20"], "output": str(tmp_path)})
    run.log({"loss": 1.0}, 3)
    run.finish({"final_loss": 1.0, "note": "no number"})
    assert os.environ["TRACKIO_DIR"] == str(tmp_path / "trackio")
    assert given["config"] == {"job_type": "train", "tags": ["data.size=20"]}
    assert given["resume"] == "allow"
    assert rows == [(3, {"loss": 1.0}), (3, {"summary/final_loss": 1.0}), "finished"]


def test_trackio_itself_keeps_the_rows_below_the_output_folder(tmp_path: Path) -> None:
    """With the package: what a run logs is in its database. Skipped where the extra is not installed."""
    pytest.importorskip("trackio")
    told: list[str] = []
    tracker = tracking.open_tracker({**SETTINGS, "kind": "trackio", "patience": 60}, tmp_path, told.append)
    for step in (1, 2, 3):
        tracker.log({"loss": 1.0 / step}, step)
    tracker.table("samples", ["a"], [["x"]])
    tracker.finish({"final_loss": 0.5})
    assert told == []
    import sqlite3

    with sqlite3.connect(tmp_path / "trackio" / "p.db") as database:
        rows = [json.loads(row[0]) for row in database.execute("select metrics from metrics order by step, rowid")]
    assert [row["loss"] for row in rows if "loss" in row] == [1.0, 0.5, 1.0 / 3]
    assert [row for row in rows if "summary/final_loss" in row]


# --- what a stage's record says


def session_of(sweep: Sweep) -> prepare.Session:
    session = prepare.open_session(sweep.plan, sweep.runs[0], sweep.name if sweep.is_sweep else None)
    session.points = tracked.points(session, sweep)
    return session


def settings_by_stage(*words: str) -> dict[str, list[dict[str, Any]]]:
    session = session_of(expand(list(words), multirun=True))
    found: dict[str, list[dict[str, Any]]] = {}
    for node in session.plan.nodes.values():
        found.setdefault(node.stage, []).append(tracked.stage(session, node))
    return found


def test_tags_are_the_factor_values_that_all_points_of_a_stage_share(tmp_path: Path) -> None:
    found = settings_by_stage("data.size=20,40", "optimizer.lr=0.01,0.02", f"output_dir={tmp_path}", "tracker=wandb")
    assert [each["tags"] for each in found["pretrain"]] == [[]]
    assert sorted(each["tags"] for each in found["curate"]) == [["data.size=20"], ["data.size=40"]]
    wanted = [[f"data.size={size}", f"optimizer.lr={rate}"] for size in (20, 40) for rate in (0.01, 0.02)]
    assert sorted(each["tags"] for each in found["train"]) == wanted
    assert sorted(each["tags"] for each in found["score"]) == wanted
    assert {each["config"]["factors"]["data_size"] for each in found["score"]} == {20, 40}


def test_seeds_are_no_tags_but_stand_in_the_configuration(tmp_path: Path) -> None:
    found = settings_by_stage("seed=0,1", f"output_dir={tmp_path}", "tracker=wandb")
    assert {tuple(each["tags"]) for each in found["score"]} == {()}
    assert sorted(each["config"]["seed"]["init"] for each in found["score"]) == [0, 1]
    assert [each["config"]["seed"] for each in found["pretrain"]] == [{}]


def test_tracker_settings_are_in_no_key(tmp_path: Path) -> None:
    words = ["data.size=20,40", f"output_dir={tmp_path}"]
    more = ["tracker.project=other", "tracker.group=g", "tracker.patience=1", "tracker.mode=offline"]
    keyed = [expand([*words, *extra], multirun=True).plan.nodes.keys() for extra in (["tracker=none"], more)]
    assert keyed[0] == keyed[1]


def test_a_long_tag_is_cut_and_stays_its_own() -> None:
    one, other = (tracked.tag("data.filters", ["a" * 80, end]) for end in "xy")
    assert len(one) == len(other) == tracked.LONGEST_TAG
    assert one != other
    assert tracked.tag("model", "tiny") == "model=tiny"
    assert tracked.tag("data.dedup_threshold", None) == "data.dedup_threshold=null"


def test_a_page_has_a_dashboard_where_there_is_a_factor_a_score_and_wandb(tmp_path: Path) -> None:
    def board(*words: str) -> dict[str, Any]:
        sweep = expand([*words, f"output_dir={tmp_path}"], multirun=True)
        return tracked.page(session_of(sweep), sweep)

    found = board("data.size=20,40", "data.selection=random,longest", "tracker=wandb")
    assert found["kind"] == "workspace"
    assert found["board"]["numeric"] == ["data.size"]
    assert found["board"]["metrics"][0].startswith("embedded/")
    assert board("seed=0,1", "tracker=wandb") == {}
    assert board("data.size=20,40", "tracker=none") == {}
    assert board("data.size=20,40", "tracker=wandb", "until=curate") == {}


def test_a_score_tells_its_metrics_and_answers(tmp_path: Path) -> None:
    (tmp_path / "responses").mkdir()
    answer = {"id": "i1", "family": "f", "instruction": "Add.", "input": "1 1", "reference": "2", "response": "3"}
    (tmp_path / "responses" / "responses.jsonl").write_text(json.dumps(answer) + "\n")
    (tmp_path / "scores.jsonl").write_text(json.dumps({"id": "i1", "family": "f", "exact_match": 0.0}) + "\n")
    (tmp_path / "metrics.json").write_text(json.dumps({"items": 1, "exact_match": 0.0}))
    context = Context(folder=tmp_path, work=tmp_path, parents={"responses": tmp_path / "responses"})
    told: list[Any] = []
    tracker = types.SimpleNamespace(table=lambda *args: told.append(args), finish=told.append)
    outcomes.finish(tracker, {"stage": "score", "name": "embedded"}, context, 1.5)  # type: ignore[arg-type]
    (name, columns, rows), summary = told
    assert name == "embedded/samples"
    assert dict(zip(columns, rows[0], strict=True)) == {**answer, "exact_match": 0.0}
    assert summary == {"embedded/items": 1, "embedded/exact_match": 0.0, "seconds": 1.5}


def test_a_result_that_cannot_be_read_ends_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told: list[Any] = []
    tracker = types.SimpleNamespace(finish=told.append)
    context = Context(folder=tmp_path, work=tmp_path, parents={})
    outcomes.finish(tracker, {"stage": "train", "name": "x"}, context, 1.0)  # type: ignore[arg-type]
    assert told == [{"seconds": 1.0}]
    assert "FileNotFoundError" in capsys.readouterr().out


def test_a_stage_that_is_not_tracked_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    context = Context(folder=tmp_path, work=tmp_path, parents={})
    for stage in ("curate", "train"):
        outcomes.finish(tracking.NullTracker(), {"stage": stage, "name": "x"}, context, 1.0)
    assert capsys.readouterr().out == ""


# --- the dashboard

BOARD = Board(
    project="p",
    entity=None,
    group="data_size",
    factors={"data.size": "factors.data_size", "optimizer": "factors.optimizer"},
    numeric=["data.size"],
    metrics=["embedded/exact_match"],
)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of wandb_workspaces when it is imported
def test_a_dashboard_has_the_factor_on_the_horizontal_axis_and_is_equal_for_equal_boards() -> None:
    found = workspace.definition(BOARD)
    assert found == workspace.definition(BOARD)
    sections = found["spec"]["section"]["panelBankConfig"]["sections"]
    points, bars = (panel["config"] for panel in sections[0]["panels"])
    assert (points["xAxis"], points["yAxis"]) == ("summary:c::factors.data_size", "summary:s::embedded/exact_match")
    assert (bars["metrics"], bars["groupBy"]) == (["embedded/exact_match"], "factors.value.optimizer")
    assert [panel["config"]["metrics"] for panel in sections[1]["panels"]] == [["loss"], ["loss"]]
    (runs,) = found["spec"]["section"]["runSets"]
    (only,) = runs["filters"]["filters"]
    assert (only["key"]["name"], only["value"]) == ("group", "data_size")


def test_a_dashboard_is_saved_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[dict[str, Any]] = []

    def save(board: Board, spec: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
        saved.append(earlier)
        return {"name": "n", "id": "v1", "url": "u", "spec": spec}

    monkeypatch.setattr(workspace, "_save", save)
    path = tmp_path / workspace.FILE
    workspace.write(path, BOARD, save=False)
    assert (workspace.pending(path), saved) == (True, [])
    assert workspace.board_of(path) == BOARD
    for _ in range(2):
        workspace.write(path, BOARD, save=True)
    assert (workspace.pending(path), len(saved)) == (False, 1)
    workspace.write(path, Board(project="p", entity=None, group="other"), save=True)
    assert saved[1]["id"] == "v1", "the same dashboard is updated"


# --- sync


def offline_run(output: Path, name: str, *, sent: bool = False) -> Path:
    folder = output / "wandb" / f"offline-run-20260101_000000-{name}"
    folder.mkdir(parents=True)
    path = folder / f"run-{name}.wandb"
    path.touch()
    if sent:
        path.with_suffix(wandb_run.SYNCED).touch()
    return path


def test_sync_sends_neither_what_was_sent_nor_what_is_still_written(tmp_path: Path) -> None:
    key = "0123456789abcdef"
    going = tmp_path / "train" / f"tiny-{key[:8]}"
    going.mkdir(parents=True)
    running = offline_run(tmp_path, f"train-{key}")
    sent, waiting = offline_run(tmp_path, "score-f1", sent=True), offline_run(tmp_path, "score-f2")
    (tmp_path / "wandb" / "latest-run").symlink_to(waiting.parent)
    claim = claims.acquire(going, finished=lambda: False, on_wait=print)
    assert claim is not None
    found = sync.look(tmp_path)
    assert (found.running, found.sent, found.waiting) == ([running], [sent], [waiting])
    claim.remove()
    assert sync.look(tmp_path).waiting == [waiting, running]


def synced(output: Path, *words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["sync", *words, "--output-dir", str(output)])
    return int(ended.value.code or 0)


def test_sync_counts_what_wandb_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    first, second = offline_run(tmp_path, "score-f1"), offline_run(tmp_path, "score-f2")
    calls: list[list[str]] = []

    def called(words: list[str], **_: Any) -> None:
        calls.append(words)
        first.with_suffix(wandb_run.SYNCED).touch()

    monkeypatch.setattr(sync.subprocess, "run", called)
    assert synced(tmp_path) == 1
    assert "sent 1 of 2 run(s)" in capsys.readouterr().out
    assert calls[0][-2:] == [str(first), str(second)]
    assert synced(tmp_path) == 1
    assert calls[1][-1:] == [str(second)]
    assert str(first) not in calls[1]


def test_sync_that_has_nothing_to_do_needs_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert synced(tmp_path) == 0
    assert capsys.readouterr().out == "nothing to send\n"


def test_two_syncs_at_once_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    offline_run(tmp_path, "score-f1")
    with sync._alone(tmp_path):
        assert synced(tmp_path) == 1


def test_every_tracked_stage_is_one_that_a_plan_has() -> None:
    assert set(outcomes.TRACKED) <= plan.VERSIONS.keys()


# --- ranks of one machine


class Kept:
    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log(self, values: dict[str, float], step: int) -> None:
        self.rows.append((step, values))


def test_steps_of_a_rank_are_handed_on_once_and_whole(tmp_path: Path) -> None:
    path, kept = tmp_path / "live.jsonl", Kept()
    path.write_text('{"step": 9, "values": {"loss": 9.0}}\n')  # of a start before
    reader = relay.Reader(path, kept)
    sender = relay.Sender(path)
    sender.log({"loss": 1.0}, step=1)
    with path.open("a") as file:
        file.write('{"step": 2, "val')
    reader.look()
    reader.look()
    assert kept.rows == [(1, {"loss": 1.0})]
    with path.open("a") as file:
        file.write('ues": {"loss": 0.5}}\n')
    reader.look()
    assert kept.rows[1:] == [(2, {"loss": 0.5})]
    assert reader.last == 2


def test_a_rank_whose_file_is_not_there_trains_on(tmp_path: Path) -> None:
    relay.Sender(tmp_path / "none" / "live.jsonl").log({"loss": 1.0}, step=1)
    (tmp_path / "live.jsonl").mkdir()
    relay.Sender(tmp_path / "live.jsonl").log({"loss": 1.0}, step=1)


# --- what the environment switches off


@pytest.mark.parametrize(("name", "value"), [("WANDB_MODE", "disabled"), ("WANDB_DISABLED", "true")])
def test_what_wandb_is_told_not_to_record_is_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    for each in ("WANDB_MODE", "WANDB_DISABLED"):
        monkeypatch.delenv(each, raising=False)
    started: list[str] = []
    monkeypatch.setattr(tracking, "start", lambda settings, *_: started.append(settings["kind"]))
    kinds = ("wandb", "workspace", "trackio")
    for kind in kinds:
        tracking.open_tracker({**SETTINGS, "kind": kind}, tmp_path, print)
    assert started == list(kinds)
    started.clear()
    monkeypatch.setenv(name, value)
    for kind in ("wandb", "workspace"):
        assert isinstance(tracking.open_tracker({**SETTINGS, "kind": kind}, tmp_path, print), tracking.NullTracker)
    tracking.open_tracker({**SETTINGS, "kind": "trackio"}, tmp_path, print)
    assert started == ["trackio"]


# --- values that are no JSON


def test_numbers_of_numpy_arrive_and_what_is_no_number_is_left_out_and_told_once(tmp_path: Path) -> None:
    code = f"import sys; open({str(tmp_path / 'got')!r}, 'wb').write(sys.stdin.buffer.read())"
    tracker, told = beside(code)
    tracker.log({"loss": np.float32(0.5)}, step=np.int64(1))  # type: ignore[dict-item, arg-type]
    for step in (2, 3):
        tracker.log({"loss": object()}, step)  # type: ignore[dict-item]
    tracker.log({"loss": 0.25}, 4)
    tracker.finish({"final_loss": np.float64(0.25)})
    rows = [json.loads(line) for line in (tmp_path / "got").read_text().splitlines()]
    assert [(row.get("step"), row.get("values")) for row in rows[:-1]] == [(1, {"loss": 0.5}), (4, {"loss": 0.25})]
    assert isinstance(rows[0]["step"], int)
    assert rows[-1]["summary"] == {"final_loss": 0.25}
    (text,) = told
    assert text.startswith("tracking leaves out what it cannot write (log: TypeError")


def test_a_line_that_a_killed_rank_tore_stops_no_training(tmp_path: Path) -> None:
    path, kept = tmp_path / "live.jsonl", Kept()
    reader = relay.Reader(path, kept)
    with path.open("a") as file:
        file.write('{"step": 1, "val{"step": 1, "values": {"loss": 1.0}}\n[]\n{"step": 2, "values": {"loss": 0.5}}\n')
    reader.look()
    assert kept.rows == [(2, {"loss": 0.5})]


# --- results that cannot be read


def test_scores_are_told_though_the_answers_are_torn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps({"exact_match": 0.5}))
    (tmp_path / "scores.jsonl").write_text(json.dumps({"id": "i1", "family": "f", "exact_match": 0.5}) + "\n")
    responses = tmp_path / "responses" / "responses.jsonl"
    responses.parent.mkdir()
    context = Context(folder=tmp_path, work=tmp_path, parents={"responses": responses.parent})
    for torn in ('{"id": "i1", "instr', "", None):
        if torn is None:
            responses.unlink()
        else:
            responses.write_text(torn)
        told: list[Any] = []
        tracker = types.SimpleNamespace(finish=told.append)
        outcomes.finish(tracker, {"stage": "score", "name": "embedded"}, context, 1.5)  # type: ignore[arg-type]
        assert told == [{"embedded/exact_match": 0.5, "seconds": 1.5}]
        (line,) = capsys.readouterr().out.splitlines()
        assert line.startswith("tracking: no samples (")


def test_a_tracker_that_fails_at_the_end_makes_no_failure_of_a_finished_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def finish(summary: dict[str, Any]) -> None:
        raise RuntimeError("filedescriptor out of range")

    context = Context(folder=tmp_path, work=tmp_path, parents={})
    tracker = types.SimpleNamespace(finish=finish)
    outcomes.finish(tracker, {"stage": "report", "name": "x"}, context, 1.0)  # type: ignore[arg-type]
    assert capsys.readouterr().out == "tracking: no end (RuntimeError: filedescriptor out of range)\n"


# --- stages that another sweep made


def test_a_dashboard_selects_the_stages_of_its_sweep_whichever_sweep_made_them(tmp_path: Path) -> None:
    def board_and_ids(*words: str) -> tuple[dict[str, Any], set[str]]:
        sweep = expand([*words, f"output_dir={tmp_path}", "tracker=wandb"], multirun=True)
        session = session_of(sweep)
        nodes = [node for node in session.plan.nodes.values() if node.stage in outcomes.TRACKED]
        return tracked.page(session, sweep)["board"], {tracked.stage(session, node)["id"] for node in nodes}

    (one, first), (other, second) = (board_and_ids(f"data.size=20,{size}") for size in (40, 60))
    assert (set(one["runs"]), set(other["runs"])) == (first, second)
    shared = {name.partition("-")[0] for name in first & second}
    assert shared == {"pretrain", "train", "score"}, "of the size that both have"
    assert len(second) == len(other["runs"]) > len(first & second)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of wandb_workspaces when it is imported
def test_a_dashboard_filters_by_the_ids_of_its_runs() -> None:
    ids = ["score-0123456789abcdef", "train-0123456789abcdef"]
    (runs,) = workspace.definition(replace(BOARD, runs=ids))["spec"]["section"]["runSets"]
    (only,) = runs["filters"]["filters"]
    assert (only["key"], only["op"], only["value"]) == ({"section": "run", "name": "name"}, "IN", ids)
