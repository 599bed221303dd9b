"""A published data set, taken as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alpaca.artifacts import write_json
from alpaca.config import ReleasedDataGen, SampleConfig
from alpaca.errors import UserError
from alpaca.records import Example, as_row, write_jsonl
from alpaca.records.given import EXAMPLES
from alpaca.stages.sample.loaders import Loaded, Record, load

if TYPE_CHECKING:
    from alpaca.artifacts import Context

POOL = "pool.json"


def run_released(config: SampleConfig, context: Context) -> None:
    """Writes examples.jsonl and pool.json from data_gen.path, data_gen.hub, or data_gen.url by way of the cache.

    Raises UserError with up to 20 problems of the data, each with its record and field.
    """
    options = config.data_gen
    if not isinstance(options, ReleasedDataGen):
        raise UserError(what=f"data_gen.kind={options.kind!r} is no released data", where="data_gen.kind")
    found = load(options)
    write_jsonl(context.folder / EXAMPLES, (as_row(example(record, "released")) for record in found.records))
    count = len(found.records)
    summary = {"examples": count, "with_input": found.with_input, "source_sha256": found.sha256, **says(found)}
    write_json(context.folder / POOL, summary)
    context.progress(count, count, f"{count:,} released examples")
    context.log(f"{count:,} published examples, {found.with_input:,} with input{in_words(found)}")


def example(record: Record, source: str) -> Example:
    """A record as a row of a pool; its id is that of its place in the source."""
    return Example(
        id=f"{source}_{record.index:06d}",
        instruction=record.instruction,
        input=record.input,
        output=record.output,
        provenance=record.provenance,
    )


def says(found: Loaded) -> dict[str, Any]:
    """What pool.json tells of a source besides its digest, where there is something to tell."""
    told = {"multi_turn": found.multi_turn, "commit": found.commit}
    return {name: value for name, value in told.items() if value}


def in_words(found: Loaded) -> str:
    """The same for the log."""
    commit = f", commit {found.commit[:12]}" if found.commit else ""
    turns = f", {found.multi_turn:,} conversations of which only the first turn is used" if found.multi_turn else ""
    return commit + turns
