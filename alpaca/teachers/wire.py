"""What goes over the wire to an OpenAI-compatible endpoint, and what may come back; needs no client.

Requests are written as plain JSON and answers read from plain JSON, because typing both through the client's classes
costs more than sending them (measured: 1.2 against 0.7 ms of CPU a request), and the classes check nothing anyway.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

from alpaca.records import well_formed
from alpaca.teachers.base import CHARACTERS_PER_TOKEN, Cause, Completion, Request, RetryableError, Usage
from alpaca.teachers.keys import Keys
from alpaca.teachers.openai import OPENAI_URL

QUOTED = 300  # characters of a server's answer that an error message shows
SCHEMA_NAME = "answer"  # structured outputs want a name; it is not shown to the model
NEUTRAL = 1.0  # of temperature and top_p
PATHS = {"chat": "/chat/completions", "completions": "/completions", "moderations": "/moderations"}


@dataclass(kw_only=True, slots=True, frozen=True)
class Endpoint:
    """Where, as whom and how to ask; timeout in seconds. api: one of `PATHS`. keys: where all this is set."""

    base_url: str
    model: str
    key: str
    timeout: float
    api: str = "chat"
    reasoning_effort: str | None = None
    service_tier: str | None = None
    send_seed: bool = True
    keys: Keys = field(default_factory=Keys)

    @property
    def path(self) -> str:
        return PATHS[self.api]

    @property
    def is_openais(self) -> bool:
        return urlsplit(self.base_url).hostname == urlsplit(OPENAI_URL).hostname


def request_body(request: Request, endpoint: Endpoint) -> dict[str, Any]:
    """The JSON body of a request. What is neutral is left out, so that servers that do not know it are not confused."""
    body: dict[str, Any] = {"model": endpoint.model, **_prompt(request, endpoint), **_sampling(request, endpoint)}
    # OpenAI's newer chat models refuse max_tokens; most other servers know nothing else.
    body["max_completion_tokens" if endpoint.is_openais and endpoint.api == "chat" else "max_tokens"] = (
        request.max_tokens
    )
    if request.seed is not None and endpoint.send_seed:
        body["seed"] = request.seed
    if request.stop:
        body["stop"] = list(request.stop)
    if request.presence_penalty:
        body["presence_penalty"] = request.presence_penalty
    if request.logit_bias:
        body["logit_bias"] = request.logit_bias
    if request.schema is not None:
        described = {"name": SCHEMA_NAME, "strict": True, "schema": request.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": described}
    if endpoint.reasoning_effort is not None:
        body["reasoning_effort"] = endpoint.reasoning_effort
    if endpoint.service_tier is not None:
        body["service_tier"] = endpoint.service_tier
    return body


def _prompt(request: Request, endpoint: Endpoint) -> dict[str, Any]:
    if endpoint.api == "chat":
        return {"messages": [asdict(message) for message in request.messages]}
    # One prompt a request: some servers refuse a list of prompts, and one failure would cost all of them.
    return {"prompt": "\n\n".join(message.content for message in request.messages)}


def _sampling(request: Request, endpoint: Endpoint) -> dict[str, Any]:
    """Temperature and top_p. OpenAI's defaults are 1, and its reasoning models refuse the parameters at any value;

    other servers take their defaults from the model's own file, so they must be told.
    """
    wanted = {"temperature": request.temperature, "top_p": request.top_p}
    return {name: value for name, value in wanted.items() if not endpoint.is_openais or value != NEUTRAL}


def read_answer(payload: object, request: Request, server_request_id: str | None = None) -> Completion:
    """The completion in a decoded body, of either endpoint; RetryableError if there is no usable text in it."""
    answer = _object(payload)
    choice = _first_choice(answer)
    reason, whole = choice.get("finish_reason") or "stop", _text(choice)
    # Some servers keep the stop string in the text (transformers serve), some go on behind it.
    text = before_stop(whole, request.stop) if isinstance(whole, str) else ""
    if not text.strip() or reason == "error":
        lack = f"the answer has {_lack(whole, reason, answer)}: {quote(answer)}"
        raise RetryableError(lack, usage=_billed(answer), cause=Cause.BROKEN if reason == "error" else Cause.EMPTY)
    usage = _billed(answer)
    cut = len(str(whole)) - len(text)
    return Completion(
        # JSON can hold half a surrogate pair, which no UTF-8 file can.
        text=well_formed(text),
        finish_reason="stop" if cut else well_formed(str(reason)),
        model=_string(answer.get("model")) or "",
        usage_estimated=usage is None,
        service_tier=_string(answer.get("service_tier")),
        server_request_id=server_request_id,
        system_fingerprint=_string(answer.get("system_fingerprint")),
        cut=cut,
        **asdict(usage or _estimated(request, text)),
    )


def before_stop(text: str, stops: tuple[str, ...]) -> str:
    """The text up to the first of any of the stop strings."""
    ends = [end for stop in stops if stop and (end := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


def decoded(content: bytes) -> object:
    """The JSON of a body; RetryableError for what is cut or none at all."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        start = content[: 4 * QUOTED].decode("utf-8", "replace")
        raise RetryableError(f"the answer is broken JSON ({error}): {quote(start)}", may_be_billed=True) from error


def quote(answer: object) -> str:
    """The beginning of a server's answer on one line, for an error message."""
    text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False, default=str)
    text = " ".join(well_formed(text).split())
    return text if len(text) <= QUOTED else f"{text[:QUOTED]} ..."


def _object(payload: object) -> dict[str, Any]:
    if not isinstance(payload, dict):
        raise RetryableError(f"the answer is no completion: {quote(payload)}", may_be_billed=True)
    return payload


def _first_choice(answer: dict[str, Any]) -> dict[str, Any]:
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        # Gateways report the error of the server behind them with status 200.
        problem = "an error and no choices" if answer.get("error") else "no choices"
        raise RetryableError(f"the answer has {problem}: {quote(answer)}", usage=_billed(answer))
    return choice


def _text(choice: dict[str, Any]) -> object:
    message = choice.get("message")
    return message.get("content") if isinstance(message, dict) else choice.get("text")


def _lack(text: object, reason: object, answer: dict[str, Any]) -> str:
    """What is wrong with an answer that has choices."""
    if reason == "error":
        return "an error of the server at its end"
    if text is not None and not isinstance(text, str):
        return f"a {type(text).__name__} where its text should be"
    spent = (_billed(answer) or Usage(prompt_tokens=0, completion_tokens=0)).reasoning_tokens
    if reason == "length" and spent:
        return (
            f"empty text: all its tokens ({spent} of reasoning) were spent before it began, so raise "
            "data_gen.max_tokens or lower teacher.reasoning_effort"
        )
    return f"empty text (finish_reason {reason})"


def _estimated(request: Request, text: str) -> Usage:
    return Usage(
        prompt_tokens=math.ceil(request.characters / CHARACTERS_PER_TOKEN),
        completion_tokens=math.ceil(len(text) / CHARACTERS_PER_TOKEN),
    )


def _billed(answer: dict[str, Any]) -> Usage | None:
    """The token counts of an answer, None where there are none."""
    used = answer.get("usage")
    if not isinstance(used, dict):
        return None
    prompt, completion = _count(used.get("prompt_tokens")), _count(used.get("completion_tokens"))
    if prompt is None or completion is None:
        return None
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=min(prompt, _detail(used, "prompt_tokens_details", "cached_tokens")),
        reasoning_tokens=min(completion, _detail(used, "completion_tokens_details", "reasoning_tokens")),
    )


def _detail(used: dict[str, Any], group: str, name: str) -> int:
    details = used.get(group)
    return (_count(details.get(name)) if isinstance(details, dict) else None) or 0


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _string(value: object) -> str | None:
    return well_formed(value) if isinstance(value, str) else None
