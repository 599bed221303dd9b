"""Rows and text files: what is written can be read, and what cannot be read is told with file and line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from alpaca.errors import UserError
from alpaca.records import encode, given, is_text, read_jsonl, reading, write_jsonl


def test_halves_of_surrogate_pairs_are_replaced_where_rows_are_written(tmp_path: Path) -> None:
    row = {"a\udc00": "half \ud83d", "b": "whole \U0001f600"}
    assert encode(row) == '{"a\ufffd":"half \ufffd","b":"whole \U0001f600"}'
    write_jsonl(tmp_path / "rows.jsonl", [row])
    assert list(read_jsonl(tmp_path / "rows.jsonl")) == [{"a\ufffd": "half \ufffd", "b": "whole \U0001f600"}]


@pytest.mark.parametrize(("value", "expected"), [("x", True), ("", True), ("\ud83d", False), (None, False), (3, False)])
def test_what_is_a_text(value: object, expected: bool) -> None:
    assert is_text(value) is expected


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"a": 1}\n{"a": \n', [":2: not JSON", "column"]),
        (b'{"a": 1}\n\n[1]\n', [":3: a JSON list"]),
        (b'{"a": 1}\n{"b": {"c": [0, NaN]}}\n', [":2:", '"b"["c"][1] is NaN']),
        (b'{"a": -Infinity}\n', [":1:", '"a" is -Infinity']),
        (b'{"a": 1e999}\n', [":1:", '"a" is Infinity']),
        (b'{"a": ' + b"9" * 5000 + b"}\n", [":1:", "too many digits"]),
        (b'{"a": ' + b"[" * 200_000 + b"\n", [":1:", "nested too deeply"]),
        ('{"a": 1}\n{"a": "café"}\n'.encode("latin-1"), [":2: not UTF-8", "0xe9", "caf", "iconv"]),
        ('{"a": 1}\n'.encode("utf-16"), [":1: not UTF-8", "0xff", "iconv"]),
    ],
)
def test_a_row_that_cannot_be_read_is_told_with_file_and_line(content: bytes, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        list(read_jsonl(path))
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b'\xef\xbb\xbf{"a": "\xe2\x80\xa8"}\r\n')
    assert list(read_jsonl(tmp_path / "rows.jsonl")) == [{"a": "\u2028"}]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@for_all(array=st.lists(values, max_size=8), chunk=st.integers(1, 40), indent=st.sampled_from([None, 1]))
def test_an_array_is_read_as_json_reads_it_wherever_its_chunks_end(
    array: list[Any], chunk: int, indent: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = json.dumps(array, ensure_ascii=False, indent=indent)
    if "\\ud" in text or any("\ud800" <= each <= "\udfff" for each in text):
        return
    path = tmp_path_factory.mktemp("array") / "a.json"
    path.write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "CHUNK", chunk)
        found = list(reading.read_array(path))
    assert [value for _, value in found] == array
    if indent:
        lines = text.split("\n")
        for line, value in found:
            assert lines[line - 1].lstrip().startswith(json.dumps(value, ensure_ascii=False, indent=1).split("\n")[0])


@pytest.mark.parametrize("chunk", [3, 2**20])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"a": 1},\n {"a": "lon', ["a.json:2:", "record 1 has no end", "cut off"]),
        ('[{"a": 1},\n {"a": 2', ["a.json:2:", "record 1 has no end"]),
        ('[{"a": 1},\n {"a": 2}\n', ["a.json:3:1", "no end", "cut off"]),
        ('[{"a": 1},\n {"a": 2},\n', ["a.json:3:1", "no end"]),
        ('[{"a": 1}\n {"a": 2}]', ["a.json:2:2", "expected , or ]"]),
        ('[{"a": 1}, {"a"\n 2}]', ["a.json:2:2", "':' delimiter", "record 1"]),
        ('[{"a": 1}]\n x', ["a.json:2:2", "after the end"]),
        ("[", ["a.json:1:2", "no end"]),
        ("[" * 100_000, ["a.json:1:2", "nested too deeply"]),
    ],
)
def test_a_broken_array_is_told_with_line_and_column(
    text: str, words: list[str], chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    monkeypatch.setattr(reading, "CHUNK", chunk)
    with pytest.raises(UserError) as caught:
        list(reading.read_array(path))
    for word in words:
        assert word in str(caught.value)


def test_wrong_encoding_in_an_array_is_told_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.write_bytes('[{"a": 1},\n{"a": "é"},\n{"a": "naïve"}]'.encode().replace(b"\xc3\xaf", b"\xef"))
    monkeypatch.setattr(reading, "CHUNK", 4)
    with pytest.raises(UserError, match=r"a\.json:3: not UTF-8: byte 0xef.*na"):
        list(reading.read_array(path))


# --- the small files that planning reads


Read = Callable[[Path], Any]
GOOD_TASK = {"instruction": "Say it.", "instances": [{"input": "", "output": "So."}]}


@pytest.mark.parametrize(
    ("read", "content", "words"),
    [
        (given.seed_tasks, b"", ["data_gen.seeds", "no tasks"]),
        (given.seed_tasks, b"\x1f\x8b\x08\x00", ["data_gen.seeds", "gzip", "gunzip"]),
        (given.seed_tasks, json.dumps(GOOD_TASK).encode("utf-16"), ["data_gen.seeds", "UTF-16", "iconv"]),
        (given.seed_tasks, json.dumps(GOOD_TASK).encode("utf-16-le"), ["data_gen.seeds", "NUL", "iconv"]),
        (given.seed_tasks, b'{"instruction": "caf\xe9"}', [":1: not UTF-8", "0xe9"]),
        (given.seed_tasks, b'{"instruction": NaN}\nx\n[]', ['line 1: "instruction" is NaN', "line 2", "line 3"]),
        (
            given.seed_tasks,
            json.dumps({**GOOD_TASK, "id": [1], "is_classification": "no"}).encode(),
            ['"id" is [1]', "\"is_classification\" is 'no', expected true or false"],
        ),
        (given.seed_tasks, json.dumps({**GOOD_TASK, "instances": [{"input": None}]}).encode(), ['["input"] is null']),
        (given.prompt, b" \n", ["data_gen.prompt", "empty"]),
        (given.prompt, b"\xff\xfeW\x00", ["data_gen.prompt", "UTF-16"]),
        (given.prompt, b"<!DOCTYPE html>", ["data_gen.prompt", "HTML"]),
        (given.topics, b"\n \n", ["data_gen.topics", "no topics"]),
        (given.topics, b"caf\xe9", [":1: not UTF-8"]),
        (given.indices, b"[1, 1, true, -2, 1.5]", ["entry 1 is 1, as entry 0", "True", "-2", "1.5"]),
        (given.indices, b"[1, NaN]", ["data.indices", "[1] is NaN"]),
        (given.indices, b"{}", ["a JSON dict, expected a list"]),
        (given.indices, b"[]", ["an empty list"]),
        (given.indices, b"[1,", ["data.indices", "not JSON"]),
    ],
)
def test_each_fault_of_a_small_file_names_its_key_and_the_way_out(
    read: Read, content: bytes, words: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(path)
    for word in words:
        assert word in str(caught.value)


def test_good_small_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("\ufeff one \n\nthe other")
    assert given.topics(path) == ["one", "the other"]
    path.write_text("[3, 0]")
    assert given.indices(path) == [3, 0]
    path.write_text(json.dumps({**GOOD_TASK, "id": 7, "is_classification": True}))
    (task,) = given.seed_tasks(path)
    assert (task.id, task.is_classification, task.output) == ("7", True, "So.")


def test_problems_of_files_are_found_by_key(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    assert "line 1: not JSON" in str(given.problem_of("data_gen.seeds", path))
    assert given.problem_of("model.path", path) is None
    assert given.problem_of("data_gen.path", path) is None  # a data set is read when its stage runs
    path.write_bytes(b"")
    assert "is empty" in str(given.problem_of("data_gen.sources.a.path", path))


def test_the_folder_of_a_finished_stage_stands_for_its_examples(tmp_path: Path) -> None:
    assert given.data_file(tmp_path) == tmp_path
    (tmp_path / "examples.jsonl").touch()
    assert given.data_file(tmp_path) == tmp_path / "examples.jsonl"
    (tmp_path / "stage.json").touch()
    assert given.data_file(tmp_path) == tmp_path  # not finished
    (tmp_path / "_SUCCESS").touch()
    assert given.data_file(str(tmp_path)) == tmp_path / "examples.jsonl"
