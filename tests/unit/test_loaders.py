"""Published data in every known form is read to the same records; every bad file is told with place and way out."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from alpaca.config import ReleasedDataGen
from alpaca.errors import UserError
from alpaca.records import reading
from alpaca.stages.sample.loaders import Loaded, load, load_records
from tests.unit.hub_server import hub

ROOT = Path(__file__).resolve().parents[2]
ALPACA = [{"instruction": f"Name {n}.", "input": "x" * (n % 2), "output": f"Näme {n}\u2028"} for n in range(3)]
DOLLY = [
    {"instruction": row["instruction"], "context": row["input"], "response": row["output"], "category": "open_qa"}
    for row in ALPACA
]
LIMA = [
    {"conversations": ["Name 0.", "Näme 0\u2028"], "source": "stackexchange"},
    {"conversations": ["Name 1.", "One", "And then?", "Two"], "source": "multi_turn"},
]


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def written(folder: Path, content: str | bytes, name: str = "data") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def table(folder: Path, rows: list[Any] | pa.Table, name: str = "data.parquet") -> Path:
    parquet.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows), folder / name)
    return folder / name


def loaded(path: Path, form: str = "auto") -> Loaded:
    return load(ReleasedDataGen(path=str(path), format=form))


def texts(found: Loaded) -> list[tuple[str, str, str]]:
    return [(record.instruction, record.input, record.output) for record in found.records]


def refused(path: Path, form: str = "auto") -> str:
    with pytest.raises(UserError) as caught:
        loaded(path, form)
    text = str(caught.value)
    assert text.encode()
    return text


EXPECTED = [(row["instruction"], row["input"], row["output"]) for row in ALPACA]


# --- forms


@pytest.mark.parametrize("rows", [ALPACA, DOLLY], ids=["alpaca", "dolly"])
@pytest.mark.parametrize("kind", ["array", "one line", "lines", "parquet"])
def test_the_same_records_come_from_every_kind_of_file(rows: list[Any], kind: str, tmp_path: Path) -> None:
    if kind == "parquet":
        path = table(tmp_path, rows)
    else:
        text = {"array": json.dumps(rows, indent=2), "one line": json.dumps(rows), "lines": lines(rows)}[kind]
        path = written(tmp_path, text)
    found = loaded(path)
    assert texts(found) == EXPECTED
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [record.index for record in found.records] == [0, 1, 2]
    wanted = {"source": f"sha256:{found.sha256[:12]}", "index": 2}
    assert found.records[2].provenance == (wanted if rows is ALPACA else {**wanted, "category": "open_qa"})


@pytest.mark.parametrize("kind", ["lines", "parquet"])
def test_of_a_conversation_only_the_first_turn_is_read_and_the_others_are_counted(kind: str, tmp_path: Path) -> None:
    found = loaded(table(tmp_path, LIMA) if kind == "parquet" else written(tmp_path, lines(LIMA)))
    assert texts(found) == [("Name 0.", "", "Näme 0\u2028"), ("Name 1.", "", "One")]
    assert found.multi_turn == 1
    assert [record.provenance["origin"] for record in found.records] == ["stackexchange", "multi_turn"]


def test_rows_of_a_stage_keep_their_ids(tmp_path: Path) -> None:
    rows = [{"id": f"request_{n}", **row, "provenance": {"teacher": "t"}} for n, row in enumerate(ALPACA)]
    written(tmp_path, lines(rows), "examples.jsonl")
    found = loaded(tmp_path)
    assert texts(found) == EXPECTED
    assert [record.provenance["id"] for record in found.records] == ["request_0", "request_1", "request_2"]


def test_a_path_alone_is_enough(tmp_path: Path) -> None:
    assert [record.output for record in load_records(written(tmp_path, lines(ALPACA)))] == [
        each[2] for each in EXPECTED
    ]
    assert len(load_records(str(tmp_path / "data"))) == 3


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    text = lines(ALPACA).replace("\n", "\r\n")
    assert texts(loaded(written(tmp_path, b"\xef\xbb\xbf" + text.encode()))) == EXPECTED
    assert texts(loaded(written(tmp_path, b"\xef\xbb\xbf" + json.dumps(ALPACA).encode()))) == EXPECTED


def test_large_and_coded_columns_of_text_are_read(tmp_path: Path) -> None:
    rows = pa.Table.from_pylist(ALPACA)
    columns = [rows["instruction"].cast(pa.large_string()), rows["input"].dictionary_encode(), rows["output"]]
    assert texts(loaded(table(tmp_path, pa.table(columns, names=["instruction", "input", "output"])))) == EXPECTED


def test_a_form_can_be_given_where_the_first_record_misleads(tmp_path: Path) -> None:
    path = written(tmp_path, lines([{**row, "output": "?"} for row in DOLLY]))
    assert loaded(path, "dolly").records[1].output == "Näme 1\u2028"
    assert '"input" is missing' in refused(path)


# --- bad files: every one is an error with the place and the way out


GOOD = lines(ALPACA)
ARRAY = '{"instruction", "input", "output"}'  # the way out
Case = tuple[str | bytes, list[str]]
BAD: dict[str, Case] = {
    "empty file": ("", ["is empty", "no records"]),
    "white space": (" \n\n", ["no records", ARRAY]),
    "empty array": ("[]", ["no records", ARRAY]),
    "broken line": (GOOD + '{"instruction": \n' + GOOD, ["record 3 (line 4): not JSON", "column", ARRAY]),
    "missing fields": (GOOD + "{}\n", ['record 3 (line 4): "instruction" is missing', '"output" is missing', ARRAY]),
    "null": (lines([*ALPACA, {**ALPACA[0], "input": None}]), ['record 3 (line 4): "input" is NoneType (null)', ARRAY]),
    "nested list": (lines([{**ALPACA[0], "output": ["a", ["b"]]}]), ['record 0 (line 1): "output" is list', ARRAY]),
    "a number": (lines([{**ALPACA[0], "output": 3.5}]), ['"output" is float', "expected a text"]),
    "NaN": (lines([{**ALPACA[0], "output": float("nan")}]), ['record 0 (line 1): "output" is NaN', "finite"]),
    "NaN in an array": (json.dumps([*ALPACA, {"x": [float("inf")]}]), ['record 3: "x"[0] is Infinity']),
    "NaN beside": (lines([{**ALPACA[0], "score": float("nan")}]), ['"score" is NaN']),
    "half a surrogate pair": (json.dumps([{**ALPACA[0], "output": "\ud83d"}]), ['record 0: "output"', "surrogate"]),
    "not an object": ("[1, 2]", ["record 0: a JSON int, expected an object", "record 1"]),
    "latin-1": (GOOD.encode("latin-1", "replace"), ["data:1: not UTF-8", "0xe4", "iconv"]),
    "UTF-16": (GOOD.encode("utf-16"), ["UTF-16", "iconv"]),
    "UTF-16 without mark": (GOOD.encode("utf-16-le"), ["NUL", "iconv"]),
    "cut array": (json.dumps(ALPACA, indent=1)[:-40], ["data:14:", "record 2 has no end", "cut off"]),
    "array without end": (json.dumps(ALPACA)[:-1], ["data:1:", "no end"]),
    "gzip": (gzip.compress(GOOD.encode()), ["gzip", "gunzip"]),
    "pickle": (pickle.dumps(ALPACA), ["pickle", "never opened"]),
    "web page": ("<!DOCTYPE html><html></html>", ["HTML page"]),
    "pointer": ("version https://git-lfs.github.com/spec/v1\n", ["Git LFS", "git lfs pull"]),
    "table of commas": ("instruction,input,output\na,b,c\n", ["record 0 (line 1): not JSON", ARRAY]),
    "one object": (json.dumps(ALPACA[0], indent=1), ["over several lines (line 1)", ARRAY]),
    "unknown form": (
        lines([{"prompt": "a", "completion": "b"}]),
        ["record 0 (line 1)", '"prompt", "completion"', "alpaca:", "dolly:", "lima:"],
    ),
    "equal ids": (
        lines([{"id": "a", **ALPACA[0]}, {"id": "b", **ALPACA[1]}, {"id": "a", **ALPACA[2]}]),
        ["record 2 (line 3): \"id\" is 'a', as in record 0 (line 1)"],
    ),
    "dolly without response": (lines([*DOLLY, {"instruction": "a", "context": ""}]), ['"response" is missing']),
    "lima without answer": (lines([{"conversations": ["a"]}]), ["has 1 of the two turns"]),
    "lima with objects": (lines([{"conversations": [{"from": "human"}, "b"]}]), ['"conversations"[0] is dict']),
    "lima with a text": (lines([{"conversations": "ab"}]), ['"conversations" is str', "a list of texts"]),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD.keys())
def test_each_bad_file_is_told_with_place_and_way_out(case: Case, tmp_path: Path) -> None:
    content, words = case
    path = written(tmp_path, content)
    text = refused(path)
    for word in [str(path), *words]:
        assert word in text


def test_a_folder_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "is a folder" in refused(tmp_path)
    assert "examples.jsonl" in refused(tmp_path)
    assert "cannot read" in refused(tmp_path / "nowhere")


def test_twenty_problems_are_listed_and_the_others_counted(tmp_path: Path) -> None:
    text = refused(written(tmp_path, "x\n" * 1000))
    assert text.count("not JSON") == 20
    assert "and 980 more" in text


def column(name: str, values: list[Any]) -> pa.Table:
    return pa.table({**{key: ["a"] * len(values) for key in ALPACA[0]}, name: values})


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (column("output", [1, 2]), ['column "output" holds int64, expected texts', ARRAY]),
        (column("output", [["a"], ["b"]]), ['column "output" holds list<']),
        (column("output", ["a", None]), ['record 1: "output" is NoneType (null)']),
        (column("input", [None, None]), ['column "input" holds null, expected texts']),
        (
            pa.table({"instruction": ["a"], "output": ["b"]}),
            ['column "input" is missing; there are instruction, output', ARRAY],
        ),
        (pa.table({"text": ["a"]}), ["the table has the fields", '"text"', "dolly:"]),
        (pa.table({"conversations": ["a"]}), ['column "conversations" holds string, expected lists of texts']),
        (column("output", []), ["no records"]),
    ],
)
def test_each_bad_table_is_told_with_its_columns(rows: pa.Table, words: list[str], tmp_path: Path) -> None:
    if not rows.num_rows:
        rows = rows.cast(pa.schema([(name, pa.string()) for name in rows.schema.names]))
    path = table(tmp_path, rows)
    text = refused(path)
    for word in [str(path), *words]:
        assert word in text


@pytest.mark.parametrize("keep", [0.99, 0.5, 0.01])
def test_a_table_that_was_cut_off_is_told(keep: float, tmp_path: Path) -> None:
    whole = table(tmp_path, ALPACA * 500).read_bytes()
    text = refused(written(tmp_path, whole[: int(len(whole) * keep)], "cut.parquet"))
    assert "no whole Parquet file" in text
    assert "download it again" in text


def test_broken_pages_of_a_table_are_told(tmp_path: Path) -> None:
    content = bytearray(table(tmp_path, ALPACA * 500).read_bytes())
    content[8:200] = b"\xff" * 192
    assert "no whole Parquet file" in refused(written(tmp_path, bytes(content), "broken.parquet"))


# --- long records


def long_line(path: Path, kind: str) -> None:
    """200 MB in one record, written without being held."""
    head, tail = {
        "lines": (GOOD + '{"instruction": "a", "input": "", "output": "', '"}\n' + GOOD),
        "array": (json.dumps(ALPACA)[:-1] + ',{"instruction": "a", "input": "", "output": "', '"}]'),
    }[kind]
    with path.open("wb") as file:
        file.write(head.encode())
        for _ in range(200):
            file.write(b"x" * 2**20)
        file.write(tail.encode())


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("lines", ["line 4 is longer than 16 MiB", "data:4"]),
        ("array", ["record 3 is longer than 16 MiB", "data:1"]),
    ],
)
def test_two_hundred_megabytes_in_one_record_are_refused_without_being_held(
    kind: str, words: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "data"
    long_line(path, kind)
    script = (
        "import resource, sys\n"
        "from alpaca.errors import UserError\n"
        "from alpaca.stages.sample.loaders import load_records\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    load_records(sys.argv[1])\n"
        "except UserError as error:\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)\n"
    )
    told = run_python(script, str(path))
    grown, _, message = told.partition(" ")
    for word in words:
        assert word in message
    assert int(grown) < 130 * 1024  # KiB; the record alone has 204,800


def test_a_record_just_below_the_bound_is_read(tmp_path: Path) -> None:
    row = {**ALPACA[0], "output": "x" * (reading.LONGEST - 200)}
    assert len(loaded(written(tmp_path, lines([row]))).records[0].output) == reading.LONGEST - 200
    assert len(loaded(written(tmp_path, json.dumps([row]))).records[0].output) == reading.LONGEST - 200


def run_python(script: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=120, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# --- the hub: a process of its own, because its address is read when its client is imported


HUB_SCRIPT = """
import json, sys
from alpaca.config import ReleasedDataGen
from alpaca.errors import UserError
from alpaca.stages.sample.loaders import load
for options in json.loads(sys.argv[1]):
    try:
        found = load(ReleasedDataGen(**options))
        print(json.dumps([found.commit, found.sha256, [record.output for record in found.records]]))
    except UserError as error:
        print(json.dumps(str(error)))
"""


def from_hub(tmp_path: Path, address: str, *options: dict[str, Any], offline: bool = False) -> list[Any]:
    environment = {
        "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": str(int(offline)),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_ETAG_TIMEOUT": "5",
    }  # fmt: skip
    told = run_python(HUB_SCRIPT, json.dumps(options), **environment)
    return [json.loads(line) for line in told.splitlines()]


@pytest.fixture
def repository(tmp_path: Path) -> Callable[..., dict[str, bytes]]:
    def files(*, rows: list[Any] = ALPACA) -> dict[str, bytes]:
        return {
            "data/train-00000-of-00001.parquet": table(tmp_path, rows, "train.parquet").read_bytes(),
            "data/test-00000-of-00001.parquet": table(tmp_path, DOLLY[:1], "test.parquet").read_bytes(),
            "own.py": b"raise SystemExit('code of a repository was run')",
            "weights.pkl": pickle.dumps(rows),
        }

    return files


def test_a_data_set_of_the_hub_is_read_and_kept_by_revision(
    tmp_path: Path, repository: Callable[..., dict[str, bytes]]
) -> None:
    old, new = "a" * 40, "b" * 40
    files, newer = repository(), repository(rows=ALPACA[:2])
    one = {"hub": "someone/own"}
    with hub({"someone/own": {old: files, new: newer}}, refs={"v1": old, "main": new}) as (address, asked):
        found = from_hub(
            tmp_path, address, {**one, "revision": "v1"}, one, {**one, "split": "test", "revision": old},
            {**one, "split": "dev"}, {**one, "revision": "v3"}, {"hub": "someone/else"}, {"hub": "nonsense"},
        )  # fmt: skip
        fetched = [path for path in asked if "/resolve/" in path]
    assert found[0] == [old, hashlib.sha256(files["data/train-00000-of-00001.parquet"]).hexdigest(),
                        [row["output"] for row in ALPACA]]  # fmt: skip
    assert found[1][0] == new
    assert len(found[1][2]) == 2
    assert found[2][2] == ["Näme 0\u2028"]
    for text, words in zip(
        found[3:],
        (["split 'dev'", "known: test, train"], ["'v3'", "revision"], ["someone/else"], ["owner/name"]),
        strict=True,
    ):
        for word in words:
            assert word in text
    assert fetched
    assert not [path for path in fetched if path.endswith((".py", ".pkl"))]
    # The server is gone: each revision comes from the cache, and what is not there is told.
    again = from_hub(
        tmp_path, address, {**one, "revision": "v1"}, one, {**one, "revision": "c" * 40}, offline=True
    )  # fmt: skip
    assert again[:2] == found[:2]
    assert "cannot download someone/own" in again[2]
    assert "data_gen.path" in again[2]


def test_subsets_and_strange_cards_of_the_hub(tmp_path: Path) -> None:
    parts = "".join(f"- config_name: {name}\n  data_files: {name}.jsonl\n" for name in ("easy", "hard"))
    card = f"---\nconfigs:\n{parts}---\n"
    secret = written(tmp_path, lines(ALPACA), "secret.jsonl")
    strange = f"---\nconfigs:\n- config_name: default\n  data_files: {secret}\n---\n"
    commit = "d" * 40
    repositories = {
        "a/subsets": {
            commit: {
                "README.md": card.encode(), "easy.jsonl": lines(ALPACA[:1]).encode(),
                "hard.jsonl": lines(ALPACA[1:]).encode(),
            }
        },
        "a/strange": {commit: {"README.md": strange.encode(), "data.jsonl": lines(ALPACA).encode()}},
        "a/pictures": {commit: {"a.png": b"x"}},
    }  # fmt: skip
    with hub(repositories, refs={"main": commit}) as (address, _):
        found = from_hub(
            tmp_path, address, {"hub": "a/subsets", "subset": "hard"}, {"hub": "a/subsets"}, {"hub": "a/strange"},
            {"hub": "a/pictures"},
        )  # fmt: skip
    assert found[0][2] == [row["output"] for row in ALPACA[1:]]
    assert "data_gen.subset" in found[1]
    assert "easy" in found[1]
    assert "outside of itself" in found[2]
    assert "cannot read a/pictures" in found[3]
