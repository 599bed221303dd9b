"""Every benchmark runs in its quick form and ends with one JSON object that has the keys which were promised."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment

pytestmark = pytest.mark.slow
sys.path.insert(0, str(ROOT / "benchmarks"))
MUST_BE_ZERO = {
    "dedup": ("f_mismatches", "decision_mismatches"),
    "sampling": ("fault_lost", "fault_duplicated", "distinct_hashes", "parity_differences"),
}
KEYS = {
    "planning": {"plan_1_seconds", "plan_200_seconds", "help_seconds", "hydra_help_seconds", "second_run_seconds"},
    "dedup": {"decision_ratio", "full_ratio", "f_mismatches", "decision_mismatches", "pool_size"},
    "sampling": {
        "kept_52k_seconds",
        "ideal_share_100",
        "fault_lost",
        "fault_duplicated",
        "fault_wall_ratio",
        "distinct_hashes",
        "parity_differences",
        "cost_error",
    },
    "data_size_curve": {"exact_match_250", "exact_match_1000", "run_seconds", "pretrain_seconds"},
}


def scripts() -> dict[str, Path]:
    from run_all import scripts as found

    return {path.stem: path for path in found()}


def test_every_script_has_its_keys_listed() -> None:
    assert scripts().keys() == KEYS.keys()


@pytest.mark.parametrize("name", KEYS)
def test_the_quick_form_ends_with_numbers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from run_all import result_of

    for key, value in environment().items():
        monkeypatch.setenv(key, value)
    result = result_of(scripts()[name], ["--quick"])
    assert result.keys() >= KEYS[name]
    assert not any(result[key] for key in MUST_BE_ZERO.get(name, ()))


def test_a_script_that_prints_no_numbers_is_refused(tmp_path: Path) -> None:
    from run_all import result_of

    path = tmp_path / "bad.py"
    path.write_text('print(\'{"a": "fast"}\')')
    with pytest.raises(SystemExit, match="not numbers: a"):
        result_of(path, [])
    path.write_text("raise SystemExit(3)")
    with pytest.raises(SystemExit, match="status 3"):
        result_of(path, [])
