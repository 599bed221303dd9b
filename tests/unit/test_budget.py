"""The training budget: three units, one canonical spelling, exact arithmetic."""

from __future__ import annotations

import pytest

from alpaca.errors import UserError
from alpaca.runtime.budget import Budget


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("3 epochs", "3 epochs"),
        ("3epochs", "3 epochs"),
        ("1 epoch", "1 epochs"),
        ("0.5 epochs", "0.5 epochs"),
        (" 200  Steps ", "200 steps"),
        ("1e6 tokens", "1000000 tokens"),
        ("1_000_000 tokens", "1000000 tokens"),
        ("1234567 tokens", "1234567 tokens"),
    ],
)
def test_every_spelling_has_one_canonical_form_that_parses_to_itself(text: str, canonical: str) -> None:
    assert Budget.parse(text).canonical() == canonical
    assert Budget.parse(canonical).canonical() == canonical


@pytest.mark.parametrize(
    "text",
    ["", "3", "epochs", "3 hours", "-1 epochs", "0 steps", "2.5 steps", "nan epochs", "1e999 steps", "3 epochs 4"],
)
def test_anything_else_is_refused_with_the_offending_text_and_the_accepted_forms(text: str) -> None:
    with pytest.raises(UserError) as refusal:
        Budget.parse(text)
    message = refusal.value.text()
    assert repr(text) in message
    assert "train.budget" in message
    assert all(form in message for form in ('"3 epochs"', '"200 steps"', '"1e6 tokens"'))


def test_alpacas_own_arithmetic() -> None:
    # 52,002 examples at batch 128: 3 epochs are 156,006 draws, one partial step more than 3 x 406.
    assert Budget.parse("3 epochs").steps(52002, 128, 128.0) == 1219
    assert Budget.parse("3 epochs").draws(52002) == 156006


def test_tokens_are_rounded_up_to_the_step_that_completes_them() -> None:
    budget = Budget.parse("1e6 tokens")
    assert budget.steps(10, 64, 25.0) == 625
    assert budget.steps(10, 64, 25.1) == 623
    assert Budget.parse("1 tokens").steps(10, 64, 25.0) == 1


def test_a_share_of_an_epoch_does_not_gain_an_example_from_rounding() -> None:
    assert 0.07 * 100 > 7
    assert Budget.parse("0.07 epochs").draws(100) == 7
