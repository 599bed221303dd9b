"""A question file -> Question. Every problem of the file is collected, each with its key and the way out."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alpaca.checks import nearest
from alpaca.compose import parse
from alpaca.config import Analysis
from alpaca.errors import UserError
from alpaca.records import is_number
from alpaca.sweep.question import (
    CHECKED,
    DESIGNS,
    EFFORTS,
    GRID,
    HIGHER,
    LOWER,
    SEED_KEYS,
    Control,
    Limit,
    Question,
    Seeding,
)

SIMPLE = re.compile(r"[A-Za-z0-9_.+-]+( [A-Za-z0-9_.+-]+)*")
EMBEDDED = "embedded"
"""Keys of the file that are replaced where the model is one that is built here (model=tiny and its like)."""
KEYS = (*(item.name for item in dataclasses.fields(Question)), EMBEDDED)
SEEDED = ("data", "init", "order")
MOST_SEEDS = 2**32
"""numpy's and torch's generators take no larger seeds alike."""
LENGTHS = ("train.budget",)
"""What may move with the factor of a curve: it says which length of training is held equal."""
KEY = re.compile(r"[A-Za-z_][\w/@]*(\.[\w/@]+)*")
BESIDE = "./"
"""What a path begins with that is meant from the folder of the question file, not from that of the launch."""


def read_question(path: Path) -> tuple[Question, Question, list[UserError]]:
    """The question, the same as asked in the embedded world, and what is wrong with the file."""
    try:
        raw = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (OmegaConfBaseException, ValueError, OSError, yaml.YAMLError) as error:
        text = " ".join(str(error).split())[:200]
        return Question(), Question(), [UserError(what=text, where=str(path), remedy="write it as YAML: KEY: VALUE")]
    if not isinstance(raw, dict):
        remedy = f"keys are {', '.join(KEYS)}"
        return Question(), Question(), [UserError(what="holds no keys", where=str(path), remedy=remedy)]
    named: dict[str, Any] = {str(key): value for key, value in raw.items()}
    general = _Reader(path, named)
    overlay = general.mapping(EMBEDDED)
    embedded = _Reader(path, {**named, **overlay}, overlay)
    found = general.question(), embedded.question()
    unique = {problem.text(): problem for problem in [*general.problems, *embedded.problems]}
    return *found, list(unique.values())


def as_text(value: Any) -> str:
    """A value of a question file as the command line would give it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return "[" + ",".join(as_text(item) for item in value) + "]"
    if isinstance(value, str) and not SIMPLE.fullmatch(value):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    return str(value)


@dataclass(slots=True)
class _Reader:
    """One reading of a file. overlay: the keys of `embedded` where that is what is read."""

    path: Path
    raw: dict[str, Any]
    overlay: dict[str, Any] = field(default_factory=dict)
    problems: list[UserError] = field(default_factory=list)

    def say(self, key: str, what: str, remedy: str) -> None:
        inside = f"{EMBEDDED}." if key.partition(".")[0] in self.overlay else ""
        self.problems.append(UserError(what=what, where=f"{self.path}: {inside}{key}", remedy=remedy))

    def question(self) -> Question:
        self._known_keys(self.raw, KEYS, "")
        self._known_keys(self.overlay, [key for key in KEYS if key not in ("question", EMBEDDED)], f"{EMBEDDED}.")
        found = Question(
            question=self._text("question"),
            hypothesis=self._text("hypothesis"),
            factors={key: self._values(f"factors.{key}", value) for key, value in self.mapping("factors").items()},
            zip=self._zip(),
            design=self._choice("design", self.raw.get("design", GRID), DESIGNS),
            baseline=self._single("baseline"),
            exclude=[self._condition("exclude", item) for item in self._items("exclude")],
            when={key: self._condition(f"when.{key}", item) for key, item in self.mapping("when").items()},
            seeds=self._seeds("seeds", self.raw["seeds"]) if "seeds" in self.raw else [],
            arms={name: self._seeds(f"arms.{name}", item) for name, item in self.mapping("arms").items()},
            fixed=[self._override(item) for item in self._items("fixed")],
            controls=self._controls(),
            metric=self._metric(),
            analysis=self._analysis(),
            spend=self._limit(),
        )
        if not self.problems:  # rules between keys would only repeat what is wrong with one
            self._rules(found)
        return found

    def mapping(self, key: str) -> dict[str, Any]:
        """The map under a key; what is no map is a problem and read as empty."""
        value = self.raw.get(key)
        if value is None:
            return {}
        if isinstance(value, dict):
            return {str(name): item for name, item in value.items()}
        if key == "zip" and isinstance(value, list):
            for keys in value:
                names = ", ".join(map(str, keys)) if isinstance(keys, list) else str(keys)
                self.say(
                    key, f"{names}: what moves together cannot be told apart in the result",
                    f"say what it is together, zip: {{NAME: [{names}]}}, or let each vary by itself",
                )  # fmt: skip
            return {}
        self.say(key, f"{value!r} is no map", f"{key}: {{NAME: ...}}")
        return {}

    def _known_keys(self, raw: dict[str, Any], known: Iterable[str], inside: str) -> None:
        for key in raw:
            if key not in known:
                self.problems.append(
                    UserError(what="no such key", where=f"{self.path}: {inside}{key}", remedy=nearest(key, known))
                )

    def _items(self, key: str) -> list[Any]:
        value = self.raw.get(key)
        if value is None or isinstance(value, list):
            return value or []
        self.say(key, f"{value!r} is no list", f"{key}: [...]")
        return []

    def _text(self, key: str) -> str:
        value = self.raw.get(key)
        if key == "question" and not value:
            self.say(key, "is missing", "question: what is asked, in one sentence")
        elif value is not None and not isinstance(value, str):
            self.say(key, f"{value!r} is no text", "write a sentence (in quotes where it holds a colon)")
        return value if isinstance(value, str) else ""

    def _choice(self, key: str, value: Any, known: Iterable[str]) -> str:
        if value not in known:
            self.say(key, f"{value!r} is not one of its values", nearest(str(value), known))
        return str(value)

    def _values(self, key: str, value: Any) -> list[Any]:
        if not isinstance(value, list):
            self.say(key, f"{value!r} is no list of values", f"[{as_text(value)}, ...]")
            return []
        if not value:
            self.say(key, "has no values", "list at least one")
        if any(_has_map(item) for item in value):
            self.say(key, "has a map as a value", "give single values")
            return []
        return [self._beside(item) for item in value]

    def _single(self, key: str) -> dict[str, Any]:
        """A map of single values."""
        found = self.mapping(key)
        for name in [name for name, value in found.items() if _has_map(value)]:
            self.say(f"{key}.{name}", f"{found.pop(name)!r} is a map", "give a single value")
        return found

    def _beside(self, value: Any) -> Any:
        """A path that is meant from this file's folder, in full."""
        return str(self.path.parent.resolve() / value[2:]) if str(value).startswith(BESIDE) else value

    def _override(self, item: Any) -> str:
        key, _, value = str(item).partition("=")
        if not isinstance(item, str) or not value:
            self.say("fixed", f"{item!r} is no override", "KEY=VALUE, as on the command line")
        text = f"{key}={as_text(self._beside(value))}" if value.startswith(BESIDE) else str(item)
        if any(override.is_sweep_override() for override in parse([text])[0]):
            self.say("fixed", f"{item!r} has several values", "one value, or a factor")
        return text

    def _zip(self) -> dict[str, list[str]]:
        found = {}
        for name, keys in self.mapping("zip").items():
            if isinstance(keys, list) and len(keys) > 1:
                found[name] = [str(key) for key in keys]
            else:
                self.say(f"zip.{name}", f"{keys!r} does not name several factors", f"{name}: [FACTOR, FACTOR]")
        return found

    def _condition(self, key: str, item: Any) -> dict[str, list[Any]]:
        if not isinstance(item, dict) or not item or any(_has_map(value) for value in item.values()):
            self.say(key, f"{item!r} is no condition", "{FACTOR: VALUE} or {FACTOR: [VALUE, VALUE]}")
            return {}
        return {str(name): value if isinstance(value, list) else [value] for name, value in item.items()}

    def _seeds(self, key: str, item: Any) -> list[Seeding]:
        """[0, 1]: all three seeds together; {data: [0, 1], order: [0, 1], init: 5}: those that vary, and held ones."""
        if isinstance(item, list):
            return self._once(key, [{"seed": seed} for seed in self._whole(key, item)])
        if not isinstance(item, dict) or not item:
            self.say(key, f"{item!r} is no list of seeds", "[0, 1, 2], or {data: [0, 1, 2], order: [0, 1, 2]}")
            return []
        for name in item:
            if name not in SEEDED:
                self.say(f"{key}.{name}", "no such seed", nearest(str(name), SEEDED))
        found = {
            str(name): self._whole(f"{key}.{name}", value if isinstance(value, list) else [value])
            for name, value in item.items()
        }
        lengths = {len(values) for name, values in found.items() if isinstance(item[name], list)} or {1}
        if len(lengths) > 1:
            told = ", ".join(f"{name} has {len(found[name])}" for name in found)
            self.say(key, f"{told} values: they are taken together, one after the other", "lists of one length")
        count = min(lengths)
        seedings = [
            {f"seeds.{name}": values[index % len(values)] for name, values in found.items() if values}
            for index in range(count)
        ]
        return self._once(key, seedings)

    def _once(self, key: str, seedings: list[Seeding]) -> list[Seeding]:
        if len(set(map(repr, seedings))) < len(seedings):
            self.say(key, "a seed given more than once is no replication", "give each once")
        return seedings

    def _whole(self, key: str, values: list[Any]) -> list[int]:
        if not values:
            self.say(key, "has no values", "list at least one")
        wrong = [value for value in values if not _is_whole(value) or not 0 <= value < MOST_SEEDS]
        if wrong:
            self.say(key, f"{wrong[0]!r} is no seed", f"whole numbers from 0 to {MOST_SEEDS - 1:,}")
        return [value for value in values if value not in wrong]

    def _controls(self) -> list[Control]:
        found = []
        for item in self._items("controls"):
            if isinstance(item, dict) and len(item) == 1:
                name, words = next(iter(item.items()))
                self._choice("controls", name, CHECKED)
                found.append(Control(name=str(name), words=str(words or CHECKED.get(str(name), ""))))
            elif isinstance(item, str) and (item in CHECKED or re.fullmatch(r"\w+", item)):
                self._choice("controls", item, CHECKED)
                found.append(Control(name=item, words=CHECKED.get(item, "")))
            elif isinstance(item, str):
                found.append(Control(words=item))
            else:
                self.say("controls", f"{item!r} is no control", f"words, or one of {', '.join(CHECKED)}")
        return found

    def _metric(self) -> dict[str, str]:
        value = self.raw.get("metric")
        if isinstance(value, str) and value:
            return {value: HIGHER}
        found = self.mapping("metric") if value else {}
        return {name: self._choice(f"metric.{name}", item, (HIGHER, LOWER)) for name, item in found.items()}

    def _analysis(self) -> Analysis:
        raw, plain = self.mapping("analysis"), Analysis()
        self._fields("analysis", raw, Analysis)
        fit, contrasts = raw.get("fit", plain.fit), raw.get("contrasts", plain.contrasts)
        pair = raw.get("interaction", [])
        if not isinstance(contrasts, bool):
            self.say("analysis.contrasts", f"{contrasts!r} is neither true nor false", "true or false")
        if not isinstance(pair, list) or len(pair) not in (0, 2):
            self.say("analysis.interaction", f"{pair!r} does not name two factors", "[FACTOR, FACTOR]")
            pair = []
        return Analysis(
            curve=str(raw.get("curve", "")), fit=self._choice("analysis.fit", fit, FITS), contrasts=bool(contrasts),
            interaction=[str(key) for key in pair],
        )  # fmt: skip

    def _limit(self) -> Limit:
        raw = self.mapping("spend")
        self._fields("spend", raw, Limit)
        for name, value in raw.items():
            whole = name == "max_tokens"
            good = _is_whole(value) if whole else is_number(value) and math.isfinite(value)
            if value is not None and not (good and value >= 0):
                kind = "whole number" if whole else "number"
                self.say(f"spend.{name}", f"{value!r} is no amount", f"a {kind} from 0, or null for no limit")
                return Limit()
        known = [item.name for item in dataclasses.fields(Limit)]
        return Limit(**{name: value for name, value in raw.items() if name in known})

    def _fields(self, key: str, raw: dict[str, Any], kind: type) -> None:
        known = [item.name for item in dataclasses.fields(kind)]
        for name in raw:
            if name not in known:
                self.say(f"{key}.{name}", "no such key", nearest(name, known))

    def _rules(self, found: Question) -> None:
        """What must fit together within the file."""
        self._names(found)
        if found.arms and (found.factors or found.seeds):
            self.say("arms", "arms differ in their seeds alone", "take out factors and seeds, or the arms")
        if len(found.arms) == 1:
            self.say("arms", "one arm has nothing to be compared with", "name two or more")
        self._disjoint(found)
        if not found.factors and not found.arms and len(found.seeds) < 2:
            self.say("factors", "names no factor", "for example  factors: {data.size: [250, 1000]}, or several seeds")
        efforts = [control.name for control in found.controls if control.name in EFFORTS]
        if len(efforts) > 1:
            self.say("controls", f"{' and '.join(efforts)} cannot both be held equal", "name the one that is")
        self._zipped(found)
        self._analysed(found)

    def _names(self, found: Question) -> None:
        """Every place that names factors names ones that are there."""
        named = {
            "baseline": found.baseline,
            "zip": [key for keys in found.zip.values() for key in keys],
            "when": [*found.when, *(key for item in found.when.values() for key in item)],
            "exclude": [key for item in found.exclude for key in item],
            "analysis.curve": [found.analysis.curve] if found.analysis.curve else [],
            "analysis.interaction": found.analysis.interaction,
        }
        for place, keys in named.items():
            for key in dict.fromkeys(keys):
                if key not in found.factors:
                    remedy = nearest(key, found.factors) if found.factors else "there are no factors"
                    self.say(f"{place}: {key}", "is no factor of this question", remedy)
        for item in found.fixed:
            if item.partition("=")[0].lstrip("+") in SEED_KEYS:
                self.say("fixed", f"{item} holds a seed", "list seeds under `seeds:`, held ones as {init: 5}")
        for key in found.factors:
            if not KEY.fullmatch(key):
                self.say(f"factors: {key}", "is no key", "a dotted key or a group, for example data.size or optimizer")
            if key in SEED_KEYS:
                self.say(f"factors.{key}", "is no factor", "list seeds under `seeds:`")
            if any(item.partition("=")[0].lstrip("+") == key for item in found.fixed):
                self.say(f"factors.{key}", "is both a factor and fixed", "take it out of one of them")

    def _zipped(self, found: Question) -> None:
        members = [key for keys in found.zip.values() for key in keys]
        for key in sorted({key for key in members if members.count(key) > 1}):
            self.say("zip", f"{key} is in it twice", "name each factor once")
        for name, keys in found.zip.items():
            counts = {key: len(found.factors[key]) for key in keys if key in found.factors}
            if len(set(counts.values())) > 1:
                told = ", ".join(f"{key} has {count}" for key, count in counts.items())
                self.say(f"zip.{name}", f"{told} values", "as many for each: the first belong together, and so on")
            if name in found.factors:
                self.say(f"zip.{name}", "has the name of a factor", "a name for what moves together")

    def _disjoint(self, found: Question) -> None:
        """Arms that shared a seed would share a stage, and be compared with themselves."""
        used: dict[tuple[str, int], str] = {}
        for arm, replications in found.arms.items():
            for seeding in replications:
                for name in SEEDED:
                    seed = seeding.get(f"seeds.{name}", seeding.get("seed", 0))
                    other = used.setdefault((name, seed), arm)
                    if other != arm:
                        self.say(
                            f"arms.{arm}", f"the {name} seed {seed} is one of arm {other} too",
                            "give each arm data, init and order seeds that no other has",
                        )  # fmt: skip

    def _analysed(self, found: Question) -> None:
        pair, curve = found.analysis.interaction, found.analysis.curve
        if len(set(pair)) == 1:
            self.say("analysis.interaction", f"{pair[0]} cannot depend on itself", "name two factors")
        if pair and found.design != GRID:
            self.say("analysis.interaction", "one factor at a time shows no interaction", "design: grid")
        if pair and any(set(pair) <= set(keys) for keys in found.zip.values()):
            self.say("analysis.interaction", f"{' and '.join(pair)} move together", "let each vary by itself")
        along = [key for keys in found.zip.values() if curve in keys for key in keys if key not in (curve, *LENGTHS)]
        if along:
            self.say("analysis.curve", f"{curve} moves together with {', '.join(along)}", "let it vary by itself")
        values = found.factors.get(curve, [])
        if curve and not all(value is None or is_number(value) for value in values):
            self.say("analysis.curve", f"{curve} has values that are no numbers", "contrasts: true")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _has_map(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(_has_map(item) for item in value))


FITS = ("power", "none")
"""power: a power law a + b * x^-c with its interval; none: the points alone."""
