"""Teachers: the models (or programs) that write instruction data.

Light to import: planning reads the options of the teachers, and nothing heavier is loaded before one is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from alpaca.config import Teacher
from alpaca.errors import UserError
from alpaca.teachers import openai, programmatic
from alpaca.teachers.base import TeacherClient

# A new teacher is one module, one line here and one in alpaca.groups. Any: each takes its own options.
OPENERS: dict[str, Callable[[Any], AbstractAsyncContextManager[TeacherClient]]] = {
    "programmatic": programmatic.opened,
    "openai": openai.opened,
}


def open_teacher(options: Teacher) -> AbstractAsyncContextManager[TeacherClient]:
    """The teacher that `options.kind` names, to be entered with `async with`; UserError lists the known kinds."""
    if options.kind not in OPENERS:
        raise UserError(
            what=f"unknown teacher {options.kind!r}", where="teacher.kind", remedy=f"known: {', '.join(OPENERS)}"
        )
    return OPENERS[options.kind](options)
