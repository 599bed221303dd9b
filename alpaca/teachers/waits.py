"""How long a server asks to wait before the next try, read from the headers of its answer."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime

RESET = re.compile(r"(?:x-)?ratelimit-reset(-[a-z-]+)?")
DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|h|m|s)")
SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
# A reset beyond this many seconds is a point in time (Unix), as some gateways send it.
LONGEST_SPAN = 1e8


def wait_asked(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait: as `retry_after` says, else until the rate limit that is used up is reset; None without either.

    Names of headers are lower case.
    """
    asked = retry_after(headers)
    return asked if asked is not None else max(_resets(headers), default=None)


def retry_after(headers: Mapping[str, str]) -> float | None:
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


def _resets(headers: Mapping[str, str]) -> Iterator[float]:
    """The resets of limits with nothing left: that of a limit with something left tells when it would be full again."""
    for name, value in headers.items():
        if RESET.fullmatch(name) is None:
            continue
        left = headers.get(name.replace("reset", "remaining"), "0").strip()
        seconds = _span(value.strip()) if left in ("0", "0.0") else None
        if seconds is not None:
            yield seconds


def _span(text: str) -> float | None:
    """Seconds of "20ms", "6m0s", "1.5", or until a Unix time; None for anything else."""
    try:
        number = float(text)
    except ValueError:
        parts = DURATION.findall(text)
        whole = "".join(amount + unit for amount, unit in parts) == text
        return sum(float(amount) * SECONDS[unit] for amount, unit in parts) if parts and whole else None
    if not math.isfinite(number):
        return None
    return max(0.0, number - time.time() if number > LONGEST_SPAN else number)


def _seconds_until(date: str) -> float | None:
    try:
        return max(0.0, parsedate_to_datetime(date).timestamp() - time.time())
    except ValueError:
        return None
