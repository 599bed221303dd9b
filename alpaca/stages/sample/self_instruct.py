"""Self-Instruct in its three steps: instructions, then whether each is a classification, then its instances.

Wang et al., arXiv 2212.10560, section 2.2; values of the released code in `SelfInstructDataGen`. Classification tasks
get their label first and an input for it, so that the inputs do not all lead to one label; all others get the input
first. The prompts and their examples are this project's.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alpaca.config import SampleConfig, SelfInstructDataGen
from alpaca.curation.parsing import CUT, ParsedTask
from alpaca.errors import UserError
from alpaca.records import Example, SeedTask
from alpaca.stages.sample.judge import Novelty
from alpaca.stages.sample.one_step import needs_teacher
from alpaca.stages.sample.reanswer import write_pool
from alpaca.stages.sample.seeds import load_seed_tasks
from alpaca.teachers.asking import Desk, Listed, Phase, Planned, Verdict, at_desk, request_id
from alpaca.teachers.base import Message, Request
from alpaca.teachers.phases import SEED_BITS, rng_of
from alpaca.teachers.watch import Watched, Yield

if TYPE_CHECKING:
    from alpaca.artifacts import Context

LIST_HEAD = "A numbered list of {count} tasks for a language model, each different from all others:\n"
CLASS_HEAD = "Does the task have a small, fixed set of possible answers, so that it is a classification? Yes or No.\n"
INPUT_FIRST = (
    "Write up to {instances} examples for the last task, each with an input and its output. Where the task needs no "
    "input, give one output alone.\n"
)
OUTPUT_FIRST = (
    "Write an example for each possible class label of the last task, up to {instances}: first the label, then an "
    "input that it is right for.\n"
)
CLASS_SHOTS, OTHER_SHOTS = 12, 19
"""Examples in the classification prompt (the released code's 31)."""
INSTANCE_SHOTS = 6
CLASS_TOKENS = 8
STEP_KEYS = {
    "temperature": "data_gen.step_temperature",
    "presence_penalty": "data_gen.step_presence_penalty",
    "max_tokens": "data_gen.instance_tokens",
    "top_p": "teacher.model",
}
"""Where the parameters of the two later steps come from; their top_p is 1 for every configuration."""
CLASS_KEYS = {**STEP_KEYS, "max_tokens": "teacher.model"}
LEAST_YIELD = 0.2  # instances to expect of an instruction when the next number of them is chosen

_NUMBERED = re.compile(r"(?:^|\n)\s*\d+\s?\.\s+")
_EXAMPLE = re.compile(r"(?:^|\n)\s*Example \d+\s*\n?")
_LABEL = re.compile(r"(?:^|\n)\s*Class label:")
_BARE_LABEL = re.compile(r"\s*[^\n]+\n\s*Input:")


def run_self_instruct(config: SampleConfig, context: Context) -> None:
    """Asks until exactly data_gen.num_examples instances are there; writes candidates.jsonl and pool.json."""
    options, teacher = config.data_gen, config.teacher
    if not isinstance(options, SelfInstructDataGen) or teacher is None:
        raise needs_teacher(config)
    pipeline = Pipeline(options, load_seed_tasks(options.seeds))
    at_desk(teacher, config.spend, context, pipeline.fill, later=pipeline.later())
    wanted = pipeline.examples[: options.num_examples]
    write_pool(context, wanted, [True] * len(wanted), {"requests": pipeline.requests}, dict(pipeline.dropped))


class Instructions(Phase):
    """The first step: a phase that keeps instructions which pass the released rules, until so many are `wanted`."""

    whole = False

    def __init__(self, options: SelfInstructDataGen, seeds: Sequence[SeedTask], wanted: int) -> None:
        self.wanted, self._options, self._seeds = wanted, options, [task.instruction for task in seeds]
        self._novelty = Novelty(self._seeds)
        self.kept: list[str] = []
        self.dropped: Counter[str] = Counter()
        self.requests = 0
        self._kept_after: list[int] = []

    @property
    def target(self) -> int:
        return self.wanted

    @property
    def first_yield(self) -> float:
        return float(self._room)

    def planned(self, index: int) -> Planned | None:
        last = index - self._options.machine_lag
        if last >= len(self._kept_after):
            return None
        machine = self.kept[: self._kept_after[last]] if last >= 0 else []
        id = request_id("request", index)
        rng = rng_of(self._options.seed, id)
        drawn = rng.sample(machine, min(len(machine), self._machine_count()))
        shown = [*rng.sample(self._seeds, self._options.seeds_per_prompt - len(drawn)), *drawn]
        rng.shuffle(shown)
        return Planned(request=self._request(id, shown, rng), about={"first_number": len(shown) + 1})

    def judge(self, planned: Planned, row: dict[str, Any]) -> Verdict:
        found = list(_listed(row["text"], cut=row["finish_reason"] in CUT))
        before = len(self.kept)
        for instruction in found[: self._room]:
            reason = self._novelty.reason(ParsedTask(number=0, instruction=instruction, input="", output=""))
            if reason is None:
                self.kept.append(instruction)
            else:
                self.dropped[reason] += 1
        self.requests += 1
        self._kept_after.append(len(self.kept))
        return Verdict(candidates=len(found[: self._room]), kept=len(self.kept) - before)

    @property
    def _room(self) -> int:
        """Instructions that one request asks for."""
        return self._options.tasks_per_request - self._options.seeds_per_prompt

    def _machine_count(self) -> int:
        return round(self._options.machine_share * self._options.seeds_per_prompt)

    def _request(self, id: str, shown: Sequence[str], rng: random.Random) -> Request:
        options = self._options
        lines = [f"{number}. {' '.join(text.split()).rstrip(':')}" for number, text in enumerate(shown, 1)]
        text = LIST_HEAD.format(count=options.tasks_per_request) + "\n".join([*lines, f"{len(lines) + 1}."])
        return Request(
            id=id,
            messages=(Message(role="user", content=text),),
            temperature=options.temperature,
            top_p=options.top_p,
            max_tokens=options.max_tokens,
            presence_penalty=options.presence_penalty,
            seed=rng.getrandbits(SEED_BITS),
        )


@dataclass(kw_only=True, slots=True, frozen=True)
class Instance:
    """One input with its output."""

    input: str
    output: str


@dataclass(kw_only=True, slots=True, frozen=True)
class Classified:
    """An instruction with its number and kind."""

    number: int
    instruction: str
    is_class: bool


class Pipeline:
    """All three steps, repeated with more instructions until there are enough instances."""

    def __init__(self, options: SelfInstructDataGen, seeds: list[SeedTask]) -> None:
        if options.seeds_per_prompt > len(seeds):
            raise UserError(
                what=f"{options.seeds_per_prompt} seed tasks per prompt, but there are only {len(seeds)}",
                where="data_gen.seeds_per_prompt",
                remedy="lower it, or give more tasks by data_gen.seeds",
            )
        self.options, self.seeds = options, seeds
        self.examples: list[Example] = []
        self.dropped: Counter[str] = Counter()
        self.requests = 0
        self._yield = Yield(options, "requests for instances", "usable instance")
        self._class_shots, self._shots = _drawn_shots(seeds, options.seed)

    def later(self) -> list[Planned]:
        """A request of each later step, with its parameters."""
        text = self.seeds[0].instruction
        return [self._classification(0, text), self._filling(0, text, is_class=False)]

    async def fill(self, desk: Desk) -> None:
        """The number of instructions of a pass follows from what the last one brought: no accident changes it."""
        wanted, done = math.ceil(self.options.num_examples / self.options.instances), 0
        first = Instructions(self.options, self.seeds, wanted)
        while True:
            first.wanted = wanted
            await self._more_instructions(desk, first)
            await self._instances(desk, first.kept[:wanted], done)
            if len(self.examples) >= self.options.num_examples:
                break
            missing = self.options.num_examples - len(self.examples)
            done, wanted = wanted, wanted + math.ceil(missing / max(len(self.examples) / wanted, LEAST_YIELD))
        self.dropped.update(first.dropped)
        self.requests += first.requests

    async def _more_instructions(self, desk: Desk, first: Instructions) -> None:
        if len(first.kept) < first.wanted:
            # Every pass judges all answers from the first, which are on disk by then.
            again = Instructions(self.options, self.seeds, first.wanted)
            await desk.fill(again, self.options)
            first.kept, first.dropped, first.requests = again.kept, again.dropped, again.requests

    async def _instances(self, desk: Desk, instructions: list[str], done: int) -> None:
        """Classifies and fills the instructions from number `done` on."""
        fresh = list(enumerate(instructions))[done:]
        asked = Listed([self._classification(number, text) for number, text in fresh], whole=False)
        await desk.fill(asked)
        tasks = [
            Classified(number=number, instruction=text, is_class=row["text"].strip().lower().startswith("yes"))
            for (number, text), row in zip(fresh, asked.rows, strict=True)
            if row["text"].strip()
        ]
        # What was refused or never answered is neither a classification nor none.
        self.dropped["no classification"] += len(fresh) - len(tasks)
        fillings = [self._filling(task.number, task.instruction, task.is_class) for task in tasks]
        await desk.fill(Watched(fillings, lambda place, row: self._take(tasks[place], row), whole=False))
        self.requests += len(fresh) + len(tasks)

    def _take(self, task: Classified, row: dict[str, Any]) -> None:
        """Adds the instances of one answer; raises UserError where the teacher's answers are of no use."""
        read_text = _output_first if task.is_class else _input_first
        read = list(read_text(row["text"], cut=row["finish_reason"] in CUT))
        usable = _usable(read)[: self.options.instances]
        self.dropped["instance"] += len(read) - len(usable)
        self.dropped["no instance"] += not read
        for place, instance in enumerate(usable):
            provenance = {"teacher": row["model"], "request": row["id"], "is_classification": task.is_class,
                          "instruction": task.number}  # fmt: skip
            id, given, output = f"{row['id']}_{place:02d}", instance.input, instance.output
            self.examples.append(
                Example(id=id, instruction=task.instruction, input=given, output=output, provenance=provenance)
            )
        self._yield.add(len(usable), row["text"])
        if len(self.examples) < self.options.num_examples:
            self._yield.check(len(self.examples), self.dropped)

    def _classification(self, number: int, instruction: str) -> Planned:
        shown = [f"Task: {_line(task.instruction)}\nClassification: {'Yes' if task.is_classification else 'No'}\n"
                 for task in self._class_shots]  # fmt: skip
        text = "\n".join([CLASS_HEAD, *shown, f"Task: {_line(instruction)}\nClassification:"])
        return Planned(request=self._step(request_id("class", number), text, CLASS_TOKENS), keys=CLASS_KEYS)

    def _filling(self, number: int, instruction: str, is_class: bool) -> Planned:
        shots = [_shot(task, is_class) for task in self._shots if task.is_classification == is_class]
        head = (OUTPUT_FIRST if is_class else INPUT_FIRST).format(instances=self.options.instances)
        text = "\n".join([head, *shots, f"Task: {_line(instruction)}"])
        options, id = self.options, request_id("instance", number)
        request = self._step(id, text + "\n", options.instance_tokens, options.step_presence_penalty)
        return Planned(request=request, keys=STEP_KEYS)

    def _step(self, id: str, text: str, max_tokens: int, penalty: float = 0.0) -> Request:
        """A request of the two later steps; greedy decoding draws nothing and gets no seed."""
        options = self.options
        return Request(
            id=id,
            messages=(Message(role="user", content=text),),
            temperature=options.step_temperature,
            top_p=1.0,
            max_tokens=max_tokens,
            presence_penalty=penalty,
            seed=rng_of(options.seed, id).getrandbits(SEED_BITS) if options.step_temperature else None,
        )


def _drawn_shots(seeds: Sequence[SeedTask], seed: int) -> tuple[list[SeedTask], list[SeedTask]]:
    """The examples of the classification prompt, and those of the two instance prompts."""
    rng = rng_of(seed, "shots")
    yes = rng.sample(seeds, len(seeds))
    kinds = [task for task in yes if task.is_classification], [task for task in yes if not task.is_classification]
    shown = [*kinds[0][:CLASS_SHOTS], *kinds[1][:OTHER_SHOTS]]
    rng.shuffle(shown)
    return shown, [*kinds[0][:INSTANCE_SHOTS], *kinds[1][:INSTANCE_SHOTS]]


def _shot(task: SeedTask, is_class: bool) -> str:
    if is_class:
        return f"Task: {_line(task.instruction)}\nClass label: {task.output}\nInput: {task.input}\n"
    given = f"Input: {task.input}\n" if task.input else ""
    return f"Task: {_line(task.instruction)}\nExample 1\n{given}Output: {task.output}\n"


def _listed(text: str, *, cut: bool) -> Iterator[str]:
    """The instructions of a numbered list whose first number stands in the prompt; not the last one where it is cut."""
    pieces = [_line(piece) for piece in _NUMBERED.split(text)]
    for piece in pieces[:-1] if cut else pieces:
        if piece:
            yield piece[0].upper() + piece[1:]


def _input_first(text: str, *, cut: bool) -> Iterator[Instance]:
    """ "Example 1 / Input: ... / Output: ..." and so on; an example without an input is an output alone."""
    pieces = [piece for piece in _EXAMPLE.split(text) if piece.strip()]
    for piece in pieces[:-1] if cut else pieces:
        before, found, output = piece.partition("Output:")
        if found:
            yield Instance(input=before.partition("Input:")[2].strip(), output=output.strip())


def _output_first(text: str, *, cut: bool) -> Iterator[Instance]:
    """ "Class label: ... / Input: ..." and so on; the first label may go on from the prompt, without its heading."""
    before, *pieces = _LABEL.split(text)
    if _BARE_LABEL.match(before):
        pieces.insert(0, before)
    for piece in pieces[:-1] if cut else pieces:
        label, _, rest = piece.strip().partition("\n")
        if label.strip():
            yield Instance(input=rest.partition("Input:")[2].strip() or rest.strip(), output=label.strip())


def _usable(read: Sequence[Instance]) -> list[Instance]:
    """Without those that self-instruct drops: no output, output equal to input, ends in ":", equal twins.

    Where one input has two outputs, none of the instruction's instances can be trusted, and all go.
    """
    kept = list(dict.fromkeys(
        each for each in read
        if each.output and each.output != each.input and not each.output.endswith(":") and not each.input.endswith(":")
    ))  # fmt: skip
    inputs = [each.input for each in kept]
    return [] if len(set(inputs)) < len(inputs) else kept


def _line(text: str) -> str:
    return " ".join(text.split())
