"""Published data sets, read into one form: Alpaca's JSON, Dolly, LIMA, local Parquet, data sets on the hub."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alpaca.artifacts import sha256_file
from alpaca.config import ReleasedDataGen
from alpaca.errors import UserError
from alpaca.records.given import EXAMPLES, data_file
from alpaca.records.reading import NotJson, Problems
from alpaca.runtime.download import fetch
from alpaca.stages.sample.loaders import hub
from alpaca.stages.sample.loaders.files import raw_records
from alpaca.stages.sample.loaders.forms import FORMS, KNOWN_FORMS, Form, recognise

SHORT_DIGEST = 12


@dataclass(kw_only=True, slots=True, frozen=True)
class Record:
    """One record of a data set; `provenance` holds the source's digest, the index in it and what it says of itself."""

    index: int
    """Position in the source, from 0."""
    instruction: str
    input: str
    output: str
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True, slots=True)
class Loaded:
    """A whole data set."""

    records: list[Record]
    sha256: str
    """Of the file; of the digests of its files where there are several."""
    multi_turn: int = 0
    """Conversations of which only the first turn is used."""
    commit: str | None = None
    """Of a data set on the hub."""

    @property
    def with_input(self) -> int:
        return sum(bool(record.input) for record in self.records)


@dataclass(kw_only=True, slots=True, frozen=True)
class _Source:
    """The local files of a data set, and what messages call it."""

    files: Sequence[Path]
    where: str
    commit: str | None = None


def load_instructions(path: str | Path, key: str = "data_gen") -> Loaded:
    """A data set of which only instructions and inputs are wanted: outputs, and inputs, may be missing.

    A file, or the folder of a finished stage with examples.jsonl. Raises UserError as `load` does.
    """
    return load(ReleasedDataGen(path=str(path)), key, missing={"input": "", "output": ""})


def load_records(source: str | Path | ReleasedDataGen, key: str = "data_gen") -> list[Record]:
    """The records of a data set: a file, the folder of a finished stage with examples.jsonl, or a configuration.

    key: the configuration node that names it, for messages. Raises UserError as `load` does.
    """
    options = source if isinstance(source, ReleasedDataGen) else ReleasedDataGen(path=str(source))
    return load(options, key).records


def load(options: ReleasedDataGen, key: str = "data_gen", *, missing: dict[str, str] | None = None) -> Loaded:
    """The whole data set of a configuration node `key`, from its `path`, else its `hub`, else its `url`.

    missing: fields that stand in where an instruction has none.

    Raises one UserError with up to 20 problems of the data, each with its record and field.
    """
    source = _source(options, key)
    reader = _Reader(options.format, source.where, several=len(source.files) > 1)
    for file in source.files:
        for place, value in raw_records(file, source.where, options.format):
            if missing and isinstance(value, dict) and "instruction" in value and "response" not in value:
                value = {**missing, **value}
            reader.take(f"{file.name}, {place}" if reader.several else place, value)
    return reader.finish(_digest(source.files), source.commit)


def _source(options: ReleasedDataGen, key: str) -> _Source:
    if options.path:
        file = data_file(options.path)
        if file.is_dir():
            raise UserError(
                what=f"{options.path!r} is a folder", where=f"{key}.path",
                remedy=f"give a file, or the folder of a finished stage that made {EXAMPLES}",
            )  # fmt: skip
        return _Source(files=[file], where=f"{key}.path={options.path}")
    if options.hub:
        found = hub.download(options, key)
        return _Source(files=found.files, where=f"{key}.hub={options.hub}", commit=found.commit)
    file = fetch(options.url, options.sha256, "the released data", key=f"{key}.path")
    return _Source(files=[file], where=f"{key}.path={file}")


def _digest(files: Sequence[Path]) -> str:
    digests = [sha256_file(file) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


class _Reader:
    """Checks raw records one by one; the form is that of the first which is an object."""

    def __init__(self, form: str, where: str, *, several: bool) -> None:
        self.several = several
        self._form: Form | None = FORMS.get(form)
        self._where = where
        self._problems = Problems()
        self._rows: list[tuple[str, str, str, dict[str, Any]]] = []
        self._places: dict[str | int, str] = {}
        self._multi_turn = 0

    def take(self, place: str, value: Any) -> None:
        """One record, or the problem that stands for it."""
        if isinstance(value, NotJson):
            self._problems.add(f"{place}: {value}")
        elif not isinstance(value, dict):
            self._problems.add(f"{place}: a JSON {type(value).__name__}, expected an object")
        else:
            self._form = self._form or recognise(list(value), place, self._where)
            self._take_object(place, value, self._form)

    def _take_object(self, place: str, value: dict[str, Any], form: Form) -> None:
        found = [*form.problems(value), *self._seen(place, value)]
        for each in found:
            self._problems.add(f"{place}: {each}")
        if not found:
            self._rows.append((*form.convert(value), form.extra(value)))
            self._multi_turn += form.is_multi_turn(value)

    def _seen(self, place: str, value: dict[str, Any]) -> list[str]:
        """An id that came before: rows that curation made are known by it."""
        id = value.get("id")
        if not isinstance(id, (str, int)):
            return []
        first = self._places.setdefault(id, place)
        return [] if first == place else [f'"id" is {id!r}, as in {first}']

    def finish(self, digest: str, commit: str | None) -> Loaded:
        """All records; raises UserError with everything that was wrong."""
        shape = self._form.shape if self._form else KNOWN_FORMS
        if not self._rows and not self._problems.count:
            self._problems.add("no records in this file")
        self._problems.raise_if_any(self._where, shape)
        # The source is named by its content: the same file under another name or URL is the same data.
        name = f"sha256:{digest[:SHORT_DIGEST]}"
        records = [
            Record(index=index, instruction=row[0], input=row[1], output=row[2],
                   provenance={"source": name, "index": index, **row[3]})
            for index, row in enumerate(self._rows)
        ]  # fmt: skip
        return Loaded(records=records, sha256=digest, multi_turn=self._multi_turn, commit=commit)


def merged(errors: Sequence[UserError], where: str) -> UserError:
    """One error for several data sets."""
    return errors[0] if len(errors) == 1 else UserError(what="\n  ".join(error.text() for error in errors), where=where)
