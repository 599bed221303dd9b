"""Stages -> units -> job arrays: what rides together, what follows what, and in how few calls of sbatch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpaca.config import Resources, SlurmCluster, StageResources
from alpaca.dispatch.slurm import resources
from alpaca.dispatch.slurm.graph import Array, Place, Stage, arrays, units
from alpaca.dispatch.slurm.resources import asked
from alpaca.dispatch.slurm.submit import ranges

CLUSTER = SlurmCluster()


def stage(label: str, *parents: str, role: str = "", processes: int = 1) -> Stage:
    return Stage(label=label, role=role or label.partition("/")[0], parents=parents, processes=processes)


def chain(count: int, pools: int = 1) -> list[Stage]:
    """`count` points: a data set each, of one of the pools; a shared base; a training, its answers, their scores."""
    found = [stage(f"sample/{pool}") for pool in range(pools)]
    found += [stage("pretrain/base")]
    found += [stage(f"curate/{number}", f"sample/{number % pools}") for number in range(count)]
    for number in range(count):
        found += [
            stage(f"train/{number}", f"curate/{number}", "pretrain/base"),
            stage(f"respond/{number}", f"train/{number}", role="respond:embedded"),
            stage(f"score/{number}", f"respond/{number}", role="score:embedded"),
        ]
    return found


def made(todo: list[Stage], live: dict[str, Place] | None = None, **options: int) -> list[Array]:
    live = live or {}
    found = units(todo, CLUSTER.together, live)
    return arrays(found, live, lambda each: asked(CLUSTER, each.kind, each.processes), **options)


def test_scores_ride_with_their_answers() -> None:
    found = units(chain(2), ["score"], [])
    assert [tuple(each.label for each in unit.stages) for unit in found if unit.first.kind == "respond"] == [
        ("respond/0", "score/0"),
        ("respond/1", "score/1"),
    ]


def test_a_score_whose_answers_are_finished_stands_alone() -> None:
    found = units([stage("score/0", "respond/0")], ["score"], [])
    assert [unit.first.label for unit in found] == ["score/0"]
    assert found[0].parents == frozenset()


def test_a_stage_does_not_ride_with_a_training_in_several_processes() -> None:
    todo = [stage("train/0", processes=4), stage("respond/0", "train/0")]
    assert len(units(todo, ["respond"], [])) == 2


def test_one_to_one_follows_element_by_element() -> None:
    found = {array.kind: array for array in made(chain(3))}
    assert [array.kind for array in made(chain(3))] == ["sample", "pretrain", "curate", "train", "respond"]
    assert found["curate"].after == (Place(array="#1", index=0),)
    assert found["train"].corresponding == ("#3",)
    assert found["train"].after == (Place(array="#2", index=0),)
    assert found["respond"].corresponding == ("#4",)


def test_fan_out_follows_its_one_element() -> None:
    todo = [stage("sample/0"), stage("curate/0", "sample/0"), stage("curate/1", "sample/0")]
    todo += [stage(f"train/{number}", f"curate/{number % 2}") for number in range(6)]
    found = made(todo)
    assert [(array.kind, len(array.units)) for array in found] == [
        ("sample", 1), ("curate", 2), ("train", 3), ("train", 3),
    ]  # fmt: skip
    assert [array.after for array in found[2:]] == [(Place(array="#2", index=0),), (Place(array="#2", index=1),)]


def test_elements_keep_the_numbers_of_those_they_follow() -> None:
    live = {f"train/{number}": Place(array="77", index=number) for number in (2, 5)}
    todo = [stage(f"respond/{number}", f"train/{number}") for number in (2, 5)]
    (array,) = made(todo, live)
    assert array.corresponding == ("77",)
    assert {index: unit.first.label for index, unit in array.units.items()} == {2: "respond/2", 5: "respond/5"}


def test_resources_of_their_own_make_an_array_of_their_own() -> None:
    todo = [stage("train/0", processes=1), stage("train/1", processes=16)]
    found = made(todo)
    assert [(array.asked.nodes, array.asked.tasks, array.asked.gpus) for array in found] == [(1, 1, 1), (2, 8, 8)]


def test_arrays_are_no_larger_than_the_site_allows() -> None:
    found = made([stage(f"train/{number}") for number in range(25)], max_size=10)
    assert [len(array.units) for array in found] == [10, 10, 5]
    assert max(index for array in found for index in array.units) == 9


def test_a_parent_that_nobody_does_is_a_defect() -> None:
    unit = units([stage("train/0", "curate/0")], [], ["curate/0"])
    with pytest.raises(ValueError, match="train/0"):
        arrays(unit, {}, lambda each: asked(CLUSTER, each.kind))


@given(st.integers(1, 30), st.integers(1, 4), st.sets(st.integers(0, 200)), st.integers(3, 50))
def test_every_stage_is_queued_once_behind_its_parents(count: int, pools: int, done: set[int], size: int) -> None:
    todo = chain(count, pools)
    finished = {todo[number].label for number in done if number < len(todo)}
    left = [each for each in todo if each.label not in finished]
    found = made(left, max_size=size)
    places: dict[str, tuple[int, int]] = {}
    for array in found:
        assert len(array.units) <= size
        for index, unit in array.units.items():
            for label in unit.parents:
                number, place = places[label]
                exact = Place(array=f"#{number}", index=place) in array.after
                assert exact or (f"#{number}" in array.corresponding and place == index)
            for each in unit.stages:
                assert each.label not in places
                places[each.label] = (array.number, index)
    assert places.keys() == {each.label for each in left}


def test_what_a_stage_asks_for_comes_from_its_kind_first() -> None:
    cluster = SlurmCluster(
        partition="all",
        setup=["module load a"],
        stages=StageResources(curate=Resources(partition="cpu", cpus=2, setup=["module load b"])),
    )
    found = asked(cluster, "curate")
    assert (found.partition, found.cpus, found.gpus) == ("cpu", 2, 0)
    assert found.setup == ("module load a", "module load b")
    assert asked(cluster, "sample").partition == "all"


def test_no_gpus_are_asked_for_where_a_node_has_none() -> None:
    cluster = SlurmCluster(gpus_per_node=0, processes_per_node=2)
    found = asked(cluster, "train", 4)
    assert (found.nodes, found.tasks, found.gpus) == (2, 2, 0)


def test_a_gpu_where_a_node_has_none_is_a_problem() -> None:
    cluster = SlurmCluster(gpus_per_node=0, stages=StageResources(respond=Resources(gpus=1)))
    assert asked(cluster, "respond").gpus == 1
    (problem,) = resources._of_kind(cluster, "respond", 1)
    assert problem.where == "cluster.stages.respond.gpus"


def test_a_refusal_names_the_key_that_caused_it() -> None:
    cluster = SlurmCluster(stages=StageResources(train=Resources(partition="gpus")))
    words = "Batch job submission failed: Invalid partition name specified"
    error = resources.refusal(words, cluster, "train", asked(cluster, "train"))
    assert error.where == "cluster.stages.train.partition=gpus"
    assert words in error.what


@pytest.mark.parametrize(
    ("numbers", "text"), [([0, 1, 2, 3, 7], "0-3,7"), ([4], "4"), ([1, 3, 4], "1,3-4"), ([], "")]
)
def test_ranges(numbers: list[int], text: str) -> None:
    assert ranges(numbers) == text
