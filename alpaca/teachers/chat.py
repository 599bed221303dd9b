"""One request over the OpenAI chat API, with openai's own client; imported only when a teacher is opened.

The client's retries are switched off and its answers checked here, because it retries what cannot heal (an empty
account), gives up on what can (200 with cut JSON) and passes on what is no answer (HTML as a str, choices = null).
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from typing import Any, cast
from urllib.parse import urlsplit

import openai
from openai.types.chat import ChatCompletion

from alpaca.errors import TeacherError
from alpaca.records import well_formed
from alpaca.teachers.base import Completion, Request, RetryableError, Usage
from alpaca.teachers.openai import KEY_VARIABLE, NO_KEY, OPENAI_URL

CHARACTERS_PER_TOKEN = 4
QUOTA_CODES = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
TOO_MANY_REQUESTS = 429
HEALING = (408, 409, 425, TOO_MANY_REQUESTS)
SERVER_ERRORS = 500
NEVER_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout")  # of httpx, whose module's name openai changes
QUOTED = 300  # characters of a server's answer that an error message shows
KEEP = "every answer so far is kept and the same command goes on from there"


@dataclass(kw_only=True, slots=True, frozen=True)
class Endpoint:
    """Where and as whom to ask; timeout in seconds."""

    base_url: str
    model: str
    key: str
    timeout: float


@asynccontextmanager
async def connected(endpoint: Endpoint) -> AsyncIterator[ChatClient]:
    """A client of the endpoint; its connections are closed at the end."""
    # A proxy of the environment cannot reach this machine's own servers.
    transport = openai.DefaultAsyncHttpxClient(trust_env=not _is_local(endpoint.base_url))
    api = openai.AsyncOpenAI(
        api_key=endpoint.key, base_url=endpoint.base_url, timeout=endpoint.timeout, max_retries=0, http_client=transport
    )
    async with api:
        yield ChatClient(api, endpoint)


class ChatClient:
    """`TeacherClient` over an open openai client."""

    def __init__(self, api: openai.AsyncOpenAI, endpoint: Endpoint) -> None:
        # The overloads of create() know no dict of arguments.
        self._create = cast(Any, api.chat.completions).create
        self._endpoint = endpoint
        # OpenAI's newer models refuse max_tokens; most other servers know nothing else.
        own = urlsplit(endpoint.base_url).hostname == urlsplit(OPENAI_URL).hostname
        self._limit_name = "max_completion_tokens" if own else "max_tokens"

    async def complete(self, request: Request) -> Completion:
        """One try; see `TeacherClient`."""
        try:
            response = await self._create(**self._body(request))
        except openai.APIStatusError as error:
            raise explain(error, self._endpoint) from error
        except openai.APIConnectionError as error:  # timeouts, resets, cut bodies
            raise RetryableError(_connection_fault(error, self._endpoint), may_be_billed=_was_sent(error)) from error
        except ValueError as error:  # 200 with cut JSON, which openai lets through as json.JSONDecodeError
            raise RetryableError(f"the answer is broken JSON: {error}", may_be_billed=True) from error
        return read_completion(response, request)

    def _body(self, request: Request) -> dict[str, Any]:
        return {
            "model": self._endpoint.model,
            "messages": [asdict(message) for message in request.messages],
            "temperature": request.temperature,
            "top_p": request.top_p,
            self._limit_name: request.max_tokens,
        } | ({} if request.seed is None else {"seed": request.seed})


def read_completion(response: object, request: Request) -> Completion:
    """The first choice of a response, checked; RetryableError if it holds no text.

    openai builds its objects without validation, so any field can be missing or of another type.
    """
    if not isinstance(response, ChatCompletion):
        raise RetryableError(f"the answer is no chat completion: {_quote(response)}")
    choices = response.choices if isinstance(response.choices, list) else []
    choice = choices[0] if choices else None
    text = getattr(getattr(choice, "message", None), "content", None)
    reason = getattr(choice, "finish_reason", None) or "stop"
    if not isinstance(text, str) or not text.strip():
        problem = f"empty text (finish_reason {reason})" if choices else "no choices"
        content = response.model_dump_json(exclude_none=True, warnings=False)
        raise RetryableError(f"the answer has {problem}: {_quote(content)}", usage=_billed(response))
    prompt_tokens, completion_tokens, estimated = _usage(response, request, text)
    return Completion(
        # JSON can hold half a surrogate pair, which no UTF-8 file can.
        text=well_formed(text),
        finish_reason=str(reason),
        model=str(response.model or ""),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        usage_estimated=estimated,
        server_request_id=getattr(response, "_request_id", None),
        system_fingerprint=response.system_fingerprint,
    )


def explain(error: openai.APIStatusError, endpoint: Endpoint) -> RetryableError | TeacherError:
    """What an error status means for the request: try again, or give up with the server's own words and the way out."""
    status, words = error.status_code, _server_words(error, endpoint.key)
    quota = status == TOO_MANY_REQUESTS and (error.code in QUOTA_CODES or error.type in QUOTA_CODES)
    if (status in HEALING or status >= SERVER_ERRORS) and not quota:
        return RetryableError(f"{status} {words}", after=retry_after(error.response.headers))
    key, remedy = _way_out(status, endpoint)
    return TeacherError(what=f"{endpoint.base_url} answered {status}: {words}", where=key, remedy=remedy)


def retry_after(headers: Any) -> float | None:
    """Seconds that the server asks to wait (RFC 9110 10.2.3: a number or a date); None without a usable header."""
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        else:
            seconds = float(headers["retry-after"])
    except KeyError:
        return None
    except ValueError:
        return _seconds_until(headers["retry-after"]) if "retry-after" in headers else None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _seconds_until(date: str) -> float | None:
    try:
        return max(0.0, parsedate_to_datetime(date).timestamp() - time.time())
    except ValueError:
        return None


def _way_out(status: int, endpoint: Endpoint) -> tuple[str, str]:
    """The configuration key at fault, and the remedy."""
    match status:
        case 401:
            return "teacher", f"set {KEY_VARIABLE} in the environment to a valid key for {endpoint.base_url}"
        case 403:
            return (
                "teacher.model",
                f"the key in {KEY_VARIABLE} may not use {endpoint.model!r}: take another key or model",
            )
        case 404:
            return "teacher.model", (
                f"the server knows no model {endpoint.model!r}, or teacher.base_url is wrong; "
                f"GET {endpoint.base_url}/models lists what it has"
            )
        case 402 | 429:
            return "teacher", f"the account behind {KEY_VARIABLE} is used up: add credit or use another key; {KEEP}"
        case _:
            return "teacher", (
                "the server refuses this request whoever asks; change what it names "
                "(data_gen.temperature, data_gen.top_p, data_gen.max_tokens, teacher.model)"
            )


def _usage(response: ChatCompletion, request: Request, text: str) -> tuple[int, int, bool]:
    billed = _billed(response)
    if billed is not None:
        return billed.prompt_tokens, billed.completion_tokens, False
    asked = sum(len(message.content) for message in request.messages)
    return math.ceil(asked / CHARACTERS_PER_TOKEN), math.ceil(len(text) / CHARACTERS_PER_TOKEN), True


def _billed(response: ChatCompletion) -> Usage | None:
    used = response.usage
    prompt, completion = getattr(used, "prompt_tokens", None), getattr(used, "completion_tokens", None)
    if isinstance(prompt, int) and isinstance(completion, int):
        return Usage(prompt_tokens=prompt, completion_tokens=completion)
    return None


def _server_words(error: openai.APIStatusError, key: str) -> str:
    body = error.body
    words = body.get("message") if isinstance(body, dict) else None
    text = str(words or error.response.text or error.message)
    # A server that quotes the key back must not put it into a log; the stand-in for no key is an ordinary word.
    return _quote(text if key == NO_KEY else text.replace(key, "[key]"))


def _was_sent(error: openai.APIConnectionError) -> bool:
    """Whether the server may have got the whole request: not if there was no connection at all."""
    return type(error.__cause__).__name__ not in NEVER_SENT


def _connection_fault(error: openai.APIConnectionError, endpoint: Endpoint) -> str:
    if isinstance(error, openai.APITimeoutError):
        return f"no answer within {endpoint.timeout:g} s (teacher.timeout)"
    cause = error.__cause__
    detail = f"{type(cause).__name__}: {cause}" if cause else str(error)
    return f"connection to {endpoint.base_url} failed ({detail})"


def _quote(answer: object) -> str:
    text = " ".join(str(answer).split())
    return text if len(text) <= QUOTED else f"{text[:QUOTED]} ..."


def _is_local(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
