from __future__ import annotations

from pathlib import Path

import pytest

from alpaca.records import encode, is_text, read_jsonl, write_jsonl


def test_halves_of_surrogate_pairs_are_replaced_where_rows_are_written(tmp_path: Path) -> None:
    row = {"a\udc00": "half \ud83d", "b": "whole \U0001f600"}
    assert encode(row) == '{"a\ufffd":"half \ufffd","b":"whole \U0001f600"}'
    write_jsonl(tmp_path / "rows.jsonl", [row])
    assert list(read_jsonl(tmp_path / "rows.jsonl")) == [{"a\ufffd": "half \ufffd", "b": "whole \U0001f600"}]


@pytest.mark.parametrize(("value", "expected"), [("x", True), ("", True), ("\ud83d", False), (None, False), (3, False)])
def test_what_is_a_text(value: object, expected: bool) -> None:
    assert is_text(value) is expected
