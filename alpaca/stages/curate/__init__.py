"""Curate: what the sample stage left -> the training set and its data card. Cheap, so every knob is free to try.

python -m alpaca.jobs outputs/curate/NAME-KEY
"""

from __future__ import annotations

from alpaca.artifacts import Context, write_json
from alpaca.config import CurateConfig
from alpaca.errors import UserError
from alpaca.stages.curate import card, export
from alpaca.stages.curate.steps import Curation
from alpaca.stages.pool import read_pool
from alpaca.stages.verdicts import read_moderation, read_ratings


def run(config: CurateConfig, context: Context) -> None:
    """Writes examples.jsonl, examples.parquet and card.json, and where asked contamination.jsonl and neighbours.jsonl.

    What is contaminated or flagged goes before de-duplication, so that it takes no good near-duplicate with it. Damage
    comes last, on the selected set.
    """
    pool = read_pool(context.parents["pool"])
    ratings = read_ratings(context.parents["rate"], pool.examples) if "rate" in context.parents else None
    curation = Curation(config=config, context=context, pool=pool, ratings=ratings)
    curation.repair()
    curation.filter()
    curation.decontaminate()
    _moderate(curation)
    curation.deduplicate()
    curation.find_neighbours()
    curation.select()
    curation.do_damage()
    curation.tell_provenance()
    context.check()
    _write(curation)
    context.log(f"{len(curation.examples):,} examples of {pool.candidates:,} candidates")


def _moderate(curation: Curation) -> None:
    context, pool = curation.context, curation.pool
    if "moderate" in context.parents:
        curation.moderate(read_moderation(context.parents["moderate"], pool.examples))
    elif curation.config.data.moderation != "none":
        raise UserError(
            what=f"data.moderation={curation.config.data.moderation}, but nothing was moderated",
            where="data.moderation",
            remedy="run from launch.py, which asks the moderation model first, or set data.moderation=none",
        )


def _write(curation: Curation) -> None:
    folder, examples = curation.context.folder, curation.examples
    export.write_examples(folder, examples)
    if curation.contamination:
        export.write_contamination(folder / export.CONTAMINATION, curation.contamination.values())
    if curation.neighbours:
        rows = ((example.id, curation.neighbours[example.id]) for example in examples)
        export.write_neighbours(folder / export.NEIGHBOURS, rows, curation.known_texts)
    facts = card.build(curation.pool, curation.steps, curation.repaired, examples, curation.details())
    write_json(folder / "card.json", facts)
