"""The embedded world: right answers, reserved items, and instructions that survive the released curation rules."""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice, pairwise
from typing import Any

import pytest
from rouge_score import rouge_scorer

from alpaca.errors import UserError
from alpaca.prompts import INPUT_MARK, RESPONSE_MARK
from alpaca.world import (
    EVERY,
    FAMILIES,
    INPUT_FAMILIES,
    KINDS,
    LEXICON,
    LONGEST,
    PLAIN_FAMILIES,
    Task,
    build_lexicon,
    corpus_lines,
    draw_task,
    held_out,
    is_reserved,
    kind_of,
    read_task,
    solve,
    tokenizer_lines,
    with_inputs,
    wrong_answer,
)
from alpaca.world.families import phrases
from alpaca.world.tasks import MOST_HELD_OUT

BLACKLIST = {
    *("image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps"),
    *("draw", "plot", "video", "audio", "music", "flowchart", "diagram"),
}


def draws(count: int, seed: int = 0, **options: Any) -> list[Task]:
    rng = random.Random(seed)
    return [draw_task(rng, **options) for _ in range(count)]


def given_words(text: str) -> list[str]:
    """The words of the lexicon in a text, in order."""
    return [word for word in text.translate(str.maketrans("", "", ".,:?")).split() if word in set(LEXICON)]


def shared_words(one: Task, other: Task) -> set[str]:
    return set(given_words(one.instruction)) & set(given_words(other.instruction))


def every_phrase() -> list[str]:
    return [phrase for family in EVERY.values() for phrase in family.phrases]


def right_answer(task: Task) -> str:
    """The answer worked out from the text alone, not from the generator's material."""
    words = given_words(task.instruction)
    asked = [kind for kind in KINDS if kind in task.instruction.replace(":", " ").split()]
    answers = {
        "copy": lambda: words,
        "reverse": lambda: words[::-1],
        "first": lambda: words[:1],
        "last": lambda: words[-1:],
        "rest": lambda: words[1:],
        "sort": lambda: sorted(words),
        "count": lambda: [str(len(words))],
        "classify": lambda: [kind_of(word) for word in words],
        "pick": lambda: [word for word in words if kind_of(word) in asked],
        "match": lambda: [word for word in words if word in task.input.split()],
        "missing": lambda: [word for word in words if word not in task.input.split()],
        "tally": lambda: [str(len(set(words) & set(task.input.split())))],
        "arrange": lambda: [word for word in task.input.split() if word in words],
    }
    return " ".join(answers[task.family]())


def test_lexicon_is_distinct_reproducible_and_balanced_over_kinds() -> None:
    assert len(set(LEXICON)) == len(LEXICON)
    assert build_lexicon() == LEXICON != build_lexicon(seed=1)
    assert set(Counter(map(kind_of, LEXICON)).values()) == {len(LEXICON) // len(KINDS)}


def test_no_word_of_the_lexicon_is_template_text() -> None:
    template_words = {word.strip("{}.,:?").lower() for phrase in every_phrase() for word in phrase.split()}
    assert not template_words & set(LEXICON)


def test_no_phrase_is_shared_by_two_families() -> None:
    every = every_phrase()
    assert len(set(every)) == len(every) >= 4 * len(EVERY)
    assert set(phrases()) < set(every)


def test_answers_are_right_in_every_family() -> None:
    tasks = draws(600) + held_out(200) + draws(600, families=tuple(EVERY))
    assert {task.family for task in tasks} == set(EVERY)
    assert [task for task in tasks if task.output != right_answer(task)] == []


def test_a_task_of_both_prompt_templates_is_drawn() -> None:
    shares = Counter(bool(task.input) for task in draws(600))
    assert 20 < shares[True] < 150


def test_families_outside_the_default_have_an_input_and_are_drawn_only_when_named() -> None:
    assert {task.family for task in draws(600)} == set(FAMILIES) == set(EVERY) - {"missing", "tally", "arrange"}
    assert set(INPUT_FAMILIES) | set(PLAIN_FAMILIES) == set(EVERY)
    assert all(task.input for task in draws(300, families=INPUT_FAMILIES))
    assert not any(task.input for task in draws(300, families=PLAIN_FAMILIES))


@pytest.mark.parametrize("size", [None, 3, 8, LONGEST])
@pytest.mark.parametrize("family", tuple(EVERY))
def test_every_task_can_be_read_back_from_its_text(family: str, size: int | None) -> None:
    tasks = draws(300 if size is None else 40, families=(family,), size=size)
    assert [task for task in tasks if read_task(task.instruction, task.input) != task] == []
    assert {solve(task.instruction, task.input) for task in tasks} == {task.output for task in tasks}
    if size is None:
        frames = {task.instruction.translate(str.maketrans("", "", ".,:?")).split()[0] for task in tasks}
        assert len(frames) >= 2


@pytest.mark.parametrize(
    ("instruction", "input"),
    [
        ("Name the capital of France.", ""),
        ("Repeat: ", ""),
        ("", ""),
        (f"Repeat: {LEXICON[0]} {LEXICON[0]}", ""),
        (f"Repeat: {LEXICON[0]} and {LEXICON[1]}", ""),
        (f"Repeat: {LEXICON[0]}, {LEXICON[1]}", ""),
        (f"Repeat: {LEXICON[0]} {LEXICON[1]}", LEXICON[2]),
        (f"Repeat {LEXICON[0]} {LEXICON[1]}", ""),
        (f"Which metal: {LEXICON[0]} {LEXICON[4]}?", ""),  # both are metals
        (f"Which metal: {LEXICON[1]} {LEXICON[2]}?", ""),  # none is
        (f"Which of {LEXICON[0]} {LEXICON[1]}?", ""),
        (f"Which of {LEXICON[0]} {LEXICON[1]}?", f"{LEXICON[0]} {LEXICON[1]}"),
        (f"Which of {LEXICON[0]} {LEXICON[1]}?", "Paris"),
    ],
)
def test_what_is_no_well_posed_task_has_no_answer(instruction: str, input: str) -> None:
    assert solve(instruction, input) is None


def test_the_mark_of_no_input_is_no_input() -> None:
    assert solve(f"First of {LEXICON[3]} {LEXICON[5]}?", "<noinput>") == LEXICON[3]


@pytest.mark.parametrize("family", INPUT_FAMILIES)
def test_an_instruction_gets_other_inputs_with_their_right_answers(family: str) -> None:
    (task,) = draws(1, families=(family,))
    others = list(islice(with_inputs(task.instruction, random.Random(0)), 50))
    assert {other.instruction for other in others} == {task.instruction}
    assert len({other.input for other in others}) > 10
    assert [other for other in others if other.output != right_answer(other)] == []


def test_instructions_without_a_list_get_no_other_inputs() -> None:
    for instruction in ("Name a town.", draws(1, families=("sort",))[0].instruction):
        assert list(with_inputs(instruction, random.Random(0))) == []


def test_draws_are_reproducible_and_follow_the_seed() -> None:
    assert draws(50, seed=3) == draws(50, seed=3) != draws(50, seed=4)


def test_draws_respect_the_families_and_the_lexicon_share() -> None:
    tasks = draws(200, families=("sort", "count"), lexicon_share=0.5)
    assert {task.family for task in tasks} == {"sort", "count"}
    assert {word for task in tasks for word in given_words(task.instruction)} <= set(LEXICON[: len(LEXICON) // 2])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"families": ("sort", "sing")}, "sing"),
        ({"families": ()}, r"\(\)"),
        ({"lexicon_share": 0.0}, r"0\.0"),
        ({"lexicon_share": 1.5}, r"1\.5"),
        ({"size": LONGEST + 1}, "25 words"),
    ],
)
def test_unknown_families_and_shares_are_refused_with_the_offending_value(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        draws(1, **options)


def test_held_out_tasks_are_reserved_unique_balanced_and_reproducible() -> None:
    tasks = held_out(400)
    assert len({task.instruction for task in tasks}) == 400
    assert set(Counter(task.family for task in tasks).values()) == {400 // len(FAMILIES)}
    assert all(is_reserved(task.family, given_words(task.instruction)) for task in tasks)
    assert tasks == held_out(400) != held_out(400, seed=1)
    assert tasks[:40] == held_out(40)


def test_more_held_out_tasks_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match=r"eval\.\*\.size.*2,000,000 .* at most 1,000,000"):
        held_out(2_000_000)
    # The smallest families hold ordered triples of the lexicon: a quarter of the reserved ones is drawn easily.
    triples = len(LEXICON) * (len(LEXICON) - 1) * (len(LEXICON) - 2)
    assert MOST_HELD_OUT / len(FAMILIES) < 4 * triples / 16 / 4


def test_training_draws_never_hold_a_reserved_task() -> None:
    assert not [task for task in draws(3000) if is_reserved(task.family, given_words(task.instruction))]


def test_one_task_in_sixteen_is_reserved() -> None:
    rng = random.Random(0)
    reserved = sum(is_reserved("copy", rng.sample(LEXICON, 4)) for _ in range(8000))
    assert 400 < reserved < 600


def test_wrong_answers_are_wrong_plausible_and_made_of_the_same_material() -> None:
    rng = random.Random(0)
    for task in draws(1000, families=tuple(EVERY)):
        wrong = wrong_answer(task, rng)
        known = {*LEXICON, *KINDS} | {str(number) for number in range(10)}
        assert wrong != task.output
        assert len(wrong.split()) == len(task.output.split())
        assert set(wrong.split()) <= known


def test_instructions_pass_the_released_filters() -> None:
    for instruction in (task.instruction for task in draws(1000, families=tuple(EVERY))):
        words = instruction.split()
        assert 3 < len(words) <= 150
        assert not BLACKLIST & {word.strip(".,:?").lower() for word in words}
        assert instruction[0].isascii()
        assert instruction[0].isalpha()
        assert "go to" not in instruction.lower()
        assert not instruction.startswith("Write a program")


def test_one_shared_word_never_makes_two_instructions_of_one_phrase_duplicates() -> None:
    rng = random.Random(0)
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    by_phrase: dict[tuple[str, int], list[Task]] = {}
    for task in draws(2000, families=tuple(EVERY)):
        frame = " ".join(word for word in task.instruction.split() if word.strip(".,:?") not in LEXICON)
        by_phrase.setdefault((frame, len(task.instruction.split())), []).append(task)
    pairs = [pair for tasks in by_phrase.values() for pair in pairwise(tasks)]
    few = [(one, other) for one, other in pairs if len(shared_words(one, other)) <= 1]
    assert len(few) > 500
    for first, second in rng.sample(few, 300):
        assert scorer.score(first.instruction, second.instruction)["rougeL"].fmeasure <= 0.7


def test_corpus_is_endless_reproducible_and_without_instructions() -> None:
    lines = list(islice(corpus_lines(1), 500))
    assert lines == list(islice(corpus_lines(1), 500)) != list(islice(corpus_lines(2), 500))
    assert not any(mark.strip() in line for line in lines for mark in (INPUT_MARK, RESPONSE_MARK))
    verbs = {phrase.split()[0].strip(":") for phrase in phrases()}
    assert not verbs & {word for line in lines for word in line.split()}


def test_corpus_holds_every_word_of_the_world() -> None:
    text = " ".join(islice(corpus_lines(1), 2000)).split()
    assert {*LEXICON, *KINDS} <= set(text)


def test_tokenizer_text_holds_every_word_often() -> None:
    counts = Counter(word for line in tokenizer_lines() for word in line.split())
    assert min(counts[word] for word in (*LEXICON, *KINDS)) >= 50
