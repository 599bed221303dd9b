"""SLURM for a module of tests: `cluster` with accounting, `cluster_without_accounting` where sacct answers nothing.

A module may set `CLUSTER = {"grace": 5, ...}` (fields of `Settings`) for what it wants otherwise. Without SLURM's
packages the tests skip and name them; under REQUIRE_SLURM=1 they fail.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, foreign, missing, temporary

HERE = Path(__file__).parent
# Two CPUs on each of four nodes: eight processes with torch at once are what a small machine's memory bears.
DEFAULTS = {"nodes": 4, "cpus": 2, "gpus": 8, "grace": 10, "slurmd_timeout": 5, "message_timeout": 5}
FIXTURES = ("cluster", "cluster_without_accounting")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slurm)


@contextmanager
def _started(request: pytest.FixtureRequest, *, dbd: bool) -> Iterator[Cluster]:
    lacking = missing(dbd=dbd)
    if lacking:
        pytest.fail(lacking) if os.environ.get("REQUIRE_SLURM") == "1" else pytest.skip(lacking)
    options = {**DEFAULTS, **getattr(request.module, "CLUSTER", {})}
    with temporary(dbd=dbd, **options) as cluster, pytest.MonkeyPatch.context() as patch:
        _enter(cluster, patch)
        yield cluster


def _enter(cluster: Cluster, patch: pytest.MonkeyPatch) -> None:
    for key in filter(foreign, list(os.environ)):  # the tests may themselves run inside a job of another cluster
        patch.delenv(key)
    for key, value in cluster.env().items():
        patch.setenv(key, value)


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """4 idle nodes with slurmdbd; SLURM_CONF in os.environ names it while the module runs."""
    with _started(request, dbd=True) as started:
        yield started


@pytest.fixture(scope="module")
def cluster_without_accounting(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The same without slurmdbd: `sacct` fails with "accounting storage is disabled"."""
    with _started(request, dbd=False) as started:
        yield started


@pytest.fixture(autouse=True)
def _the_cluster_of_this_test(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a module that uses both clusters SLURM_CONF names the one that this test asked for."""
    asked = [name for name in FIXTURES if name in request.fixturenames]
    assert len(asked) < 2, "a test uses one cluster: SLURM_CONF can name only one"
    for name in asked:
        _enter(request.getfixturevalue(name), monkeypatch)
