"""Alpaca's requests: an endless list in which each is a function of its number and of the tasks that it may show.

So a request can be asked again after a crash, or taken over from another run, and is known to be the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alpaca.config import AlpacaDataGen
from alpaca.curation.parsing import NO_INPUT, SEPARATOR
from alpaca.errors import UserError
from alpaca.records import SeedTask
from alpaca.stages.sample.seeds import load_prompt, load_seed_tasks, load_topics
from alpaca.teachers.asking import Planned, request_id
from alpaca.teachers.base import Message, Request
from alpaca.teachers.phases import SEED_BITS, rng_of

STEM = "request"
PROMPTS = {form: Path(__file__).with_name(f"prompt_{form}.txt") for form in ("text", "json_schema")}
ENGLISH = "English"
TASK_FIELDS = ("instruction", "input", "output")
SCHEMA: dict[str, Any] = {
    "title": "tasks",
    "type": "object",
    "properties": {
        "tasks": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {name: {"type": "string"} for name in TASK_FIELDS},
                "required": list(TASK_FIELDS),
                "additionalProperties": False,
            },
        }
    },
    "required": ["tasks"],
    "additionalProperties": False,
}
"""What data_gen.form=json_schema asks for; all objects closed, as OpenAI's strict mode wants them."""


class RequestPlan:
    """The requests of a configuration, by number from 0. Raises UserError for seeds and lengths that do not fit."""

    def __init__(self, options: AlpacaDataGen) -> None:
        self.options = options
        self.seed_tasks = load_seed_tasks(options.seeds)
        self.topics = load_topics(options.topics)
        self._prompt = load_prompt(options.prompt or PROMPTS[options.form])
        _check(options, len(self.seed_tasks))

    @property
    def machine_tasks(self) -> int:
        """How many of the tasks shown the teacher wrote itself, once it has written so many."""
        return round(self.options.machine_share * self.options.seeds_per_prompt)

    def request(self, index: int, machine: Sequence[SeedTask] = ()) -> Planned:
        """Request number `index`; machine: the tasks of the teacher that it may show."""
        options, id = self.options, request_id(STEM, index)
        rng = rng_of(options.seed, id)
        drawn = rng.sample(machine, min(self.machine_tasks, len(machine))) if self.machine_tasks else []
        shown = rng.sample(self.seed_tasks, options.seeds_per_prompt - len(drawn))
        if drawn:
            shown = rng.sample([*shown, *drawn], options.seeds_per_prompt)
        topic = rng.choice(self.topics) if self.topics else None
        request = Request(
            id=id,
            messages=(Message(role="user", content=self._text(shown, topic)),),
            temperature=options.temperature,
            top_p=options.top_p,
            max_tokens=options.max_tokens,
            seed=rng.getrandbits(SEED_BITS),
            stop=tuple(options.stop),
            logit_bias=dict(options.logit_bias) or None,
            schema=SCHEMA if options.form == "json_schema" else None,
        )
        return Planned(request=request, about=self._about(shown, topic))

    def _about(self, shown: Sequence[SeedTask], topic: str | None) -> dict[str, Any]:
        about = {
            "seeds": [task.id for task in shown],
            "first_number": self.options.seeds_per_prompt + 1,
            "last_number": self.options.tasks_per_request,
        }
        if self.options.form != "text":
            about["form"] = self.options.form
        return about if topic is None else {**about, "topic": topic}

    def _text(self, shown: Sequence[SeedTask], topic: str | None) -> str:
        options = self.options
        prompt = self._prompt.replace("{count}", str(options.tasks_per_request))
        prompt = prompt.replace("{shown}", str(options.seeds_per_prompt))
        wishes = _wishes(options, topic, asks_language="{language}" in prompt)
        prompt = with_wishes(prompt.replace("{language}", options.language or ENGLISH), wishes)
        return encode_prompt(prompt, shown) if options.form == "text" else encode_json_prompt(prompt, shown)


def _wishes(options: AlpacaDataGen, topic: str | None, *, asks_language: bool) -> list[str]:
    """Sentences of the knobs that are set, in the wording that the embedded teacher understands too."""
    wishes = []
    if options.input_share is not None:
        wishes.append(f"About {100 * options.input_share:.0f} % of the tasks have an input.")
    if options.language and not asks_language:
        wishes.append(f"Write in {options.language}.")
    if topic is not None:
        wishes.append(f"Every task is about: {topic}.")
    return wishes


def with_wishes(prompt: str, wishes: Sequence[str]) -> str:
    """The prompt with the sentences before its last line, the heading of the list."""
    if not wishes:
        return prompt
    body, _, heading = prompt.rstrip().rpartition("\n")
    return f"{body.rstrip()}\n\n{' '.join(wishes)}\n\n{heading}\n"


def encode_prompt(prompt: str, shown: Sequence[SeedTask]) -> str:
    """The prompt and the tasks shown, numbered from 1, in the released layout; ends where the teacher goes on.

    stanford_alpaca, generate_instruction.py `encode_prompt`: white space of the instruction collapsed, last ":" cut.
    """
    blocks = [f"{SEPARATOR}\n{_block(number, task)}\n" for number, task in enumerate(shown, 1)]
    return f"{prompt.rstrip()}\n{''.join(blocks)}{SEPARATOR}\n{len(shown) + 1}. Instruction:"


def encode_json_prompt(prompt: str, shown: Sequence[SeedTask]) -> str:
    """The prompt and the tasks shown as the first ones of a JSON object that the teacher completes."""
    tasks = [{"instruction": _one_line(task.instruction), "input": task.input, "output": task.output} for task in shown]
    return f"{prompt.rstrip()}\n{json.dumps({'tasks': tasks}, ensure_ascii=False, indent=1)}"


def _block(number: int, task: SeedTask) -> str:
    parts = f" {_one_line(task.instruction).rstrip(':')}", f"\n{task.input or NO_INPUT}", f"\n{task.output}"
    headings = "Instruction", "Input", "Output"
    return "\n".join(f"{number}. {heading}:{part}" for heading, part in zip(headings, parts, strict=True))


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _check(options: AlpacaDataGen, available: int) -> None:
    if options.seeds_per_prompt > available:
        raise UserError(
            what=f"{options.seeds_per_prompt} seed tasks per prompt, but there are only {available}",
            where="data_gen.seeds_per_prompt",
            remedy="lower it, or give more tasks by data_gen.seeds",
        )
    if options.seeds_per_prompt >= options.tasks_per_request:
        raise UserError(
            what=f"{options.tasks_per_request} tasks of which {options.seeds_per_prompt} are shown leave none to write",
            where="data_gen.tasks_per_request",
            remedy=f"at least {options.seeds_per_prompt + 1}",
        )
