"""Claim: in a world whose truth is planted the instrument finds what is there, and nothing where nothing is.

    python benchmarks/validation.py [--quick] [--output-dir outputs]        (make validate)

Runs the ten shipped questions in the embedded world, and 24 trainings of the default configuration with seeds of their
own (data, initialisation and order), into one output folder; what is finished there is not run again.
aa_false_positives: of 100 replays (seeds 0 to 99), how many find a difference between two disjoint sets of four of the
24 runs; at most 10 are allowed. control_silent: 1 where the shipped question aa_control finds nothing.
teacher_order_recovered, noise_found, truncation_found: 1 where the teacher's error rates come out in the planted order
and each apart from the best, and where label noise and truncated answers lower exact match, all corrected for the
comparisons of their question; else 0. sweeps: how many questions ran; sweep_seconds: of each, by the order of their
names. Writes OUTPUT/validation.html. `--quick` is a smoke run whose
verdicts say nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from alpaca import statistics  # noqa: E402
from alpaca.report import blocks, html  # noqa: E402
from alpaca.sweep import expand, names  # noqa: E402

POOL, ARM, REPLAYS, ALLOWED = 24, 4, 100, 10
METRIC = "exact_match"
CONTROL = "aa_control"
QUICK = ["model.steps=20", "train.budget=10 steps", "eval.embedded.size=40", "data_gen.num_examples=300"]
QUICK += ["data.size=100"]
PLANTED = {
    CONTROL: [],
    "teacher": ["teacher.error_rate=0.0,0.4", "teacher.verbosity=0.0", "seed=0,1"],
    "data_properties": ["data.selection=random", "data.input_share=null", "data.dedup_threshold=0.7", "seed=0"],
}
"""Questions whose truth is known -> what a smoke run takes of them."""
Scores = dict[str, list[list[float]]]
"""Arm -> a list for each seed of the score of every item."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One line of the certificate."""

    claim: str
    found: str
    holds: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output-dir", type=Path, default=None)
    given = parser.parse_args()
    output = (given.output_dir or ROOT / (".bench/validation" if given.quick else "outputs")).resolve()
    seconds = {name: launched(output, commanded(name, given.quick)) for name in asked(given.quick)}
    pool_command = commanded(None, given.quick)
    pool_seconds = launched(output, pool_command)
    pool = next(iter(scores(output, page_of(output, pool_command)).values()))
    alarms = replays(pool, REPLAYS if not given.quick else 10)
    silent = control(output, given.quick)
    verdicts = [aa_verdict(alarms, len(pool)), silent, *planted(output, given.quick)]
    runs = [*ran(output, seconds, given.quick), ("the pool", f"{pool_seconds:.0f} s", f"{len(pool)} runs")]
    page(output, verdicts, runs)
    result = {
        "aa_false_positives": sum(alarms),
        "control_silent": int(silent.holds),
        "teacher_order_recovered": int(verdicts[2].holds),
        "noise_found": int(verdicts[3].holds),
        "truncation_found": int(verdicts[4].holds),
        "pool_runs": len(pool),
        "pool_seconds": round(pool_seconds, 1),
        "sweeps": len(seconds),
        "sweep_seconds": [round(value, 1) for _, value in sorted(seconds.items())],
    }
    print(json.dumps(result))


def asked(quick: bool) -> list[str]:
    return sorted(PLANTED) if quick else names()


def commanded(name: str | None, quick: bool) -> list[str]:
    """The launch of a question, or of the pool of single runs, but for where its results go."""
    seeds = range(2 * ARM if quick else POOL)
    words = ["-m", f"seed={','.join(map(str, seeds))}"] if name is None else [f"sweep={name}"]
    if name and quick:
        words = ["-m", *words, *PLANTED[name]]
    words += ["model=tiny"] if name == "alpaca52k" else []  # the others start in the small world
    return [*words, *(QUICK if quick else [])]


def launched(output: Path, words: list[str]) -> float:
    """Runs it; wall seconds."""
    print(f"== {' '.join(words)}", file=sys.stderr, flush=True)
    began = time.perf_counter()
    command = [sys.executable, "launch.py", *words, f"output_dir={output}", "tracker=none"]
    subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=True)
    return time.perf_counter() - began


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def page_of(output: Path, words: list[str]) -> Path:
    """The page of exactly this launch, whatever else lies in the folder."""
    found = expand([word for word in words if word != "-m"], multirun=True)
    return output / "sweeps" / found.name


def ran(output: Path, seconds: dict[str, float], quick: bool) -> list[tuple[str | blocks.Link, str, str]]:
    """Each question with a link to its page, its wall time and what it answers."""
    rows: list[tuple[str | blocks.Link, str, str]] = []
    for name, value in sorted(seconds.items()):
        folder = page_of(output, commanded(name, quick))
        link = blocks.Link(text=name, target=f"sweeps/{quote(folder.name)}/report.html")
        rows.append((link, f"{value:.0f} s", str(read(folder / "results.json")["answer"])))
    return rows


def scores(output: Path, folder: Path) -> Scores:
    """The scores of every item by arm and seed; an arm is named by its factors."""
    found: Scores = defaultdict(list)
    for point in read(folder / "results.json")["points"]:
        rows = (output / point["stages"]["score:embedded"] / "scores.jsonl").read_text(encoding="utf-8").splitlines()
        found[json.dumps(point["factors"], sort_keys=True)].append([float(json.loads(row)[METRIC]) for row in rows])
    return dict(found)


def replays(pool: list[list[float]], count: int) -> list[bool]:
    """Whether a comparison of two disjoint sets of runs of one configuration finds a difference, by replay seed."""
    found = []
    for seed in range(count):
        drawn = np.random.default_rng(seed).permutation(len(pool))[: 2 * ARM]
        arms = {"a": [pool[index] for index in drawn[:ARM]], "b": [pool[index] for index in drawn[ARM:]]}
        found.append(statistics.compare(arms, "a").effects[0].significant)
    return found


def aa_verdict(alarms: list[bool], runs: int) -> Verdict:
    count = len(alarms)
    return Verdict(
        claim=f"two sets of {ARM} runs of one configuration do not differ",
        found=f"a difference in {sum(alarms)} of {count} replays, {runs} runs in the pool",
        holds=sum(alarms) <= ALLOWED * count / REPLAYS,
    )


def control(output: Path, quick: bool) -> Verdict:
    """The shipped question with two arms of one configuration."""
    found = effects(output, CONTROL, {}, quick)
    return Verdict(
        claim=f"{CONTROL}: two arms with no seed in common do not differ",
        found="; ".join(told(effect) for effect in found.values()),
        holds=not any(effect.significant for effect in found.values()),
    )


def planted(output: Path, quick: bool) -> list[Verdict]:
    teacher = effects(output, "teacher", {"teacher.error_rate": 0.0, "teacher.verbosity": 0.0}, quick)
    by_rate = [(0.0, None), *((rate, teacher[one(teacher, "teacher.error_rate", rate)]) for rate in rates(quick))]
    means = [0.0 if effect is None else effect.interval.estimate for _, effect in by_rate]
    ordered = means == sorted(means, reverse=True)
    apart = all(effect is None or (effect.significant and effect.interval.estimate < 0) for _, effect in by_rate)
    order = Verdict(
        claim="a teacher's errors cost accuracy in the planted order",
        found="; ".join(f"{rate:g} wrong: {told(effect)}" for rate, effect in by_rate if effect is not None),
        holds=ordered and apart,
    )
    data = effects(output, "data_properties", {"data.label_noise": 0.0, "data.truncated_outputs": 0.0}, quick)
    noise = data[one(data, "data.label_noise", 0.3)]
    cut = data[one(data, "data.truncated_outputs", 0.5)]
    return [order, lowers("30 % of labels wrong", noise), lowers("half of the answers cut short", cut)]


def rates(quick: bool) -> list[float]:
    return [0.4] if quick else [0.2, 0.4]


def lowers(name: str, effect: statistics.Effect) -> Verdict:
    holds = effect.significant and effect.interval.estimate < 0
    return Verdict(claim=f"{name} lower exact match", found=told(effect), holds=holds)


def told(effect: statistics.Effect) -> str:
    points = [100 * value for value in (effect.interval.estimate, effect.interval.low, effect.interval.high)]
    return f"{points[0]:+.1f} points ({points[1]:+.1f} to {points[2]:+.1f}), corrected p {effect.corrected_p:.2g}"


def effects(output: Path, name: str, baseline: dict[str, float], quick: bool) -> dict[str, statistics.Effect]:
    """Each arm of a question against its baseline, the first point that has these values."""
    found = scores(output, page_of(output, commanded(name, quick)))
    base = next(arm for arm in found if baseline.items() <= json.loads(arm).items() and is_base(arm))
    return {effect.arm: effect for effect in statistics.compare(found, base).effects}


def is_base(arm: str) -> bool:
    plain = {"data.selection": "random", "data.input_share": None, "data.dedup_threshold": 0.7}
    return all(plain[key] == value for key, value in json.loads(arm).items() if key in plain)


def one(found: dict[str, statistics.Effect], factor: str, value: float) -> str:
    """The arm in which a factor has this value."""
    return next(arm for arm in found if json.loads(arm).get(factor) == value)


def page(output: Path, verdicts: list[Verdict], runs: Sequence[tuple[str | blocks.Link, str, str]]) -> None:
    """The certificate beside the results that it rests on."""
    rows = [(each.claim, each.found, "holds" if each.holds else "does not hold") for each in verdicts]
    document = blocks.Document(
        title="Validation of the instrument",
        lead=f"{sum(each.holds for each in verdicts)} of {len(verdicts)} claims hold in the embedded world, where the "
        "truth is planted.",
        sections=[
            blocks.Section(
                title="What was planted and what was found",
                blocks=[blocks.Table(label="Claims", head=["claim", "found", "verdict"], rows=rows)],
            ),
            blocks.Section(
                title="What was run",
                blocks=[
                    blocks.Table(
                        label="Runs", head=["question", "wall time", "answer"], rows=runs, right=frozenset({1})
                    ),
                    blocks.Text(text="A time of seconds means that the results were there before.", kind="fine"),
                ],
            ),
        ],
    )
    output.mkdir(parents=True, exist_ok=True)
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    text = html.rendered("card.html", document=document, report="", markdown="", made=f"Made by make validate, {when}.")
    html.write(output / "validation.html", text)


if __name__ == "__main__":
    main()
