"""The answer in one sentence, how its intervals were made, and what must be known before it is believed."""

from __future__ import annotations

from alpaca.report import wording
from alpaca.report.folders import Folder
from alpaca.report.ledger import code_of
from alpaca.report.results import SEEDS_FOR_T, Difference, Level, Results

_MOST_LISTED = 4
_MOST_INCONCLUSIVE = 6
_WAYS = {
    "seed": "paired by seed (Student t)",
    "run": "of unpaired runs (Welch t)",
    "item": "paired by item",
}


def sentence(results: Results) -> str:
    """The mean of each level with its interval and n; never a number alone."""
    levels = results.measured
    if not levels:
        return _nothing_scored(results)
    head = wording.metric_in_full(results.main)
    if len(levels) == 1:
        of_level = f" at {wording.factors(levels[0].factors)}" if levels[0].factors else ""
        body = f" is {wording.full(levels[0].intervals[results.main])}{of_level}"
    elif results.axis and len(levels[0].factors) == 1:
        body = _trend(results)
    else:
        body = _listing(results)
    return f"{head[0].upper()}{head[1:]}{body}; {_counts(results)}."


def _nothing_scored(results: Results) -> str:
    asked = any(role.startswith("score:") for outcome in results.outcomes for role in outcome.folders)
    if asked:
        return "No run has finished scoring, so there is no answer yet."
    return f"{wording.plural(len(results.outcomes), 'run')} without an evaluation, so nothing is compared here."


def method(results: Results) -> str:
    """How the intervals were made and what they leave out."""
    levels = results.measured
    if not levels:
        return ""
    over_seeds = [level for level in levels if level.intervals[results.main].method == "Student t"]
    agreed = [level for level in levels if level not in over_seeds and len(level.scored(results.main)) >= SEEDS_FOR_T]
    few = [level for level in levels if level not in over_seeds and level not in agreed]
    parts = [
        "95 % intervals of the mean over seeds (Student t): they cover what changes from seed to seed, not the choice "
        "of items."
        if over_seeds
        else "",
        f"Where all seeds agree exactly ({_names(agreed)}) the 95 % interval is over items "
        f"({_item_method(agreed, results)})."
        if agreed
        else "",
        f"{_whose(few, levels)}95 % intervals over items ({_item_method(few, results)}); with fewer than {SEEDS_FOR_T} "
        f"seeds the variation between seeds is not covered."
        if few
        else "",
    ]
    return " ".join(part for part in parts if part)


def difference_method(results: Results) -> str:
    """The line below the differences."""
    if not results.differences:
        return ""
    number = len(results.differences)
    pairs = {difference.pairs for difference in results.differences}
    ways = " or ".join(text for key, text in _WAYS.items() if key in pairs)
    corrected = f", widened so that all {number} hold together (Bonferroni)" if number > 1 else ""
    items_only = " Pairs of items leave the variation between runs out." if "item" in pairs else ""
    sign = any(difference.interval.method == "sign" for difference in results.differences)
    signed = " Where every item changes by the same amount the bound is that of the exact sign test." if sign else ""
    return f"95 % intervals of differences {ways}{corrected}.{items_only}{signed}"


def caveats(results: Results, folders: list[Folder]) -> list[str]:
    """What stands above the figure because it changes how everything below it is read."""
    return [*_unfinished(results), *_collapsed(results), *_meaningless(results), *_mixed_code(folders)]


def _trend(results: Results) -> str:
    first, last = results.measured[0], results.measured[-1]
    head, tail = _at(first, results), _at(last, results).replace(f"{results.axis} = ", "")
    middle = _extreme_between(results)
    end = next((one for one in results.differences if one.level is last), None)
    # Rising and falling are said of training, so of repeated runs; one run each shows its own items only.
    if end is None or not end.direction or not end.repeats_runs:
        return f" is {head} and {tail}{middle}{_doubt(results)}"
    verb = {"higher": "rises from", "lower": "falls from"}[end.direction]
    unlike = [one for one in results.differences if one.verdict != end.verdict]
    return f" {verb} {head} to {tail}{middle}{_against(unlike, results)}"


def _at(level: Level, results: Results) -> str:
    setting = f"{results.axis} = {wording.value(level.factors[results.axis])}"
    return f"{wording.full(level.intervals[results.main])} at {setting}"


def _extreme_between(results: Results) -> str:
    """The highest level, where it is neither the first nor the last."""
    best = max(results.measured, key=lambda level: level.intervals[results.main].estimate)
    return f", highest with {_at(best, results)}" if best not in (results.measured[0], results.measured[-1]) else ""


def _listing(results: Results) -> str:
    ordered = sorted(results.measured, key=lambda level: -level.intervals[results.main].estimate)
    named = [
        f"{wording.full(level.intervals[results.main])} with {wording.factors_in_words(level.factors)}"
        for level in ordered
    ]
    if len(named) <= _MOST_LISTED:
        return f" is {wording.listing(named)}{_doubt(results)}"
    return f" is highest at {named[0]}, and lowest at {named[-1]}, of {len(named)} levels{_doubt(results)}"


def _doubt(results: Results) -> str:
    """What the differences from the reference allow to say; every sentence that names several levels ends in it."""
    differences = results.differences
    apart = len(results.measured) - 1 - len(differences)
    lost = f"; {wording.plural(apart, 'level')} without an item in common with the first, so not compared"
    return f"{_compared(differences, results) if differences else ''}{lost if apart else ''}"


def _compared(differences: list[Difference], results: Results) -> str:
    if all(difference.verdict.startswith("identical") for difference in differences):
        return "; the levels are identical on every item"
    if all(difference.verdict == "inconclusive" for difference in differences):
        one = len(differences) == 1
        first = _short(results.measured[0])
        return f"; {'the difference is inconclusive' if one else f'no difference from {first} is conclusive'}"
    return _against(differences, results)


def _against(differences: list[Difference], results: Results) -> str:
    """ "; b against a is higher, c and d against a are inconclusive"."""
    if not differences:
        return ""
    groups: dict[str, list[str]] = {}
    for difference in differences:
        groups.setdefault(difference.verdict, []).append(_short(difference.level))
    reference = _short(results.measured[0])
    parts = []
    for verdict, names in groups.items():
        many = verdict == "inconclusive" and len(names) > _MOST_INCONCLUSIVE
        named = f"{len(names)} others" if many else wording.listing(names)
        parts.append(f"{named} against {reference} {'is' if len(names) == 1 else 'are'} {verdict}")
    return f"; {', '.join(parts)}{_uncovered(differences)}"


def _uncovered(differences: list[Difference]) -> str:
    bare = [one for one in differences if one.direction and not one.repeats_runs and min(one.runs) < SEEDS_FOR_T]
    return "; what changes from run to run is not covered" if bare else ""


def _short(level: Level) -> str:
    """The values alone, as the level was named in full before or has its row in the table below."""
    return " / ".join(wording.value(item) for item in level.factors.values())


def _counts(results: Results) -> str:
    levels = results.measured
    seeds = wording.spread((len(level.scored(results.main)) for level in levels), "seed")
    items = wording.spread((level.items(results.main) for level in levels), "item")
    return f"{seeds}{' per level' if len(levels) > 1 else ''}, {items}"


def _names(levels: list[Level]) -> str:
    return "; ".join(wording.factors(level.factors) for level in levels if level.factors) or "here"


def _whose(few: list[Level], levels: list[Level]) -> str:
    return "" if len(few) == len(levels) else f"{_names(few)}: "


def _item_method(levels: list[Level], results: Results) -> str:
    words = {"Wilson": "Wilson", "bootstrap": "BCa bootstrap", "constant": "no spread"}
    return ", ".join(sorted({words[level.intervals[results.main].method] for level in levels}))


def _unfinished(results: Results) -> list[str]:
    torn = [outcome for outcome in results.outcomes if outcome.missing]
    if not torn:
        return []
    named = "; ".join(f"{outcome.label} (no {outcome.missing[0].name})" for outcome in torn)
    return [
        f"{len(torn)} of {wording.plural(len(results.outcomes), 'run')} did not finish: {named}. "
        "Everything below is made from the others and from the stages that did."
    ]


def _collapsed(results: Results) -> list[str]:
    """Points that look like repetitions and are none."""
    found = [(level, level.collapsed(results.main)) for level in results.measured]
    shared = [(level, number) for level, number in found if number]
    if not shared:
        return []
    number = sum(count for _, count in shared)
    points = f"{wording.plural(number, 'point')} {'has' if number == 1 else 'have'}"
    levels = [level for level, _ in shared]
    which = f" ({_names(levels)})" if levels[0].factors else ""
    return [
        f"{points} the trained model of another point of the same level{which}: "
        "a seed was given twice, or the seeds change nothing there. Each trained model counts as one run."
    ]


def _meaningless(results: Results) -> list[str]:
    sets: dict[str, None] = {}
    for outcome in results.outcomes:
        train = outcome.folders.get("train")
        if train is not None and train.setting("model", "kind") == "tiny":
            sets |= dict.fromkeys(_foreign_sets(outcome.folders))
    return [
        f"The tiny model's scores on {name} mean nothing: it was built for the embedded tasks only and has never "
        "seen ordinary English. They show that the pipeline works."
        for name in sets
    ]


def _foreign_sets(folders: dict[str, Folder]) -> list[str]:
    """Names of the evaluations whose items are not the embedded ones."""
    sets = {
        role.partition(":")[2]: folder.setting("set") for role, folder in folders.items() if role.startswith("respond:")
    }
    return [name for name, kind in sets.items() if kind not in (None, "embedded")]


def _mixed_code(folders: list[Folder]) -> list[str]:
    versions = {code_of(folder.document("provenance.json")) for folder in folders} - {""}
    if len(versions) < 2:
        return []
    return [f"The stages were made by {len(versions)} versions of the code; the provenance below names them."]
