"""The curve over a factor of numbers: its series, the power law through each, and how far that may be carried on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from alpaca.config import ReportConfig
from alpaca.report import wording
from alpaca.report.figures import Band
from alpaca.report.results import Level, Results
from alpaca.statistics.curves import LEAST_SIZES, Foretold, PowerLaw, power_law

_DRAWN_AT = 48


def series(results: Results, bundles: Mapping[str, Sequence[str]]) -> dict[str, list[Level]]:
    """The measured levels by their other factors; what moves together with the axis makes no series of its own."""
    along = {results.axis, *(key for keys in bundles.values() if results.axis in keys for key in keys)}
    found: dict[str, list[Level]] = {}
    for level in results.measured:
        others = wording.factors({key: item for key, item in level.factors.items() if key not in along})
        found.setdefault(others, []).append(level)
    return found


def laws(config: ReportConfig, results: Results) -> dict[str, PowerLaw]:
    """The law of each series that has sizes and items enough; none where the question draws no curve."""
    if not results.axis or results.axis != config.analysis.curve or config.analysis.fit != "power":
        return {}
    found = {label: _law(levels, results) for label, levels in series(results, config.bundles).items()}
    return {label: law for label, law in found.items() if law is not None}


def told(law: PowerLaw, results: Results) -> list[str]:
    """What the law is, and up to where it may be read."""
    if law.missed:
        failed = law.foretold is not None and not law.foretold.holds
        return [_misses(law, results), *([_tested(law, law.foretold, results)] if law.foretold and failed else [])]
    return [_numbers(law, results), f"{_reach(law, results)}{_whose(law)}"]


def band(law: PowerLaw) -> Band:
    """The law from its first size to where it may be read."""
    places = np.geomspace(law.sizes[0], law.reach, _DRAWN_AT)
    drawn = [law.at(float(place)) for place in places]
    return Band(
        x=[float(place) for place in places],
        middle=[one.estimate for one in drawn],
        low=[one.low for one in drawn],
        high=[one.high for one in drawn],
    )


def _law(levels: Sequence[Level], results: Results) -> PowerLaw | None:
    by_size = {float(level.factors[results.axis]): level for level in levels}
    items = levels[0].shared(results.main)
    for level in levels[1:]:
        answered = set(level.shared(results.main))
        items = [item for item in items if item in answered]
    if len(by_size) < LEAST_SIZES or len(items) < 2 or min(by_size) <= 0:
        return None
    scores = {
        size: [[one.values[item] for item in items] for one in level.scored(results.main)]
        for size, level in by_size.items()
    }
    return power_law(scores, least=0.0, most=1.0) if results.is_share(results.main) else power_law(scores)


def _misses(law: PowerLaw, results: Results) -> str:
    """Instead of its numbers, which would be those of a curve that nothing follows."""
    off = wording.listing(
        [f"{one.measured:.2f} at {wording.value(one.size)}, where it has {one.law:.2f}" for one in law.missed]
    )
    held = f" that stays between {law.scale[0]:g} and {law.scale[1]:g}" if results.is_share(results.main) else ""
    return (
        f"No power law{held} describes these values: the nearest misses {off}, by more than chance. "
        f"The line only joins the means, and nothing is to be read beyond {wording.value(law.sizes[-1])}."
    )


def _numbers(law: PowerLaw, results: Results) -> str:
    head = f"Power law through {len(law.sizes)} values of {results.axis}: {wording.metric(results.main)}"
    limit = f"tends to {wording.full(law.limit)}"
    if law.exponent is None:
        return f"{head} {limit}; these values do not determine how fast."
    power = wording.full(law.exponent)
    return f"{head} {limit}, and the distance to it shrinks with {results.axis} to the power of {power}."


def _reach(law: PowerLaw, results: Results) -> str:
    last = wording.value(law.sizes[-1])
    if law.foretold is None:
        first = wording.value(law.sizes[0])
        return (
            f"Three values fix the three numbers of a power law, so that nothing here tests its form: read it from "
            f"{first} to {last} and not beyond."
        )
    return _tested(law, law.foretold, results)


def _tested(law: PowerLaw, foretold: Foretold, results: Results) -> str:
    size, measured = wording.value(foretold.size), wording.like(foretold.measured, foretold.interval)
    told = f"Fitted without {size}, it foretells {wording.full(foretold.interval)} there; measured was {measured}."
    if not foretold.holds:
        return f"{told} The law does not hold over that step, so it is not to be carried on beyond {size}."
    beyond = law.reach
    there = wording.full(law.at(beyond))
    ratio = f"{law.sizes[-1] / law.sizes[-2]:.3g}"
    return (
        f"{told} It may be carried on as far as it was tested, {ratio} times the largest: {there} at "
        f"{results.axis} = {wording.value(beyond)}. Farther is a guess."
    )


def _whose(law: PowerLaw) -> str:
    return (
        "" if law.over_seeds else " The intervals speak of these very runs: one run of a size says nothing of others."
    )
