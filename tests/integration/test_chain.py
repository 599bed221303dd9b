"""The whole chain by launch.py in its own processes: from the first command to the page, killed, doubled, damaged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from alpaca import artifacts
from alpaca.errors import ArtifactError
from tests.conftest import ROOT, SMALL, command, environment

pytestmark = pytest.mark.slow
Launch = Callable[..., subprocess.CompletedProcess[str]]
STAGES = ("sample", "curate", "pretrain", "train", "respond", "score")
# Which requests were in flight at a kill decides what raw.jsonl holds beyond the pool: the one file that may differ.
NOT_COMPARED = ("raw.jsonl", "failed.jsonl")


def digests(outputs: Path) -> dict[str, str]:
    """ "stage/file" -> sha256 of every payload file of the finished stages."""
    found = {}
    for stage in STAGES:
        for folder in sorted((outputs / stage).iterdir()):
            assert artifacts.is_finished(folder), f"{folder} is not finished"
            for name, entry in artifacts.read_json(folder / "manifest.json").items():
                if name not in NOT_COMPARED:
                    found[f"{stage}/{folder.name}/{name}"] = entry["sha256"]
    return found


def copied(source: Path, target: Path) -> None:
    """A copy of a run's outputs that keeps the times of change."""
    subprocess.run(["cp", "-a", str(source / "outputs"), str(target)], check=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one run that nobody disturbed; tests read it and copy it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = subprocess.run(
        command(folder, SMALL), cwd=ROOT, capture_output=True, text=True, timeout=280, env=environment()
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_chain_ends_by_naming_the_page(undisturbed: Path) -> None:
    outputs = undisturbed / "outputs"
    pages = list((outputs / "runs").glob("*/report.html"))
    assert len(pages) == 1
    assert "<svg" in pages[0].read_text()
    for stage in STAGES:
        (folder,) = (outputs / stage).iterdir()
        record = artifacts.read_json(folder / "provenance.json")
        assert record["packages"]["torch"].startswith("2.")
        assert record["seconds"] >= 0
        assert not (folder / "work").exists()
        artifacts.verify(folder, thorough=True)


def test_the_model_loads_by_transformers(undisturbed: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from alpaca.prompts import prompt

    (folder,) = (undisturbed / "outputs" / "train").iterdir()
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    encoded = tokenizer(prompt("Say it again: two words."), return_tensors="pt")
    assert model.generate(**encoded, max_new_tokens=3).shape[1] > encoded["input_ids"].shape[1]
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_again_finds_everything_finished_and_a_change_runs_only_what_depends_on_it(
    undisturbed: Path, tmp_path: Path
) -> None:
    copied(undisturbed, tmp_path)

    def again(*extra: str) -> str:
        done = subprocess.run(
            command(tmp_path, [*SMALL, *extra]), cwd=ROOT, capture_output=True, text=True, env=environment()
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "6 of 6 stages found finished; nothing to do" in again()
    text = again("optimizer.lr=1e-3")
    assert "3 of 6 stages found finished" in text
    assert [
        line for line in text.splitlines() if " pretrain/" in line or " sample/" in line or " curate/" in line
    ] == []


def test_a_damaged_payload_is_named_before_anything_runs(undisturbed: Path, tmp_path: Path) -> None:
    copied(undisturbed, tmp_path)
    (folder,) = (tmp_path / "outputs" / "curate").iterdir()
    with (folder / "examples.jsonl").open("a") as file:
        file.write("\n")
    done = subprocess.run(command(tmp_path, SMALL), cwd=ROOT, capture_output=True, text=True, env=environment())
    assert done.returncode == 1
    assert "examples.jsonl has" in done.stderr
    assert "Traceback" not in done.stderr


# What a stage has on disk when it is in the middle of its work; curate and score are too short to be caught there, and
# for them the moment after the claim is as good as any.
EVIDENCE = {
    "sample": "raw.jsonl",
    "pretrain": "work/**/step-*.json",
    "train": "work/**/step-*.json",
    "respond": "work/partial.jsonl",
    "curate": "claim-*",
    "score": "claim-*",
}


@pytest.mark.parametrize("stage", STAGES)
def test_killed_in_the_middle_of_any_stage_it_ends_with_the_same_bytes(
    stage: str, undisturbed: Path, tmp_path: Path
) -> None:
    """kill -9 of launcher and worker when there is something to resume from, twice; then the same command."""
    copied(undisturbed, tmp_path)
    slow = [*SMALL, "teacher.latency=0.4", "teacher.in_flight=1", "train.checkpoint_seconds=0"]
    slow += ["model.checkpoint_seconds=0", "eval.embedded.responses.batch=1"]
    outputs = tmp_path / "outputs"
    for later in STAGES[STAGES.index(stage) :]:
        if (stage, later) != ("curate", "pretrain"):
            subprocess.run(["rm", "-rf", str(outputs / later)], check=True)
    for _ in range(2):
        _kill_in(stage, tmp_path, slow)
        (folder,) = (outputs / stage).iterdir()
        assert not artifacts.is_finished(folder) or stage in ("curate", "score")
    done = launched(tmp_path, slow)
    assert done.returncode == 0, done.stdout + done.stderr
    assert digests(outputs) == digests(undisturbed / "outputs")
    if stage in ("train", "pretrain"):
        assert "resumed" in (folder / "log.txt").read_text()
    if stage == "sample":
        ids = [json.loads(line)["id"] for line in (folder / "raw.jsonl").open()]
        assert len(ids) == len(set(ids)) <= 6


def launched(folder: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, arguments), cwd=ROOT, capture_output=True, text=True, timeout=280, env=environment()
    )


def _kill_in(stage: str, folder: Path, arguments: list[str]) -> None:
    """Waits until the stage has more on disk than before, then kills."""
    outputs = folder / "outputs"
    before = _evidence(outputs, stage)
    launcher = subprocess.Popen(
        command(folder, arguments), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and launcher.poll() is None:
        if _evidence(outputs, stage) != before and _worker(outputs / stage):
            break
        time.sleep(0.002)
    for pid in (launcher.pid, _worker(outputs / stage)):
        _kill(pid)
    launcher.wait()


def _evidence(outputs: Path, stage: str) -> list[tuple[str, int]]:
    found = []
    for path in sorted((outputs / stage).glob(f"*/{EVIDENCE[stage]}")):
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            continue
        if size:
            found.append((path.name, size))
    return found


def _worker(stage_folder: Path) -> int | None:
    """The living process that holds the stage's claim."""
    for path in stage_folder.glob("*/claim-*"):
        try:
            owner = json.loads(path.read_text() or "{}")
        except (OSError, json.JSONDecodeError):
            continue
        if owner and not owner.get("released") and Path(f"/proc/{owner['pid']}").exists():
            return int(owner["pid"])
    return None


def _kill(pid: int | None) -> None:
    if pid is not None:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return


@pytest.mark.parametrize("stagger", [0.0, 0.3])
def test_two_launches_do_each_stage_once(stagger: float, undisturbed: Path, tmp_path: Path) -> None:
    processes = []
    for _ in range(2):
        processes.append(
            subprocess.Popen(
                command(tmp_path, SMALL),
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=environment(),
            )
        )
        time.sleep(stagger)
    texts = [process.communicate(timeout=280)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], texts
    logs = {path.parts[-3]: path.read_text() for path in (tmp_path / "outputs").glob("*/*/log.txt")}
    for stage in ("curate", "score"):  # these say one line for each time that they are really done
        assert sum("candidates" in line or "items:" in line for line in logs[stage].splitlines()) == 1, logs[stage]
    assert sum(log.count("finished meanwhile") for log in logs.values()) >= 1
    assert digests(tmp_path / "outputs") == digests(undisturbed / "outputs")
    assert "nothing to do" in launched(tmp_path, SMALL).stdout


def test_a_remade_parent_with_other_content_is_told(undisturbed: Path, tmp_path: Path) -> None:
    """A real teacher answers otherwise the second time; what was made from its first answers is not made from these."""
    copied(undisturbed, tmp_path)
    (folder,) = (tmp_path / "outputs" / "sample").iterdir()
    rows = (folder / "responses.jsonl").read_text().replace("programmatic", "another")
    (folder / "responses.jsonl").write_text(rows)
    key = artifacts.read_json(folder / "stage.json")["key"]
    artifacts.publish(folder, key, artifacts.read_json(folder / "provenance.json"), lambda: None)
    done = launched(tmp_path, SMALL)
    assert done.returncode == 1
    assert "made from another pool" in done.stderr


def test_an_input_that_changes_while_it_is_queued_is_refused(tmp_path: Path) -> None:
    from alpaca import frozen, jobs, plan
    from alpaca.sweep import expand

    source = tmp_path / "data.json"
    source.write_text('[{"instruction": "Name a colour of grass.", "input": "", "output": "green"}]')
    run = expand(["data_gen=released", f"data_gen.path={source}"], multirun=False).runs[0]
    graph = plan.build([run])
    node = graph.nodes[graph.runs[0]["sample"]]
    folder = tmp_path / "outputs" / "sample" / "x-00000000"
    artifacts.freeze(folder, frozen.freeze_node(node, {}, {}))
    source.write_text('[{"instruction": "Name a colour of the sea.", "input": "", "output": "blue"}]')
    with pytest.raises(ArtifactError, match="not what it was"):
        jobs.execute(folder)
    assert not artifacts.is_finished(folder)


def test_the_variables_of_another_launcher_change_nothing(tmp_path: Path, undisturbed: Path) -> None:
    foreign = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    done = subprocess.run(
        command(tmp_path, SMALL),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        env={**environment(), **foreign},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert digests(tmp_path / "outputs") == digests(undisturbed / "outputs")


def test_a_deleted_page_is_made_again(undisturbed: Path, tmp_path: Path) -> None:
    copied(undisturbed, tmp_path)
    (page,) = (tmp_path / "outputs" / "runs").glob("*/report.html")
    page.unlink()
    assert launched(tmp_path, SMALL).returncode == 0
    assert page.exists()


def test_a_terminated_launcher_stops_its_stages(tmp_path: Path) -> None:
    launcher = subprocess.Popen(
        command(tmp_path, [*SMALL, "teacher.latency=5"]), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL
    )
    worker = None
    while worker is None and launcher.poll() is None:
        worker = _worker(tmp_path / "outputs" / "sample")
    launcher.terminate()
    assert launcher.wait(60) == 128 + signal.SIGTERM
    assert worker is not None
    assert not Path(f"/proc/{worker}").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_told_and_the_stage_goes_on_when_there_is_room(small_disk: Path, undisturbed: Path) -> None:
    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(small_disk, SMALL), cwd=ROOT, capture_output=True, text=True, timeout=280, env=environment()
        )

    done = run()
    assert done.returncode == 1, done.stdout
    assert "no space left" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    subprocess.run(["mount", "-o", "remount,size=300m", str(small_disk)], check=True)
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert digests(small_disk / "outputs") == digests(undisturbed / "outputs")


def test_a_failed_stage_stops_its_descendants_and_nothing_else(tmp_path: Path, launch: Launch) -> None:
    """One point of two cannot select so many examples after a stricter rule; the other point and the page are made."""
    done = launch(
        "-m", *SMALL[:-2], "eval.embedded.size=10", "data.size=30", "data.dedup_threshold=0.7,0.05", check=False
    )
    assert done.returncode == 1
    assert "1 stage(s) failed, 3 skipped" in done.stdout
    (page,) = (tmp_path / "outputs" / "sweeps").glob("*/report.html")
    assert str(page.parent.name) in done.stdout


def test_a_sweep_shares_its_stages_and_ends_with_a_page(tmp_path: Path, launch: Launch) -> None:
    done = launch("-m", *[text for text in SMALL if not text.startswith("data.size")], "data.size=20,40", "seed=0,1")
    outputs = tmp_path / "outputs"
    counts = {stage: len(list((outputs / stage).iterdir())) for stage in STAGES}
    assert counts == {"sample": 2, "curate": 4, "pretrain": 1, "train": 4, "respond": 4, "score": 4}
    (page,) = (outputs / "sweeps").glob("*/report.html")
    assert done.stdout.rstrip().endswith("report.html")
    assert "data.size" in page.read_text()
    for seed in sorted((outputs / "curate").glob("20-*")):
        small = [json.loads(line)["id"] for line in (seed / "examples.jsonl").open()]
        larger = [
            [json.loads(line)["id"] for line in (path / "examples.jsonl").open()]
            for path in (outputs / "curate").glob("40-*")
        ]
        assert any(ids[:20] == small for ids in larger)


def test_debug_runs_in_one_process_and_gives_the_same(tmp_path: Path, undisturbed: Path, launch: Launch) -> None:
    launch(*SMALL, "cluster=debug")
    assert digests(tmp_path / "outputs") == digests(undisturbed / "outputs")


def test_two_processes_train_to_the_same_loss(tmp_path: Path, undisturbed: Path, launch: Launch) -> None:
    launch(*SMALL, "fsdp=full_shard", "fsdp.world_size=2", "train.micro_batch=4")
    one, two = (
        [
            json.loads(line)["loss"]
            for line in next((path / "outputs" / "train").iterdir()).joinpath("loss.jsonl").open()
        ]
        for path in (undisturbed, tmp_path)
    )
    assert len(one) == len(two) == 4
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) < 1e-3  # Muon's bf16 Newton-Schulz


def test_a_question_takes_lists_on_the_command_line_without_a_flag(tmp_path: Path) -> None:
    def asked(*words: str) -> subprocess.CompletedProcess[str]:
        words = (*words, "seed=0,1,2,3", "dry_run=true", f"output_dir={tmp_path}")
        line = [sys.executable, "launch.py", *words]
        return subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)

    question, grid = asked("sweep=data_size"), asked()
    assert question.returncode == 0, question.stderr
    assert "12 run(s)" in question.stdout
    assert grid.returncode == 2
    assert "add -m to run one point for each of them" in grid.stderr


@pytest.mark.parametrize("flag", [["--help"], ["--cfg", "job"], ["--info"], ["--hydra-help"], ["--version"]])
def test_hydras_own_habits_keep_working(flag: list[str]) -> None:
    done = subprocess.run(
        ["python", "launch.py", *flag],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**environment(), "PATH": f"{Path(os.sys.executable).parent}:{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_the_flag_may_stand_anywhere(launch: Launch) -> None:
    texts = [
        launch(*words, "dry_run=true").stdout
        for words in (["-m", "seed=0,1", "data.size=9"], ["data.size=9", "-m", "seed=0,1"])
    ]
    assert texts[0] == texts[1]


def test_a_wrong_command_ends_with_status_two_and_no_traceback(launch: Launch, tmp_path: Path) -> None:
    done = launch("data.siez=3", "model=llama8b", "optimizer.lrr=1", check=False)
    assert done.returncode == 2
    assert "3 problems" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "outputs").exists()


def test_a_run_that_this_machine_cannot_do_is_planned_but_not_started(launch: Launch, tmp_path: Path) -> None:
    done = launch("model=llama7b", "fsdp=full_shard", "fsdp.world_size=64", "dry_run=true")
    assert "warning: fsdp.world_size: 64 processes wanted" in done.stdout
    done = launch("model=llama7b", "fsdp=full_shard", "fsdp.world_size=64", check=False)
    assert done.returncode == 2
    assert "fsdp.world_size" in done.stderr
