from __future__ import annotations

import json
from typing import Any

import pytest

from alpaca.curation.parsing import Parsed, ParsedTask, parse_completion, parse_tasks

# What follows "###\n4. Instruction:" in a well-behaved answer.
COMPLETION = """ Name a river in Asia.
4. Input:
<noinput>
4. Output:
The Mekong.
###
5. Instruction: Put the sentence in the past tense.
5. Input:
She walks home.
5. Output:
She walked home.
"""
RIVER = ParsedTask(number=4, instruction="Name a river in Asia.", input="", output="The Mekong.")
TENSE = ParsedTask(
    number=5, instruction="Put the sentence in the past tense.", input="She walks home.", output="She walked home."
)


def test_tasks_are_read_in_order_with_their_numbers() -> None:
    parsed = parse_completion(COMPLETION, first_number=4, finish_reason="stop")
    assert parsed.tasks == (RIVER, TENSE)
    assert (parsed.malformed, parsed.cut) == (0, 0)


@pytest.mark.parametrize("reason", ["length", "content_filter", "max_tokens"])
def test_the_last_task_is_cut_when_the_answer_was_ended_from_outside(reason: str) -> None:
    parsed = parse_completion(COMPLETION, first_number=4, finish_reason=reason)
    assert parsed.tasks == (RIVER,)
    assert (parsed.malformed, parsed.cut) == (0, 1)


def test_a_single_cut_task_leaves_nothing() -> None:
    parsed = parse_completion(" Name a", first_number=4, finish_reason="length")
    assert (parsed.tasks, parsed.malformed, parsed.cut) == ((), 0, 1)


def test_the_numbering_starts_where_the_prompt_stopped() -> None:
    assert parse_completion(COMPLETION, first_number=1, finish_reason="stop").tasks == ()
    assert parse_completion(COMPLETION, first_number=1, finish_reason="stop").malformed == 2


def test_a_malformed_piece_is_counted_and_uses_up_its_number() -> None:
    text = COMPLETION.replace("\n4. Output:\nThe Mekong.", "")
    parsed = parse_completion(text, first_number=4, finish_reason="stop")
    assert parsed.tasks == (TENSE,)
    assert parsed.malformed == 1


def test_a_skipped_number_drops_the_piece() -> None:
    parsed = parse_completion(COMPLETION.replace("5. ", "6. "), first_number=4, finish_reason="stop")
    assert parsed.tasks == (RIVER,)
    assert parsed.malformed == 1


def test_a_fourth_heading_drops_the_piece() -> None:
    parsed = parse_completion(COMPLETION + "5. Output:\nagain", first_number=4, finish_reason="stop")
    assert parsed.tasks == (RIVER,)


def test_a_trailing_separator_is_no_malformed_task() -> None:
    parsed = parse_completion(COMPLETION + "###\n", first_number=4, finish_reason="stop")
    assert len(parsed.tasks) == 2
    assert parsed.malformed == 0
    assert parse_completion(COMPLETION + "###\n", first_number=4, finish_reason="length").cut == 0


def test_only_the_exact_no_input_mark_means_no_input() -> None:
    for spelling, expected in [("<NoInput>", ""), (" <noinput> ", ""), ("<noinput>.", "<noinput>."), ("None", "None")]:
        text = COMPLETION.replace("<noinput>", spelling)
        assert parse_completion(text, first_number=4, finish_reason="stop").tasks[0].input == expected


def test_headings_count_by_place_as_in_the_released_parser() -> None:
    text = " Add.\n4. Output:\n1 + 1\n4. Input:\n2\n"
    task = parse_completion(text, first_number=4, finish_reason="stop").tasks[0]
    assert (task.instruction, task.input, task.output) == ("Add.", "1 + 1", "2")


def test_a_number_matches_as_the_end_of_a_longer_one_as_in_the_released_parser() -> None:
    text = " Add.\n14. Input:\n1 + 1\n4. Output:\n2\n"
    task = parse_completion(text, first_number=4, finish_reason="stop").tasks[0]
    assert (task.instruction, task.input) == ("Add.\n1", "1 + 1")


def test_empty_fields_are_kept_for_the_filters_to_judge() -> None:
    parsed = parse_completion("\n4. Input:\n4. Output:", first_number=4, finish_reason="stop")
    assert parsed.tasks == (ParsedTask(number=4, instruction="", input="", output=""),)


def answer(*entries: Any) -> str:
    return json.dumps({"tasks": list(entries)})


def parsed_json(text: str, finish_reason: str = "stop") -> Parsed:
    return parse_tasks(text, form="json_schema", first_number=4, finish_reason=finish_reason)


RIVER_ENTRY = {"instruction": " Name a river in Asia.", "input": "<noinput>", "output": "The Mekong.\n"}
TENSE_ENTRY = {
    "instruction": "Put the sentence in the past tense.",
    "input": "She walks home.",
    "output": "She walked home.",
}


def test_the_text_form_takes_answers_with_and_without_the_repeated_heading() -> None:
    for text in (COMPLETION, "4. Instruction:" + COMPLETION, "###\n4. Instruction:" + COMPLETION):
        parsed = parse_tasks(text, form="text", first_number=4, finish_reason="stop")
        assert (parsed.tasks, parsed.malformed) == ((RIVER, TENSE), 0)


def test_a_json_answer_gives_the_same_tasks_as_the_text() -> None:
    parsed = parsed_json(answer(RIVER_ENTRY, TENSE_ENTRY))
    assert (parsed.tasks, parsed.malformed, parsed.cut) == ((RIVER, TENSE), 0, 0)


@pytest.mark.parametrize("absent", [{}, {"input": None}, {"input": ""}, {"input": " <NoInput> "}])
def test_every_json_spelling_of_no_input_is_the_empty_input(absent: dict[str, Any]) -> None:
    entry = {"instruction": "Name a river in Asia.", "output": "The Mekong.", **absent}
    assert parsed_json(answer(entry)).tasks == (RIVER,)


@pytest.mark.parametrize(
    "broken", [None, 3, "text", [], {"instruction": "x"}, {**RIVER_ENTRY, "output": 7}, {**RIVER_ENTRY, "input": []}]
)
def test_a_malformed_entry_is_counted_and_uses_up_its_number(broken: Any) -> None:
    parsed = parsed_json(answer(broken, TENSE_ENTRY))
    assert (parsed.tasks, parsed.malformed) == ((TENSE,), 1)


def test_a_cut_json_answer_keeps_the_entries_before_the_cut() -> None:
    whole = answer(RIVER_ENTRY, TENSE_ENTRY)
    after_first = whole.index('{"instruction": "Put')
    for end in range(after_first + 1, len(whole) - len("]}")):
        parsed = parsed_json(whole[:end], "length")
        assert (parsed.tasks, parsed.malformed, parsed.cut) == ((RIVER,), 0, 1), whole[:end]
    for end in (len(whole) - 1, len(whole) - 2):
        assert parsed_json(whole[:end], "length").tasks == (RIVER, TENSE)


def test_complete_json_loses_nothing_although_the_server_says_that_it_was_cut() -> None:
    assert parsed_json(answer(RIVER_ENTRY, TENSE_ENTRY), "length").cut == 0


def test_broken_json_that_was_not_cut_is_malformed() -> None:
    parsed = parsed_json(answer(RIVER_ENTRY, TENSE_ENTRY)[:-9])
    assert (parsed.tasks, parsed.malformed, parsed.cut) == ((RIVER,), 1, 0)


@pytest.mark.parametrize("text", ["Sorry, I cannot.", "[]", "7", '{"tasks": 3}', '{"answer": []}', "[" * 100_000])
def test_an_answer_in_another_form_is_one_malformed_piece(text: str) -> None:
    parsed = parsed_json(text)
    assert (parsed.tasks, parsed.malformed) == ((), 1)


def test_an_empty_answer_counts_nowhere() -> None:
    assert parsed_json(" \n") == Parsed(tasks=(), malformed=0, cut=0)


def test_a_code_fence_around_the_json_is_taken_off() -> None:
    assert parsed_json(f"```json\n{answer(RIVER_ENTRY)}\n```\n").tasks == (RIVER,)


def test_half_of_a_surrogate_pair_is_replaced() -> None:
    text = '{"tasks": [{"instruction": "Say \\ud83d", "output": "x"}]}'
    assert parsed_json(text).tasks[0].instruction == "Say \ufffd"
