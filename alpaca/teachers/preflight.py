"""Before the first request: does the teacher answer, and which of the wanted parameters does it honour?

Servers refuse a parameter, ignore it silently or honour it, and change that with the model. So each wanted parameter
that differs from its neutral value is tried alone, in a tiny request beside one that has none.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, runtime_checkable

from alpaca.errors import TeacherError
from alpaca.teachers.base import (
    Cause,
    Completion,
    Message,
    RefusedRequestError,
    Request,
    RetryableError,
    TeacherClient,
    Usage,
)

HONOURED, IGNORED, REFUSED, ACCEPTED = "honoured", "ignored", "refused", "accepted"
"""What a server does with a parameter; accepted: taken without a complaint, and its effect not seen."""
TRIES = 3
LONGEST_PAUSE = 10.0
TOKENS = 64
MOST_STOPS = 4  # OpenAI takes no more
# A bias of 100 lets nothing else through. Number 50 is a single character in nearly every vocabulary.
FORCED_TOKEN, FORCE = "50", 100.0
HEAD = 8  # characters at the beginning of a text
LONGEST_UNIT = 16  # characters of a token that is repeated
# A list to be continued: base models, chat models and the programmatic teacher all have something to say to it.
TEXT = (
    "List of 6 tasks:\n\n1. Instruction: Name a colour of the rainbow.\n1. Input:\n<noinput>\n1. Output:\nGreen\n###\n"
    "2. Instruction:"
)


@runtime_checkable
class HasCard(Protocol):
    """A client whose server describes its model."""

    async def card(self) -> dict[str, Any] | None: ...


@runtime_checkable
class HasChoices(Protocol):
    """A client that can ask for several choices in one request, and tells how many came back."""

    async def choices(self, request: Request, count: int) -> int: ...


@dataclass(kw_only=True, slots=True, frozen=True)
class Finding:
    """What became of one wanted parameter; words: the server's, where it refused."""

    name: str
    outcome: str
    words: str = ""


@dataclass(kw_only=True, slots=True, frozen=True)
class Preflight:
    """What was found. model: as the server names it; shutdown_date: None where the server tells none."""

    model: str
    shutdown_date: str | None
    requested: dict[str, Any]
    findings: tuple[Finding, ...]
    requests: int
    usage: Usage
    checked: str

    def as_row(self) -> dict[str, Any]:
        """For `teacher.json`. `honoured` holds only what differs from neutral and was therefore tried."""
        return {
            "model": self.model,
            "shutdown_date": self.shutdown_date,
            "checked": self.checked,
            "requested": self.requested,
            "honoured": {finding.name: finding.outcome for finding in self.findings},
            "probe": {"requests": self.requests, **asdict(self.usage)},
        }


async def preflight(client: TeacherClient, wanted: Request, *, n: int = 1, pause: float = 0.5) -> Preflight:
    """Asks the teacher up to about eight tiny requests. n: choices per request that will be wanted.

    pause: seconds before the second try of a request that failed in a way that may heal. Raises TeacherError when the
    teacher does not answer, with its own words, and when it refuses a parameter without which the data would be others.
    """
    session = _Session(client, wanted, pause)
    await session.look(n)
    refused = [finding for finding in session.findings if finding.outcome == REFUSED and finding.name in KNOBS]
    if refused:
        raise _refusal(refused, wanted)
    card = await client.card() if isinstance(client, HasCard) else None
    return Preflight(
        model=session.model,
        shutdown_date=_date((card or {}).get("shutdown_date")),
        requested=_requested(wanted, n),
        findings=tuple(session.findings),
        requests=session.requests,
        usage=session.usage,
        checked=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )


@dataclass(kw_only=True, slots=True, frozen=True)
class _Evidence:
    """The answers to the request without parameters and to the one with; None: an answer without text.

    repeatable: equal requests bring equal texts.
    """

    plain: Completion | None
    tried: Completion | None
    repeatable: bool
    probe: Request


@dataclass(kw_only=True, slots=True, frozen=True)
class _Knob:
    """A parameter: where it is set, how to see its effect, and the way out when it is refused.

    probe: the plain request with the parameter of the wanted one, None where that is neutral.
    """

    key: str
    probe: Callable[[Request, Request, str], Request | None]
    judged: Callable[[_Evidence], str]
    remedy: str


class _Session:
    """The requests of one preflight and what they cost."""

    def __init__(self, client: TeacherClient, wanted: Request, pause: float) -> None:
        self._client, self._wanted, self._pause = client, wanted, pause
        message = Message(role="user", content=TEXT)
        self._plain = Request(
            id="preflight", messages=(message,), temperature=1.0, top_p=1.0, max_tokens=TOKENS, seed=wanted.seed
        )
        self.model, self.requests = "", 0
        self.usage = Usage(prompt_tokens=0, completion_tokens=0)
        self.findings: list[Finding] = []

    async def look(self, n: int) -> None:
        plain = await self._first()
        repeatable = await self._seeds(plain)
        for name, knob in KNOBS.items():
            probe = knob.probe(self._wanted, self._plain, plain.text if plain else "")
            if probe is None:
                continue
            try:
                tried = await self._asked(replace(probe, id=f"preflight_{name}"))
            except RefusedRequestError as error:
                self._found(name, REFUSED, error.what)
                continue
            evidence = _Evidence(plain=plain, tried=tried, repeatable=repeatable, probe=probe)
            self._found(name, knob.judged(evidence))
        if n > 1 and isinstance(self._client, HasChoices):
            await self._choices(self._client, n)

    async def _first(self) -> Completion | None:
        """The plain request. Without its seed where the server refuses that, so that the seed alone is to blame."""
        try:
            return await self._asked(self._plain)
        except RefusedRequestError as error:
            if self._wanted.seed is None:
                raise
            self._plain = replace(self._plain, seed=None)
            answer = await self._asked(self._plain)
            self._found("seed", REFUSED, error.what)
            return answer

    async def _seeds(self, plain: Completion | None) -> bool:
        """Looks at the seed; whether equal requests bring equal texts, which they also do where nothing is drawn."""
        seed = self._plain.seed
        if seed is None:
            return False
        again = await self._asked(self._plain)
        if plain is None or again is None:
            self._found("seed", ACCEPTED)
            return False
        other = await self._asked(replace(self._plain, seed=seed + 1)) if again.text == plain.text else again
        is_drawn = other is not None and other.text != plain.text
        self._found("seed", HONOURED if again.text == plain.text and is_drawn else IGNORED)
        return again.text == plain.text

    async def _choices(self, client: HasChoices, n: int) -> None:
        self.requests += 1
        try:
            count = await client.choices(self._plain, n)
            self._found("n", HONOURED if count == n else IGNORED)
        except (RefusedRequestError, RetryableError) as error:
            self._found("n", REFUSED, str(error))

    def _found(self, name: str, outcome: str, words: str = "") -> None:
        self.findings.append(Finding(name=name, outcome=outcome, words=words))

    async def _asked(self, request: Request) -> Completion | None:
        """An answer, None for one without text; what may heal is tried again a few times."""
        for attempt in range(1, TRIES + 1):
            self.requests += 1
            try:
                completion = await self._client.complete(request)
            except RetryableError as fault:
                self._add(fault.usage)
                if fault.cause is Cause.EMPTY:
                    return None
                if attempt == TRIES or fault.cause is Cause.TIMEOUT:
                    raise self._given_up(request, fault) from fault
                await asyncio.sleep(min(LONGEST_PAUSE, fault.after or self._pause * 2 ** (attempt - 1)))
            else:
                self.model = completion.model
                self._add(Usage(prompt_tokens=completion.prompt_tokens, completion_tokens=completion.completion_tokens))
                return completion
        return None

    def _given_up(self, request: Request, fault: RetryableError) -> TeacherError:
        """A server that fails on one parameter and answered without it refuses that parameter in its own way."""
        if request.id != self._plain.id and fault.cause is Cause.BROKEN:
            return RefusedRequestError(what=fault.reason)
        return TeacherError(
            what=f"the teacher does not answer: {fault.reason}",
            where="teacher",
            remedy="only a test was asked of it; check that the server is up, teacher.base_url and teacher.model",
        )

    def _add(self, used: Usage | None) -> None:
        if used is not None:
            both = (asdict(self.usage), asdict(used))
            self.usage = Usage(**{name: both[0][name] + both[1][name] for name in both[0]})


def _changed(name: str, neutral: object) -> Callable[[Request, Request, str], Request | None]:
    """Takes one field over from the wanted request."""

    def probe(wanted: Request, plain: Request, _text: str) -> Request | None:
        value = getattr(wanted, name)
        return None if value in (neutral, None) else replace(plain, **{name: value})

    return probe


def _with_stop(wanted: Request, plain: Request, text: str) -> Request | None:
    """The wanted stops and a character that is nearly sure to come, but not at once: a frequent one of the text."""
    if not wanted.stop:
        return None
    characters = [character for character in text if not character.isspace() and character not in text[:HEAD]]
    common = max(characters, key=characters.count, default="e")
    return replace(plain, stop=(*wanted.stop[: max(len(wanted.stop), MOST_STOPS) - 1], common))


def _with_bias(wanted: Request, plain: Request, _text: str) -> Request | None:
    if not wanted.logit_bias:
        return None
    return replace(plain, logit_bias={**wanted.logit_bias, FORCED_TOKEN: FORCE})


def _changes_the_text(evidence: _Evidence) -> str:
    if not evidence.repeatable or evidence.tried is None or evidence.plain is None:
        return ACCEPTED
    return HONOURED if evidence.tried.text != evidence.plain.text else IGNORED


def _may_change_the_text(evidence: _Evidence) -> str:
    """A penalty on words that come again shows only where one does."""
    return HONOURED if _changes_the_text(evidence) == HONOURED else ACCEPTED


def _ends_before(evidence: _Evidence) -> str:
    """The client cuts at a stop string in any case; cutting off more than the string, it went on behind it."""
    if evidence.plain is None:
        return ACCEPTED
    if evidence.tried is None:
        return HONOURED
    goes_on = evidence.tried.cut > max(map(len, evidence.probe.stop)) or evidence.probe.stop[-1] in evidence.tried.text
    return IGNORED if goes_on else HONOURED


def _repeats(evidence: _Evidence) -> str:
    text = evidence.tried.text.strip() if evidence.tried else ""
    if not text:
        return ACCEPTED
    units = range(1, min(LONGEST_UNIT, len(text) // 2) + 1)
    return HONOURED if any(text == (text[:unit] * len(text))[: len(text)] for unit in units) else IGNORED


def _begins_as_schema(evidence: _Evidence) -> str:
    """The probe is too short for a whole object, so its first key tells."""
    if evidence.tried is None:
        return ACCEPTED
    found = re.match(r'\s*\{\s*("(?:[^"\\]|\\.)*")', evidence.tried.text)
    keys = (evidence.probe.schema or {}).get("properties", {})
    return HONOURED if found and json.loads(found[1], strict=False) in keys else IGNORED


KNOBS: Mapping[str, _Knob] = {
    "seed": _Knob(
        key="teacher.send_seed",
        probe=lambda wanted, plain, text: None,
        judged=lambda evidence: ACCEPTED,
        remedy="set teacher.send_seed=false",
    ),
    "temperature": _Knob(
        key="data_gen.temperature",
        probe=_changed("temperature", 1.0),
        judged=_changes_the_text,
        remedy="set data_gen.temperature=1, or take a model that samples freely (one with open weights, or "
        "teacher.reasoning_effort=none where the model has it)",
    ),
    "top_p": _Knob(
        key="data_gen.top_p",
        probe=_changed("top_p", 1.0),
        judged=_changes_the_text,
        remedy="set data_gen.top_p=1, or take a model that samples freely",
    ),
    "presence_penalty": _Knob(
        key="data_gen.presence_penalty",
        probe=_changed("presence_penalty", 0.0),
        judged=_may_change_the_text,
        remedy="set data_gen.presence_penalty=0, or take a model that knows it",
    ),
    "stop": _Knob(
        key="data_gen.stop",
        probe=_with_stop,
        judged=_ends_before,
        remedy=f"set data_gen.stop to at most {MOST_STOPS} strings or to [], or take a model that knows them",
    ),
    "logit_bias": _Knob(
        key="data_gen.logit_bias",
        probe=_with_bias,
        judged=_repeats,
        remedy="set data_gen.logit_bias={}, or take a model whose vocabulary has these tokens",
    ),
    "json_schema": _Knob(
        key="data_gen.form",
        probe=_changed("schema", None),
        judged=_begins_as_schema,
        remedy="set data_gen.form=text, or take a model with structured outputs",
    ),
}
"""Parameter -> how to try it. A server that refuses one of them would refuse every request of the stage."""


def _requested(wanted: Request, n: int) -> dict[str, Any]:
    always = {"temperature": wanted.temperature, "top_p": wanted.top_p, "max_tokens": wanted.max_tokens}
    if wanted.seed is not None:
        always["seed"] = wanted.seed
    others: dict[str, Any] = {
        "stop": list(wanted.stop),
        "presence_penalty": wanted.presence_penalty,
        "logit_bias": wanted.logit_bias,
        "json_schema": wanted.schema is not None,
        "n": n if n > 1 else None,
    }
    return always | {name: value for name, value in others.items() if value}


def _refusal(refused: list[Finding], wanted: Request) -> TeacherError:
    """One error for all parameters that are refused."""
    told = [f"{KNOBS[each.name].key}={_value(each.name, wanted)}: {each.words}" for each in refused]
    return TeacherError(
        what="the teacher does not take what is wanted of it:\n    " + "\n    ".join(told),
        where=KNOBS[refused[0].name].key,
        remedy="; ".join(KNOBS[each.name].remedy for each in refused),
    )


def _value(name: str, wanted: Request) -> object:
    match name:
        case "json_schema":
            return "json_schema"
        case "seed":
            return "true"
        case _:
            return getattr(wanted, name)


def _date(value: object) -> str | None:
    """An ISO date of a date in words or a Unix time."""
    if isinstance(value, str) and value:
        return value[:10]
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return datetime.datetime.fromtimestamp(value, datetime.UTC).date().isoformat()
    return None
