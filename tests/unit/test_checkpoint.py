"""Checkpoints: equal to the bit, passed over when damaged, never lost; one process and two."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystem, FileSystemWriter

from alpaca.errors import UserError
from alpaca.jobs import explain
from alpaca.runtime.distributed import launch_ranks
from alpaca.stages.train import checkpoint, marker
from alpaca.stages.train.checkpoint import Checkpoints
from tests.unit import checkpoint_world as world
from tests.unit.checkpoint_world import ALONE, MOMENTS, Training, numbers, same


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def checkpoints(tmp_path: Path, said: list[str]) -> Checkpoints:
    """With whole ones of steps 1 and 2, of which every number is the step."""
    made = Checkpoints(tmp_path, ALONE, said.append)
    for step in (1, 2):
        write(made, step)
    return made


def write(checkpoints: Checkpoints, step: int) -> None:
    checkpoints.save(step, numbers(float(step)), {"rows": [{"loss": step / 2}]})
    checkpoints.wait()


def value(state: dict[str, Any]) -> float:
    """The one number that a state is full of."""
    found = torch.cat([tensor.flatten() for tensor in state["model"].values()]).unique()
    assert len(found) == 1
    return float(found)


def restored(checkpoints: Checkpoints) -> tuple[int, float] | None:
    state = numbers(-1.0)
    found = checkpoints.restore(state)
    if found is None:
        return None
    assert found[1] == {"rows": [{"loss": found[0] / 2}]}
    return found[0], value(state)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- round trip -------------------------------------------------------------------------------------------------------


def test_model_and_optimizer_come_back_to_the_bit_and_in_place(tmp_path: Path) -> None:
    first, second = Training(ALONE, seed=1), Training(ALONE, seed=2)
    first.step()
    second.step()
    assert not same(first.whole(), second.whole())
    checkpoints = Checkpoints(tmp_path, ALONE, print)
    checkpoints.save(1, first.state(), {})
    assert checkpoints.restore(second.state()) == (1, {})
    assert same(first.whole(), second.whole())  # the tensors that train themselves: nothing was put back


def test_every_kind_of_value_comes_back(tmp_path: Path) -> None:
    def made(seed: int) -> dict[str, Any]:
        torch.manual_seed(seed)
        low = torch.randint(-128, 128, (3, 5), dtype=torch.int8)
        tensors = {"bf16": torch.randn(4, 6).bfloat16(), "int8": low, "none": torch.zeros(0), "one": torch.tensor(seed)}
        groups = [{"lr": seed / 7, "betas": (0.9, seed / 10), "params": ["a", "b"]}, {"lr": None}]
        shared = tensors["bf16"]
        return {"model": tensors, "tied": {"again": shared, "part": shared.t()[1:3]}, "groups": groups, "loose": seed}

    checkpoints = Checkpoints(tmp_path, ALONE, print)
    checkpoints.save(7, made(1), {"id": "é", "nothing": None})
    state, expected = made(2), made(1)
    assert checkpoints.restore(state) == (7, {"id": "é", "nothing": None})
    assert (state["groups"], state["loose"]) == (expected["groups"], expected["loose"])
    for part in ("model", "tied"):
        assert same(state[part], expected[part])


def test_what_changes_after_the_save_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, notes = numbers(1.0), {"rows": [1]}
    real = FileSystemWriter.write_data

    def changed_before(self: FileSystemWriter, *given: Any) -> Any:
        for tensor in state["model"].values():
            tensor.fill_(9.0)
        notes["rows"].append(2)
        return real(self, *given)

    monkeypatch.setattr(FileSystemWriter, "write_data", changed_before)
    checkpoints = Checkpoints(tmp_path, ALONE, print)
    checkpoints.save(1, state, notes)
    found = numbers(-1.0)
    assert checkpoints.restore(found) == (1, {"rows": [1]})
    assert (value(found), value(state)) == (1.0, 9.0)


def test_the_copy_is_made_in_the_same_memory_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = []

    def staged(state: dict[str, Any], **_: Any) -> None:
        places.append([tensor.data_ptr() for tensor in state["model"].values()])

    monkeypatch.setattr(checkpoint, "save", staged)
    monkeypatch.setattr(Checkpoints, "_publish", lambda *_: None)
    training = Training(ALONE, seed=1)
    checkpoints = Checkpoints(tmp_path, ALONE, print)
    for step in (1, 2):
        checkpoints.save(step, training.state(), {})
        checkpoints.wait()
        training.step()
    assert places[0] == places[1]
    assert not set(places[0]) & {tensor.data_ptr() for tensor in training.state()["model"].values()}


def test_without_a_checkpoint_training_starts_afresh(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "none", ALONE, print)
    assert checkpoints.steps() == []
    assert restored(checkpoints) is None


# --- damage -----------------------------------------------------------------------------------------------------------


def truncated(folder: Path) -> None:
    path = folder / "step-2" / "__0_0.distcp"
    path.write_bytes(path.read_bytes()[:-1])


def flipped(name: str) -> Callable[[Path], None]:
    def flip(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)

    return flip


def torn(folder: Path) -> None:
    path = folder / "step-2.json"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def changed(folder: Path) -> None:
    path = folder / "step-2.json"
    path.write_text(path.read_text().replace("float32[5, 3]", "float32[5, 4]"))


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no marker": (lambda folder: (folder / "step-2.json").unlink(), "was not finished"),
    "no file": (lambda folder: (folder / "step-2" / "__0_0.distcp").unlink(), "has lost __0_0.distcp"),
    "truncated": (truncated, r"bytes instead of"),
    "flipped": (flipped("step-2/__0_0.distcp"), "has another sha256 than recorded for __0_0.distcp"),
    "flipped names": (flipped("step-2/.metadata"), "has another sha256 than recorded for .metadata"),
    "flipped notes": (flipped("step-2/notes.json"), "has another sha256 than recorded for notes.json"),
    "torn marker": (torn, "has a torn record"),
    "empty marker": (lambda folder: (folder / "step-2.json").write_text(""), "has a torn record"),
    "marker of another form": (lambda folder: (folder / "step-2.json").write_text("[1]"), "has a torn record"),
    "binary marker": (lambda folder: (folder / "step-2.json").write_bytes(b"\xff\xfe"), "has a torn record"),
    "changed marker": (changed, "has a changed record"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_which_is_said(
    kind: str, tmp_path: Path, checkpoints: Checkpoints, said: list[str]
) -> None:
    damage, words = DAMAGES[kind]
    damage(tmp_path)
    assert restored(checkpoints) == (1, 1.0)
    assert len(said) == 1
    assert said[0].startswith("checkpoint of step 2 ")
    assert words in said[0]
    assert names(tmp_path) == {"step-1", "step-1.json"}
    write(checkpoints, 2)  # the way leads over the same step again
    assert restored(checkpoints) == (2, 2.0)
    assert len(said) == 1


def test_when_all_are_damaged_training_starts_afresh(tmp_path: Path, checkpoints: Checkpoints, said: list[str]) -> None:
    truncated(tmp_path)
    (tmp_path / "step-1.json").unlink()
    assert restored(checkpoints) is None
    assert [line.split(" ")[3] for line in said] == ["2", "1"]
    assert names(tmp_path) == set()


def test_a_damaged_checkpoint_does_not_count_among_those_that_are_kept(tmp_path: Path, said: list[str]) -> None:
    checkpoints = Checkpoints(tmp_path, ALONE, said.append, keep=1)
    write(checkpoints, 2)
    (tmp_path / "step-9").mkdir()
    (tmp_path / "step-9.json").write_text("{")
    assert restored(checkpoints) == (2, 2.0)
    write(checkpoints, 3)
    assert restored(checkpoints) == (3, 3.0)


@pytest.mark.parametrize(
    ("widths", "words"),
    [
        ((7, 12, 5), r"model.0.weight: float32\[11, 7\] in the checkpoint, float32\[12, 7\] in"),
        ((*world.WIDTHS, 3), "model.2.weight: absent in the checkpoint, float32"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_and_stays(
    tmp_path: Path, widths: tuple[int, ...], words: str, said: list[str]
) -> None:
    checkpoints = Checkpoints(tmp_path, ALONE, said.append)
    checkpoints.save(3, Training(ALONE, seed=1).state(), {})
    other = Training(ALONE, seed=1, widths=widths)
    before = other.whole()
    with pytest.raises(UserError, match=words) as caught:
        checkpoints.restore(other.state())
    assert caught.value.where == str(tmp_path / "step-3.json")
    assert "16 tensors of 448 numbers, this run has" in caught.value.what
    assert same(before, other.whole())
    assert checkpoints.steps() == [3]
    assert said == []


def test_a_checkpoint_of_another_optimizer_is_refused(tmp_path: Path) -> None:
    training = Training(ALONE, seed=1)
    checkpoints = Checkpoints(tmp_path, ALONE, print)
    checkpoints.save(3, training.state(), {})
    training.optimizer = torch.optim.SGD(training.module.parameters(), lr=0.1, momentum=0.9)
    with pytest.raises(UserError, match="of another model or optimizer: it has 16 tensors"):
        checkpoints.restore(training.state())


# --- rotation and failures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [1, 3])
def test_the_newest_stay(tmp_path: Path, keep: int) -> None:
    checkpoints = Checkpoints(tmp_path, ALONE, print, keep=keep)
    for step in (8, 9, 10, 11, 100):
        write(checkpoints, step)
    assert checkpoints.steps() == [9, 10, 11, 100][-keep:]
    assert names(tmp_path) == {f"step-{step}{end}" for step in checkpoints.steps() for end in ("", ".json")}


def test_a_step_that_is_saved_again_is_replaced(tmp_path: Path, checkpoints: Checkpoints) -> None:
    checkpoints.save(2, numbers(5.0), {"again": True})
    state = numbers(-1.0)
    assert checkpoints.restore(state) == (2, {"again": True})
    assert value(state) == 5.0
    assert checkpoints.steps() == [1, 2]


def test_what_a_crash_left_goes_before_anything_is_written(tmp_path: Path, checkpoints: Checkpoints) -> None:
    """It may be what fills the disk."""
    (tmp_path / "step-9.part").mkdir()
    (tmp_path / ".step-9.json.123").touch()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(FileSystemWriter, "write_data", lambda *_: stopped(seen.update(names(tmp_path))))
        seen: set[str] = set()
        checkpoints.save(3, numbers(3.0), {})
        with pytest.raises(RuntimeError, match="stopped here"):
            checkpoints.wait()
    assert seen == {"step-1", "step-1.json", "step-2", "step-2.json", "step-3.part"}


def stopped(*_: Any, **__: Any) -> None:
    raise RuntimeError("stopped here")


@pytest.mark.parametrize(
    ("owner", "name"), [(FileSystemWriter, "finish"), (checkpoint, "_sync"), (Path, "rename"), (marker, "write")]
)
def test_a_failure_anywhere_in_a_save_is_told_and_leaves_the_earlier_ones(
    tmp_path: Path, checkpoints: Checkpoints, owner: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = names(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, stopped)
        checkpoints.save(3, numbers(3.0), {})
        with pytest.raises(RuntimeError, match="stopped here"):
            checkpoints.wait()
    checkpoints.wait()  # told once
    assert names(tmp_path) == whole
    assert restored(checkpoints) == (2, 2.0)


def test_notes_that_json_cannot_hold_are_told(checkpoints: Checkpoints) -> None:
    checkpoints.save(3, numbers(3.0), {"tensor": torch.zeros(1)})
    with pytest.raises(TypeError, match="Tensor"):
        checkpoints.wait()
    assert checkpoints.steps() == [1, 2]


@pytest.mark.parametrize("told_by", ["wait", "the next save", "restore"])
def test_a_full_disk_is_told_as_such_and_the_earlier_ones_stay(
    told_by: str, tmp_path: Path, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = {
        "wait": checkpoints.wait,
        "the next save": lambda: checkpoints.save(4, numbers(4.0), {}),
        "restore": lambda: checkpoints.restore(numbers(-1.0)),
    }
    whole = names(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(FileSystem, "create_stream", world.ending(world.no_space))
        checkpoints.save(3, numbers(3.0), {})
        with pytest.raises(OSError) as caught:
            ways[told_by]()
    assert caught.value.errno == errno.ENOSPC
    told = explain(caught.value, tmp_path)
    assert told is not None
    assert "no space left" in told.what
    assert names(tmp_path) == whole
    assert restored(checkpoints) == (2, 2.0)
    write(checkpoints, 3)
    assert checkpoints.steps() == [2, 3]


# --- processes --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_process_killed_at_any_moment_of_a_save_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    subprocess.run([sys.executable, world.__file__, "kill", str(tmp_path)], check=True, env=world.environment())
    for moment in MOMENTS:
        folder = tmp_path / moment
        assert len(names(folder)) > 2, moment  # something was left lying
        checkpoints = Checkpoints(folder, ALONE, print, keep=1)
        newest = 2.0 if moment == MOMENTS[-1] else 1.0
        state = numbers(-1.0)
        assert checkpoints.restore(state) == (int(newest), {"step": int(newest)}), moment
        assert value(state) == newest
        assert names(folder) == {f"step-{newest:g}", f"step-{newest:g}.json"}, moment
        write(checkpoints, 3)
        assert names(folder) == {"step-3", "step-3.json"}


@pytest.mark.slow
def test_two_processes_save_under_load_and_one_and_two_restore_each_others(tmp_path: Path) -> None:
    one = Training(ALONE, seed=6)
    one.step()
    checkpoints = Checkpoints(tmp_path / "one", ALONE, print)
    checkpoints.save(4, one.state(), {"of": "one"})
    checkpoints.wait()
    torch.save(one.whole(), tmp_path / "one.pt")
    launch_ranks([sys.executable, world.__file__, "ranks", str(tmp_path)], 2)
    again = Training(ALONE, seed=7)
    assert Checkpoints(tmp_path / "two", ALONE, print).restore(again.state()) == (4, {"step": 4})
    assert same(again.whole(), torch.load(tmp_path / "two.pt"))
