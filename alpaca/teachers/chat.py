"""One request to an OpenAI-compatible endpoint, with openai's own client; imported only when a teacher is opened.

The client's retries are switched off and its answers checked here, because it retries what cannot heal (an empty
account), gives up on what can (200 with cut JSON) and passes on what is no answer (HTML as a str, choices = null).
Requests pass its generic `post`, which leaves out the typing of the parameters, over aiohttp: a third of the CPU.
"""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import quote as quoted_path
from urllib.parse import urlsplit

import aiohttp
import httpx2
import openai

from alpaca.errors import TeacherError
from alpaca.teachers.base import KEPT, Cause, Completion, RefusedRequestError, Request, RetryableError
from alpaca.teachers.openai import KEY_VARIABLE
from alpaca.teachers.redaction import without_key
from alpaca.teachers.waits import wait_asked
from alpaca.teachers.wire import Endpoint, decoded, quote, read_answer, request_body

__all__ = ["ChatClient", "Endpoint", "connected", "explain", "open_api"]

QUOTA_CODES = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
TOO_MANY_REQUESTS = 429
TURNED_AWAY = (TOO_MANY_REQUESTS, 503, 529)
HEALING = (408, 409, 425, TOO_MANY_REQUESTS)
SERVER_ERRORS = 500
ABOUT_THE_ACCOUNT = (401, 402, 403, 404, 405, TOO_MANY_REQUESTS)  # or the address: every request is refused
# The queue bounds what is in flight. Without a finite number here aiohttp's own bound of 100 connections would hold.
MOST_CONNECTIONS = 10_000
# Below the 5 s after which common servers close idle connections: sending into one that closes fails.
IDLE_SECONDS = 4.0
CARD_SECONDS = 10.0
KNOBS = {
    "temperature": "data_gen.temperature",
    "top_p": "data_gen.top_p",
    "max_tokens": "data_gen.max_tokens",
    "max_completion_tokens": "data_gen.max_tokens",
    "stop": "data_gen.stop",
    "logit_bias": "data_gen.logit_bias",
    "presence_penalty": "data_gen.presence_penalty",
    "response_format": "data_gen.form",
    "reasoning_effort": "teacher.reasoning_effort",
    "service_tier": "teacher.service_tier",
    "seed": "teacher.send_seed",
}
"""Parameter of the API -> the configuration key it comes from."""

Read = TypeVar("Read")


@asynccontextmanager
async def connected(endpoint: Endpoint) -> AsyncIterator[ChatClient]:
    """A client of the endpoint; its connections are closed at the end."""
    async with open_api(endpoint) as api:
        yield ChatClient(api, endpoint)


def open_api(endpoint: Endpoint) -> openai.AsyncOpenAI:
    """openai's own client of the endpoint, without its retries; to be entered with `async with`."""
    limits = httpx2.Limits(
        max_connections=MOST_CONNECTIONS, max_keepalive_connections=MOST_CONNECTIONS, keepalive_expiry=IDLE_SECONDS
    )
    # A proxy of the environment cannot reach this machine's own servers.
    transport = openai.DefaultAioHttpClient(trust_env=not _is_local(endpoint.base_url), limits=limits)
    return openai.AsyncOpenAI(
        api_key=endpoint.key, base_url=endpoint.base_url, timeout=endpoint.timeout, max_retries=0, http_client=transport
    )


class ChatClient:
    """`TeacherClient` over an open openai client, for chat and for legacy completions."""

    def __init__(self, api: openai.AsyncOpenAI, endpoint: Endpoint) -> None:
        self._api, self._endpoint = api, endpoint

    async def complete(self, request: Request) -> Completion:
        """One try; see `TeacherClient`."""
        body = request_body(request, self._endpoint)
        return await self.exchange(body, lambda payload, id: read_answer(payload, request, id))

    async def choices(self, request: Request, count: int) -> int:
        """How many choices come back when `count` are asked for in one request. Raises as `complete`."""

        def read(payload: Any, id: str | None) -> int:
            read_answer(payload, request, id)
            return len(payload["choices"])

        return await self.exchange(request_body(request, self._endpoint) | {"n": count}, read)

    async def card(self) -> dict[str, Any] | None:
        """What the server tells of its model (GET /models/{model}); None where it tells nothing.

        Many servers have no such address, or fail on it, and still answer requests.
        """
        try:
            path = f"/models/{quoted_path(self._endpoint.model, safe='')}"
            response = await self._api.get(path, cast_to=httpx2.Response, options={"timeout": CARD_SECONDS})
            payload = decoded(response.content)
        except (openai.OpenAIError, aiohttp.ClientError, RetryableError):
            return None
        return payload if isinstance(payload, dict) else None

    async def exchange(self, body: dict[str, Any], read: Callable[[Any, str | None], Read]) -> Read:
        """Sends a body, and what `read` makes of the answer's decoded body and of the server's id of the request.

        Raises RetryableError and TeacherError as `complete`, also those of `read`; none of them tells the key.
        """
        with without_key(self._endpoint.key):
            return read(*await self._posted(body))

    async def _posted(self, body: dict[str, Any]) -> tuple[Any, str | None]:
        try:
            response = await self._api.post(self._endpoint.path, cast_to=httpx2.Response, body=body)
        except openai.APIStatusError as error:
            raise explain(error, self._endpoint) from error
        except openai.APIConnectionError as error:  # timeouts, resets, cut bodies
            raise _connection_fault(error, self._endpoint) from error
        except aiohttp.ClientError as error:  # what openai's transport does not translate: an answer that is no HTTP
            raise RetryableError(f"{self._endpoint.base_url} does not speak HTTP: {quote(str(error))}") from error
        return decoded(response.content), response.headers.get("x-request-id")


def explain(error: openai.APIStatusError, endpoint: Endpoint) -> RetryableError | TeacherError:
    """What an error status means for the request: try again, or give up with the server's own words and the way out.

    The words may hold the key; whoever raises the error does so within `without_key`.
    """
    status, words = error.status_code, _server_words(error)
    quota = status == TOO_MANY_REQUESTS and (error.code in QUOTA_CODES or error.type in QUOTA_CODES)
    if (status in HEALING or status >= SERVER_ERRORS) and not quota:
        cause = Cause.TURNED_AWAY if status in TURNED_AWAY else Cause.BROKEN
        return RetryableError(f"{status} {words}", after=wait_asked(error.response.headers), cause=cause)
    key, remedy = _way_out(error, words, endpoint)
    kind = TeacherError if status in ABOUT_THE_ACCOUNT else RefusedRequestError
    return kind(what=f"{endpoint.base_url} answered {status}: {words}", where=key, remedy=remedy)


def _way_out(error: openai.APIStatusError, words: str, endpoint: Endpoint) -> tuple[str, str]:
    """The configuration key at fault, and the remedy."""
    keys = endpoint.keys
    match error.status_code:
        case 401:
            return keys.teacher, f"set {KEY_VARIABLE} in the environment to a valid key for {endpoint.base_url}"
        case 403:
            return keys.model, f"the key in {KEY_VARIABLE} may not use {endpoint.model!r}: take another key or model"
        case 404 | 405:
            api = f", or not for teacher.endpoint={endpoint.api}" if endpoint.api in ("chat", "completions") else ""
            return keys.model, (
                f"the server knows no model {endpoint.model!r}{api}, or {keys.base_url} is wrong; "
                f"GET {endpoint.base_url}/models lists what it has"
            )
        case 402 | 429:
            return keys.teacher, f"the account behind {KEY_VARIABLE} is used up: add credit or use another key; {KEPT}"
        case _:
            return _refused_knob(error, words, endpoint)


def _refused_knob(error: openai.APIStatusError, words: str, endpoint: Endpoint) -> tuple[str, str]:
    if endpoint.api == "moderations":  # it is sent a text and nothing else
        return endpoint.keys.model, "the server refuses this text whoever asks; another model may take it"
    key = _knob(error, words)
    named = key or "data_gen.temperature, data_gen.top_p, data_gen.max_tokens"
    return key or endpoint.keys.teacher, (
        f"the server refuses this request whoever asks; change what it names ({named}, {endpoint.keys.model})"
    )


def _knob(error: openai.APIStatusError, words: str) -> str | None:
    """The configuration key of the parameter that the server names, in its field or in its words."""
    param = str(error.param or "").partition(".")[0]
    # "stop" and "seed" are ordinary words, which name the parameter only in quotes.
    named = [name for name in KNOBS if f"'{name}'" in words or (name in words and name not in ("stop", "seed"))]
    return KNOBS.get(param) or (KNOBS[max(named, key=len)] if named else None)


def _server_words(error: openai.APIStatusError) -> str:
    body = error.body
    words = body.get("message") if isinstance(body, dict) else None
    return quote(str(words or error.response.text or error.message))


def _connection_fault(error: openai.APIConnectionError, endpoint: Endpoint) -> RetryableError:
    """openai's aiohttp transport calls a lost connection a timeout, so what aiohttp itself said decides."""
    root = _root(error)
    never_sent = isinstance(root, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, httpx2.ConnectError))
    if isinstance(root, TimeoutError) and not never_sent:
        return RetryableError(endpoint.keys.late(endpoint.timeout), may_be_billed=True, cause=Cause.TIMEOUT)
    reason = f"connection to {endpoint.base_url} failed ({type(root).__name__}: {root})"
    return RetryableError(reason, may_be_billed=not never_sent)


def _root(error: BaseException) -> BaseException:
    """What aiohttp said, at the end of openai's and httpx's chain of causes."""
    while error.__cause__ is not None and not isinstance(error, aiohttp.ClientError):
        error = error.__cause__
    return error


def _is_local(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
