"""A published data set in Alpaca's form, taken as it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alpaca.artifacts import sha256_file, write_json
from alpaca.config import ReleasedDataGen, SampleConfig
from alpaca.errors import UserError
from alpaca.records import TEXT, Example, as_row, is_text, write_jsonl
from alpaca.runtime.download import fetch
from alpaca.stages.sample.seeds import read_text

if TYPE_CHECKING:
    from alpaca.artifacts import Context

EXAMPLES, POOL = "examples.jsonl", "pool.json"
FIELDS = ("instruction", "input", "output")
KEY = "data_gen.path"
SHOWN = 20  # problems listed in one message
SHORT_DIGEST = 12
REMEDY = 'a JSON array or JSONL of objects {"instruction", "input", "output"}, all of them texts'


def run_released(config: SampleConfig, context: Context) -> None:
    """Writes examples.jsonl and pool.json from data_gen.path, or from data_gen.url by way of the cache.

    Raises UserError with up to 20 problems of the file, each with its record and field.
    """
    options = config.data_gen
    if not isinstance(options, ReleasedDataGen):
        raise UserError(what=f"data_gen.kind={options.kind!r} is no released data", where="data_gen.kind")
    path = Path(options.path) if options.path else fetch(options.url, options.sha256, "the released data", key=KEY)
    records = load_records(path)
    digest = sha256_file(path)
    rows = [as_row(_example(index, record, digest)) for index, record in enumerate(records)]
    write_jsonl(context.folder / EXAMPLES, rows)
    with_input = sum(bool(record["input"]) for record in records)
    write_json(context.folder / POOL, {"examples": len(rows), "with_input": with_input, "source_sha256": digest})
    context.progress(len(rows), len(rows), f"{len(rows):,} released examples")
    context.log(f"{len(rows):,} published examples, {with_input:,} with input")


def load_records(path: Path) -> list[dict[str, str]]:
    """The records of a JSON array or JSONL file, checked; other fields than Alpaca's three are left out."""
    records, problems = [], []
    for place, record in _parsed(path):
        found = list(_problems(record))
        problems += [f"{place}: {each}" for each in found]
        if not found:
            records.append({name: record[name] for name in FIELDS})
    if problems:
        more = f"\n    and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise UserError(what="\n    ".join(problems[:SHOWN]) + more, where=f"{KEY}={path}", remedy=REMEDY)
    if not records:
        raise UserError(what="no records in this file", where=f"{KEY}={path}", remedy=REMEDY)
    return records


def _parsed(path: Path) -> Iterator[tuple[str, Any]]:
    """Each record with its place in words; a line that is no JSON comes as the error itself."""
    text = read_text(path, KEY)
    if text.lstrip().startswith("["):
        try:
            records = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(
                what=f"not JSON: {error.msg}", where=f"{path}:{error.lineno}:{error.colno}", remedy=REMEDY
            ) from error
        yield from ((f"record {index}", record) for index, record in enumerate(records))
        return
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    for index, (number, line) in enumerate(lines):
        try:
            yield f"record {index} (line {number})", json.loads(line)
        except json.JSONDecodeError as error:
            yield f"record {index} (line {number})", error


def _problems(record: Any) -> Iterator[str]:
    if isinstance(record, json.JSONDecodeError):
        yield f"not JSON ({record.msg} at column {record.colno})"
        return
    if not isinstance(record, dict):
        yield f"a JSON {type(record).__name__}, expected an object"
        return
    for name in FIELDS:
        if name not in record:
            yield f'"{name}" is missing'
        elif not is_text(record[name]):
            yield f'"{name}" is {type(record[name]).__name__} {str(record[name])[:40]!r}, expected {TEXT}'


def _example(index: int, record: dict[str, str], digest: str) -> Example:
    # The source is named by its content: the same file under another name or URL is the same data.
    provenance = {"source": f"sha256:{digest[:SHORT_DIGEST]}", "index": index}
    return Example(id=f"released_{index:06d}", **record, provenance=provenance)
