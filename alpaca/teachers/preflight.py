"""Before the first request: does the teacher answer, and which of the wanted parameters does it honour?

Servers refuse a parameter, ignore it silently or honour it, and change that with the model. So each wanted parameter
that differs from its neutral value is tried alone, in a tiny request beside one that has none.

The requests pass the queue, one at a time, so that a server with a bad minute is as good a teacher as later on. A
parameter is at fault only when the request with it fails twice for good while the one without it is answered.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Mapping
from contextlib import aclosing
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
from alpaca.teachers.queue import NoAnswerError, Policy, ask

HONOURED, IGNORED, REFUSED, ACCEPTED = "honoured", "ignored", "refused", "accepted"
"""What a server does with a parameter; accepted: taken without a complaint, and its effect not seen."""
UNANSWERED = "unanswered"
"""The server breaks on the parameter and answers without it: nothing could be asked with it either."""
PATIENCE = Policy(in_flight=1, max_attempts=6, timeout=120.0, drain=0.0)
EMPTIES = 2  # answers without text that say that there is none
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


async def preflight(
    client: TeacherClient,
    wanted: Request,
    *,
    n: int = 1,
    policy: Policy = PATIENCE,
    note: Callable[[str], None] | None = None,
) -> Preflight:
    """Asks the teacher up to about eight tiny requests. n: choices per request that will be wanted.

    policy, note: as for the queue; one request is in flight at a time. Raises TeacherError when the teacher does not
    answer, with its own words, RefusedRequestError when it does not take a parameter without which the data would be
    others.
    """
    policy = replace(policy, in_flight=1, drain=0.0)
    line = _Line(client, policy, note)
    session = _Session(line, wanted)
    await session.look()
    if n > 1 and isinstance(client, HasChoices):
        several = _Line(_Several(client, n), policy, note)
        await session.count_choices(several, n)
        line.requests += several.requests
    at_fault = [each for each in session.findings if each.outcome in (REFUSED, UNANSWERED) and each.name in KNOBS]
    if at_fault:
        raise _refusal(at_fault, wanted)
    card = await client.card() if isinstance(client, HasCard) else None
    return Preflight(
        model=line.model,
        shutdown_date=_date((card or {}).get("shutdown_date")),
        requested=_requested(wanted, n),
        findings=tuple(session.findings),
        requests=line.requests,
        usage=line.usage,
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


class _Single:
    """A source of one request. An answer without text comes again, if at all, so it is not waited for for long."""

    def __init__(self, request: Request, empties: int) -> None:
        self._left: Request | None = request
        self._empties = empties
        self.fault: RetryableError | None = None  # the last one

    def next_request(self) -> Request | None:
        request, self._left = self._left, None
        return request

    def wants_more(self) -> bool:
        return self._empties > 0

    def failed(self, request: Request, fault: RetryableError) -> bool:
        self.fault = fault
        self._empties -= fault.cause is Cause.EMPTY
        return self.wants_more()

    def gave_up(self, request: Request, reason: str) -> bool:
        return False


class _Line:
    """The teacher, asked one request at a time through the queue; what that took: tries, tokens. model: as it says."""

    def __init__(self, client: TeacherClient, policy: Policy, note: Callable[[str], None] | None) -> None:
        self._client, self._policy, self._note = client, policy, note
        self.model, self.requests = "", 0
        self.usage = Usage(prompt_tokens=0, completion_tokens=0)

    async def complete(self, request: Request) -> Completion:
        """One try, as the queue wants it; counted."""
        self.requests += 1
        try:
            completion = await self._client.complete(request)
        except RetryableError as fault:
            self._add(fault.usage)
            raise
        self._add(Usage(prompt_tokens=completion.prompt_tokens, completion_tokens=completion.completion_tokens))
        self.model = completion.model
        return completion

    async def asked(self, request: Request, empties: int = EMPTIES) -> Completion | None:
        """An answer, None for one without text so many times.

        Raises RefusedRequestError for a request that is not taken, NoAnswerError with the last reason where its tries
        are used up, TeacherError for what no request can get around.
        """
        source = _Single(request, empties)
        try:
            async with aclosing(ask(self, source, self._policy, self._note)) as answers:
                async for answer in answers:
                    return answer.completion
        except NoAnswerError as error:
            raise NoAnswerError(what=source.fault.reason if source.fault else error.what) from error
        return None

    def _add(self, used: Usage | None) -> None:
        if used is not None:
            both = (asdict(self.usage), asdict(used))
            self.usage = Usage(**{name: both[0][name] + both[1][name] for name in both[0]})


class _Several:
    """A client that asks for several choices and answers with their number."""

    def __init__(self, client: HasChoices, count: int) -> None:
        self._client, self._count = client, count

    async def complete(self, request: Request) -> Completion:
        found = await self._client.choices(request, self._count)
        return Completion(text=str(found), finish_reason="stop", model="", prompt_tokens=0, completion_tokens=0)


class _Session:
    """The requests of one preflight and what they brought."""

    def __init__(self, line: _Line, wanted: Request) -> None:
        self._line, self._wanted = line, wanted
        message = Message(role="user", content=TEXT)
        self._plain = Request(
            id="preflight", messages=(message,), temperature=1.0, top_p=1.0, max_tokens=TOKENS, seed=wanted.seed
        )
        self._empties = EMPTIES
        self.findings: list[Finding] = []

    async def look(self) -> None:
        plain = await self._first()
        if plain is None:  # so will the others be
            self._empties = 1
        repeatable = await self._seeds(plain)
        for name, knob in KNOBS.items():
            probe = knob.probe(self._wanted, self._plain, plain.text if plain else "")
            if probe is None:
                continue
            tried = await self._tried(name, replace(probe, id=f"preflight_{name}"))
            if not isinstance(tried, Finding):
                evidence = _Evidence(plain=plain, tried=tried, repeatable=repeatable, probe=probe)
                tried = Finding(name=name, outcome=knob.judged(evidence))
            self.findings.append(tried)

    async def count_choices(self, line: _Line, n: int) -> None:
        """Whether as many choices come as are asked for; line: to a client that counts them."""
        tried = await self._tried("n", self._plain, line)
        if not isinstance(tried, Finding):
            outcome = HONOURED if tried and tried.text == str(n) else IGNORED if tried else ACCEPTED
            tried = Finding(name="n", outcome=outcome)
        self.findings.append(tried)

    async def _first(self) -> Completion | None:
        """The plain request. Without its seed where the server refuses that, so that the seed alone is to blame."""
        seeded = self._plain
        self._plain = replace(seeded, seed=None)
        if seeded.seed is None:
            return await self._surely(seeded)
        tried = await self._tried("seed", seeded)
        if isinstance(tried, Finding):
            self.findings.append(tried)
            return await self._surely(self._plain)
        self._plain = seeded
        return tried

    async def _seeds(self, plain: Completion | None) -> bool:
        """Looks at the seed; whether equal requests bring equal texts, which they also do where nothing is drawn."""
        seed = self._plain.seed
        if seed is None:
            return False
        again = await self._surely(self._plain)
        if plain is None or again is None:
            return self._seed_is(ACCEPTED)
        if again.text != plain.text:
            return self._seed_is(IGNORED)
        other = await self._surely(replace(self._plain, seed=seed + 1))
        if other is None:
            self._seed_is(ACCEPTED)
        else:
            self._seed_is(HONOURED if other.text != plain.text else IGNORED)
        return True

    def _seed_is(self, outcome: str) -> bool:
        self.findings.append(Finding(name="seed", outcome=outcome))
        return False

    async def _tried(self, name: str, probe: Request, line: _Line | None = None) -> Completion | Finding | None:
        """The answer to a probe, or that the server does not take it: twice, with the plain request answered between.

        A gateway's bad moment looks like a refusal of whatever was asked then.
        """
        for is_last in (False, True):
            try:
                return await (line or self._line).asked(probe, self._empties)
            except RefusedRequestError as error:
                finding = Finding(name=name, outcome=REFUSED, words=error.what)
            except NoAnswerError as error:
                if name == "seed":  # asked first, so it may be anything
                    raise _silence(error) from error
                words = f"no answer whenever it is set: {error.what}"
                finding = Finding(name=name, outcome=UNANSWERED, words=words)
            if not is_last:
                await self._surely(self._plain)
        return finding

    async def _surely(self, request: Request) -> Completion | None:
        """An answer to a request that asks for nothing special; without one the teacher is of no use."""
        try:
            try:
                return await self._line.asked(request, self._empties)
            except RefusedRequestError:
                return await self._line.asked(request, self._empties)
        except NoAnswerError as error:
            raise _silence(error) from error


def _silence(error: NoAnswerError) -> TeacherError:
    return TeacherError(
        what=f"the teacher does not answer: {error.what}",
        where="teacher",
        remedy="only a test was asked of it; check that the server is up, teacher.base_url and teacher.model",
    )


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


def _refusal(refused: list[Finding], wanted: Request) -> RefusedRequestError:
    """One error for all parameters that are refused."""
    told = [f"{KNOBS[each.name].key}={_value(each.name, wanted)}: {each.words}" for each in refused]
    return RefusedRequestError(
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
