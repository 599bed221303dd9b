"""What the plan says of money before anything is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alpaca import plan, sweep
from alpaca.dispatch import asking

OPENAI = ["teacher=openai", "teacher.model=gpt-6-luna", "until=curate"]


def guesses(*overrides: str) -> dict[str, asking.Asked]:
    graph = plan.build(sweep.expand(list(overrides), multirun=False).runs)
    found = {node.stage: asking.asked(node, graph, Path("nowhere")) for node in graph.nodes.values()}
    return {stage: guess for stage, guess in found.items() if guess is not None}


def test_a_pool_as_large_as_alpacas_costs_what_the_prices_say() -> None:
    (guess,) = guesses(*OPENAI, "data_gen.num_examples=52000").values()
    assert guess.requests == pytest.approx(5099)
    # 800 prompt and 17 x 99 completion tokens at $0.10 and $0.50 a million.
    assert guess.usd == pytest.approx(5099 * (800 * 0.10 + 1683 * 0.50) / 1e6)
    assert "$4.70" in guess.told()


def test_the_batch_api_is_half_the_price() -> None:
    online, batch = (
        guesses(f"teacher={kind}", "teacher.model=gpt-6-luna")["sample"].usd for kind in ("openai", "openai_batch")
    )
    assert online is not None
    assert batch == pytest.approx(online / 2)


def test_an_unknown_price_gives_tokens_and_no_money() -> None:
    (guess,) = guesses("teacher=openai", "teacher.model=m", "teacher.base_url=http://127.0.0.1:9/v1").values()
    assert guess.usd is None
    assert guess.told().endswith("price unknown")


def test_the_embedded_teacher_costs_no_money() -> None:
    assert guesses()["sample"].told().endswith("no money")


def test_the_judge_is_paid_for_too() -> None:
    found = guesses(*OPENAI, "data.selection=judge_score")
    assert found["rate"].requests == 4000
    assert found["rate"].usd


@pytest.mark.parametrize(
    ("bound", "words"),
    [("spend.max_usd=1", "above spend.max_usd=1"), ("spend.max_tokens=1000", "above spend.max_tokens=1,000"),
     ("spend.max_usd=100", None)],
)  # fmt: skip
def test_a_guess_above_a_bound_is_said_before_the_start(bound: str, words: str | None) -> None:
    beyond = guesses(*OPENAI, "data_gen.num_examples=52000", bound)["sample"].beyond()
    assert (words in beyond) if words and beyond else beyond is None and words is None


def test_data_from_the_hub_has_no_known_number_of_examples() -> None:
    graph = plan.build(sweep.expand(["data_gen=released", "data_gen.hub=a/b"], multirun=False).runs)
    (pool,) = [node for node in graph.nodes.values() if node.stage == "sample"]
    assert asking.pool_size(pool, Path("nowhere")) is None


def test_the_instructions_to_be_answered_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps([{"instruction": f"Do {n}", "input": "", "output": ""} for n in range(70)], indent=1))
    source = ["data_gen=reanswer", f"data_gen.path={path}", "data.size=null"]
    found = guesses(*source, *OPENAI, "data.selection=judge_score")
    assert (found["sample"].requests, found["rate"].requests) == (70, 70)
