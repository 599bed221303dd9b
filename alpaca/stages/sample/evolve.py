"""Evol-Instruct: instructions rewritten in depth and breadth, each rewriting then answered.

Xu et al., arXiv 2304.12244, section 3. The chain of one instruction has `rounds` rewritings, each starting from the
last one that was not eliminated. When all chains are through and more examples are wanted, they begin again with other
draws. The prompts are this project's.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alpaca.config import EvolveDataGen, SampleConfig
from alpaca.errors import UserError
from alpaca.records import Example
from alpaca.stages.sample.loaders import load_records
from alpaca.stages.sample.one_step import needs_teacher
from alpaca.stages.sample.plan import SEED_BITS, rng_of
from alpaca.stages.sample.reanswer import answer_request, is_usable, write_pool
from alpaca.stages.sample.seeds import load_seed_tasks
from alpaca.teachers.asking import Desk, Listed, Planned, at_desk, request_id
from alpaca.teachers.base import Message, Request

if TYPE_CHECKING:
    from alpaca.artifacts import Context

GIVEN, REWRITTEN, CREATED = "#Given Prompt#:", "#Rewritten Prompt#:", "#Created Prompt#:"
IN_DEPTH = {
    "constraints": "Add one more condition or requirement that the answer must meet.",
    "deepening": "Where it asks about a subject, ask for more depth and breadth on it.",
    "concretising": "Replace general notions by more specific ones.",
    "reasoning": "If it can be answered in a step or two, change it so that several steps of thought are needed.",
}
"""The paper's four ways in depth that need no other data format, in our words."""
DEPTH_PROMPT = f"""Rewrite the prompt below into a somewhat harder version of it. {{way}}
The new prompt must make sense, be understandable for people, be answerable by a language model that only reads and \
writes text, and be longer than the old one by 10 to 20 words at most. Keep any material that the old one contains. \
Write the new prompt and nothing else.

{GIVEN}
{{given}}

{REWRITTEN}
"""
BREADTH_PROMPT = f"""Invent a new prompt of the same field as the one below, but rarer. It should be about as long and \
as difficult, make sense, be understandable for people and be answerable by a language model that only reads and \
writes text. Write the new prompt and nothing else.

{GIVEN}
{{given}}

{CREATED}
"""
LEAKED = ("given prompt", "rewritten prompt", "created prompt")
SHORT_APOLOGY = 80  # words; the paper's bound for answers that say "sorry"
LEAST_YIELD = 0.05


@dataclass(kw_only=True, slots=True)
class Chain:
    """One instruction on its way: as it stands, and how often it was rewritten."""

    base: int
    text: str
    depth: int = 0


def run_evolve(config: SampleConfig, context: Context) -> None:
    """Asks until exactly data_gen.num_examples rewritings are answered; writes candidates.jsonl and pool.json.

    Raises UserError when a whole wave of rewritings brings fewer than 5 % of usable examples.
    """
    options, teacher = config.data_gen, config.teacher
    if not isinstance(options, EvolveDataGen) or teacher is None:
        raise needs_teacher(config)
    evolution = Evolution(options, _bases(options))
    at_desk(teacher, config.spend, context, evolution.fill)
    wanted = evolution.examples[: options.num_examples]
    write_pool(context, wanted, [True] * len(wanted), evolution.requests, dict(evolution.dropped))


def _bases(options: EvolveDataGen) -> list[str]:
    if options.path is None:
        tasks = [(task.instruction, task.input) for task in load_seed_tasks(None)]
    else:
        tasks = [(record.instruction, record.input) for record in load_records(options.path)]
    return [f"{instruction}\n\n{input}" if input else instruction for instruction, input in tasks]


class Evolution:
    """The examples so far; `fill` asks for more, wave by wave."""

    def __init__(self, options: EvolveDataGen, bases: list[str]) -> None:
        self.options, self.bases = options, bases
        self.examples: list[Example] = []
        self.dropped: Counter[str] = Counter()
        self.requests = self._rewritings = 0

    async def fill(self, desk: Desk) -> None:
        while len(self.examples) < self.options.num_examples:
            before, asked = len(self.examples), self._rewritings
            await self._wave(desk)
            brought, rewritings = len(self.examples) - before, self._rewritings - asked
            if brought < LEAST_YIELD * rewritings:
                raise UserError(
                    what=f"{rewritings:,} rewritings brought {brought:,} usable examples "
                    f"({', '.join(f'{name} {count:,}' for name, count in self.dropped.items())})",
                    where="data_gen.num_examples",
                    remedy=f"a stronger teacher, or data_gen.num_examples={max(1, len(self.examples))} or less",
                )

    async def _wave(self, desk: Desk) -> None:
        """As many chains as should fill the pool, each rewritten `rounds` times."""
        missing = self.options.num_examples - len(self.examples)
        count = min(len(self.bases), math.ceil(missing / self.options.rounds))
        chains = [Chain(base=index, text=self.bases[index]) for index in range(count)]
        for _ in range(self.options.rounds):
            if len(self.examples) < self.options.num_examples:
                await self._round(desk, chains)

    async def _round(self, desk: Desk, chains: list[Chain]) -> None:
        rewriting = Listed([self._rewriting(self._rewritings + place, chain) for place, chain in enumerate(chains)])
        await desk.fill(rewriting)
        texts = [_cleaned(row) for row in rewriting.rows]
        known = {_plain(example.instruction) for example in self.examples}
        alive = []
        for place, (chain, text) in enumerate(zip(chains, texts, strict=True)):
            if reason := _eliminated(chain.text, text, known):
                self.dropped[reason] += 1
                continue
            known.add(_plain(text))
            chain.text, chain.depth = text, chain.depth + 1
            alive.append((self._rewritings + place, chain))
        await self._answer(desk, alive, rewriting)
        self._rewritings += len(chains)
        self.requests += len(chains) + len(alive)

    async def _answer(self, desk: Desk, alive: list[tuple[int, Chain]], rewriting: Listed) -> None:
        answers = Listed([answer_request(self.options, request_id("answer", number), chain.text, "")
                          for number, chain in alive])  # fmt: skip
        await desk.fill(answers)
        for (number, chain), row in zip(alive, answers.rows, strict=True):
            if not is_usable(row) or _is_apology(row["text"]):
                self.dropped["answer"] += 1
                continue
            way = rewriting.requests[number - self._rewritings].about["way"]
            provenance = {"teacher": row["model"], "request": row["id"], "base": chain.base, "way": way,
                          "depth": chain.depth}  # fmt: skip
            output = row["text"].strip()
            self.examples.append(
                Example(id=row["id"], instruction=chain.text, input="", output=output, provenance=provenance)
            )

    def _rewriting(self, number: int, chain: Chain) -> Planned:
        id = request_id("evolve", number)
        rng = rng_of(self.options.seed, id)
        is_breadth = rng.random() < self.options.breadth_share
        way = "breadth" if is_breadth else rng.choice(tuple(IN_DEPTH))
        text = (BREADTH_PROMPT if is_breadth else DEPTH_PROMPT).format(given=chain.text, way=IN_DEPTH.get(way, ""))
        request = Request(
            id=id,
            messages=(Message(role="user", content=text),),
            temperature=self.options.temperature,
            top_p=self.options.top_p,
            max_tokens=self.options.max_tokens,
            seed=rng.getrandbits(SEED_BITS),
        )
        return Planned(request=request, about={"way": way, "base": chain.base})


def _cleaned(row: dict[str, Any]) -> str:
    """The new prompt; "" where the answer was cut."""
    if not is_usable(row):
        return ""
    text = str(row["text"])
    for marker in (REWRITTEN, CREATED):
        text = text.rpartition(marker)[2]
    return text.strip()


def _eliminated(old: str, new: str, known: set[str]) -> str | None:
    """Why a rewriting is dropped (the paper's rules of elimination, section 3.3): None where it is kept."""
    if not new or not any(letter.isalnum() for letter in new):
        return "rewriting empty or cut"
    if _plain(new) == _plain(old):
        return "rewriting unchanged"
    if any(words in new.lower() for words in LEAKED):
        return "rewriting repeats the request"
    return "rewriting known" if _plain(new) in known else None


def _is_apology(text: str) -> bool:
    return "sorry" in text.lower() and len(text.split()) < SHORT_APOLOGY


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
