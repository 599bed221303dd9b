"""The key in what servers and gateways say: they quote it back, and errors are written to logs and records."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from alpaca.errors import TeacherError
from alpaca.teachers.base import RetryableError
from alpaca.teachers.openai import NO_KEY

SHORTEST = 4  # characters of a key; what is shorter is in every other word
STAND_IN = "[key]"
CUT = " ..."  # as `wire.quote` cuts


@contextmanager
def without_key(key: str) -> Iterator[None]:
    """Takes the key out of the words of every RetryableError and TeacherError that leaves.

    All that is said of a server's answer passes here, so nobody else has to think of it.
    """
    try:
        yield
    except RetryableError as fault:
        fault.reason = redacted(fault.reason, key)
        fault.args = (fault.reason,)
        raise
    except TeacherError as error:
        error.what, error.remedy = redacted(error.what, key), redacted(error.remedy, key)
        error.args = (error.text(),)
        raise


def redacted(text: str, key: str) -> str:
    """The text without the key, whole or with its end cut off where a quotation or the text ends."""
    if len(key) < SHORTEST or key == NO_KEY:  # an ordinary word
        return text
    text = text.replace(key, STAND_IN)
    for length in range(len(key) - 1, SHORTEST - 1, -1):
        text = text.replace(f"{key[:length]}{CUT}", f"{STAND_IN}{CUT}")
        if text.endswith(key[:length]):
            return text[:-length] + STAND_IN
    return text
