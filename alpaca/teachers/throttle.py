"""How many requests may be in flight, and whether any may be sent at all.

`Pace` is additive increase, multiplicative decrease (Chiu and Jain 1989). A decrease at every refusal would strangle a
server that refuses a few percent for reasons of its own, so the share of refusals in a window of tries decides.
`Breaker` is a circuit breaker (Nygard 2007): without one, a dead server uses up the tries of every request in seconds.
Both know times only as numbers (seconds of any one clock), so they run without waiting.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from alpaca.teachers.base import Cause

OVERLOAD_SHARE = 0.25
DECREASE = 0.75
INCREASE = 0.05  # of the most, at least 1, after every window without overload
LEAST_WINDOW = 10
UNKNOWN_LATENCY = 0.5
NEWEST_WEIGHT = 0.1  # of the last try in the moving average of latencies
RECENT = 50  # tries by which a server is called healthy
LEAST_STREAK = 10
STREAK_PER_PLACE = 2.0


class Pace:
    """The number of requests that may be in flight, from 1 to `most`."""

    def __init__(self, most: int) -> None:
        self._most, self._limit = most, float(most)
        self._tries = self._overloads = 0  # of the current window
        self._recent: deque[bool] = deque(maxlen=RECENT)
        self._latency, self._lowered_at = 0.0, -math.inf

    @property
    def limit(self) -> int:
        return max(1, int(self._limit))

    @property
    def healthy(self) -> bool:
        """Whether at least half of the last tries brought an answer."""
        return 2 * sum(self._recent) >= len(self._recent)

    def answered(self, now: float, seconds: float) -> None:
        """Told about an answer that took so long."""
        self._learn(seconds)
        self._recent.append(True)
        self._count(now, overload=False)

    def failed(self, now: float, seconds: float, cause: Cause) -> int | None:
        """Told about a failed try; the new limit if it was lowered for that."""
        if cause is Cause.TIMEOUT:
            self._learn(seconds)
        self._recent.append(False)
        return self._count(now, overload=cause in (Cause.TURNED_AWAY, Cause.TIMEOUT))

    def _learn(self, seconds: float) -> None:
        self._latency += (seconds - self._latency) * (NEWEST_WEIGHT if self._latency else 1.0)

    def _count(self, now: float, *, overload: bool) -> int | None:
        self._tries += 1
        self._overloads += overload
        # Refusals come back sooner than answers, so less than a full window would see them alone.
        if self._tries < max(LEAST_WINDOW, self.limit):
            return None
        share, self._tries, self._overloads = self._overloads / self._tries, 0, 0
        if share <= OVERLOAD_SHARE:
            self._limit = min(self._most, self._limit + max(1.0, INCREASE * self._most))
            return None
        # What comes in within one latency was sent before the last decrease.
        if now < self._lowered_at + (self._latency or UNKNOWN_LATENCY):
            return None
        self._limit, self._lowered_at = max(1.0, self._limit * DECREASE), now
        return self.limit


@dataclass(kw_only=True, slots=True, frozen=True)
class Pauses:
    """The first pause doubles up to the longest one (seconds). `probes` of them in a row may fail before the server
    counts as dead if it has never answered, twice as many if it has: it may be starting anew.
    """

    first: float
    longest: float
    probes: int


class Breaker:
    """Opens when many tries in a row brought no answer; then one probe after each pause. Any answer closes it."""

    def __init__(self, pauses: Pauses, now: float) -> None:
        self._pauses = pauses
        self.is_open, self.streak, self.last_answer = False, 0, now
        self._answers = self._probes = 0
        self._probing, self._probe_at = False, 0.0

    @property
    def not_before(self) -> float:
        """When something may be sent next; infinity as long as a probe is out."""
        if not self.is_open:
            return 0.0
        return math.inf if self._probing else self._probe_at

    @property
    def is_dead(self) -> bool:
        return self._probes >= self._pauses.probes * (2 if self._answers else 1)

    def sent(self) -> bool:
        """Told that a request is sent; whether it is a probe."""
        self._probing = self.is_open
        return self._probing

    def answered(self, now: float) -> bool:
        """Told about an answer; whether it closes an open breaker."""
        closes, self.is_open, self._probing = self.is_open, False, False
        self.streak, self._probes, self.last_answer = 0, 0, now
        self._answers += 1
        return closes

    def failed(self, now: float, *, places: int, probe: bool, after: float) -> float | None:
        """Told about a failed try; seconds until the next probe where that opens the breaker or was a probe.

        places: how many requests may be in flight. after: seconds that the server asked to wait.
        """
        self.streak += 1
        if self.is_open and not probe:
            return None
        if not self.is_open and self.streak < max(LEAST_STREAK, STREAK_PER_PLACE * places):
            return None
        self._probes += probe and self.is_open  # not one whose pause was ended by another's answer
        pause = max(after, min(self._pauses.longest, self._pauses.first * 2.0**self._probes))
        self.is_open, self._probing, self._probe_at = True, False, now + pause
        return pause
