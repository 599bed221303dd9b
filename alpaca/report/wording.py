"""How numbers and names are written in the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from alpaca.statistics import Interval

_METRICS = {"rouge_l": "ROUGE-L"}
_ITEMS_FOR_THREE_DIGITS = 20
_OVER_RUNS = ("Student t", "Welch t", "crossed t")
"""Their n counts runs, or both, and says nothing of the items behind a share."""


def value(item: Any) -> str:
    """A configuration value: 4,000, 2e-5, true, null, a + b."""
    if item is None:
        return "null"
    if isinstance(item, bool):
        return str(item).lower()
    if isinstance(item, int):
        return f"{item:,}"
    if isinstance(item, float):
        return f"{item:,.0f}" if item.is_integer() and abs(item) >= 1000 else f"{item:g}".replace("e-0", "e-")
    if isinstance(item, list | tuple):
        return " + ".join(value(part) for part in item) or "none"
    return str(item)


def factors(settings: Mapping[str, Any]) -> str:
    """ "data.size = 250, optimizer = muon"."""
    return ", ".join(f"{key} = {value(item)}" for key, item in settings.items())


def factors_in_words(settings: Mapping[str, Any]) -> str:
    """ "data.size = 250 and optimizer = muon", for a sentence that has commas of its own."""
    return listing([f"{key} = {value(item)}" for key, item in settings.items()])


def metric(key: str) -> str:
    """ "embedded.exact_match" -> "exact match"."""
    name = key.rpartition(".")[2]
    return _METRICS.get(name) or name.replace("_", " ")


def metric_in_full(key: str) -> str:
    """ "embedded.exact_match" -> "exact match on embedded"."""
    return f"{metric(key)} on {key.rpartition('.')[0]}"


def estimate(interval: Interval) -> str:
    return _fixed(interval.estimate, _digits(interval))


def bounds(interval: Interval) -> str:
    """ "0.140 to 0.280"."""
    digits = _digits(interval)
    return f"{_fixed(interval.low, digits)} to {_fixed(interval.high, digits)}"


def full(interval: Interval) -> str:
    """ "0.210 (0.140 to 0.280)"."""
    return f"{estimate(interval)} ({bounds(interval)})"


def like(number: float, interval: Interval) -> str:
    """A number that stands beside an interval, with as many digits."""
    return _fixed(number, _digits(interval))


def signed(interval: Interval) -> str:
    """ "+0.210", for a difference."""
    text = estimate(interval)
    # Seeds that cancel out leave 1e-17, which is no gain.
    shows_gain = interval.estimate > 0 and any(digit in text for digit in "123456789")
    return f"+{text}" if shows_gain else text


def size(number: float) -> str:
    """Two significant digits, for a size that is itself an estimate: 0.041, 4.9, 17."""
    return f"{float(f'{number:.2g}'):g}"


def p_value(number: float) -> str:
    """ "0.03", "< 0.001"."""
    return "< 0.001" if number < 0.001 else f"{number:.3f}" if number < 0.1 else f"{number:.2f}"


def count(number: float) -> str:
    return f"{round(number):,}"


def plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def percent(part: float, whole: float) -> str:
    """A share of a complete count, so no interval; "none" and "< 0.1 %" instead of a false 0."""
    if not part or not whole:
        return "none" if whole else "–"
    share = 100 * part / whole
    return "< 0.1\N{NO-BREAK SPACE}%" if share < 0.1 else f"{share:.1f}\N{NO-BREAK SPACE}%"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{seconds / 60:.1f} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def moment(stamp: str) -> str:
    """An ISO time to the minute: "2026-11-20 10:00 UTC"; anything else as it is."""
    try:
        time = datetime.fromisoformat(stamp)
    except ValueError:
        return stamp
    return f"{time:%Y-%m-%d %H:%M} {time.tzname() or ''}".strip()


def spread(numbers: Iterable[int], noun: str) -> str:
    """ "3 seeds", or "2 to 3 seeds" where the levels differ."""
    known = sorted(set(numbers))
    return plural(known[0], noun) if len(known) == 1 else f"{known[0]:,} to {known[-1]:,} {noun}s"


def listing(parts: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most].rstrip()} … ({len(text):,} characters)"


def _digits(interval: Interval) -> int:
    """Enough to tell the bounds apart; points and percentages have one at least.

    Rates have three, so that they agree with their difference in points; two where few items carry no third.
    """
    width = interval.high - interval.low
    needed = math.floor(-math.log10(width)) if width > 0 else 1
    largest = max(abs(interval.low), abs(interval.high))
    if largest <= 1.5:
        few = interval.n < _ITEMS_FOR_THREE_DIGITS and interval.method not in _OVER_RUNS
        return min(4, max(2 if few else 3, needed + 1))
    return min(4, max(1 if largest < 1000 else 0, needed + 2))


def _fixed(number: float, digits: int) -> str:
    text = f"{number:,.{digits}f}"
    negative = text.startswith("-") and any(digit in text for digit in "123456789")
    return f"−{text[1:]}" if negative else text.lstrip("-")
