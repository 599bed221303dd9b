"""The body of the respond stage. Finished batches are kept in work/, so that an interruption costs at most one."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from alpaca import evalsets
from alpaca.artifacts import Context
from alpaca.config import RespondConfig
from alpaca.generation import Decoding, Generated, Generator, Request
from alpaca.prompts import prompt
from alpaca.records import EvalItem, as_row, drop_torn_tail, encode, read_jsonl, write_jsonl
from alpaca.runtime.quiet import no_bars

PARTIAL = "partial.jsonl"


def respond(config: RespondConfig, context: Context) -> None:
    """Load the items, answer what is not answered yet, write all answers in the items' order."""
    no_bars()
    items = evalsets.load(config)
    answers = _kept(context.work / PARTIAL)
    if len(answers) < len(items):
        _answer(config, context, items, answers)
    write_jsonl(context.folder / "responses.jsonl", (_row(item, answers[index]) for index, item in enumerate(items)))
    # All that the responses took, whatever was answered in earlier starts.
    context.cost["completion_tokens"] = sum(answer.new_tokens for answer in answers.values())
    cut = sum(answer.finish_reason == "length" for answer in answers.values())
    context.log(f"{len(items)} answers, {cut} of them cut at {config.responses.max_new_tokens} tokens")


def _answer(config: RespondConfig, context: Context, items: list[EvalItem], answers: dict[int, Generated]) -> None:
    generator = Generator.load(context.parents["model"] / "model")
    requests = [Request(id=item.id, prompt=prompt(item.instruction, item.input)) for item in items]
    decoding = Decoding(
        max_new_tokens=config.responses.max_new_tokens,
        temperature=config.responses.temperature,
        top_p=config.responses.top_p,
        seed=config.responses.seed,
    )
    started, new_tokens = time.monotonic(), 0
    # Batches are the same at every start, so a resumed stage pads each item as an uninterrupted one does.
    for batch in generator.batches(requests, config.responses.batch):
        if all(index in answers for index in batch):
            continue
        context.check()
        made = generator.generate([requests[index] for index in batch], decoding)
        _keep(context.work / PARTIAL, batch, made)
        answers.update(zip(batch, made, strict=True))
        new_tokens += sum(answer.new_tokens for answer in made)
        context.progress(len(answers), len(items), f"{len(answers)} of {len(items)} answered")
    context.cost["tokens_per_second"] = new_tokens / (time.monotonic() - started)


def _kept(path: Path) -> dict[int, Generated]:
    """What an interrupted run left: answers by the item's place. A torn last line is dropped."""
    drop_torn_tail(path)
    if not path.exists():
        return {}
    return {row.pop("index"): Generated(**row) for row in read_jsonl(path)}


def _keep(path: Path, batch: list[int], made: list[Generated]) -> None:
    with path.open("a", encoding="utf-8", newline="\n") as out:
        out.writelines(
            encode({"index": index, **as_row(answer)}) + "\n" for index, answer in zip(batch, made, strict=True)
        )
        out.flush()
        os.fsync(out.fileno())


def _row(item: EvalItem, answer: Generated) -> dict[str, Any]:
    return {
        **as_row(item),
        "response": answer.text,
        "new_tokens": answer.new_tokens,
        "finish_reason": answer.finish_reason,
    }
