"""Evol-Instruct: instructions rewritten in depth and breadth, each rewriting then answered.

Xu et al., arXiv 2304.12244, section 3. The chain of one instruction has `rounds` rewritings, each starting from the
last one that was not eliminated. More examples than one wave of chains brings come from the next instructions, and
after the last one from the first again, with other draws. The prompts are this project's.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alpaca.config import EvolveDataGen, SampleConfig
from alpaca.records import Example
from alpaca.stages.sample.loaders import Loaded, load_instructions
from alpaca.stages.sample.one_step import needs_teacher
from alpaca.stages.sample.reanswer import answer_request, is_usable, write_pool
from alpaca.stages.sample.seeds import load_seed_tasks
from alpaca.teachers.asking import Desk, Planned, at_desk
from alpaca.teachers.base import Message, Request
from alpaca.teachers.phases import SEED_BITS, rng_of
from alpaca.teachers.watch import Watched, Yield

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
LEAST_YIELD = 0.2  # examples to expect of a rewriting when the number of the next chains is chosen


@dataclass(kw_only=True, slots=True)
class Chain:
    """One instruction on its way: as it stands, how often and in which way last it was rewritten.

    lap: how often its base had a chain before.
    """

    base: int
    text: str
    lap: int = 0
    depth: int = 0
    way: str = ""

    def request_id(self, stem: str, turn: int) -> str:
        """An id that the number of chains does not enter: a larger pool begins with the requests of a smaller one."""
        return f"{stem}_{self.lap:04d}_{self.base:06d}_{turn:03d}"


def run_evolve(config: SampleConfig, context: Context) -> None:
    """Asks until exactly data_gen.num_examples rewritings are answered; writes candidates.jsonl and pool.json.

    Raises UserError when the first rewritings bring nothing, or the last ones next to nothing (see `Yield`).
    """
    options, teacher = config.data_gen, config.teacher
    if not isinstance(options, EvolveDataGen) or teacher is None:
        raise needs_teacher(config)
    source = load_instructions(options.path) if options.path is not None else None
    evolution = Evolution(options, _bases(source))
    at_desk(teacher, config.spend, context, evolution.fill)
    wanted = evolution.examples[: options.num_examples]
    facts = {"requests": evolution.requests, **({"source_sha256": source.sha256} if source else {})}
    write_pool(context, wanted, [True] * len(wanted), facts, dict(evolution.dropped))


def _bases(source: Loaded | None) -> list[str]:
    if source is None:
        tasks = [(task.instruction, task.input) for task in load_seed_tasks(None)]
    else:
        tasks = [(record.instruction, record.input) for record in source.records]
    return [f"{instruction}\n\n{input}" if input else instruction for instruction, input in tasks]


class Evolution:
    """The examples so far; `fill` asks for more, wave by wave."""

    def __init__(self, options: EvolveDataGen, bases: list[str]) -> None:
        self.options, self.bases = options, bases
        self.examples: list[Example] = []
        self.dropped: Counter[str] = Counter()
        self.requests = self._begun = 0
        self._rewritten = Yield(options, "rewritings", "new instruction")
        self._answered = Yield(options, "rewritings", "usable example")

    async def fill(self, desk: Desk) -> None:
        while self._missing:
            chains = self._next_chains()
            for turn in range(self.options.rounds):
                if self._missing:
                    await self._round(desk, chains, turn)

    @property
    def _missing(self) -> int:
        return max(0, self.options.num_examples - len(self.examples))

    def _next_chains(self) -> list[Chain]:
        """As many as should fill the pool, at the yield of all rewritings so far; no base twice."""
        share = max(LEAST_YIELD, self._answered.mean)
        count = min(len(self.bases), math.ceil(self._missing / self.options.rounds / share))
        first, self._begun = self._begun, self._begun + count
        places = [divmod(number, len(self.bases)) for number in range(first, first + count)]
        return [Chain(lap=lap, base=base, text=self.bases[base]) for lap, base in places]

    async def _round(self, desk: Desk, chains: list[Chain], turn: int) -> None:
        """One rewriting of each chain, and the answers to those that are not eliminated."""
        known = {_plain(example.instruction) for example in self.examples}
        plans = [self._rewriting(turn, chain) for chain in chains]
        alive: list[int] = []
        usable: set[int] = set()
        last_texts: dict[int, str] = {}

        def rewritten(place: int, row: dict[str, Any]) -> None:
            if self._goes_on(chains[place], plans[place], row, known):
                alive.append(place)

        def answered(index: int, row: dict[str, Any]) -> None:
            last_texts[alive[index]] = row["text"]
            if self._take(chains[alive[index]], row):
                usable.add(alive[index])

        rewriting = Watched(plans, rewritten, whole=False)
        await desk.fill(rewriting)
        texts = [(chains[place].request_id("answer", turn), chains[place].text) for place in alive]
        await desk.fill(Watched([answer_request(self.options, *each, "") for each in texts], answered, whole=False))
        self.requests += len(chains) + len(alive)
        # In the order of the rewritings: those eliminated are known before the answers to the others.
        for place, row in enumerate(rewriting.rows):
            self._answered.add(int(place in usable), last_texts.get(place, row["text"]))
        if self._missing:
            self._answered.check(len(self.examples), self.dropped)

    def _goes_on(self, chain: Chain, planned: Planned, row: dict[str, Any], known: set[str]) -> bool:
        """Moves the chain on to its rewriting, unless that is eliminated; UserError where nearly all are."""
        text = _cleaned(row)
        reason = _eliminated(chain.text, text, known)
        self._rewritten.add(int(reason is None), row["text"])
        if reason is not None:
            self.dropped[reason] += 1
            self._rewritten.check(len(self.examples), self.dropped)
            return False
        known.add(_plain(text))
        chain.text, chain.depth, chain.way = text, chain.depth + 1, planned.about["way"]
        return True

    def _take(self, chain: Chain, row: dict[str, Any]) -> bool:
        """Adds the example, if the answer makes one."""
        if not is_usable(row) or _is_apology(row["text"]):
            self.dropped["answer"] += 1
            return False
        provenance = {"teacher": row["model"], "request": row["id"], "base": chain.base, "way": chain.way,
                      "depth": chain.depth}  # fmt: skip
        output = row["text"].strip()
        self.examples.append(
            Example(id=row["id"], instruction=chain.text, input="", output=output, provenance=provenance)
        )
        return True

    def _rewriting(self, turn: int, chain: Chain) -> Planned:
        id = chain.request_id("evolve", turn)
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
