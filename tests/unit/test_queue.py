from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import aclosing
from typing import Any

import pytest

from alpaca.config import Teacher
from alpaca.errors import TeacherError
from alpaca.teachers.base import Cause, Completion, RefusedRequestError, Request, RetryableError
from alpaca.teachers.queue import NoAnswerError, Policy, ask, back_off
from alpaca.teachers.throttle import Breaker, Pace, Pauses
from tests.unit.teacher_fakes import Requests, collect, policy


class Slow:
    """A client whose first request waits for the others; counts what runs side by side."""

    def __init__(self) -> None:
        self.running = self.most = 0
        self.order: list[str] = []
        self.failures: Counter[str] = Counter()

    async def complete(self, request: Request) -> Completion:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0.001)
            if request.id == "r0" and not self.failures["r0"]:
                self.failures["r0"] += 1
                raise RetryableError("not yet", after=0.02)
            self.order.append(request.id)
            return Completion(text="x", finish_reason="stop", model="m", prompt_tokens=1, completion_tokens=1)
        finally:
            self.running -= 1


def test_a_waiting_request_gives_its_place_to_the_next() -> None:
    client = Slow()
    answers = asyncio.run(collect(client, Requests(5), policy(in_flight=1)))
    assert client.most == 1
    assert len(answers) == 5
    assert client.order == ["r1", "r2", "r3", "r4", "r0"]


class Endless:
    """A client that never answers and never gives up by itself, as behind a server that drips one byte a second."""

    async def complete(self, request: Request) -> Completion:
        await asyncio.sleep(3600)
        raise AssertionError(request.id)


def test_a_try_ends_after_its_time_whatever_the_client_does() -> None:
    with pytest.raises(TeacherError, match=r"r0 failed 2 times.*no answer within 0\.01 s \(teacher\.timeout\)"):
        asyncio.run(collect(Endless(), Requests(1), policy(timeout=0.01, max_attempts=2)))


@pytest.mark.parametrize("in_flight", [1, 3])
def test_no_more_in_flight_than_allowed(in_flight: int) -> None:
    client = Slow()
    asyncio.run(collect(client, Requests(12), policy(in_flight=in_flight)))
    assert client.most == in_flight


def test_nothing_is_asked_once_no_more_is_wanted() -> None:
    client, source = Slow(), Requests(100)

    async def session() -> int:
        received = 0
        async with aclosing(ask(client, source, policy(in_flight=2))) as answers:
            async for _ in answers:
                received += 1
                source.closed = True
        return received

    assert asyncio.run(session()) <= 4
    assert len(source.left) >= 96
    assert client.running == 0


class Late:
    """The first request is answered at once, every other one only after a while, or it fails."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault

    async def complete(self, request: Request) -> Completion:
        if request.id != "r0":
            await asyncio.sleep(0.05)
            if self.fault is not None:
                raise self.fault
        return Completion(text="x", finish_reason="stop", model="m", prompt_tokens=1, completion_tokens=1)


async def close_after_the_first(client: Any, rules: Policy, notes: list[str]) -> list[str]:
    source, received = Requests(3), []
    async with aclosing(ask(client, source, rules, notes.append)) as answers:
        async for answer in answers:
            received.append(answer.request.id)
            source.closed = True
    return received


@pytest.mark.parametrize("fault", [TeacherError(what="gone for good"), RetryableError("the engine is on fire")])
def test_surplus_that_fails_does_not_spoil_what_is_full(fault: Exception) -> None:
    notes: list[str] = []
    assert asyncio.run(close_after_the_first(Late(fault), policy(max_attempts=1), notes)) == ["r0"]
    assert notes == ["waiting for 2 answers already paid for"]


def test_surplus_answers_are_waited_for_as_long_as_any_answer() -> None:
    rules = Policy.of(Teacher(timeout=77.0))
    assert rules.drain == 77.0
    assert sorted(asyncio.run(close_after_the_first(Late(), rules, []))) == ["r0", "r1", "r2"]


def test_an_interruption_cuts_the_waiting_for_surplus() -> None:
    class Stuck:
        async def complete(self, request: Request) -> Completion:
            client = Late() if request.id == "r0" else Endless()
            return await client.complete(request)

    async def session() -> None:
        await asyncio.wait_for(close_after_the_first(Stuck(), policy(drain=3600.0, timeout=3600.0), []), 0.1)

    with pytest.raises(TimeoutError):
        asyncio.run(session())


def test_a_try_that_got_no_answer_in_time_may_be_billed() -> None:
    source = Requests(1)
    with pytest.raises(TeacherError):
        asyncio.run(collect(Endless(), source, policy(timeout=0.01, max_attempts=1)))
    assert [fault.may_be_billed for fault in source.faults] == [True]


def test_closing_early_cancels_what_is_in_flight() -> None:
    client = Slow()

    async def session() -> None:
        async with aclosing(ask(client, Requests(100), policy(in_flight=8))) as answers:
            async for _ in answers:
                break

    asyncio.run(session())
    assert client.running == 0


def test_back_off_doubles_stays_bounded_and_repeats() -> None:
    rules = policy(first_delay=1.0, longest_delay=8.0)
    for attempt, full in enumerate([1.0, 2.0, 4.0, 8.0, 8.0], 1):
        delay = back_off("r0", attempt, rules)
        assert full / 2 <= delay <= full
        assert delay == back_off("r0", attempt, rules)
    assert back_off("r0", 1, rules) != back_off("r1", 1, rules)
    assert 20.0 <= back_off("r0", 1, rules, after=20.0) <= 21.0
    assert back_off("r0", 1, rules, after=1e9) <= 601.0


# --- a server that is down, overloaded, or refuses one request


def answer_of(request: Request) -> Completion:
    return Completion(text=request.id, finish_reason="stop", model="m", prompt_tokens=1, completion_tokens=1)


class Down:
    """Fails the first so many tries, whoever asks, then answers."""

    def __init__(self, tries: int) -> None:
        self.left, self.tries = tries, 0

    async def complete(self, request: Request) -> Completion:
        await asyncio.sleep(0)
        self.tries += 1
        self.left -= 1
        if self.left >= 0:
            raise RetryableError("nobody at home")
        return answer_of(request)


def test_a_server_that_comes_back_has_cost_no_request_its_tries() -> None:
    client, notes = Down(12), list[str]()
    answers = asyncio.run(collect(client, Requests(30), policy(max_attempts=3, in_flight=5), notes))
    assert sorted(answer.request.id for answer in answers) == sorted(f"r{number}" for number in range(30))
    assert client.tries == 42
    assert "the server answers again" in notes


@pytest.mark.parametrize("answers_first", [0, 3])
def test_a_server_that_stays_dead_ends_in_one_error_after_a_bounded_number_of_tries(answers_first: int) -> None:
    class Dying:
        tries = 0

        async def complete(self, request: Request) -> Completion:
            self.tries += 1
            if self.tries > answers_first:
                raise RetryableError("nobody at home")
            return answer_of(request)

    client, source = Dying(), Requests(2_000)
    with pytest.raises(TeacherError, match="tries in a row failed, the last time: nobody at home"):
        asyncio.run(collect(client, source, policy(max_attempts=5, in_flight=20, longest_pause=0.02)))
    probes = 10 if answers_first else 5
    assert 40 <= client.tries - answers_first - probes <= 60


def test_requests_that_the_source_takes_back_do_not_keep_a_dead_server_alive() -> None:
    class Stingy(Requests):
        def failed(self, request: Request, fault: RetryableError) -> bool:
            self.left.append(request)
            return False

    with pytest.raises(TeacherError, match="in a row failed"):
        asyncio.run(collect(Down(10**9), Stingy(1), policy(max_attempts=2)))


class Narrow:
    """Turns away what goes beyond so many at once, and one request always."""

    def __init__(self, places: int, never: str = "") -> None:
        self.places, self.never, self.running, self.refused = places, never, 0, 0

    async def complete(self, request: Request) -> Completion:
        if self.running >= self.places or request.id == self.never:
            self.refused += 1
            raise RetryableError("slow down", cause=Cause.TURNED_AWAY)
        self.running += 1
        try:
            await asyncio.sleep(0.004)
        finally:
            self.running -= 1
        return answer_of(request)


def test_being_turned_away_uses_up_no_tries_and_lowers_the_number_in_flight() -> None:
    client, notes = Narrow(4), list[str]()
    answers = asyncio.run(collect(client, Requests(150), policy(max_attempts=2, in_flight=40), notes))
    assert len(answers) == 150
    lowered = [int(note.split("at most ")[1].split()[0]) for note in notes if "overloaded" in note]
    assert lowered
    assert min(lowered) < 20
    assert client.refused < 600


def test_a_request_that_is_always_turned_away_ends_in_an_error() -> None:
    source = Requests(60)
    with pytest.raises(TeacherError, match=r"r5 failed 0 times and was turned away 8 times.*slow down"):
        asyncio.run(collect(Narrow(100, never="r5"), source, policy(max_attempts=2, in_flight=4, first_delay=0.001)))


def test_a_few_refusals_lower_nothing() -> None:
    pace = Pace(100)
    for number in range(1000):
        if number % 10:
            pace.answered(now=number / 100, seconds=1.0)
        else:
            assert pace.failed(now=number / 100, seconds=0.0, cause=Cause.TURNED_AWAY) is None
    assert pace.limit == 100
    assert pace.healthy


def test_errors_of_the_server_lower_nothing() -> None:
    pace = Pace(20)
    assert {pace.failed(now=1.0, seconds=0.1, cause=Cause.BROKEN) for _ in range(100)} == {None}
    assert not pace.healthy


def test_refusals_that_come_before_the_first_answers_lower_nothing() -> None:
    pace = Pace(100)
    assert {pace.failed(now=0.0, seconds=0.0, cause=Cause.TURNED_AWAY) for _ in range(20)} == {None}
    for _ in range(80):
        pace.answered(now=1.0, seconds=1.0)
    assert pace.limit == 100


def test_many_refusals_lower_once_in_a_latency_and_answers_raise_step_by_step() -> None:
    pace = Pace(100)
    for _ in range(100):
        pace.answered(now=1.0, seconds=2.0)
    limits = [pace.failed(now=1.5, seconds=0.0, cause=Cause.TURNED_AWAY) for _ in range(400)]
    assert [limit for limit in limits if limit] == [75]
    later = [pace.failed(now=3.6, seconds=0.0, cause=Cause.TURNED_AWAY) for _ in range(75)]
    assert [limit for limit in later if limit] == [56]
    for _ in range(56):
        pace.answered(now=9.0, seconds=2.0)
    assert pace.limit == 61
    for _ in range(2000):
        pace.failed(now=1e6 * _, seconds=0.0, cause=Cause.TIMEOUT)
    assert pace.limit == 1


def test_an_open_breaker_lets_one_probe_through_after_each_pause() -> None:
    breaker = Breaker(Pauses(first=1.0, longest=3.0, probes=4), now=0.0)
    pauses = [breaker.failed(0.0, places=5, probe=False, after=0.0) for _ in range(10)]
    assert pauses == [None] * 9 + [1.0]
    assert breaker.not_before == 1.0
    assert breaker.failed(0.5, places=5, probe=False, after=0.0) is None, "was in flight already"
    now = 1.0
    for pause in (2.0, 3.0, 3.0):
        assert breaker.sent()
        assert breaker.not_before == float("inf")
        assert breaker.failed(now, places=5, probe=True, after=0.0) == pause
        assert breaker.not_before == now + pause
        now += pause
    assert not breaker.is_dead
    breaker.sent()
    assert breaker.failed(now, places=5, probe=True, after=20.0) == 20.0, "as the server asked"
    assert breaker.is_dead
    assert breaker.answered(now)
    assert (breaker.is_dead, breaker.not_before, breaker.sent()) == (False, 0.0, False)


def test_an_answer_between_failures_keeps_the_breaker_closed() -> None:
    breaker = Breaker(Pauses(first=1.0, longest=3.0, probes=4), now=0.0)
    for _ in range(100):
        assert all(breaker.failed(0.0, places=1, probe=False, after=0.0) is None for _ in range(9))
        assert not breaker.answered(0.0)


def test_while_others_are_answered_a_broken_answer_does_not_wait_longer_and_longer() -> None:
    class Unlucky:
        left = 4

        async def complete(self, request: Request) -> Completion:
            await asyncio.sleep(0)
            if request.id == "r40" and self.left:
                self.left -= 1
                raise RetryableError("cut")
            return answer_of(request)

    notes: list[str] = []
    asyncio.run(collect(Unlucky(), Requests(41), policy(max_attempts=5, first_delay=0.02, in_flight=4), notes))
    waits = [float(note.split(" in ")[1].split()[0]) for note in notes if "cut" in note]
    assert len(waits) == 4
    assert max(waits) <= 0.02


# --- what says that the server is alive, and what the source is asked about


class Scripted:
    """Fails the first so many tries as a server that is down, then meets each request in its own way."""

    def __init__(self, down: int, **ways: Exception) -> None:
        self.down, self.ways, self.tries = down, ways, Counter[str]()

    async def complete(self, request: Request) -> Completion:
        await asyncio.sleep(0)
        self.tries[request.id] += 1
        if self.tries.total() <= self.down:
            raise RetryableError("nobody at home", cause=Cause.TURNED_AWAY)
        if fault := self.ways.get(request.id):
            raise fault
        return answer_of(request)


def refused(words: str = "400 not this text") -> RefusedRequestError:
    return RefusedRequestError(what=words, where="teacher", remedy="another text")


def empty() -> RetryableError:
    return RetryableError("no text", cause=Cause.EMPTY)


def within_seconds(client: Any, source: Requests, **changes: Any) -> list[str]:
    """The ids of the answers; a queue that hangs fails here."""

    async def session() -> list[str]:
        notes: list[str] = []
        quick = {"in_flight": 2, "longest_pause": 0.01, "first_delay": 0.001, "longest_delay": 0.01}
        rules = policy(**{**quick, **changes})
        answers = await asyncio.wait_for(collect(client, source, rules, notes), 20.0)
        return sorted(answer.request.id for answer in answers)

    return asyncio.run(session())


@pytest.mark.parametrize("last_words", [refused(), empty()])
def test_a_probe_that_is_refused_or_answered_without_text_closes_the_breaker(last_words: Exception) -> None:
    ways = {f"r{number}": last_words for number in range(4)}
    source = Requests(6, goes_on=True)
    assert within_seconds(Scripted(12, **ways), source) == ["r4", "r5"]
    assert sorted(source.missed) == ["r0", "r1", "r2", "r3"]


def test_a_refusal_without_which_the_source_does_not_go_on_is_told_as_it_is() -> None:
    error, source = refused(), Requests(5)
    with pytest.raises(RefusedRequestError) as caught:
        within_seconds(Scripted(0, r2=error), source)
    assert caught.value is error
    assert source.missed == ["r2"]


def test_a_probe_that_cannot_heal_ends_the_run() -> None:
    with pytest.raises(TeacherError, match="401"):
        within_seconds(Scripted(12, **{f"r{number}": TeacherError(what="401") for number in range(4)}), Requests(4))


def test_a_probe_that_is_out_when_nothing_more_is_wanted_is_waited_for() -> None:
    class Full(Requests):
        def failed(self, request: Request, fault: RetryableError) -> bool:
            self.closed = len(self.faults) > 12
            return super().failed(request, fault)

    assert within_seconds(Scripted(10**9), Full(3)) == []


@pytest.mark.parametrize("other", [None, RetryableError("500 fire")])
def test_a_request_that_is_never_answered_with_text_is_given_up_whatever_else_fails(other: Exception | None) -> None:
    class Blank:
        tries = 0

        async def complete(self, request: Request) -> Completion:
            await asyncio.sleep(0)
            if request.id != "r1":
                return answer_of(request)
            self.tries += 1
            raise empty() if other is None or self.tries % 2 else other

    client, source = Blank(), Requests(30, goes_on=True)
    assert len(within_seconds(client, source, max_attempts=3)) == 29
    assert source.missed == ["r1"]
    assert client.tries == (5 if other else 3)


def test_the_last_requests_of_a_list_may_be_those_that_are_never_answered() -> None:
    source = Requests(4, goes_on=True)
    assert within_seconds(Scripted(0, r2=empty(), r3=empty()), source, max_attempts=6) == ["r0", "r1"]
    assert sorted(source.missed) == ["r2", "r3"]


@pytest.mark.parametrize("cause", [Cause.BROKEN, Cause.TIMEOUT, Cause.TURNED_AWAY])
def test_a_fault_of_the_server_is_no_property_of_a_request(cause: Cause) -> None:
    source = Requests(60, goes_on=True)
    with pytest.raises(NoAnswerError, match="r5 failed"):
        within_seconds(Scripted(0, r5=RetryableError("bad luck", cause=cause)), source, max_attempts=2)
    assert source.missed == []


def test_an_answer_without_text_that_is_one_too_many_ends_a_source_that_needs_it() -> None:
    with pytest.raises(NoAnswerError, match="r1 failed 2 times, the last time: no text"):
        within_seconds(Scripted(0, r1=empty()), Requests(9), max_attempts=2)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_goes_wrong_each_request_is_answered_or_given_up_once(seed: int) -> None:
    class Chaos:
        """Bad and good times in turn, in which a try ends in any of the ways there are."""

        def __init__(self) -> None:
            self.rng, self.tries = random.Random(seed), 0

        async def complete(self, request: Request) -> Completion:
            await asyncio.sleep(self.rng.choice([0, 0, 0.001]))
            self.tries += 1
            if self.rng.random() < (0.97 if self.tries // 40 % 2 == 0 else 0.2):
                raise self.rng.choice([refused(), empty(), RetryableError("reset"),
                    *[RetryableError("503", cause=Cause.TURNED_AWAY, after=0.001)] * 15])  # fmt: skip
            return answer_of(request)

    source = Requests(60, goes_on=True)
    answered = within_seconds(Chaos(), source, in_flight=1 + seed % 7, max_attempts=60)
    assert sorted([*answered, *source.missed]) == sorted(f"r{number}" for number in range(60))
