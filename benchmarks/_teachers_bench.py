"""Measures of the online teacher, for `sampling.py`; alone: python benchmarks/_teachers_bench.py [--requests 1000].

The client is the one a stage uses (`open_teacher` and the queue), the server the programmatic teacher in a process of
its own, with a second of latency; faults come from `_fault_proxy.py` between them, a third process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from alpaca.teachers import open_teacher
from alpaca.teachers.base import Message, Request, RetryableError, Session
from alpaca.teachers.openai import OpenAI
from alpaca.teachers.programmatic import MODEL
from alpaca.teachers.queue import Policy, ask

ROOT = Path(__file__).resolve().parents[1]
PROXY = Path(__file__).with_name("_fault_proxy.py")
TASKS = 20
# As long as Alpaca's prompt with three seed tasks: 3,342 characters on average.
FILLER = "Write tasks that differ from each other in kind, in wording and in length. " * 42
ATTEMPTS = 10  # at 20 % of faults, one request in ten million fails so often


class Requests:
    """A source of so many requests, told apart by their seeds."""

    def __init__(self, count: int) -> None:
        self._left = [_request(number) for number in reversed(range(count))]
        self.faults = 0

    def next_request(self) -> Request | None:
        return self._left.pop() if self._left else None

    def wants_more(self) -> bool:
        return True

    def failed(self, request: Request, fault: RetryableError) -> bool:
        self.faults += 1
        return True

    def gave_up(self, request: Request, reason: str) -> bool:
        return False


@dataclass(kw_only=True, slots=True, frozen=True)
class Asked:
    """What came of asking: wall and CPU seconds of this process, and how often each id was answered."""

    wall: float
    cpu: float
    answers: Counter[str]
    faults: int


def ideal_share(
    in_flight: int = 100, latency: float = 1.0, requests: int = 2000, say: Callable[[str], None] = print
) -> dict[str, float]:
    """The share of the ideal rate, in_flight / latency, that is reached without faults."""
    with server(latency) as base_url:
        asked = _asked(base_url, requests, in_flight, timeout=60.0)
    say(f"{requests} requests, {in_flight} in flight, {latency:g} s each: {asked.wall:.2f} s")
    return {
        f"ideal_share_{in_flight}": round(requests * latency / in_flight / asked.wall, 4),
        "client_cpu_ms_per_request": round(1000 * asked.cpu / requests, 3),
        "ideal_unanswered": requests - len(asked.answers),
    }


@dataclass(kw_only=True, slots=True, frozen=True)
class Faults:
    """A run under faults. timeout and retry_after in seconds; share of tries that go wrong.

    The timeout is three times the latency, as 120 s are for an answer of 40 s. It decides the ratio: among the last
    hundred requests some hang nearly always, and whatever the order, the run takes that much longer at its end.
    """

    requests: int = 1000
    in_flight: int = 100
    latency: float = 1.0
    timeout: float = 3.0
    share: float = 0.2
    retry_after: float = 1.0


QUICK = Faults(requests=60, in_flight=20, latency=0.2, timeout=0.6, retry_after=0.2)


def under_faults(
    requests: int = 1000, *, quick: bool = False, timeout: float | None = None, say: Callable[[str], None] = print
) -> dict[str, float]:
    """Lost and doubled requests over three seeds of the fault mix, and the median wall over a perfect scheduler's.

    The median, because one request that hangs three times in a row at the very end decides a single run.
    """
    faults = replace(QUICK if quick else Faults(), requests=requests)
    faults = replace(faults, timeout=timeout or faults.timeout)
    runs = []
    for seed in range(1 if quick else 3):
        runs.append(_faulty_run(faults, seed))
        say(f"under faults: {runs[-1]}")
    ratios = [run["wall_ratio"] for run in runs]
    return {
        "fault_lost": sum(run["lost"] for run in runs),
        "fault_duplicated": sum(run["duplicated"] for run in runs),
        "fault_wall_ratio": median(ratios),
        "fault_wall_ratio_worst": max(ratios),
    }


def _faulty_run(faults: Faults, seed: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder, server(faults.latency) as behind:
        log = Path(folder) / "attempts.jsonl"
        with proxy(behind, log, faults, seed) as base_url:
            asked = _asked(base_url, faults.requests, faults.in_flight, faults.timeout)
        rows = [json.loads(line) for line in log.read_text().splitlines()]
    # Some answers that the proxy sent whole may never have arrived: what arrived twice is what the queue says.
    served = Counter(row["request"] for row in rows if row["fault"] is None and row["status"] == 200)
    slots = sum(row["end"] - row["start"] for row in rows) / faults.in_flight
    chain = max(_chains(rows, faults.retry_after))
    return {
        "seed": seed,
        "lost": faults.requests - len(asked.answers),
        "duplicated": sum(count - 1 for counts in (asked.answers, served) for count in counts.values()),
        "wall_ratio": round(asked.wall / max(slots, chain), 4),
        "wall_seconds": round(asked.wall, 3),
        "slot_seconds_per_place": round(slots, 3),
        "longest_chain_seconds": round(chain, 3),
        "attempts": len(rows),
        "faults": asked.faults,
    }


def _chains(rows: list[dict[str, Any]], retry_after: float) -> Iterator[float]:
    """Seconds that each request needs with a place always free: its attempts, and the waits that the server asked for.

    The client's own waits are not in it: a lazy one must not make its yardstick longer.
    """
    seconds, waits = Counter[str](), Counter[str]()
    for row in rows:
        seconds[row["request"]] += row["end"] - row["start"]
        waits[row["request"]] += row["fault"] == "limit_with_wait"
    yield from (seconds[name] + retry_after * waits[name] for name in seconds)


def _asked(base_url: str, requests: int, in_flight: int, timeout: float) -> Asked:
    teacher = OpenAI(
        model=MODEL, base_url=base_url, in_flight=in_flight, timeout=timeout, max_attempts=ATTEMPTS
    )
    return asyncio.run(_ask_all(teacher, requests))


async def _ask_all(teacher: OpenAI, count: int) -> Asked:
    answers, source = Counter[str](), Requests(count)
    async with open_teacher(teacher, Session(work=Path(), say=lambda text: None)) as client:
        began, cpu = time.perf_counter(), time.process_time()
        async with aclosing(ask(client, source, Policy.of(teacher))) as arriving:
            async for answer in arriving:
                answers[answer.request.id] += 1
        return Asked(
            wall=time.perf_counter() - began, cpu=time.process_time() - cpu, answers=answers, faults=source.faults
        )


def _request(number: int) -> Request:
    text = f"{FILLER}\n\nList of {TASKS} tasks:\n###\n4. Instruction:"
    return Request(
        id=f"request_{number:06d}",
        messages=(Message(role="user", content=text),),
        temperature=1.0,
        top_p=1.0,
        max_tokens=3072,
        seed=number,
    )


@contextmanager
def server(latency: float) -> Iterator[str]:
    """The programmatic teacher in a process of its own; gives its base URL."""
    command = [sys.executable, "-m", "alpaca.teachers.programmatic", "--port", "0", "--latency", str(latency)]
    with _running(command) as line:
        yield line.partition(" at ")[2].partition(" ")[0]


@contextmanager
def proxy(upstream: str, log: Path, faults: Faults, seed: int) -> Iterator[str]:
    """The fault proxy before a server; gives its base URL."""
    options = {"upstream": upstream, "log": log, "share": faults.share, "seed": seed, "retry-after": faults.retry_after}
    given = [f"--{name}={value}" for name, value in options.items()]
    with _running([sys.executable, str(PROXY), *given]) as line:
        yield line.strip()


@contextmanager
def _running(command: list[str]) -> Iterator[str]:
    """A process and the line it prints first; it is ended by SIGTERM and waited for."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout is None or not (line := process.stdout.readline()):
            raise SystemExit(f"{' '.join(command)} printed nothing")
        yield line
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000, help="of a run under faults; twice as many without")
    parser.add_argument("--timeout", type=float, help="seconds of the client under faults")
    given = parser.parse_args()
    found = ideal_share(requests=2 * given.requests)
    print(json.dumps(found | under_faults(given.requests, timeout=given.timeout)))


if __name__ == "__main__":
    main()
