"""How the intervals of an answer were made, and what must be known before it is believed."""

from __future__ import annotations

from alpaca.report import wording
from alpaca.report.effects import Contrasts, Findings
from alpaca.report.folders import Folder
from alpaca.report.ledger import code_of
from alpaca.report.results import SEEDS_FOR_T, Level, Results


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


def difference_method(contrasts: Contrasts) -> str:
    """The lines below the table of effects."""
    found = contrasts.comparison
    if found is None:
        return ""
    number = len(contrasts.rows)
    corrected = f", corrected for {number} comparisons so that all hold together (p by Holm)" if number > 1 else ""
    return (
        f"Intervals at 95 %{corrected}. {_speaks_of(contrasts)} Detectable: the smallest true difference that this "
        f"comparison would have found with {100 * found.power:.0f} % power.{_spread(contrasts)}"
    )


def _speaks_of(contrasts: Contrasts) -> str:
    if contrasts.over_seeds:
        return (
            "They speak of new seeds and of new items like these: t over runs and items, one spread of seeds for "
            "levels that have as much room to vary."
        )
    return "They speak of new items for these very runs: one run of a level says nothing of another seed."


def _spread(contrasts: Contrasts) -> str:
    """How far runs of a level lie apart: one spread for levels that are alike is assumed."""
    found = contrasts.comparison
    known = [spread for spread in found.run_sd.values() if spread is not None] if found else []
    if len(known) < 2:
        return ""
    scale, unit = (100, " points") if contrasts.in_points else (1, "")
    low, high = (wording.size(scale * one) for one in (min(known), max(known)))
    return f" The standard deviation of a level's runs is {low} to {high}{unit}."


def seeds_in_words(results: Results) -> str:
    """Which seeds vary between runs of a level, and which are the same throughout."""
    keys = list(dict.fromkeys(key for outcome in results.outcomes for key in outcome.point.seeds))
    repeated = [level for level in results.levels if len(level.outcomes) > 1]
    if not repeated:
        return "Every level was run once, so that nothing is repeated."
    varied = [
        key for key in keys if any(len({one.point.seeds.get(key) for one in level.outcomes}) > 1 for level in repeated)
    ]
    same = [key for key in keys if key not in varied]
    held = f"; the seed of {wording.listing(same)} is one and the same, so its luck is not covered" if same else ""
    return f"Runs of a level differ in the seeds of {wording.listing(varied) or 'nothing'}{held}."


def caveats(results: Results, findings: Findings, folders: list[Folder]) -> list[str]:
    """What stands above the figure because it changes how everything below it is read."""
    return [
        *_unfinished(results),
        *_without_baseline(findings),
        *_collapsed(results),
        *_meaningless(results),
        *_mixed_code(folders),
    ]


def _names(levels: list[Level]) -> str:
    return "; ".join(level.name for level in levels if level.name) or "here"


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


def _without_baseline(findings: Findings) -> list[str]:
    lost = findings.missing_baseline
    return [f"The baseline ({lost}) has no scores, so nothing is compared with it."] if lost else []


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
    return [
        f"The stages were made by {len(versions)} versions of the code, which the provenance below names; "
        "a stage is only taken over where what decides its result is the same."
    ]
