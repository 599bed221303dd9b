"""The folder contract: markers, hashes, claims, takeover; with real processes where a process matters."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alpaca import artifacts, claims
from alpaca.errors import ArtifactError

ROOT = Path(__file__).resolve().parents[2]
HOLD = (
    "import sys, time; from pathlib import Path; from alpaca import claims\n"
    "claims.acquire(Path(sys.argv[1]), finished=lambda: False, on_wait=print)\n"
    "print('held', flush=True); time.sleep(60)"
)


def finished_folder(path: Path) -> Path:
    folder = path / "curate" / "x-00000000"
    folder.mkdir(parents=True)
    artifacts.write_json(folder / "stage.json", {"key": "0" * 64, "identity": {}})
    (folder / "rows.jsonl").write_text('{"a":1}\n')
    (folder / "model").mkdir()
    (folder / "model" / "weights.bin").write_bytes(b"\0" * 100)
    (folder / "log.txt").write_text("not payload")
    artifacts.publish(folder, "0" * 64, {"seconds": 1}, lambda: None)
    return folder


def test_publishing_hashes_the_payload_and_nothing_else(tmp_path: Path) -> None:
    folder = finished_folder(tmp_path)
    assert sorted(artifacts.read_json(folder / "manifest.json")) == ["model/weights.bin", "rows.jsonl"]
    assert artifacts.is_finished(folder)
    artifacts.verify(folder, thorough=True)


@pytest.mark.parametrize("thorough", [True, False])
def test_a_changed_payload_is_found_and_named(tmp_path: Path, thorough: bool) -> None:
    folder = finished_folder(tmp_path)
    time.sleep(0.01)
    (folder / "rows.jsonl").write_text('{"a":2}\n')
    with pytest.raises(ArtifactError, match=r"rows\.jsonl has another sha256"):
        artifacts.verify(folder, thorough=thorough)


def test_truncated_and_missing_files_are_both_named(tmp_path: Path) -> None:
    folder = finished_folder(tmp_path)
    (folder / "rows.jsonl").write_text("{")
    (folder / "model" / "weights.bin").unlink()
    with pytest.raises(ArtifactError, match=r"weights\.bin is missing.*rows\.jsonl has 1 bytes"):
        artifacts.verify(folder, thorough=False)


def test_a_changed_manifest_is_found(tmp_path: Path) -> None:
    folder = finished_folder(tmp_path)
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"manifest\.json was changed"):
        artifacts.verify(folder, thorough=False)


def test_the_same_key_with_another_identity_is_an_error(tmp_path: Path) -> None:
    artifacts.freeze(tmp_path, {"key": "k", "identity": {"a": 1}})
    with pytest.raises(ArtifactError, match="another identity"):
        artifacts.freeze(tmp_path, {"key": "k", "identity": {"a": 2}})


def test_a_collision_of_short_keys_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "x-aaaaaaaa"
    artifacts.freeze(folder, {"key": "a" * 64, "identity": {}})
    assert artifacts.find_folder(tmp_path, "train", "other-name", "a" * 64) == folder
    with pytest.raises(ArtifactError, match="first 8 digits"):
        artifacts.find_folder(tmp_path, "train", "x", "a" * 8 + "b" * 56)


def test_a_living_holder_is_waited_for_and_a_killed_one_succeeded_at_once(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    holder = claims.holder(tmp_path)
    assert holder is not None
    assert holder["pid"] == process.pid
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert claims.holder(tmp_path) is None
    claim = claims.acquire(tmp_path, finished=lambda: False, on_wait=lambda owner: pytest.fail(f"waited for {owner}"))
    assert claim is not None
    assert claim.number == 2
    claim.remove()


def test_a_released_claim_lets_the_next_in_and_a_finished_folder_nobody(tmp_path: Path) -> None:
    first = claims.acquire(tmp_path, finished=lambda: False, on_wait=print)
    assert first is not None
    first.release()
    second = claims.acquire(tmp_path, finished=lambda: False, on_wait=print)
    assert second is not None
    assert second.number == 2
    with pytest.raises(ArtifactError, match="taken over"):
        first.check()
    second.check()
    second.remove()
    assert claims.acquire(tmp_path, finished=lambda: True, on_wait=print) is None


def test_a_reused_process_id_is_not_taken_for_the_holder(tmp_path: Path) -> None:
    other = {**claims.owner(), "start": "1"}
    (tmp_path / "claim-000001").write_text(json.dumps(other))
    assert claims.holder(tmp_path) is None


def test_a_silent_claim_of_another_host_becomes_stale(tmp_path: Path) -> None:
    path = tmp_path / "claim-000001"
    path.write_text(json.dumps({**claims.owner(), "host": "elsewhere"}))
    assert claims.holder(tmp_path) is not None
    os.utime(path, (time.time() - 2 * claims.STALE_SECONDS,) * 2)
    assert claims.holder(tmp_path) is None


def test_an_earlier_start_of_the_same_job_is_waited_for_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM starts a job again elsewhere when its node fails; a node that only lost its network still beats."""
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    path = tmp_path / "claim-000001"
    path.write_text(json.dumps({**claims.owner(), "host": "elsewhere"}))
    ages = claims.RESTARTED_SECONDS - 2, claims.RESTARTED_SECONDS + 2

    def held() -> list[bool]:
        """At both ages."""
        found = []
        for age in ages:
            os.utime(path, (time.time() - age,) * 2)
            found.append(claims.holder(tmp_path) is not None)
        return found

    assert held() == [True, True]  # the same start: another process of this very job
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert held() == [True, False]
    monkeypatch.setenv("SLURM_JOB_ID", "18")
    assert held() == [True, True]
    monkeypatch.delenv("SLURM_JOB_ID")
    assert held() == [True, True]


def test_a_dead_earlier_start_on_this_host_is_succeeded_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    dead = {**claims.owner(), "start": "1"}
    alive = claims.owner()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    path = tmp_path / "claim-000001"
    path.write_text(json.dumps(alive))
    os.utime(path, (time.time() - 2 * claims.STALE_SECONDS,) * 2)
    assert claims.holder(tmp_path) is not None  # it lives, whatever its heart does
    path.write_text(json.dumps(dead))
    assert claims.holder(tmp_path) is None


def test_what_a_failed_job_left_is_no_payload(tmp_path: Path) -> None:
    assert artifacts.stopped(tmp_path) == {}
    artifacts.write_json(tmp_path / artifacts.STOPPED, {"job": "1_0"})
    assert artifacts.stopped(tmp_path) == {"job": "1_0"}
    artifacts.publish(tmp_path, "k", {}, lambda: None)
    assert artifacts.read_json(tmp_path / "manifest.json") == {}
    assert artifacts.stopped(tmp_path) == {}
    (tmp_path / artifacts.STOPPED).write_text("torn")
    assert artifacts.stopped(tmp_path) == {}


def test_many_processes_take_a_folder_one_after_the_other(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from alpaca import claims\n"
        "folder = Path(sys.argv[1]); done = folder / 'done'\n"
        "claim = claims.acquire(folder, finished=done.exists, on_wait=lambda _: None)\n"
        "if claim:\n"
        "    with (folder / 'worked').open('a') as log: log.write('once\\n')\n"
        "    claim.check(); done.touch(); claim.remove()\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT) for _ in range(6)]
    assert [process.wait() for process in processes] == [0] * 6
    assert (tmp_path / "worked").read_text() == "once\n"


def test_a_superseded_process_changes_nothing_of_what_its_successor_finished(tmp_path: Path) -> None:
    old = claims.acquire(tmp_path, finished=lambda: False, on_wait=print)
    assert old is not None
    (tmp_path / "claim-000002").write_text(json.dumps(claims.owner()))
    (tmp_path / "rows.jsonl").write_text("1\n")
    artifacts.publish(tmp_path, "k", {}, lambda: None)
    (tmp_path / "claim-000002").unlink()
    (tmp_path / "claim-000001").unlink()
    before = (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(ArtifactError, match="finished by another process"):
        artifacts.publish(tmp_path, "k", {"late": 1}, old.check)
    old.release()
    assert (tmp_path / "manifest.json").read_bytes() == before
    assert list(tmp_path.glob("claim-*")) == []


def test_the_marker_of_another_key_is_not_this_ones(tmp_path: Path) -> None:
    artifacts.publish(tmp_path, "first", {}, lambda: None)
    assert artifacts.finished_as(tmp_path, "first")
    assert not artifacts.finished_as(tmp_path, "second")


def test_what_differs_in_every_execution_is_not_part_of_the_content(tmp_path: Path) -> None:
    digests = []
    for latency in ("1", "2"):
        (tmp_path / "responses.jsonl").write_text("same\n")
        (tmp_path / "raw.jsonl").write_text(latency)
        artifacts.publish(tmp_path, "k", {}, lambda: None)
        digests.append(artifacts.content_digest(tmp_path))
    assert digests[0] == digests[1]


@pytest.mark.parametrize("content", [b"[]", b"1", b"{", b"\xff\xfe", b'"text"'])
def test_what_is_no_json_object_is_an_error_with_the_file_and_a_way_out(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="run the same command again") as caught:
        artifacts.read_json(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("content", "words"), [(None, "missing, though"), ("[]", "no JSON object"), ('{"a": 1}', "not the sizes")]
)
def test_a_manifest_that_is_missing_or_of_something_else_is_told(
    tmp_path: Path, content: str | None, words: str
) -> None:
    artifacts.write_json(tmp_path / "_SUCCESS", {"key": "k"})
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ArtifactError, match=words):
        artifacts.content_digest(tmp_path)
    with pytest.raises(ArtifactError, match=r"manifest\.json (is missing|was changed)"):
        artifacts.verify(tmp_path, thorough=True)
