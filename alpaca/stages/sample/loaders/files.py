"""Raw records of a local file: JSON array, JSONL or Parquet, told by what the file holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alpaca.errors import UserError
from alpaca.records.given import check_start, is_parquet
from alpaca.records.reading import NotJson, Problems, decode, read_array, read_lines, starts_with
from alpaca.stages.sample.loaders.forms import FORMS, KNOWN_FORMS, Form, recognise

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

ROWS = 1024  # read at a time


def raw_records(path: Path, where: str, form: str) -> Iterator[tuple[str, Any]]:
    """Each record with its place in words; a NotJson for one that cannot be read.

    form: a name in `FORMS`, or auto. Raises UserError for a file that cannot be read at all, or not from some place on.
    """
    check_start(path, where)
    if is_parquet(path):
        yield from _table(path, where, FORMS.get(form))
    elif starts_with(path, "["):
        for index, (_, value) in enumerate(read_array(path)):
            yield f"record {index}", value
    else:
        yield from _objects(path, where)


def _objects(path: Path, where: str) -> Iterator[tuple[str, Any]]:
    for index, (number, line) in enumerate(read_lines(path)):
        if index == 0 and line.strip() == "{":
            raise UserError(what=f"one JSON object over several lines (line {number})", where=where, remedy=KNOWN_FORMS)
        try:
            yield f"record {index} (line {number})", decode(line)
        except NotJson as error:
            yield f"record {index} (line {number})", error


def _table(path: Path, where: str, form: Form | None) -> Iterator[tuple[str, Any]]:
    """Rows as objects; columns of the wrong kind are told once, not for every row."""
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise UserError(
            what=f"{str(path)!r} is a Parquet file, and pyarrow is not installed", where=where,
            remedy="pip install datasets, which brings it",
        ) from error  # fmt: skip
    try:
        with ParquetFile(path) as table:
            columns = _columns(table.schema_arrow, form, where)
            yield from _rows(table, columns)
    # ArrowException covers footer and pages, OSError a file that ends too early, UnicodeDecodeError bytes in a text.
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(
            what=f"{str(path)!r} is no whole Parquet file: {' '.join(str(error).split())[:200]}", where=where,
            remedy="download it again; compare its size or its sha256 with the publisher's",
        ) from error  # fmt: skip


def _rows(table: ParquetFile, columns: list[str]) -> Iterator[tuple[str, Any]]:
    index = 0
    for batch in table.iter_batches(batch_size=ROWS, columns=columns):
        for row in batch.to_pylist():
            yield f"record {index}", row
            index += 1


def _columns(schema: pa.Schema, form: Form | None, where: str) -> list[str]:
    """The columns to read. Raises UserError with all that are missing or hold something else than texts."""
    form = form or recognise(schema.names, "the table", where)
    problems = Problems()
    for name in form.fields:
        if name not in schema.names:
            problems.add(f'column "{name}" is missing; there are {", ".join(schema.names)[:200]}')
        elif not _fits(schema.field(name).type, form):
            wanted = "texts" if form.told_by != "conversations" else "lists of texts"
            problems.add(f'column "{name}" holds {schema.field(name).type}, expected {wanted}')
    problems.raise_if_any(where, form.shape)
    wanted_too = [*form.optional, "source"]
    return [*form.fields, *(name for name in wanted_too if name in schema.names and name not in form.fields)]


def _fits(kind: pa.DataType, form: Form) -> bool:
    from pyarrow import types

    if form.told_by == "conversations":
        listed = types.is_list(kind) or types.is_large_list(kind)
        return listed and _is_text(kind.value_type)
    return _is_text(kind)


def _is_text(kind: pa.DataType) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))
