"""Curate: raw responses or a released file -> the training set and its data card. Cheap, so every knob is free to try.

python -m alpaca.jobs outputs/curate/NAME-KEY
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from alpaca.artifacts import Context, write_json
from alpaca.config import CurateConfig, Data
from alpaca.curation import selection
from alpaca.curation.dedup import RougeIndex
from alpaca.curation.filters import dropped_by, filters_named, normalise_no_input
from alpaca.records import Example, as_row, write_jsonl
from alpaca.stages.curate import card
from alpaca.stages.curate.candidates import Pool, read_pool


def run(config: CurateConfig, context: Context) -> None:
    """Parse, filter, repair, de-duplicate, select; writes examples.jsonl and card.json."""
    pool = read_pool(context.parents["pool"])
    steps: list[card.Step] = list(pool.steps)
    kept, repaired = _repair(pool.examples, config.data)
    kept = _filter(kept, config.data, steps)
    kept = _deduplicate(kept, pool, config.data, steps, context)
    kept = _select(kept, config, steps)
    context.check()
    write_jsonl(context.folder / "examples.jsonl", (as_row(example) for example in kept))
    write_json(context.folder / "card.json", card.build(pool, steps, repaired, kept))
    context.log(f"{len(kept):,} examples of {pool.candidates:,} candidates")


def _repair(examples: list[Example], data: Data) -> tuple[list[Example], int]:
    """ "No input" spellings become the empty input; returns how many were changed."""
    if not data.normalise_no_input:
        return examples, 0
    repaired = [replace(example, input=normalise_no_input(example.input)) for example in examples]
    return repaired, sum(1 for old, new in zip(examples, repaired, strict=True) if old.input != new.input)


def _filter(examples: list[Example], data: Data, steps: list[card.Step]) -> list[Example]:
    filters = filters_named(data.filters)
    dropped = dict.fromkeys((item.name for item in filters), 0)
    kept = []
    for example in examples:
        reason = dropped_by(example, filters)
        if reason is None:
            kept.append(example)
        else:
            dropped[reason] += 1
    left = len(examples)
    for name, count in dropped.items():
        left -= count
        steps.append(card.Step(name=name, dropped=count, kept=left))
    return kept


def _deduplicate(
    examples: list[Example], pool: Pool, data: Data, steps: list[card.Step], context: Context
) -> list[Example]:
    """Exact ROUGE-L against the seeds and every example kept before, in pool order."""
    if data.dedup_threshold is None:
        return examples
    index = RougeIndex(data.dedup_threshold)
    kept: list[Example] = []
    _add_all(index, pool.seed_instructions)
    for number, example in enumerate(examples):
        context.progress(number, len(examples), f"{len(kept):,} kept")
        if index.offer(example.instruction) is None:
            kept.append(example)
    steps.append(card.Step(name="deduplication", dropped=len(examples) - len(kept), kept=len(kept)))
    return kept


def _add_all(index: RougeIndex, texts: Iterable[str]) -> None:
    for text in texts:
        index.add(text)


def _select(examples: list[Example], config: CurateConfig, steps: list[card.Step]) -> list[Example]:
    """A prefix of the seed's hash order, so that smaller sets are contained in larger ones."""
    size = len(examples) if config.data.size is None else config.data.size
    chosen = [
        examples[index] for index in selection.select([example.id for example in examples], size, config.seeds.data)
    ]
    steps.append(card.Step(name="selection", dropped=len(examples) - len(chosen), kept=len(chosen)))
    return chosen
