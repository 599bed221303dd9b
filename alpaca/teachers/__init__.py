"""Teachers: the models (or programs) that write instruction data.

Light to import: planning reads the options of the teachers, and nothing heavier is loaded before one is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from alpaca.config import Teacher
from alpaca.errors import UserError
from alpaca.teachers import local, openai, openai_batch, programmatic, replay, vllm, weights
from alpaca.teachers.base import Session, TeacherClient


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of teacher: the dataclass of its options and how to open it. Any: each takes its own options."""

    options: type[Teacher]
    opened: Callable[[Any, Session], AbstractAsyncContextManager[TeacherClient]]
    probed: bool = True
    """Whether what it honours is found out before the first request; not where it is known or nothing can be asked."""
    problems: Callable[[Any], Iterable[UserError]] = lambda options: ()
    """What is wrong with its options wherever they would be used."""
    lacks: Callable[[Any], Iterable[UserError]] = lambda options: ()
    """What this machine lacks to open it."""


KINDS: dict[str, Kind] = {
    "programmatic": Kind(programmatic.Programmatic, programmatic.opened, probed=False),
    "openai": Kind(openai.OpenAI, openai.opened),
    "openai_batch": Kind(openai_batch.OpenAIBatch, openai_batch.opened),
    "local": Kind(local.Local, local.opened, problems=weights.problems),
    "vllm": Kind(vllm.VLLM, vllm.opened, problems=vllm.problems, lacks=vllm.lacks),
    "replay": Kind(replay.Replay, replay.opened, probed=False),
}
"""`teacher.kind` -> kind. A new teacher is one module, one line here and one YAML in conf/teacher/."""


def open_teacher(options: Teacher, session: Session) -> AbstractAsyncContextManager[TeacherClient]:
    """The teacher that `options.kind` names, to be entered with `async with`; UserError lists the known kinds."""
    if options.kind not in KINDS:
        raise UserError(
            what=f"unknown teacher {options.kind!r}", where="teacher.kind", remedy=f"known: {', '.join(KINDS)}"
        )
    return KINDS[options.kind].opened(options, session)
