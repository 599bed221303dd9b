"""The instructions of a frozen data set, each answered anew: the clean way to compare teachers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alpaca.artifacts import write_json
from alpaca.config import ReanswerDataGen, SampleConfig
from alpaca.curation.parsing import CUT
from alpaca.errors import UserError
from alpaca.records import Example, as_row, write_jsonl
from alpaca.stages.sample.loaders import load_instructions
from alpaca.stages.sample.one_step import POOL, needs_teacher
from alpaca.teachers.asking import Desk, Listed, Planned, at_desk, request_id
from alpaca.teachers.base import Message, Request
from alpaca.teachers.phases import SEED_BITS, rng_of

if TYPE_CHECKING:
    from alpaca.artifacts import Context

CANDIDATES = "candidates.jsonl"
STEM = "answer"


def run_reanswer(config: SampleConfig, context: Context) -> None:
    """Asks every instruction once; writes candidates.jsonl and pool.json.

    Raises UserError where there are fewer instructions than wanted; cut and empty answers are left out and counted.
    """
    options, teacher = config.data_gen, config.teacher
    if not isinstance(options, ReanswerDataGen) or teacher is None:
        raise needs_teacher(config)
    if options.path is None:
        raise UserError(what="no instructions given", where="data_gen.path", remedy="a data set, as examples.jsonl")
    source = load_instructions(options.path)
    tasks = [(record.instruction, record.input) for record in source.records]
    wanted = len(tasks) if options.num_examples is None else options.num_examples
    if wanted > len(tasks):
        raise UserError(
            what=f"{wanted:,} answers wanted, {options.path} has {len(tasks):,} instructions",
            where="data_gen.num_examples",
            remedy=f"at most {len(tasks)}, or null for all",
        )
    requests = [answer_request(options, request_id(STEM, index), *task) for index, task in enumerate(tasks[:wanted])]
    phase = Listed(requests)

    async def flow(desk: Desk) -> None:
        await desk.fill(phase)

    at_desk(teacher, config.spend, context, flow)
    answered = [
        Example(id=row["id"], instruction=instruction, input=input, output=row["text"].strip(),
                provenance={"teacher": row["model"], "request": row["id"], "source_index": index})
        for index, ((instruction, input), row) in enumerate(zip(tasks, phase.rows, strict=False))
    ]  # fmt: skip
    facts = {"source_sha256": source.sha256, "multi_turn": source.multi_turn}
    write_pool(context, answered, [is_usable(row) for row in phase.rows], {"requests": len(phase.rows), **facts})


def answer_request(options: Any, id: str, instruction: str, input: str) -> Planned:
    """One instruction as a chat message of its own; options: temperature, top_p, max_tokens and seed of a data_gen."""
    text = f"{instruction}\n\nInput:\n{input}" if input else instruction
    request = Request(
        id=id,
        messages=(Message(role="user", content=text),),
        temperature=options.temperature,
        top_p=options.top_p,
        max_tokens=options.max_tokens,
        seed=rng_of(options.seed, id).getrandbits(SEED_BITS),
    )
    return Planned(request=request)


def is_usable(row: dict[str, Any]) -> bool:
    """Whether an answer is whole and not empty."""
    return row["finish_reason"] not in CUT and bool(row["text"].strip())


def write_pool(
    context: Context,
    examples: list[Example],
    usable: list[bool],
    facts: dict[str, Any],
    dropped: dict[str, int] | None = None,
) -> None:
    """candidates.jsonl with what is usable, and pool.json; facts: number of requests, and where the tasks are from."""
    kept = [example for example, keep in zip(examples, usable, strict=True) if keep]
    if not kept:
        raise UserError(
            what=f"not one usable answer to {facts['requests']:,} requests",
            where="teacher",
            remedy="look at raw.jsonl in the stage's folder; raise data_gen.max_tokens if the answers are cut",
        )
    write_jsonl(context.folder / CANDIDATES, (as_row(example) for example in kept))
    counts = {"cut_or_empty": usable.count(False), **(dropped or {})}
    candidates = len(examples) + sum((dropped or {}).values())
    write_json(
        context.folder / POOL,
        {
            **facts,
            "candidates": candidates,
            "kept": len(kept),
            "kept_share": len(kept) / max(1, candidates),
            "dropped": counts,
            "seed_instructions": [],
        },
    )
    context.log(f"{len(kept):,} of {candidates:,} tasks kept, from {facts['requests']:,} requests")
