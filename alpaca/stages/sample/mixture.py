"""Several published data sets mixed by weight: an order of records of which every mixture takes the first."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from alpaca.artifacts import write_json
from alpaca.config import MixtureDataGen, SampleConfig
from alpaca.curation.selection import hash_order
from alpaca.errors import UserError
from alpaca.records import Example, as_row, write_jsonl
from alpaca.records.given import EXAMPLES
from alpaca.stages.sample.loaders import Loaded, load, merged
from alpaca.stages.sample.released import POOL, example, in_words, says

if TYPE_CHECKING:
    from alpaca.artifacts import Context

KEY = "data_gen.sources"


def run_mixture(config: SampleConfig, context: Context) -> None:
    """Writes examples.jsonl and pool.json.

    Raises UserError with all problems of all sources, and where one has fewer records than its share of num_examples.
    """
    options = config.data_gen
    if not isinstance(options, MixtureDataGen) or not options.sources:
        raise UserError(what="no data sets to mix", where=KEY, remedy="for example {a:{path:a.json,weight:2}}")
    sources = _load_all(options, context)
    weights = {name: options.sources[name].weight for name in sources}
    order = list(turns(weights, {name: len(found.records) for name, found in sources.items()}))
    wanted = len(order) if options.num_examples is None else options.num_examples
    if wanted > len(order):
        raise _too_many(wanted, len(order), weights, sources)
    rows = mixed(order[:wanted], sources, options.seed)
    write_jsonl(context.folder / EXAMPLES, (as_row(row) for row in rows))
    write_json(context.folder / POOL, _summary(rows, order[:wanted], weights, sources))
    context.progress(wanted, wanted, f"{wanted:,} examples mixed")
    context.log(f"{wanted:,} examples of {len(sources)} data sets")


def turns(weights: Mapping[str, float], available: Mapping[str, int]) -> Iterator[str]:
    """The sources in the order in which they give a record, up to the first that has none left when it is its turn.

    The k-th record of a source of weight w has its turn at (k - 1/2) / w, so that the first n hold each source by its
    share, rounded by Webster's method (Balinski & Young, Fair Representation, 1982). The largest remainders would give
    nearly the same counts, but may take a record away from a source when n grows, and sizes would not be nested.
    """
    queue = [(0.5 / weight, name, 1) for name, weight in sorted(weights.items())]
    heapq.heapify(queue)
    while queue:
        _, name, number = queue[0]
        if number > available[name]:
            return
        yield name
        heapq.heapreplace(queue, ((number + 0.5) / weights[name], name, number + 1))


def mixed(order: list[str], sources: Mapping[str, Loaded], seed: int) -> list[Example]:
    """The records of a mixture, each source's a prefix of one hash order."""
    drawn = {name: _drawn(name, found, seed) for name, found in sources.items()}
    return [next(drawn[name]) for name in order]


def _drawn(name: str, found: Loaded, seed: int) -> Iterator[Example]:
    rows = [example(record, name) for record in found.records]
    # Another order than the one by which curation selects: else the first of a size would all be of the largest part.
    for index in hash_order([f"mixture:{row.id}" for row in rows], seed):
        row = rows[index]
        row.provenance = {"data_set": name, **row.provenance}
        yield row


def _load_all(options: MixtureDataGen, context: Context) -> dict[str, Loaded]:
    """All sources in the order of their names, so that the order in which they were written down changes nothing."""
    found: dict[str, Loaded] = {}
    errors = []
    for name in sorted(options.sources):
        try:
            found[name] = load(options.sources[name], f"{KEY}.{name}")
            context.log(f"{name}: {len(found[name].records):,} published examples{in_words(found[name])}")
        except UserError as error:
            errors.append(error)
    if errors:
        raise merged(errors, KEY)
    _refuse_equal(found)
    return found


def _refuse_equal(sources: Mapping[str, Loaded]) -> None:
    first: dict[str, str] = {}
    for name, found in sources.items():
        if (other := first.setdefault(found.sha256, name)) != name:
            raise UserError(
                what=f"{other!r} and {name!r} are the same file (sha256 {found.sha256[:12]}…)",
                where=KEY,
                remedy="no record is repeated in a mixture: name each data set once, with a larger weight",
            )


def _too_many(wanted: int, feasible: int, weights: Mapping[str, float], sources: Mapping[str, Loaded]) -> UserError:
    total = sum(weights.values())
    parts = (
        f"{name}: {len(found.records):,} records, {weights[name] / total:.1%} of the weight"
        for name, found in sources.items()
    )
    return UserError(
        what=f"{wanted:,} examples wanted, the weights allow {feasible:,} ({'; '.join(parts)})",
        where="data_gen.num_examples",
        remedy=f"data_gen.num_examples={feasible} at most, or null for so many; or other weights",
    )


def _summary(
    rows: list[Example], order: list[str], weights: Mapping[str, float], sources: Mapping[str, Loaded]
) -> dict[str, Any]:
    parts = {
        name: {
            "sha256": found.sha256,
            "examples": order.count(name),
            "available": len(found.records),
            "weight": weights[name],
            **says(found),
        }
        for name, found in sources.items()
    }
    joined = "".join(f"{name}\0{part['sha256']}\n" for name, part in parts.items())
    return {
        "examples": len(rows),
        "with_input": sum(bool(row.input) for row in rows),
        "source_sha256": hashlib.sha256(joined.encode()).hexdigest(),
        "sources": parts,
    }
