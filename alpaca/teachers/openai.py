"""Any endpoint that speaks the OpenAI API: OpenAI itself, vLLM, llama.cpp, `transformers serve`, hosted models."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from alpaca.config import MISSING, Teacher, how, what
from alpaca.errors import TeacherError
from alpaca.teachers.base import Session, TeacherClient
from alpaca.teachers.keys import Keys

if TYPE_CHECKING:
    from alpaca.teachers.wire import Endpoint

OPENAI_URL = "https://api.openai.com/v1"
KEY_VARIABLE = "OPENAI_API_KEY"
# Servers without authentication still get a header, because the client insists on one.
NO_KEY = "none"


@dataclass(kw_only=True, slots=True)
class OpenAI(Teacher):
    """A model behind an OpenAI-compatible endpoint; the key is read from OPENAI_API_KEY and written nowhere."""

    kind: str = what("openai", choices=("openai",))
    model: str = what(MISSING)
    """As the server names it; prefer a dated version, an alias moves on."""
    base_url: str | None = what(None)
    """Up to and including "/v1"; null: OpenAI's own."""
    endpoint: str = what("chat", choices=("chat", "completions"))
    """completions: the legacy endpoint, which continues the bare text of the prompt, as for base models."""
    reasoning_effort: str | None = what(None)
    """How much a reasoning model thinks ("none", "low", ...), on the chat endpoint; null: its default."""
    send_seed: bool = what(True)
    """Send each request's seed along, which some servers honour and a few refuse."""
    service_tier: str | None = how(None)
    """Speed and price class ("default", "flex", "priority", ...); null: the account's. The one used is recorded."""


@asynccontextmanager
async def opened(options: OpenAI, session: Session) -> AsyncIterator[TeacherClient]:
    """A client of that endpoint.

    Raises TeacherError before anything is sent when the URL is none or holds secrets, when OpenAI's own has no key, and
    for options that do not go together.
    """
    from alpaca.teachers.chat import connected

    async with connected(endpoint_of(options)) as client:
        yield client


def endpoint_of(options: OpenAI) -> Endpoint:
    """The checked options with the key of the environment; TeacherError as for `opened`."""
    from alpaca.teachers.wire import Endpoint

    base_url = options.base_url or OPENAI_URL
    if problem := url_problem(base_url):
        raise TeacherError(what=problem, where="teacher.base_url", remedy=f"for example {OPENAI_URL}")
    if options.endpoint == "completions" and options.reasoning_effort is not None:
        raise TeacherError(
            what=f"{options.reasoning_effort!r}, but the completions endpoint has no reasoning",
            where="teacher.reasoning_effort",
            remedy="set it to null, or teacher.endpoint=chat",
        )
    return Endpoint(
        base_url=base_url,
        model=options.model,
        key=key_for(base_url),
        timeout=options.timeout,
        api=options.endpoint,
        reasoning_effort=options.reasoning_effort,
        service_tier=options.service_tier,
        send_seed=options.send_seed,
    )


def url_problem(url: str) -> str | None:
    """What is wrong with a base URL, None if nothing is. The words never quote the URL: it may hold a secret.

    The URL is written to disk with the configuration, so neither a password nor a query with a key may be part of it.
    """
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known:
        return "no URL of the form http(s)://HOST[:PORT]/v1"
    if "@" in parts.netloc:
        return f"the URL of {parts.hostname} holds a user name or password; give the key in {KEY_VARIABLE}"
    if parts.query or parts.fragment:
        return f"the URL of {parts.hostname} goes on with ? or #; give the key in {KEY_VARIABLE}"
    return None


def key_for(base_url: str, keys: Keys | None = None) -> str:
    """The key from the environment, a dummy for servers of one's own; TeacherError when OpenAI's own URL has none.

    keys: where the URL is set, if not as a teacher's.
    """
    keys = keys or Keys()
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key and urlsplit(base_url).hostname == urlsplit(OPENAI_URL).hostname:
        raise TeacherError(
            what=f"no key for {base_url}: the environment variable {KEY_VARIABLE} is not set",
            where=keys.teacher,
            remedy=f"export {KEY_VARIABLE}=..., or set {keys.base_url} to a server of your own",
        )
    return key or NO_KEY
