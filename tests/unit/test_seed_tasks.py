"""The project's own seed tasks and generation prompt: data that ship, so their promises are tested like code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain, combinations, product
from pathlib import Path
from typing import Any

import pytest
from rouge_score import rouge_scorer

from alpaca.curation.filters import FILTERS, dropped_by
from alpaca.curation.parsing import NO_INPUT, parse_completion
from alpaca.records import SeedTask, read_jsonl

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "alpaca" / "stages" / "sample"
RELEASED_SEEDS = ROOT.parent / "shared" / "data" / "seed" / "seed_tasks.jsonl"
MAX_SIMILARITY = 0.6
# The prompt asks the teacher for outputs under 100 words and inputs of at most 100; the examples must keep to that too.
MAX_WORDS = 100


def flat(row: dict[str, Any]) -> SeedTask:
    (instance,) = row["instances"]
    assert list(instance) == ["input", "output"]
    return SeedTask(**{key: value for key, value in row.items() if key != "instances"}, **instance)


@pytest.fixture(scope="module")
def tasks() -> list[SeedTask]:
    return [flat(row) for row in read_jsonl(SAMPLE / "seed_tasks.jsonl")]


@pytest.fixture(scope="module")
def prompt() -> str:
    return (SAMPLE / "prompt_text.txt").read_text(encoding="utf-8")


def similarities(pairs: Iterator[tuple[str, str]]) -> Iterator[tuple[float, str, str]]:
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    for one, other in pairs:
        yield scorer.score(one, other)["rougeL"].fmeasure, one, other


def layout(number: int, task: SeedTask) -> str:
    """A task as the prompt's format section describes it."""
    return (
        f"###\n{number}. Instruction: {task.instruction}\n{number}. Input:\n{task.input or NO_INPUT}\n"
        f"{number}. Output:\n{task.output}\n"
    )


def test_counts_are_those_of_the_original_seeds(tasks: list[SeedTask]) -> None:
    assert len(tasks) == 175
    assert sum(task.is_classification for task in tasks) == 26
    assert sum(bool(task.input) for task in tasks) == 125


def test_every_row_has_the_fields_of_self_instruct() -> None:
    for row in read_jsonl(SAMPLE / "seed_tasks.jsonl"):
        assert list(row) == ["id", "name", "instruction", "instances", "is_classification"], row["id"]
        assert isinstance(row["is_classification"], bool), row["id"]
        texts = [row["name"], row["instruction"], *row["instances"][0].values()]
        assert all(isinstance(text, str) for text in texts), row["id"]


def test_ids_names_and_instructions_are_unique(tasks: list[SeedTask]) -> None:
    assert [task.id for task in tasks] == [f"seed_task_{index}" for index in range(175)]
    assert len({task.name for task in tasks}) == 175
    assert len({task.instruction.lower() for task in tasks}) == 175
    assert [task.name for task in tasks if not re.fullmatch(r"[a-z][a-z0-9_]*", task.name)] == []


def test_no_filter_drops_a_seed(tasks: list[SeedTask]) -> None:
    # A seed may end in a signature or a list, which `unterminated_output` cannot always tell from a text that was cut.
    filters = [each for each in FILTERS if each.name != "unterminated_output"]
    assert {task.id: reason for task in tasks if (reason := dropped_by(task, filters))} == {}


def test_texts_are_trimmed_and_no_longer_than_the_prompt_allows(tasks: list[SeedTask]) -> None:
    for task in tasks:
        assert task.instruction == " ".join(task.instruction.split()), task.id
        assert len(task.instruction.split()) <= 60, task.id
        assert task.input == task.input.strip(), task.id
        assert len(task.input.split()) <= MAX_WORDS, task.id
        assert task.output == task.output.strip(), task.id
        assert len(task.output.split()) < MAX_WORDS, task.id


def test_no_seed_holds_a_stand_in_or_an_unfinished_instruction(tasks: list[SeedTask]) -> None:
    stand_in = re.compile(r"<[^>]*>|\[(?:your|name|insert|text|some)\b|lorem ipsum|\bTODO\b|\bXXX\b", re.IGNORECASE)
    assert [task.id for task in tasks if stand_in.search(f"{task.instruction}\n{task.input}\n{task.output}")] == []
    assert [task.id for task in tasks if not task.instruction.endswith((".", "?"))] == []


def test_the_list_of_seeds_survives_the_parser(tasks: list[SeedTask]) -> None:
    text = "".join(layout(number, task) for number, task in enumerate(tasks, 1))
    parsed = parse_completion(text.removeprefix("###\n1. Instruction:"), first_number=1, finish_reason="stop")
    assert parsed.malformed == 0
    assert [(one.instruction, one.input, one.output) for one in parsed.tasks] == [
        (task.instruction, task.input, task.output) for task in tasks
    ]


def test_wording_varies_in_register_and_first_word(tasks: list[SeedTask]) -> None:
    questions = sum("?" in task.instruction for task in tasks)
    first_words = {task.instruction.split()[0].lower() for task in tasks}
    assert 40 <= questions <= 90
    assert len(first_words) >= 100


def test_no_two_seeds_are_alike(tasks: list[SeedTask]) -> None:
    closest = max(similarities(combinations([task.instruction for task in tasks], 2)))
    assert closest[0] <= MAX_SIMILARITY, closest


def test_no_seed_is_close_to_a_released_one(tasks: list[SeedTask]) -> None:
    if not RELEASED_SEEDS.exists():
        pytest.skip("../shared is not beside the project")
    released = [row["instruction"] for row in read_jsonl(RELEASED_SEEDS)]
    assert len(released) == 175
    closest = max(similarities(product([task.instruction for task in tasks], released)))
    assert closest[0] <= MAX_SIMILARITY, closest


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("repair_average", "assert average([]) is None and average([1, 2, 6]) == 3"),
        ("word_frequency_function", "assert word_counts('A b a') == {'a': 2, 'b': 1}"),
        ("better_variable_names", "assert gross_total(10, 3) == 36"),
    ],
)
def test_python_answers_are_right(tasks: list[SeedTask], name: str, check: str) -> None:
    (answer,) = (task.output for task in tasks if task.name == name)
    exec(f"{answer}\n{check}", {})


def test_the_unit_tests_that_a_seed_writes_pass(tasks: list[SeedTask]) -> None:
    (task,) = (task for task in tasks if task.name == "unit_tests_for_slug")
    calls = re.findall(r"def (test_\w+\(\))", task.output)
    assert len(calls) == 2
    exec("\n".join([task.input, task.output, *calls]), {})


def test_json_answer_is_json(tasks: list[SeedTask]) -> None:
    (answer,) = (task.output for task in tasks if task.name == "contacts_to_json")
    assert [list(person) for person in json.loads(answer)] == [["name", "city", "phone"]] * 2


def test_answers_keep_the_word_limit_of_their_instruction(tasks: list[SeedTask]) -> None:
    limits = {
        "shorten_committee_note": 25, "eight_word_headline": 8, "thank_you_card": 50, "night_train_opening": 70,
        "car_journey_game": 79, "answer_complaint": 89,
    }  # fmt: skip
    lengths = {task.name: len(task.output.split()) for task in tasks if task.name in limits}
    assert lengths.keys() == limits.keys()
    assert {name: length for name, length in lengths.items() if length > limits[name]} == {}


def test_prompt_has_its_placeholders_and_introduces_the_list(prompt: str) -> None:
    assert set(re.findall(r"\{.*?\}", prompt)) == {"{count}", "{language}"}
    assert f'"{NO_INPUT}"' in prompt
    assert prompt.endswith("\nList of {count} tasks:\n")
    assert "20" in prompt.format(count=20, language="English")
    assert "{" not in prompt.format(count=20, language="English")


def test_prompt_is_short_plain_text_with_requirements_numbered_once(prompt: str) -> None:
    assert len(prompt) < 2_000
    assert prompt.isascii()
    numbers = [int(number) for number in re.findall(r"^(\d+)\. ", prompt, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 8


def test_prompt_names_the_format_that_the_parser_reads(prompt: str) -> None:
    headings = (f'"N. {heading}:"' for heading in ("Instruction", "Input", "Output"))
    assert [part for part in chain(headings, ['"###"']) if part not in prompt] == []
