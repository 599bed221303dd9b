"""Chat and legacy completion objects around the teacher's texts."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

from alpaca.teachers.programmatic import KNOBS, MODEL, Programmatic
from alpaca.teachers.programmatic.forms import answer
from alpaca.teachers.programmatic.parameters import Ask, read_ask
from alpaca.teachers.programmatic.refusal import bad_request
from alpaca.teachers.programmatic.schemas import UnfittingSchemaError
from alpaca.teachers.programmatic.writer import Style, Written, count_tokens

# The world does not change, so neither does the date at which the model was "created".
CREATED = 1678665600
# Raised when the same request gets another text.
VERSION = 1


def complete_chat(body: dict[str, Any], options: Programmatic) -> dict[str, Any]:
    """A chat completion object for the body of a request; raises RefusedError."""
    ask = read_ask(body, _last_message(body))
    written = _written(ask, options)
    message = {"role": "assistant", "content": written.text, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": written.finish_reason, "logprobs": None}
    return _envelope("chatcmpl", "chat.completion", ask, options, choice) | _usage(ask, written)


def complete_text(body: dict[str, Any], options: Programmatic) -> dict[str, Any]:
    """A legacy completion object for the body of a request with one prompt, a text; raises RefusedError."""
    prompt = body.get("prompt")
    if not isinstance(prompt, str):
        raise bad_request("prompt must be one text: lists of prompts are not supported", param="prompt")
    ask = read_ask(body, prompt)
    written = _written(ask, options)
    choice = {"index": 0, "text": written.text, "finish_reason": written.finish_reason, "logprobs": None}
    return _envelope("cmpl", "text_completion", ask, options, choice) | _usage(ask, written)


def _written(ask: Ask, options: Programmatic) -> Written:
    style = Style(error_rate=options.error_rate, verbosity=options.verbosity, diversity=options.diversity)
    try:
        return answer(ask, style)
    except UnfittingSchemaError as error:
        raise bad_request(str(error), param="response_format", code="invalid_json_schema") from error


def _envelope(prefix: str, kind: str, ask: Ask, options: Programmatic, choice: dict[str, Any]) -> dict[str, Any]:
    tier = {} if ask.service_tier is None else {"service_tier": ask.service_tier}
    fingerprint = _fingerprint(tuple(getattr(options, name) for name in KNOBS))
    return {
        "id": f"{prefix}-{ask.seed if ask.seed is not None else 'unseeded'}", "object": kind, "created": CREATED,
        "model": MODEL, "system_fingerprint": fingerprint, "choices": [choice], **tier,
    }  # fmt: skip


def _usage(ask: Ask, written: Written) -> dict[str, Any]:
    asked = count_tokens(ask.prompt)
    return {
        "usage": {
            "prompt_tokens": asked,
            "completion_tokens": written.tokens,
            "total_tokens": asked + written.tokens,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }
    }


@cache
def _fingerprint(knobs: tuple[Any, ...]) -> str:
    """Equal for servers with equal knobs."""
    return f"fp_{hashlib.sha256(f'{VERSION} {knobs}'.encode()).hexdigest()[:10]}"


def _last_message(body: dict[str, Any]) -> str:
    """The text of the last message."""
    messages = body.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    content = last.get("content") if isinstance(last, dict) else None
    if not isinstance(content, str):
        raise bad_request("messages must be a list whose last one has a text", param="messages")
    return content
