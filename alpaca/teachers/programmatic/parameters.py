"""What a request asks for, read and checked: a parameter is honoured, neutral, or refused, and never just ignored.

- temperature: 0 makes the text depend on the prompt alone, whatever the seed. Above 0 its height changes nothing: this
  teacher draws uniformly, and a uniform distribution stays what it is at every temperature.
- top_p: the nucleus of a uniform distribution over the lexicon is its first top_p share, so that share is used.
- presence_penalty: makes a word that stands in the answer already less likely (see `writer`).
- logit_bias: by GPT-2's vocabulary, and only what leaves no doubt. {"50256": -100}, as Alpaca sent it in 2023, bans the
  end of text: a list goes on beyond its end until a stop string or max_tokens cuts it (other answers end without that
  token). A bias of 100 on one of the tokens 0 to 93, the characters from "!" to "~", lets nothing else through.
- stop, seed, max_tokens, response_format: honoured. n, best_of: 1. frequency_penalty, echo, logprobs, tools, stream,
  and every name that is unknown here: refused unless neutral.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alpaca.teachers.programmatic import MODEL
from alpaca.teachers.programmatic.refusal import bad_request, not_found

END_OF_TEXT, BAN, FORCE = "50256", -100, 100
CHARACTERS = {str(number): chr(ord("!") + number) for number in range(94)}
"""The first tokens of GPT-2's vocabulary."""
MOST_STOPS = 4
TIERS = ("auto", "default", "flex", "priority", "fast", "scale")
HONOURED = frozenset({
    "model", "messages", "prompt", "seed", "max_tokens", "max_completion_tokens", "temperature", "top_p", "stop",
    "presence_penalty", "logit_bias", "response_format", "service_tier",
})  # fmt: skip
LABELS = frozenset({"user", "metadata", "safety_identifier"})  # name the asker and change no answer anywhere
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1,), "best_of": (1,), "frequency_penalty": (0,), "stream": (False,), "echo": (False,), "store": (False,),
    "logprobs": (False, 0), "top_logprobs": (0,), "suffix": ("",), "tools": ([],), "functions": ([],),
}  # fmt: skip
"""Parameters that cannot be honoured, with the values that ask for nothing; null always does."""
RANGES: Mapping[str, tuple[float, float]] = {"temperature": (0, 2), "top_p": (0, 1), "presence_penalty": (0, 2)}


@dataclass(kw_only=True, slots=True, frozen=True)
class Ask:
    """A request as far as it decides the text.

    end_is_banned: a list does not end by itself. forced: the one character that the text may hold. schema: a JSON
    schema that the text must fit.
    """

    prompt: str
    seed: int | None = None
    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    presence_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    end_is_banned: bool = False
    forced: str | None = None
    schema: dict[str, Any] | None = None
    service_tier: str | None = None


def read_ask(body: dict[str, Any], prompt: str) -> Ask:
    """The checked parameters of a request with this prompt; raises RefusedError for the first that does not fit."""
    _check_names(body)
    end_is_banned, forced = _biases(body)
    return Ask(
        prompt=prompt,
        seed=_integer(body, "seed", None),
        max_tokens=_integer(body, "max_completion_tokens", 1) or _integer(body, "max_tokens", 1),
        temperature=_number(body, "temperature", 1.0),
        top_p=_number(body, "top_p", 1.0),
        presence_penalty=_number(body, "presence_penalty", 0.0),
        stop=_stops(body),
        end_is_banned=end_is_banned,
        forced=forced,
        schema=_schema(body),
        service_tier=_tier(body),
    )


def _check_names(body: dict[str, Any]) -> None:
    if body.get("model") != MODEL:
        message = f"The model {body.get('model')!r} does not exist; this server has {MODEL!r}"
        raise not_found(message, code="model_not_found", param="model")
    for name, value in body.items():
        if name in HONOURED or name in LABELS or value is None or value in NEUTRAL.get(name, ()):
            continue
        if name in NEUTRAL:
            message = f"unsupported value {value!r} of {name!r}: only {NEUTRAL[name][0]!r} is supported"
            raise bad_request(message, code="unsupported_value", param=name)
        raise bad_request(f"unsupported parameter {name!r}", code="unsupported_parameter", param=name)


def _integer(body: dict[str, Any], name: str, least: int | None) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or (least is not None and value < least):
        bound = "" if least is None else f" of {least} or more"
        raise bad_request(f"{name} is {value!r}, expected an integer{bound}", param=name, code="invalid_value")
    return value


def _number(body: dict[str, Any], name: str, default: float) -> float:
    value = body.get(name)
    if value is None:
        return default
    least, most = RANGES[name]
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not least <= value <= most:
        message = f"{name} is {value!r}, expected a number from {least:g} to {most:g}"
        raise bad_request(message, param=name, code="invalid_value")
    return float(value)


def _stops(body: dict[str, Any]) -> tuple[str, ...]:
    given = body.get("stop")
    stops = [given] if isinstance(given, str) else given or []
    if not isinstance(stops, list) or len(stops) > MOST_STOPS or not all(isinstance(s, str) and s for s in stops):
        raise bad_request(f"stop is {given!r}, expected up to {MOST_STOPS} texts", param="stop", code="invalid_value")
    return tuple(stops)


def _biases(body: dict[str, Any]) -> tuple[bool, str | None]:
    """Whether the end of the text is banned, and the character that is forced."""
    bias = body.get("logit_bias") or {}
    if not isinstance(bias, dict):
        raise bad_request(f"logit_bias is {bias!r}, expected an object", param="logit_bias", code="invalid_value")
    rest = {token: value for token, value in bias.items() if (token, value) != (END_OF_TEXT, BAN)}
    forced = [CHARACTERS[token] for token, value in rest.items() if token in CHARACTERS and value == FORCE]
    if len(rest) > 1 or len(forced) < len(rest):
        message = (
            f'logit_bias is {bias!r}: only {{"{END_OF_TEXT}": {BAN}}} and a bias of {FORCE} on one of the tokens '
            f"0 to {len(CHARACTERS) - 1} have a meaning here"
        )
        raise bad_request(message, param="logit_bias", code="unsupported_value")
    return len(rest) < len(bias), forced[0] if forced else None


def _schema(body: dict[str, Any]) -> dict[str, Any] | None:
    wanted = body.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, dict) else wanted
    if kind in (None, "text"):
        return None
    if kind == "json_object":
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    described = wanted.get("json_schema") if isinstance(wanted, dict) and kind == "json_schema" else None
    schema = described.get("schema") if isinstance(described, dict) else None
    if not isinstance(schema, dict):
        message = 'response_format must be {"type": "json_schema", "json_schema": {"name": ..., "schema": {...}}}'
        raise bad_request(message, param="response_format", code="invalid_value")
    return schema


def _tier(body: dict[str, Any]) -> str | None:
    tier = body.get("service_tier")
    if tier is not None and tier not in TIERS:
        raise bad_request(f"service_tier is {tier!r}, known: {', '.join(TIERS)}", param="service_tier")
    return "default" if tier == "auto" else tier
