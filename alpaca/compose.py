"""Overrides -> typed runs, with every problem of every point found before anything starts.

Hydra composes once per distinct set of groups; value overrides are applied to that composition. Hydra itself would
stop at the first problem and would accept `+unknown=1`, so overrides are checked here one by one.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alpaca import checks, evalsets, groups, metrics
from alpaca.checks import nearest
from alpaca.config import EvolveDataGen, ReanswerDataGen, ReleasedDataGen, Run, Weighted
from alpaca.curation import filters
from alpaca.errors import ConfigurationErrors, UserError
from alpaca.records.given import data_file
from alpaca.runtime.budget import Budget

CONF = Path(__file__).resolve().parents[1] / "conf"
SOURCES = "data_gen.sources"
"""The one node whose names are the user's own: `+data_gen.sources.NAME.KEY=VALUE` adds a part of a mixture."""


def version_base() -> dict[str, str]:
    """Hydra 1.3 warns when version_base is missing, 1.4 when it is given."""
    return {"version_base": "1.3"} if hydra.__version__.startswith("1.3") else {}


def parse(overrides: Sequence[str], known: Callable[[], list[str]] = list) -> tuple[list[Override], list[UserError]]:
    """The overrides that Hydra's grammar accepts, and a problem for each other one, or that adds or deletes keys."""
    good: list[Override] = []
    problems: list[UserError] = []
    parser = OverridesParser.create()
    for text in in_hydras_words(overrides):
        try:
            override = parser.parse_override(text)
        except HydraException as error:
            problems.append(
                UserError(what=f"cannot be read: {str(error).splitlines()[0]}", where=text, remedy="write key=value")
            )
            continue
        adds = override.is_add() or override.is_force_add()
        if (adds and override.key_or_group not in ("sweep", SOURCES)) or override.is_delete():
            problems.append(
                UserError(
                    what="keys can be set, not added or deleted", where=text, remedy=_how_to_set(override, known())
                )
            )
        else:
            good.append(override)
    return good, problems


def in_hydras_words(overrides: Iterable[str]) -> list[str]:
    """The overrides with new parts of a mixture as one map each, the one way in which Hydra can add them.

    `+data_gen.sources.NAME.KEY=VALUE` and `data_gen.sources={NAME: ...}` become `+data_gen.sources={NAME: ...}`.
    """
    return [_as_map(text) for text in overrides]


def _as_map(text: str) -> str:
    key, _, value = text.partition("=")
    plain = key.lstrip("+")
    if plain == SOURCES and value.lstrip().startswith("{"):
        return f"+{plain}={value}"
    if plain != key and plain.startswith(f"{SOURCES}."):
        for name in reversed(plain.removeprefix(f"{SOURCES}.").split(".")):
            value = f"{{{name}: {value}}}"
        return f"+{SOURCES}={value}"
    return text


def _how_to_set(override: Override, known: list[str]) -> str:
    key = override.key_or_group
    if override.is_delete():
        return f"choose another option, for example {key}=none where there is one; known: see --help"
    if key in known:
        return f"write {key}=VALUE without the +"
    return f"there is no key {key}; {_nearest_key(key, known)}"


def _chosen(options: Iterable[Override]) -> tuple[str, ...]:
    """Choices as Hydra takes them. It has no null for a group: recipe=null is the default, that none is chosen."""
    return tuple(item.input_line or "" for item in options if item.value() is not None)


class Composer:
    """Composes points of conf/ and collects the problems of all of them."""

    def __init__(self, conf: Path = CONF) -> None:
        self.conf = conf
        self.problems: list[UserError] = []
        self._unknown: dict[str, UserError] = {}
        self._known: set[str] = set()
        self._without_option: set[str] = set()
        self._bases: dict[tuple[str, ...], DictConfig | None] = {}

    def run(self, overrides: Sequence[Override]) -> Run | None:
        """One typed run, or None when there are problems (added to `problems`)."""
        before = len(self.problems)
        chosen = [item for item in overrides if self._is_group(item)]
        good = [item for item in chosen if self._option_exists(item)]
        base = self._base(_chosen(good))
        if base is None:
            return None
        config = copy.deepcopy(base)
        for item in overrides:
            if item not in chosen and not item.key_or_group.startswith("hydra."):
                self._apply(config, item)
        run = self._typed(config)
        if run is not None:
            self._add(checks.contradictions(run, known_names()))
        return run if len(self.problems) == before else None

    def raise_problems(self) -> None:
        """Raises ConfigurationErrors when any point had a problem; the same problem of many points is told once.

        A key is unknown when no point has it: under a factor such as `teacher` the options have different keys.
        """
        nowhere = [problem for key, problem in self._unknown.items() if key not in self._known]
        unique = {problem.text(): problem for problem in [*self.problems, *nowhere]}
        if unique:
            raise ConfigurationErrors(unique.values())

    def default_keys(self) -> list[str]:
        """Every key of the configuration without overrides."""
        base = self._base(())
        return [] if base is None else known_keys(base)

    def group_names(self) -> list[str]:
        """The groups of conf/."""
        return sorted(path.name for path in self.conf.iterdir() if path.is_dir())

    def model_kind(self, chosen: Sequence[Override]) -> str | None:
        """`model.kind` of these options of `model` and `recipe`; None where they do not compose (told by `run`)."""
        options = {item.key_or_group: item.value() for item in chosen}
        if any(value not in self._options(key) and (key, value) != ("recipe", None) for key, value in options.items()):
            return None
        base = self._base(_chosen(chosen))
        return None if base is None else OmegaConf.select(base, "model.kind")

    def _add(self, problems: Iterable[UserError]) -> None:
        self.problems.extend(problems)

    def _is_group(self, item: Override) -> bool:
        key = item.key_or_group
        return key in self.group_names() or key.startswith("hydra/") or "@" in item.get_key_element()

    def _option_exists(self, item: Override) -> bool:
        key, value = item.key_or_group, item.value()
        if key.startswith("hydra/") or (key == "recipe" and value is None):
            return True
        if isinstance(value, dict):
            self._add(
                [
                    UserError(
                        what=f"{value} is no name of an option", where=key, remedy=f"set single keys: {key}.KEY=VALUE"
                    )
                ]
            )
            return False
        options = self._options(key)
        unknown = [name for name in (value if isinstance(value, list) else [value]) if str(name) not in options]
        self._add(
            UserError(
                what=f"no option {str(name)!r} in group {key}",
                where=f"{key}={name}",
                remedy=nearest(str(name), options),
            )
            for name in unknown
        )
        if unknown:
            self._without_option.add(key)
        return not unknown

    def _options(self, group: str) -> list[str]:
        with self._hydra() as loader:
            return list(loader.get_group_options(group, ObjectType.CONFIG))

    def _base(self, chosen: tuple[str, ...]) -> DictConfig | None:
        if chosen not in self._bases:
            try:
                with self._hydra():
                    self._bases[chosen] = hydra_compose("config", overrides=list(chosen))
            except (HydraException, OmegaConfBaseException) as error:
                self._add([_in_file(error, " ".join(chosen) or str(self.conf))])
                self._bases[chosen] = None
            except yaml.MarkedYAMLError as error:
                self._add([_unreadable(error)])
                self._bases[chosen] = None
        return self._bases[chosen]

    @contextmanager
    def _hydra(self) -> Iterator[Any]:
        """Hydra's configuration loader: the running application's, or one opened for the moment."""
        groups.register()
        if GlobalHydra.instance().is_initialized():
            yield GlobalHydra.instance().config_loader()
        else:
            with initialize_config_dir(str(self.conf), **version_base()):
                yield GlobalHydra.instance().config_loader()

    def _apply(self, config: DictConfig, item: Override) -> None:
        key = item.key_or_group
        known = known_keys(config)
        if key == SOURCES and key in known:
            wrong = list(_source_problems(item.value()))
            self._add(wrong)
            if wrong:
                return
        if key not in known:
            where = f"{key}={item.get_value_element_as_str()}"
            remedy = _how_to_add(key, known) or _nearest_key(key, [*known, *self.group_names()])
            if key.partition(".")[0] not in self._without_option:  # else the unknown option is the problem
                self._unknown.setdefault(key, UserError(what="no such key", where=where, remedy=remedy))
            return
        self._known.add(key)
        try:
            OmegaConf.update(config, key, item.value(), force_add=key == SOURCES)
        except OmegaConfBaseException as error:
            self._add(
                [
                    UserError(
                        what=f"{item.get_value_element_as_str()} does not fit: {_first_line(error)}",
                        where=key,
                        remedy=f"its present value is {OmegaConf.select(config, key)!r}",
                    )
                ]
            )

    def _typed(self, config: DictConfig) -> Run | None:
        try:
            missing = sorted(OmegaConf.missing_keys(config))
        except OmegaConfBaseException as error:
            self._add(
                [UserError(what=_first_line(error), where="configuration", remedy="only ${KEY} of this configuration")]
            )
            return None
        self._add(
            UserError(what="mandatory value is missing (???)", where=key, remedy=f"add {key}=VALUE") for key in missing
        )
        if missing:
            return None
        try:
            run = OmegaConf.to_object(config)
        except (OmegaConfBaseException, AttributeError, TypeError) as error:
            self._add([UserError(what=_first_line(error), where="configuration", remedy="see --cfg job")])
            return None
        if isinstance(run, Run):
            _normalise(run)
            return run
        raise TypeError(f"conf/config.yaml composed to {type(run).__name__}, expected Run")


def _how_to_add(key: str, known: list[str]) -> str:
    """The way out for a key below `SOURCES`; empty for other keys, and for a typo in a part that is there."""
    part = ".".join(key.split(".")[:3])
    if not f"{key}.".startswith(f"{SOURCES}.") or part in known:
        return ""
    if SOURCES not in known:
        return "only data_gen=mixture has sources"
    return f"did you mean one of those that are there, or +{key}=VALUE for a new one?"


def _source_problems(value: Any) -> Iterator[UserError]:
    """Names and keys of parts of a mixture that cannot be; a wrong type is found when they are set."""
    keys = [item.name for item in dataclasses.fields(Weighted)]
    for name, part in (value if isinstance(value, dict) else {SOURCES: value}).items():
        where = f"{SOURCES}.{name}"
        if not isinstance(name, str):
            yield UserError(what=f"{name!r} cannot be a name", where=where, remedy="begin it with a letter")
            continue
        if not isinstance(part, dict):
            yield UserError(
                what=f"{part!r} is no data set", where=SOURCES if part is value else where,
                remedy=f"write {SOURCES}={{NAME:{{path:FILE,weight:2}}}}",
            )  # fmt: skip
            continue
        for key in part:
            if key not in keys:
                yield UserError(what="no such key", where=f"{where}.{key}", remedy=nearest(str(key), keys))


def _unreadable(error: yaml.MarkedYAMLError) -> UserError:
    """A file of conf/ that is no YAML."""
    mark = error.problem_mark
    where = f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}" if mark else "a file of conf/"
    return UserError(what=f"is no YAML: {error.problem}", where=where, remedy="correct it there")


def _nearest_key(key: str, known: list[str]) -> str:
    """The nearest keys; where none is near, the keys beside it rather than all there are."""
    text = nearest(key, known)
    if not text.startswith("known:"):
        return text
    parent = key
    while "." in parent:
        parent = parent.rpartition(".")[0]
        beside = [name for name in known if name.rpartition(".")[0] == parent]
        if beside:
            return "known: " + ", ".join(beside)
    return "known: " + ", ".join(sorted({name.partition(".")[0] for name in known}))


def _normalise(run: Run) -> None:
    """One spelling per meaning ("3epochs" and "3 epochs", a folder and its file), so that equal work has equal keys."""
    for source in (run.data_gen, *getattr(run.data_gen, "sources", {}).values()):
        if isinstance(source, (ReleasedDataGen, ReanswerDataGen, EvolveDataGen)) and source.path:
            source.path = str(data_file(source.path))
    if re.search(r"\d", run.train.budget):
        try:
            run.train.budget = Budget.parse(run.train.budget).canonical()
        except UserError:
            return  # reported by the checks with its key


def known_keys(config: DictConfig) -> list[str]:
    """Every dotted key that can be set, inner nodes included."""
    found: list[str] = []

    def walk(node: Any, prefix: str) -> None:
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
            for name in map(str, node):
                found.append(f"{prefix}{name}")
                walk(node._get_node(name), f"{prefix}{name}.")

    walk(config, "")
    return found


def known_names() -> dict[str, Iterable[str]]:
    """The names that lists in the configuration may hold."""
    return {"filters": [item.name for item in filters.FILTERS], "metrics": metrics.METRICS, "set": evalsets.SETS}


def value_of(config_value: Any) -> Any:
    """A parsed override's value as plain Python."""
    return OmegaConf.to_container(config_value) if isinstance(config_value, (DictConfig, ListConfig)) else config_value


def _in_file(error: Exception, where: str) -> UserError:
    """What is wrong in a YAML file of conf/, out of the lines of Hydra's message: file, problem, key and class."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = dict(line.split(": ", 1) for line in lines[2:] if ": " in line)
    told |= dict(line.split("=", 1) for line in lines[2:] if line.startswith("object_type="))
    if not lines or "full_key" not in told:
        return UserError(what=_first_line(error), where=where)
    schema = _schemas().get(told.get("object_type", ""))
    known = [item.name for item in dataclasses.fields(schema)] if schema and lines[1].startswith("Key ") else []
    remedy = nearest(told["full_key"].rpartition(".")[2], known) if known else ""
    return UserError(what=f"{lines[0].partition(':')[0]}, {told['full_key']}: {lines[1]}", where=where, remedy=remedy)


def _schemas() -> dict[str, type]:
    """Name -> class of every schema that a file of conf/ can have."""
    variants = (kind for table in groups.VARIANTS.values() for kind in table.values())
    return {kind.__name__: kind for kind in (*groups.SINGLE.values(), *variants, Weighted)}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
