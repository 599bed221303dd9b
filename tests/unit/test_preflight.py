from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest

from alpaca.errors import TeacherError
from alpaca.teachers.base import Cause, Completion, RefusedRequestError, Request, RetryableError, Usage
from alpaca.teachers.preflight import Preflight, preflight
from alpaca.teachers.queue import Policy
from tests.unit.teacher_fakes import request

WANTED = replace(
    request(3),
    temperature=0.7,
    top_p=0.5,
    presence_penalty=2.0,
    stop=("20.",),
    logit_bias={"50256": -100.0},
    schema={"type": "object", "properties": {"tasks": {"type": "array"}}},
)
ALL = ("temperature", "top_p", "presence_penalty", "stop", "logit_bias", "json_schema", "seed")
WORDS = ("a", "sea", "of", "red", "and", "green,", "one", "star,", "two", "fish,", "three", "birds", "the", "moon")


QUICK = Policy(in_flight=8, max_attempts=6, timeout=5.0, drain=1.0, first_delay=0.0, longest_pause=0.0)


class Model:
    """Samples words as far as it honours what is asked; `refuses` answers 400, `breaks` 500, whatever the value."""

    def __init__(self, honours: tuple[str, ...] = ALL, refuses: tuple[str, ...] = (), breaks: str = "") -> None:
        self.honours, self.refuses, self.breaks = honours, refuses, breaks
        self.asked: list[Request] = []
        self.unseeded = random.Random(0)

    async def complete(self, request: Request) -> Completion:
        self.asked.append(request)
        for name in self.refuses:
            if self.is_set(request, name):
                raise RefusedRequestError(what=f"answered 400: no {name}")
        if self.breaks and self.is_set(request, self.breaks):
            raise RetryableError("500 the engine is on fire")
        text = self.text(request)
        if not text.strip():
            raise RetryableError("empty", usage=Usage(prompt_tokens=5, completion_tokens=1), cause=Cause.EMPTY)
        return Completion(text=text, finish_reason="stop", model="m-1", prompt_tokens=5, completion_tokens=20)

    def is_set(self, request: Request, name: str) -> bool:
        neutral: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "presence_penalty": 0.0, "stop": ()}
        field = "schema" if name == "json_schema" else name
        return getattr(request, field) != neutral.get(name)

    def text(self, request: Request) -> str:
        seed = request.seed if "seed" in self.honours else self.unseeded.random()
        drawn = tuple(getattr(request, name) for name in ALL[:3] if name in self.honours)
        words = random.Random(f"{seed} {drawn}").choices(WORDS, k=30)
        text = " ".join(words)
        if request.schema is not None and "json_schema" in self.honours:
            return '{"tasks": ["' + text
        if request.logit_bias and "logit_bias" in self.honours:
            return "ab " * 20
        for stop in request.stop if "stop" in self.honours else ():
            text = text.partition(stop)[0]
        return text


def look(client: Any, wanted: Request = WANTED, n: int = 1) -> Preflight:
    return asyncio.run(preflight(client, wanted, n=n, policy=QUICK))


def test_all_is_seen_to_be_honoured_within_nine_tiny_requests() -> None:
    client = Model()
    found = look(client)
    assert found.as_row()["honoured"] == dict.fromkeys(ALL, "honoured")
    assert found.requests == len(client.asked) == 9
    assert all(asked.max_tokens == 64 for asked in client.asked)
    assert found.model == "m-1"
    assert found.usage.prompt_tokens == 5 * 9


def test_what_a_server_ignores_is_called_ignored() -> None:
    found = look(Model(honours=("seed",))).as_row()["honoured"]
    assert found.pop("seed") == "honoured"
    assert found.pop("presence_penalty") == "accepted", "a penalty need not show"
    assert found == dict.fromkeys(("temperature", "top_p", "stop", "logit_bias", "json_schema"), "ignored")


def test_without_a_seed_that_works_the_effect_of_the_temperature_cannot_be_seen() -> None:
    found = look(Model(honours=("stop",))).as_row()["honoured"]
    assert (found["seed"], found["temperature"], found["stop"]) == ("ignored", "accepted", "honoured")


def test_an_answer_that_never_changes_honours_no_seed() -> None:
    class Rigid(Model):
        def text(self, request: Request) -> str:
            return "always this"

    found = look(Rigid()).as_row()["honoured"]
    assert (found["seed"], found["temperature"]) == ("ignored", "ignored")


@pytest.mark.parametrize(("left", "outcome"), [(0, "honoured"), (3, "honoured"), (40, "ignored")])
def test_a_server_that_goes_on_behind_a_stop_string_ignores_it(left: int, outcome: str) -> None:
    class Cut(Model):
        async def complete(self, request: Request) -> Completion:
            completion = await super().complete(request)
            return replace(completion, cut=left if request.stop else 0)

    assert look(Cut(), replace(request(0), stop=("20.",))).as_row()["honoured"]["stop"] == outcome


def test_neutral_values_cost_one_request() -> None:
    client = Model()
    found = look(client, replace(request(0), seed=None))
    assert len(client.asked) == 1
    assert found.as_row()["honoured"] == {}
    assert found.as_row()["requested"] == {"temperature": 1.0, "top_p": 1.0, "max_tokens": 500}


@pytest.mark.parametrize(
    ("name", "key", "way_out"),
    [
        ("temperature", "data_gen.temperature=0.7", "data_gen.temperature=1"),
        ("top_p", "data_gen.top_p=0.5", "data_gen.top_p=1"),
        ("stop", r"data_gen.stop=\('20.',\)", "data_gen.stop"),
        ("logit_bias", "data_gen.logit_bias=", "data_gen.logit_bias={}"),
        ("presence_penalty", "data_gen.presence_penalty=2.0", "data_gen.presence_penalty=0"),
        ("json_schema", "data_gen.form=json_schema", "data_gen.form=text"),
        ("seed", "teacher.send_seed=true", "teacher.send_seed=false"),
    ],
)
def test_a_refusal_names_the_knob_and_the_way_out(name: str, key: str, way_out: str) -> None:
    with pytest.raises(TeacherError, match=f"{key}.*no {name}") as caught:
        look(Model(refuses=(name,)))
    assert way_out in caught.value.remedy
    assert caught.value.where == key.partition("=")[0]


def test_all_refusals_are_told_at_once() -> None:
    with pytest.raises(TeacherError) as caught:
        look(Model(refuses=("temperature", "logit_bias")))
    assert "data_gen.temperature" in str(caught.value)
    assert "data_gen.logit_bias" in str(caught.value)


def test_a_server_that_breaks_on_one_parameter_and_answers_without_it_is_told() -> None:
    client = Model(breaks="logit_bias")
    with pytest.raises(RefusedRequestError, match=r"data_gen\.logit_bias.*no answer whenever it is set: 500"):
        look(client)
    biased = [asked.logit_bias is not None for asked in client.asked]
    first = biased.index(True)
    assert biased[first:][:13] == [True] * 6 + [False] + [True] * 6


class Failing:
    """Fails so many times in a given way, then answers."""

    def __init__(self, fault: Exception, times: int = 10**9) -> None:
        self.fault, self.left, self.tries = fault, times, 0

    async def complete(self, request: Request) -> Completion:
        self.tries += 1
        self.left -= 1
        if self.left >= 0:
            raise self.fault
        return await Model().complete(request)


@pytest.mark.parametrize("fault", [RetryableError("no route"), RetryableError("too slow", cause=Cause.TIMEOUT)])
def test_a_teacher_that_does_not_answer_ends_with_its_words(fault: RetryableError) -> None:
    client = Failing(fault)
    with pytest.raises(TeacherError, match=f"does not answer: {fault.reason}"):
        look(client)
    assert client.tries == QUICK.max_attempts


@pytest.mark.parametrize("cause", [Cause.BROKEN, Cause.TIMEOUT, Cause.TURNED_AWAY])
def test_what_heals_is_no_reason_to_stop(cause: Cause) -> None:
    found = look(Failing(RetryableError("hiccup", cause=cause), times=5))
    assert (found.model, found.requests) == ("m-1", 9 + 5)


def test_a_wait_that_the_server_asks_for_is_kept_in_full_and_told() -> None:
    notes: list[str] = []

    async def session() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        limited = Failing(RetryableError("429", after=0.3, cause=Cause.TURNED_AWAY), times=1)
        await preflight(limited, replace(request(0), seed=None), policy=QUICK, note=notes.append)
        return loop.time() - began

    assert asyncio.run(session()) >= 0.3
    assert notes == ["preflight: 429; again in 0.3 s"]


class Stormy(Model):
    """Fails one try in three in ways that heal, never twice in a row; 400 once a parameter."""

    FAULTS = (
        RetryableError("empty", cause=Cause.EMPTY),
        RetryableError("reset"),
        RetryableError("429", cause=Cause.TURNED_AWAY),
        RetryableError("late", cause=Cause.TIMEOUT),
    )

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rng, self.failed, self.refused = random.Random(seed), False, set[str]()

    async def complete(self, request: Request) -> Completion:
        self.failed = not self.failed and self.rng.random() < 0.5
        if self.failed and request.id not in self.refused and self.rng.random() < 0.3:
            self.refused.add(request.id)
            raise RefusedRequestError(what="400 a bad moment")
        if self.failed:
            raise self.rng.choice(self.FAULTS)
        return await super().complete(request)


@pytest.mark.parametrize("seed", range(60))
def test_faults_that_heal_say_nothing_about_a_parameter(seed: int) -> None:
    assert look(Stormy(seed)).as_row()["honoured"] == dict.fromkeys(ALL, "honoured")


def test_a_parameter_that_is_refused_once_is_tried_again_and_one_refused_twice_is_not_taken() -> None:
    class Moody(Model):
        def __init__(self, times: int) -> None:
            super().__init__()
            self.left = times

        def text(self, request: Request) -> str:
            if request.top_p != 1.0 and self.left:
                self.left -= 1
                raise RefusedRequestError(what="400 no")
            return super().text(request)

    found = look(Moody(1))
    assert (found.as_row()["honoured"]["top_p"], found.requests) == ("honoured", 9 + 2)
    with pytest.raises(RefusedRequestError, match=r"data_gen\.top_p=0\.5: 400 no"):
        look(Moody(2))


def test_a_server_that_goes_away_on_the_way_is_not_blamed_on_the_parameter() -> None:
    class Leaving(Model):
        async def complete(self, request: Request) -> Completion:
            if len(self.asked) == 5:
                raise RetryableError("connection refused")
            return await super().complete(request)

    with pytest.raises(TeacherError, match="the teacher does not answer: connection refused") as caught:
        look(Leaving())
    assert not isinstance(caught.value, RefusedRequestError)


def test_a_wrong_key_is_told_as_it_is() -> None:
    error = TeacherError(what="answered 401: who are you", where="teacher", remedy="set OPENAI_API_KEY")
    with pytest.raises(TeacherError) as caught:
        look(Failing(error))
    assert caught.value is error


def test_an_answer_without_text_is_an_answer() -> None:
    class Thinking(Model):
        def text(self, request: Request) -> str:
            return ""

    found = look(Thinking())
    assert found.as_row()["honoured"] == dict.fromkeys(ALL, "accepted")
    assert found.usage.completion_tokens == found.requests == 9


@pytest.mark.parametrize(
    ("card", "date"),
    [
        (None, None),
        ({"id": "m"}, None),
        ({"shutdown_date": "2026-12-11"}, "2026-12-11"),
        ({"shutdown_date": 1796947200}, "2026-12-11"),
        ({"shutdown_date": ["x"]}, None),
    ],
)
def test_the_shutdown_date_is_read_where_there_is_one(card: dict[str, Any] | None, date: str | None) -> None:
    class Carded(Model):
        async def card(self) -> dict[str, Any] | None:
            return card

    assert look(Carded(), request(0)).shutdown_date == date


@pytest.mark.parametrize(("count", "outcome"), [(4, "honoured"), (1, "ignored")])
def test_several_choices_are_counted(count: int, outcome: str) -> None:
    class Many(Model):
        async def choices(self, request: Request, wanted: int) -> int:
            return count

    row = look(Many(), request(0), n=4).as_row()
    assert (row["requested"]["n"], row["honoured"]["n"]) == (4, outcome)


def test_choices_that_are_late_are_not_refused() -> None:
    class Late(Model):
        tries = 0

        async def choices(self, request: Request, wanted: int) -> int:
            self.tries += 1
            if self.tries < 4:
                raise RetryableError("503", cause=Cause.TURNED_AWAY)
            return wanted

    found = look(Late(), request(0), n=4)
    assert (found.as_row()["honoured"]["n"], found.requests) == ("honoured", 3 + 4)


@pytest.mark.parametrize("count", [1, 4, 5])
def test_the_probe_has_as_many_stops_as_wanted_and_one_that_is_sure_to_come(count: int) -> None:
    client = Model()
    look(client, replace(request(0), stop=tuple(f"{number}!" for number in range(count))))
    (probed,) = [asked.stop for asked in client.asked if asked.stop]
    assert len(probed) == max(count, min(4, count + 1))
    assert probed[-1].isalpha()
