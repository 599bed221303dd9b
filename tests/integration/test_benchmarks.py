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
    "train": ("resume_mismatch",),
}
AT_MOST = {
    "train": {
        **dict.fromkeys(("loss_error", "gradient_error", "prefix_loss_error", "prefix_gradient_error"), 1e-9),
        **dict.fromkeys(("loss_error_fp32", "gradient_error_fp32"), 5e-6),
        **dict.fromkeys(("prefix_loss_error_fp32", "prefix_gradient_error_fp32"), 5e-6),
        "accumulation_error": 1e-6,
        "fsdp_loss_error": 1e-5,
        "fsdp_loss_error_muon": 1e-3,
    }
}
"""What no machine's load can change, so the quick form is held to it too."""
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
    "train": {
        *AT_MOST["train"],
        "resume_mismatch",
        *(f"{name}_ratio{size}" for name in ("packing", "full", "prefix", "trl") for size in ("", "_tiny")),
        "save_stall_ratio",
        *(f"forecast_{what}_error{size}" for what in ("memory", "seconds") for size in ("", "_tiny")),
    },
    "calibration": {
        "false_positive_rate",
        "power_at_mde",
        "coverage",
        *("false_positive_rates", "powers", "coverages", "joint_coverages", "detectable_effects"),
    },
    "validation": {
        *("aa_false_positives", "teacher_order_recovered", "noise_found", "truncation_found"),
        *("pool_runs", "pool_seconds", "sweeps", "sweep_seconds"),
    },
    "slurm_queue": {"queue_seconds", "sbatch_calls", "status_seconds", "stages", "points", "one_by_one_ratio"},
    "train_gpu": {"tokens_per_second_ours", "mfu_ours", "mfu_computed_ours", "original_ratio", "trl_ratio"},
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
    above = {key: result[key] for key, most in AT_MOST.get(name, {}).items() if result[key] > most}
    assert not above


def test_a_script_that_prints_no_numbers_is_refused(tmp_path: Path) -> None:
    from run_all import result_of

    path = tmp_path / "bad.py"
    path.write_text('print(\'{"a": "fast"}\')')
    with pytest.raises(SystemExit, match="not numbers: a"):
        result_of(path, [])
    path.write_text("raise SystemExit(3)")
    with pytest.raises(SystemExit, match="status 3"):
        result_of(path, [])
