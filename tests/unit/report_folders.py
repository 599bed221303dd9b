"""Finished stage folders as a report finds them, made without running a stage: a run, sweeps, hostile texts."""

from __future__ import annotations

import hashlib
import json
import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alpaca.artifacts import Context
from alpaca.config import Analysis, Point, ReportConfig
from alpaca.records import write_jsonl

FAMILIES = ("classify", "copy", "count", "first", "last", "match", "pick", "rest", "reverse", "sort")
WORDS = (
    "amber",
    "birch",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "heron",
    "inlet",
    "jetty",
    "kelp",
    "larch",
    "maple",
    "north",
    "ochre",
    "pearl",
    "quartz",
)
MEASURED: dict[str, Any] = {
    "diversity": {
        "instruction": {"words": 700, "distinct": [0.1, 0.41, 0.62], "distinct_fixed": None, "compression": 3.11},
        "output": {"words": 9000, "distinct": [0.2, 0.52, 0.7], "distinct_fixed": [0.2, 0.5, 0.8], "compression": 2.62},
    },
    "verbs": {
        "method": "rules", "instructions": 1000, "with_verb": 900, "with_object": 800, "questions": 60, "other": 40,
        "effective_verbs": 12.34, "different_verbs": 31,
        "top": [
            {"verb": "write", "count": 400, "objects": [["story", 120], ["poem", 60]]},
            {"verb": "explain", "count": 300, "objects": [["concept", 90], ["difference", 30], ["meaning", 9]]},
            {"verb": "sort", "count": 200, "objects": []},
        ],
        "question_words": [["what", 50], ["how", 10]],
    },
    "nearest_within": {
        "sampled": 1000,
        "quantiles": {"p10": 0.4545, "p25": 0.5217, "p50": 0.5882, "p75": 0.6471, "p90": 0.6667, "p99": 0.6999},
    },
}  # fmt: skip
"""Parts of a card.json that need no folder of their own."""
HOSTILE = "<script>alert('x')</script> & \"quoted\" $x^2$ <b>bold</b>"


@dataclass(kw_only=True, slots=True)
class World:
    """An output folder that grows; `parents` is what a report's context is given."""

    output: Path
    items: int = 60
    parents: dict[str, Path] = field(default_factory=dict)
    model_kind: str = "tiny"
    evaluations: dict[str, str] = field(default_factory=lambda: {"embedded": "embedded"})
    response: str = ""
    """Put in front of each response."""
    usd: float | None = None
    """What each pool cost, where the teacher's price is known."""
    histograms: bool = False
    """Whether data cards have histograms; drawing them is most of a page's time."""
    until: str = "score"
    """"curate": the points end with their data sets."""
    way: str = "alpaca"
    """data_gen.kind"""
    teacher: dict[str, Any] = field(default_factory=lambda: {"kind": "programmatic"})
    """The teacher's frozen options."""
    looked_at: dict[str, Any] = field(default_factory=dict)
    """teacher.json; none where empty."""
    pool: dict[str, Any] = field(default_factory=dict)
    """pool.json."""
    data_gen: dict[str, Any] = field(default_factory=dict)
    """Put over the frozen data_gen."""
    paid: dict[str, float] = field(default_factory=dict)
    """Put over the sample stage's cost."""
    raw: list[dict[str, Any]] = field(default_factory=list)
    """raw.jsonl; none where empty."""
    asked: dict[str, Any] = field(default_factory=dict)
    """The request of the one row of responses.jsonl; none where empty."""
    card: dict[str, Any] = field(default_factory=dict)
    """Put over the made-up card.json."""

    def run(self, config: ReportConfig, name: str = "sweeps/data_size") -> Path:
        """Makes the page; returns its folder."""
        from alpaca import report

        folder = self.output / name
        (folder / "work").mkdir(parents=True, exist_ok=True)
        report.run(config, Context(folder=folder, work=folder / "work", parents=self.parents))
        return folder

    def point(self, factors: dict[str, Any], seed: int, skill: float, size: int = 1000) -> Point:
        """All the stages of one run; `skill` is the chance of a right answer."""
        label = "-".join(f"{key.rpartition('.')[2]}{value}" for key, value in factors.items()) or "run"
        unique = f"{label}-s{seed}"
        stages = {"sample": self._sample(seed), "curate": self._curate(f"{size}-s{seed}", size, seed)}
        if self.until == "score":
            stages |= {"pretrain": self._pretrain(), "train": self._train(unique, seed, skill, size)}
            for name, kind in self.evaluations.items():
                stages[f"respond:{name}"], stages[f"score:{name}"] = self._evaluated(name, kind, unique, seed, skill)
        name = ", ".join(f"{key}={value}" for key, value in factors.items()) or "tiny"
        return Point(name=name, factors=factors, seeds={"data": seed, "init": seed, "order": seed}, stages=stages)

    def lose(self, *names: str) -> None:
        """As if these stages had failed."""
        for name in names:
            del self.parents[name]

    def _folder(self, stage: str, slug: str, settings: dict[str, Any], cost: dict[str, float], seconds: float) -> Path:
        key = hashlib.sha256(f"{stage} {slug}".encode()).hexdigest()
        name = f"{stage}/{slug}-{key[:8]}"
        folder = self.output / name
        folder.mkdir(parents=True, exist_ok=True)
        self.parents[name] = folder
        _document(folder / "stage.json", {"stage": stage, "name": slug, "key": key, "identity": {}, "config": settings})
        _document(
            folder / "provenance.json",
            {
                "started": "2026-11-20T10:00:00+00:00",
                "ended": "2026-11-20T10:09:00+00:00",
                "seconds": seconds,
                "cost": cost,
                "git": {"sha": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
                "code": "code/a1b2c3d4e5f6",
                "packages": {"torch": "2.13.0", "transformers": "5.23.0", "numpy": "2.4.6", "zipp": "3.23.0"},
                "hardware": {"machine": "x86_64", "processor": "Example CPU", "cores": 2, "memory_gib": 7.8, "gpus": 0},
                "argv": ["launch.py"],
            },
        )
        return folder

    def _name(self, folder: Path) -> str:
        return folder.relative_to(self.output).as_posix()

    def _sample(self, seed: int) -> str:
        cost = {"requests": 250, "prompt_tokens": 181_204.0, "completion_tokens": 402_110.0, "cached_tokens": 1_024.0}
        cost |= {} if self.usd is None else {"usd": self.usd}
        cost |= self.paid
        settings = {"data_gen": {"kind": self.way, "form": "text", **self.data_gen}, "teacher": self.teacher}
        folder = self._folder("sample", f"programmatic-s{seed}", settings, cost, 41.3)
        _document(folder / "pool.json", self.pool)
        if self.raw:
            write_jsonl(folder / "raw.jsonl", self.raw)
        if self.asked:
            write_jsonl(folder / "responses.jsonl", [{"id": "request_000000", "request": self.asked, "text": "a"}])
        if self.looked_at:
            _document(folder / "teacher.json", self.looked_at)
        return self._name(folder)

    def _curate(self, slug: str, size: int, seed: int) -> str:
        settings = {"data": {"size": size, "filters": ["length"], "language": "en", "selection": "random"}}
        folder = self._folder("curate", slug, settings, {}, 6.2)
        rng = random.Random(seed)
        steps = [
            ("malformed", 41),
            ("length", 37),
            ("images and links", 12),
            ("deduplication", 655),
            ("selection", 4255 - size),
        ]
        kept, rows = 5000, []
        for name, dropped in steps:
            kept -= dropped
            rows.append({"name": name, "dropped": dropped, "kept": kept})
        words = {
            name: _lengths(rng, mean, self.histograms)
            for name, mean in (("instruction", 7), ("input", 4), ("output", 12))
        }
        examples = [
            {
                "id": f"e{index}",
                "instruction": f"Reverse: {' '.join(rng.sample(WORDS, 3))}",
                "input": "",
                "output": " ".join(rng.sample(WORDS, 3)),
                "provenance": {},
            }
            for index in range(20)
        ]
        write_jsonl(folder / "examples.jsonl", examples)
        _document(
            folder / "card.json",
            {
                "source": "250 responses of programmatic",
                "pool": 5000,
                "teacher": "programmatic",
                "steps": rows,
                "size": size,
                "with_input": size // 10,
                "repairs": {"no_input_spellings": 12},
                "words": words,
                "examples": examples,
                "defects": {"empty_output": 3, "no_input_spelling": 12},
                "defects_kept": {"empty_output": 0, "no_input_spelling": 0},
                "seed": seed,
                "selection": {"rule": "random", "size": size},
                **MEASURED,
                **self.card,
            },
        )
        return self._name(folder)

    def _pretrain(self) -> str:
        folder = self._folder("pretrain", "tiny", {"model": {"kind": "tiny"}}, {"tokens_per_second": 31_000.0}, 62.0)
        _losses(folder, steps=400, start=6.4, end=2.3, seed=0)
        _document(folder / "training.json", {"steps": 400, "tokens": 1_920_000, "final_loss": 2.3})
        return self._name(folder)

    def _train(self, slug: str, seed: int, skill: float, size: int) -> str:
        settings = {"model": {"kind": self.model_kind}}
        folder = self._folder("train", slug, settings, {"tokens_per_second": 28_000.0}, 95.0 + seed)
        _losses(folder, steps=300, start=3.0, end=1.4 - skill, seed=seed + size)
        _document(
            folder / "training.json",
            {
                "steps": 300,
                "examples": size,
                "epochs": 9.6,
                "tokens": 812_333,
                "supervised_tokens": 144_020,
                "truncated_examples": size // 400,
                "unsupervised_examples": size // 500,
                "final_loss": 1.4 - skill,
                "added_tokens": 1,
            },
        )
        return self._name(folder)

    def _evaluated(self, name: str, kind: str, slug: str, seed: int, skill: float) -> tuple[str, str]:
        respond = self._folder("respond", f"{name}-{slug}", {"set": kind}, {"completion_tokens": 3200.0}, 11.0)
        score = self._folder("score", f"{name}-{slug}", {"metrics": ["exact_match", "rouge_l"]}, {}, 0.4)
        rng = random.Random(f"{seed} {slug} {skill}")
        responses, scores = [], []
        for index in range(self.items):
            response, right = self._response(index, skill, rng)
            responses.append(response)
            scores.append(
                {
                    "id": response["id"],
                    "family": response["family"],
                    "exact_match": float(right),
                    "rouge_l": 1.0 if right else round(rng.uniform(0.0, 0.7), 4),
                }
            )
        write_jsonl(respond / "responses.jsonl", responses)
        write_jsonl(score / "scores.jsonl", scores)
        means = {metric: sum(row[metric] for row in scores) / len(scores) for metric in ("exact_match", "rouge_l")}
        _document(score / "metrics.json", {"items": len(scores), **means})
        return self._name(respond), self._name(score)

    def _response(self, index: int, skill: float, rng: random.Random) -> tuple[dict[str, Any], bool]:
        family = FAMILIES[index % len(FAMILIES)]
        given = random.Random(index).sample(WORDS, 4)
        reference, wrong = " ".join(given), " ".join(rng.sample(WORDS, 4))
        right = rng.random() < skill
        row = {
            "id": f"embedded_{index:04d}",
            "instruction": f"{family.capitalize()}: {' '.join(reversed(given))}",
            "input": "north pearl delta" if family == "match" else "",
            "reference": reference,
            "family": family,
            "exact": True,
            "response": self.response + (reference if right else wrong),
            "new_tokens": 8,
            "finish_reason": "stop" if index % 17 else "length",
        }
        return row, right


def single_run(output: Path, **world: Any) -> tuple[World, ReportConfig]:
    """One run without factors."""
    made = World(output=output, **world)
    point = made.point({}, 0, 0.72)
    return made, ReportConfig(
        title="tiny", command="python launch.py", points=[point], notes=["tiny: 300 steps, global batch 32"]
    )


SIZES = {250: 0.2, 1000: 0.5, 4000: 0.8}
"""Size -> skill."""


def data_size_sweep(
    output: Path, seeds: int = 3, sizes: dict[int, float] = SIZES, **world: Any
) -> tuple[World, ReportConfig]:
    """Three sizes, several seeds each."""
    made = World(output=output, **world)
    points = [
        made.point({"data.size": size}, seed, skill + 0.03 * seed, size)
        for size, skill in sizes.items()
        for seed in range(seeds)
    ]
    return made, ReportConfig(
        title="data_size",
        question="How does exact match grow with the number of training examples at equal steps?",
        command="python launch.py sweep=data_size",
        metric="embedded.exact_match",
        factors=["data.size"],
        controls=[
            "300 optimizer steps at every size",
            "smaller training sets are contained in larger ones",
            "the same evaluation items at every level",
        ],
        notes=["model=tiny brings optimizer=muon"],
        points=points,
        analysis=Analysis(curve="data.size"),
    )


def data_only(output: Path, sizes: tuple[int, ...] = (250, 1000), **world: Any) -> tuple[World, ReportConfig]:
    """Points that end with their data sets: one run, or a sweep over the size."""
    made = World(output=output, until="curate", **world)
    several = len(sizes) > 1
    points = [made.point({"data.size": size} if several else {}, 0, 0.0, size) for size in sizes]
    return made, ReportConfig(
        title="sizes" if several else "tiny",
        command="python launch.py until=curate",
        factors=["data.size"] if several else [],
        points=points,
    )


def grid_sweep(output: Path, **world: Any) -> tuple[World, ReportConfig]:
    """A numeric and a named factor, one seed."""
    made = World(output=output, **world)
    points = [
        made.point({"data.size": size, "optimizer": name}, 0, skill + gain, size)
        for size, skill in ((250, 0.2), (1000, 0.5), (4000, 0.7))
        for name, gain in (("adamw", 0.0), ("muon", 0.12))
    ]
    return made, ReportConfig(
        title="optimizer_by_size",
        question="Does the gain of Muon shrink with more data?",
        command="python launch.py sweep=optimizer_by_size",
        factors=["data.size", "optimizer"],
        points=points,
    )


def named_sweep(output: Path, **world: Any) -> tuple[World, ReportConfig]:
    """A factor whose values are names."""
    made = World(output=output, **world)
    points = [
        made.point({"teacher": name}, seed, skill)
        for name, skill in (("noisy teacher", 0.3), ("exact teacher", 0.7), ("replay of a recording", 0.68))
        for seed in range(3)
    ]
    return made, ReportConfig(title="teacher", question="Which teacher?", factors=["teacher"], points=points)


def properties_sweep(output: Path, **world: Any) -> tuple[World, ReportConfig]:
    """One factor at a time from a baseline that sorts last."""
    made = World(output=output, **world)
    start: dict[str, Any] = {"data.selection": "random", "data.label_noise": 0.0, "data.input_share": None}
    changes: list[tuple[dict[str, Any], float]] = [
        ({}, 0.8),
        ({"data.selection": "diverse"}, 0.82),
        ({"data.label_noise": 0.3}, 0.4),
        ({"data.input_share": 0.3}, 0.8),
    ]
    points = [made.point({**start, **change}, seed, skill) for change, skill in changes for seed in range(3)]
    return made, ReportConfig(
        title="data_properties",
        question="Which properties of instruction data change what a model learns from it?",
        hypothesis="Noise costs more than selection brings.",
        factors=list(start),
        baseline=start,
        directions={"embedded.exact_match": "higher", "embedded.rouge_l": "higher"},
        analysis=Analysis(contrasts=True),
        points=points,
    )


def arms_sweep(output: Path, **world: Any) -> tuple[World, ReportConfig]:
    """Two arms of one configuration, no seed in common."""
    made = World(output=output, **world)
    points = [
        made.point({"arm": arm}, seed, 0.6) for arm, start in (("a", 0), ("b", 4)) for seed in range(start, start + 4)
    ]
    return made, ReportConfig(
        title="aa_control",
        question="Does the instrument find a difference where there is none?",
        factors=["arm"],
        analysis=Analysis(contrasts=True),
        points=points,
    )


def interaction_sweep(output: Path, together: float = 0.0, seeds: int = 3, **world: Any) -> tuple[World, ReportConfig]:
    """Two factors of two values; `together`: what both bring beyond the sum."""
    made = World(output=output, **world)
    points = [
        made.point(
            {"model": model, "data.size": size}, seed, 0.2 + 0.2 * big + 0.2 * long + together * big * long, size
        )
        for big, model in enumerate(("small", "large"))
        for long, size in enumerate((250, 1000))
        for seed in range(seeds)
    ]
    return made, ReportConfig(
        title="model_by_size",
        question="Does a larger model make more of more data?",
        factors=["model", "data.size"],
        baseline={"model": "small", "data.size": 250},
        analysis=Analysis(contrasts=True, interaction=["model", "data.size"]),
        points=points,
    )


def _losses(folder: Path, *, steps: int, start: float, end: float, seed: int) -> None:
    rng = random.Random(seed)
    write_jsonl(
        folder / "loss.jsonl",
        (
            {
                "step": step,
                "loss": end + (start - end) * math.exp(-5 * step / steps) + rng.gauss(0, 0.03),
                "lr": 0.01,
                "grad_norm": 1.0,
                "tokens": 100 * step,
                "supervised_tokens": 20 * step,
            }
            for step in range(1, steps + 1)
        ),
    )


def _lengths(rng: random.Random, mean: float, histogram: bool) -> dict[str, Any]:
    counts = sorted(max(1, round(rng.gammavariate(3, mean / 3))) for _ in range(600))
    top = counts[593]
    width = max(1, -(-(top + 1) // 20))
    bins = [[edge, sum(1 for count in counts if edge <= count < edge + width)] for edge in range(0, top + 1, width)]
    return {
        "mean": round(sum(counts) / len(counts), 2),
        "median": counts[300],
        "p99": top,
        "max": counts[-1],
        "histogram": bins if histogram else [],
    }


def _document(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
