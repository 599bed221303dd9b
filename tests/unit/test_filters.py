from __future__ import annotations

import json
from pathlib import Path

import pytest

from alpaca.curation.filters import (
    EMPTY_OUTPUT,
    FILTERS,
    FLAWS,
    KEYWORDS,
    RELEASED,
    count_drops,
    count_each,
    dropped_by,
    filters_named,
    normalise_no_input,
)
from alpaca.curation.parsing import ParsedTask
from alpaca.errors import UserError
from alpaca.records import Example

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


def task(instruction: str, output: str = "An answer.", input: str = "") -> ParsedTask:
    return ParsedTask(number=4, instruction=instruction, input=input, output=output)


def flaws(output: str = "An answer.", *, instruction: str = "Name a river in Asia.", input: str = "") -> list[str]:
    """The names of the flaw filters that drop the task, each by itself."""
    return [each.name for each in FLAWS if each.drops(task(instruction, output, input))]


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
    dropping = [each.name for each in FILTERS if each.drops(task("", output=""))]
    assert dropping == ["length", "empty_output", "input_equals_output"]


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


SENTENCE = "The river rises in the mountains and flows through three countries. "
LONG = 3 * SENTENCE


def test_a_good_task_has_no_flaw() -> None:
    assert flaws(LONG) == []
    assert flaws("Paris", input="Which city is the capital of France?") == []


@pytest.mark.parametrize(
    ("name", "output", "input"),
    [
        ("empty_output", " \n", "x"),
        ("no_input_spelling", "An answer.", "N/A"),
        ("merged_tasks", "The Mekong.\n5. Instruction: Put it in the past tense.", ""),
        ("merged_tasks", "The Mekong. 17.Instruction: x", ""),
        ("url_only_input", "A summary.", " https://example.com/a?b=1 "),
        ("input_equals_output", "the fox ", " the fox"),
        ("noinput_output", "<NoInput>\nThe Mekong.", ""),
        ("colon_output", "Here is the list: \n", ""),
        ("multimodal", "A river.", "![Figure](a.png)"),
        ("multimodal", "A river.", '<img src="a.png">'),
    ],
)
def test_flaws_of_input_and_output(name: str, output: str, input: str) -> None:
    assert flaws(output, input=input) == [name]


@pytest.mark.parametrize(
    ("output", "input"),
    [
        ("Instruction: go left.", ""),
        ("A summary.", "Read https://example.com"),
        ("A summary.", "www.example.com"),
        ("The fox", "the fox"),
        ("Ratio 1:2", ""),
        ("An answer.", "[not a picture](a.html)"),
    ],
)
def test_what_only_looks_like_a_flaw_passes(output: str, input: str) -> None:
    assert flaws(output, input=input) == []


@pytest.mark.parametrize("word", ["photo", "Photographs", "chart", "screenshot", "GIF"])
def test_multimodal_words_that_the_released_keywords_lack(word: str) -> None:
    assert flaws(instruction=f"Say what the {word} shows here") == ["multimodal"]
    assert flaws(instruction=f"Say what the {word}er shows here") == []


@pytest.mark.parametrize(
    "end",
    [
        "In the year 2021 the exports rose to a value of $326 billion, and in 20",
        "It carries more water than any other river, which is why the",
        "\nIts water is used for rice,",
    ],
)
def test_prose_that_stops_is_cut(end: str) -> None:
    assert flaws(LONG + end) == ["cut_output", "unterminated_output"]


@pytest.mark.parametrize(
    "end",
    [
        "\n- rice\n- fish\n- transport",
        "\n1. Rice\n2. Fish\n3. Transport",
        "\nfor name in rivers:\n    print(name)\n    count = 1",
        "\nWith kind regards,\nThe Society of River Friends",
        "Come and see it! #river #travel",
    ],
)
def test_lists_code_signatures_and_hashtags_are_not_cut(end: str) -> None:
    assert flaws(LONG + end) == ["unterminated_output"]


@pytest.mark.parametrize("end", [".", '."', ")", "?", "…", "。", "}", "\n```"])
def test_closing_marks_end_an_output(end: str) -> None:
    assert flaws(LONG + "It ends here" + end) == []


def test_short_outputs_need_no_full_stop() -> None:
    assert flaws("x" * 200) == []
    assert flaws("x" * 201) == ["unterminated_output"]


def test_the_language_that_stays_can_be_chosen() -> None:
    german = task("Erkläre mir bitte, warum der Himmel am Tag blau ist.")
    english = task("Explain to me why the sky is blue during the day.")
    for language, dropped in (("en", german), ("de", english)):
        (only,) = filters_named(["other_language"], language=language)
        assert [each for each in (german, english) if only.drops(each)] == [dropped]


def test_an_unknown_language_is_refused_only_where_it_matters() -> None:
    with pytest.raises(UserError, match="'english'") as error:
        filters_named(["other_language"], language="english")
    assert error.value.where == "data.language"
    assert "en, " in error.value.remedy
    assert filters_named(["length"], language="english")


def test_each_filter_counts_by_itself() -> None:
    tasks = [task("Draw it", output=""), task("Name a river now", output=":", input=":")]
    counts = count_each(tasks)
    assert {name for name, count in counts.items() if count} == {
        "length", "keywords", "empty_output", "input_equals_output", "colon_output",
    }  # fmt: skip
    assert counts["input_equals_output"] == 2  # both blank counts as equal
    assert list(counts) == [each.name for each in FILTERS]


@pytest.mark.parametrize("text", ["1" * 50_000, "![" * 50_000, '"' * 50_000, "a#" * 50_000, "- " * 50_000 + "x"])
def test_strange_texts_do_not_stall_a_filter(text: str) -> None:
    strange = task(text, output=text, input=text)
    assert all(isinstance(each.drops(strange), bool) for each in FILTERS)


def test_the_released_data_passes_its_own_filters_and_shows_the_known_defects() -> None:
    path = SHARED / "data" / "alpaca" / "alpaca_data.json"
    if not path.exists():
        pytest.skip("../shared is not beside the project: the released data cannot be checked")
    rows = json.loads(path.read_text(encoding="utf-8"))
    examples = [Example(id=str(number), **row) for number, row in enumerate(rows)]
    assert len(examples) == 52_002
    assert count_each(examples) == {
        **{each.name: 0 for each in RELEASED},
        "empty_output": 28,
        "no_input_spelling": 671,
        "merged_tasks": 37,
        "url_only_input": 182,
        "input_equals_output": 67,
        "noinput_output": 59,
        "colon_output": 12,
        "multimodal": 257,
        "cut_output": 27,
        "unterminated_output": 1431,
        "other_language": 0,
    }
    assert count_drops(examples) == {each.name: 0 for each in RELEASED}
