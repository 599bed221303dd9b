from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alpaca import evalsets
from alpaca.config import RespondConfig
from alpaca.errors import UserError
from alpaca.runtime.download import CACHE_VARIABLE


def item(id: str = "task_1", **instance: Any) -> dict[str, Any]:
    first = {"input": "", "output": "So.", **instance}
    return {"id": id, "instruction": "Why?", "instances": [first], "motivation_app": "Mail"}


def written(folder: Path, *items: Any) -> Path:
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in items))
    return path


def test_items_are_read_in_order(tmp_path: Path) -> None:
    path = written(tmp_path, item("b"), item("a", input="x"))
    found = evalsets.load(RespondConfig(set="user_oriented", path=str(path)))
    assert [(each.id, each.input, each.reference, each.family) for each in found] == [
        ("b", "", "So.", "Mail"),
        ("a", "x", "So.", "Mail"),
    ]


def test_all_problems_are_named_at_once_with_file_and_line(tmp_path: Path) -> None:
    broken = [item("a", input=None), item("b", output=3), item("a"), item("c", output="\ud83d"), {"id": 5}, []]
    path = written(tmp_path, item("z"), *broken)
    with path.open("a") as file:
        file.write("{\n")
    with pytest.raises(UserError) as caught:
        evalsets.load_user_items(path)
    text = str(caught.value)
    for words in (
        ':2: "instances"[0]["input"] is None',
        ':3: "instances"[0]["output"] is 3',
        ":4: \"id\" is 'a', as on line 2",
        ':5: "instances"[0]["output"]',
        ':6: "id" is 5',
        ':6: "instruction" is None',
        ':6: "instances" is no list',
        ":7: a JSON list",
        ":8: not JSON",
        evalsets.USER_ORIENTED_KEY,
    ):
        assert words in text
    assert f"{path}:1:" not in text
    assert text.encode()


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_set_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match="no items in"):
        evalsets.load_user_items(path)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"\xe9\n")
    for name in ("latin", "nowhere"):
        with pytest.raises(UserError, match="cannot read"):
            evalsets.load_user_items(tmp_path / name)


def test_without_a_network_the_key_for_a_local_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    config = RespondConfig(set="user_oriented", url="http://127.0.0.1:9/items.jsonl", sha256="ab" * 32)
    with pytest.raises(UserError, match=r"set eval\.user_oriented_252\.path to a local copy"):
        evalsets.load(config)
