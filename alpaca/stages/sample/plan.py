"""Which requests are sent: an endless list in which each is a pure function of its number.

So a request can be asked again after a crash, or taken over from another run, and is known to be the same.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from alpaca.config import AlpacaDataGen
from alpaca.curation.parsing import NO_INPUT, SEPARATOR
from alpaca.errors import UserError
from alpaca.records import SeedTask, encode
from alpaca.stages.sample.seeds import load_prompt, load_seed_tasks
from alpaca.teachers.base import Message, Request

SEED_BITS = 31  # the widest integer that every server takes as `seed`


@dataclass(kw_only=True, frozen=True)
class PlannedRequest:
    """A request with the ids of the seed tasks that it shows; the teacher writes tasks `first_number` to `last_number`.

    Not slotted because record and digest are kept after their first use.
    """

    request: Request
    seeds: tuple[str, ...]
    first_number: int
    last_number: int

    @cached_property
    def record(self) -> dict[str, Any]:
        """The `request` field of responses.jsonl."""
        sent = asdict(self.request)
        del sent["id"]
        return {
            "seeds": list(self.seeds), "first_number": self.first_number, "last_number": self.last_number,
            **sent, "messages": list(sent["messages"]),
        }  # fmt: skip

    @cached_property
    def digest(self) -> str:
        """sha256 of all that was sent; equal digests make answers exchangeable between runs of one teacher."""
        return hashlib.sha256(encode(self.record).encode()).hexdigest()


class RequestPlan:
    """The requests of a configuration, by number from 0. Raises UserError for seeds and lengths that do not fit."""

    def __init__(self, options: AlpacaDataGen) -> None:
        self.options = options
        self.seed_tasks = load_seed_tasks(options.seeds)
        self._prompt = load_prompt(options.prompt)
        _check(options, len(self.seed_tasks))

    def __getitem__(self, index: int) -> PlannedRequest:
        options, id = self.options, request_id(index)
        digest = hashlib.sha256(f"{options.seed}:{id}".encode()).digest()
        rng = random.Random(int.from_bytes(digest, "big"))
        shown = rng.sample(self.seed_tasks, options.seeds_per_prompt)
        request = Request(
            id=id,
            messages=(Message(role="user", content=self._text(shown)),),
            temperature=options.temperature,
            top_p=options.top_p,
            max_tokens=options.max_tokens,
            seed=rng.getrandbits(SEED_BITS),
        )
        return PlannedRequest(
            request=request,
            seeds=tuple(task.id for task in shown),
            first_number=options.seeds_per_prompt + 1,
            last_number=options.tasks_per_request,
        )

    def _text(self, shown: Sequence[SeedTask]) -> str:
        count = str(self.options.tasks_per_request)
        return encode_prompt(self._prompt.replace("{count}", count), shown)


def request_id(index: int) -> str:
    """The id of request number `index`; ids sort in the order of their numbers."""
    return f"request_{index:06d}"


def request_number(id: str) -> int:
    """The number of the request with this id."""
    return int(id.rpartition("_")[2])


def encode_prompt(prompt: str, shown: Sequence[SeedTask]) -> str:
    """The prompt and the tasks shown, numbered from 1, in the released layout; ends where the teacher goes on.

    stanford_alpaca, generate_instruction.py `encode_prompt`: white space of the instruction collapsed, last ":" cut.
    """
    blocks = [f"{SEPARATOR}\n{_block(number, task)}\n" for number, task in enumerate(shown, 1)]
    return f"{prompt.rstrip()}\n{''.join(blocks)}{SEPARATOR}\n{len(shown) + 1}. Instruction:"


def _block(number: int, task: SeedTask) -> str:
    instruction = re.sub(r"\s+", " ", task.instruction).strip().rstrip(":")
    parts = f" {instruction}", f"\n{task.input or NO_INPUT}", f"\n{task.output}"
    headings = "Instruction", "Input", "Output"
    return "\n".join(f"{number}. {heading}:{part}" for heading, part in zip(headings, parts, strict=True))


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
