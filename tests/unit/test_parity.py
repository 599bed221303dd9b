from __future__ import annotations

import sys
from pathlib import Path

import pytest

from alpaca.curation.parsing import TEXT_FORM
from alpaca.stages.sample.judge import Judge

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import _parity
from _parity import Answer, Kept, kept_by_original, kept_by_product, parity_differences, recorded_answers

# A few seeds and answers: rouge_score compares every task with all that were kept.
SEEDS = _parity.seed_instructions()[:25]
ANSWERS = 50


@pytest.fixture(scope="module")
def answers() -> list[Answer]:
    return recorded_answers(ANSWERS, seed=1)


def answer_of(*instructions: str, given: str = "<noinput>") -> Answer:
    tasks = (Kept(instruction=instruction, input=given, output="x") for instruction in instructions)
    blocks = [_parity._block(number, task) for number, task in enumerate(tasks, _parity.FIRST)]
    return Answer(text="\n###\n".join(blocks).removeprefix("4. Instruction:"))


def instructions_kept(answer: Answer, seeds: list[str] | None = None) -> list[str]:
    return [task.instruction for task in kept_by_original([answer], seeds or [])]


def test_the_same_answers_give_the_same_kept_list(answers: list[Answer]) -> None:
    assert parity_differences(answers, SEEDS) == 0


def test_the_answers_reach_every_rule(answers: list[Answer]) -> None:
    judge = Judge(SEEDS, TEXT_FORM, 10**9)
    for answer in answers:
        judge.judge(answer.text, answer.finish_reason, _parity.FIRST, _parity.LAST)
    dropped = judge.summary()["dropped"]
    assert min(count for rule, count in dropped.items() if rule != "beyond_list") > 0
    kept = kept_by_product(answers, SEEDS)
    assert len(kept) > 200
    assert {"", "no input"} <= {task.input for task in kept}


@pytest.mark.parametrize(("name", "value"), [("_suits", lambda instruction: True), ("UNSUITABLE", ())])
def test_another_rule_would_be_seen(
    answers: list[Answer], name: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_parity, name, value)
    assert parity_differences(answers[:30], SEEDS) > 0


def test_a_kept_list_that_lacks_a_task_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = answer_of("Name a river of Asia", "Say how old the sun is")
    assert parity_differences([answer], []) == 0
    monkeypatch.setattr(_parity, "kept_by_original", lambda *given: kept_by_original(*given)[:1])
    assert parity_differences([answer], []) == 1


def test_the_original_s_filters() -> None:
    long = " ".join(f"w{place}" for place in range(150))
    kept = ["7 rivers are named how", "a b c d", long, "Filed maps_x videos are kept", "write a program in C"]
    assert instructions_kept(answer_of(*kept)) == kept
    dropped = ["a b c", f"{long} more", "Draw what you see", "Where to GO TO now", "Now map: the town", "-a b c d"]
    dropped += ["Write a program in C", "Écrivez a b c d", "…a b c d"]
    assert instructions_kept(answer_of(*dropped)) == []


def test_the_original_s_parser() -> None:
    answer = answer_of("Name a river of Asia", "Say how old the sun is", given="<NoInput>")
    assert [task.input for task in kept_by_original([answer], [])] == ["", ""]
    cut = Answer(text=answer.text, finish_reason="length")
    assert [task.instruction for task in kept_by_original([cut], [])] == ["Name a river of Asia"]
    assert instructions_kept(Answer(text=answer.text.replace("5. Input", "6. Input"))) == ["Name a river of Asia"]
    assert instructions_kept(Answer(text=answer.text.replace("###", "###\n###", 1))) == ["Name a river of Asia"]
    merged = kept_by_original([Answer(text=answer.text.replace("###", ""))], [])
    assert [task.output for task in merged] == [
        "x\n\n5. Instruction: Say how old the sun is\n5. Input:\n<NoInput>\n5. Output:\nx"
    ]


def test_the_original_s_tie_at_the_threshold() -> None:
    common = " ".join(f"c{place}" for place in range(7))
    for n, m, is_kept in [(9, 11, False), (10, 10, True)]:
        seed = " ".join([common, *(f"s{place}" for place in range(n - 7))])
        text = " ".join([*(f"t{place}" for place in range(m - 7)), common])
        assert instructions_kept(answer_of(text), [seed]) == [text] * is_kept
