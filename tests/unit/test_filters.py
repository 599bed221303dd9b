from __future__ import annotations

import json
from pathlib import Path

import pytest

from alpaca.curation import filters
from alpaca.curation.filters import (
    EMPTY_OUTPUT,
    FILTERS,
    KEYWORDS,
    RELEASED,
    count_drops,
    dropped_by,
    filters_named,
    normalise_no_input,
)
from alpaca.curation.parsing import ParsedTask
from alpaca.errors import UserError
from alpaca.records import Example

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


def task(instruction: str, output: str = "An answer.") -> ParsedTask:
    return ParsedTask(number=4, instruction=instruction, input="", output=output)


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        ("Name a river now", None),
        ("Name a river", "length"),
        ("", "length"),
        (" \n ", "length"),
        ("word " * 150, None),
        ("word " * 151, "length"),
        ("Describe the IMAGE in one sentence", "keywords"),
        ("Tell me how to go to Paris", "keywords"),
        ("Tell me how to goto Paris", None),
        ("Imagine a musical, graphic and mapped profile", None),
        ("Explain the drawing of this painter", None),
        ("Write a program that adds numbers", "write_a_program"),
        ("write a program that adds numbers", None),
        ("Write a programming joke about loops", "write_a_program"),
        ("Please write a program for me", None),
        ("(optional) name a river now", "punctuation"),
        ("_Name a river now_", "punctuation"),
        ("\u00c9num\u00e8re trois rivi\u00e8res d'Asie", "non_ascii"),
        ("\u201cTo be\u201d was written by whom", "non_ascii"),
        ("7 rivers of Asia, please", None),
    ],
)
def test_released_filters(instruction: str, reason: str | None) -> None:
    assert dropped_by(task(instruction)) == reason


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_each_keyword_drops_as_a_whole_word_in_any_case(keyword: str) -> None:
    assert dropped_by(task(f"Please take this {keyword.upper()}, and comment")) == "keywords"
    assert dropped_by(task(f"Please take this x{keyword} and comment")) is None


def test_there_are_eighteen_keywords() -> None:
    assert len(set(KEYWORDS)) == 18


def test_every_filter_alone_bears_an_empty_task() -> None:
    assert [each.name for each in FILTERS if each.drops(task("", output=""))] == ["length", "empty_output"]


def test_the_empty_output_filter_is_a_repair_and_not_among_the_released() -> None:
    assert EMPTY_OUTPUT not in RELEASED
    assert dropped_by(task("Name a river now", output=" \n")) is None
    assert dropped_by(task("Name a river now", output=" \n"), FILTERS) == "empty_output"


def test_counts_name_the_first_filter_that_drops_and_list_the_idle_ones() -> None:
    tasks = [task("Draw it"), task("Draw a river for me"), task("Name a river now"), task("Plot the rivers of Asia")]
    assert count_drops(tasks) == {
        "length": 1,
        "keywords": 2,
        "write_a_program": 0,
        "punctuation": 0,
        "non_ascii": 0,
    }


def test_filters_are_chosen_by_name_once_each_in_the_given_order() -> None:
    chosen = filters_named(["empty_output", "length", "empty_output"])
    assert [each.name for each in chosen] == ["empty_output", "length"]
    assert filters_named([]) == ()


def test_an_unknown_filter_is_refused_with_the_known_names() -> None:
    with pytest.raises(UserError) as error:
        filters_named(["lenght", "length", "no_maths"], where="data.filters")
    assert "'lenght', 'no_maths'" in str(error.value)
    assert "data.filters" in str(error.value)
    assert all(each.name in error.value.remedy for each in FILTERS)


@pytest.mark.parametrize(
    "spelling",
    [
        "", "<noinput>", "No input", "NoInput.", " <no  input> ", '"<noinput>"', "(no input)", "No input required.",
        "no input needed", "None", "<none>", "N/A", "\\<noinput\\>", "{\\noinput}", ":\n<noinput>", "[No Input]",
    ],
)  # fmt: skip
def test_spellings_of_no_input_become_empty(spelling: str) -> None:
    assert normalise_no_input(spelling) == ""


@pytest.mark.parametrize(
    "content",
    [
        "NA", "No", "None of the students", "No inputs were found", "The <noinput>", "He was <noinput>", "x\n<noinput>",
        "<noinput> 8", "[3, 4, <noinput>]", "..-. --- .-.", "No lemon", "nothing", " No input of mine ", "0",
    ],
)  # fmt: skip
def test_other_inputs_stay_as_they_are(content: str) -> None:
    assert normalise_no_input(content) == content


def test_the_released_data_passes_its_own_filters_and_shows_the_known_defects() -> None:
    path = SHARED / "data" / "alpaca" / "alpaca_data.json"
    if not path.exists():
        pytest.skip("../shared is not beside the project: the released data cannot be checked")
    rows = json.loads(path.read_text(encoding="utf-8"))
    examples = [Example(id=str(number), **row) for number, row in enumerate(rows)]
    assert len(examples) == 52_002
    counts = count_drops(examples, FILTERS)
    assert {name: count for name, count in counts.items() if count} == {filters.EMPTY_OUTPUT.name: 28}
    assert sum(example.input != "" and normalise_no_input(example.input) == "" for example in examples) == 671
