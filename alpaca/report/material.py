"""What a data card is made from: the folders of one data set and what they recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from alpaca.report import terms
from alpaca.report.folders import Folder
from alpaca.report.ledger import code_of
from alpaca.report.terms import Terms

_ASKING = ("sample", "rate", "moderate")
_PUBLISHED = ("released", "mixture")
_REWORKED = ("reanswer", "evolve")
"""Ways that take over the instructions of a data set; without one, evolve starts from this project's own tasks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Published data as it was taken: from a local file, or from `hub` at `commit`; "" for what is not known.

    name: of the part of a mixture. revision: as it was asked for. multi_turn: conversations with more than one turn.
    """

    name: str
    hub: str
    revision: str
    commit: str
    file: str
    sha256: str
    multi_turn: int

    @property
    def text(self) -> str:
        """Where it was taken from, "" where that was not recorded."""
        if self.hub:
            return f"{self.hub}, " + (f"commit {self.commit}" if self.commit else f"revision {self.revision or 'main'}")
        digest = f"sha256 {self.sha256}" if self.sha256 else ""
        return ", ".join(part for part in (self.file, digest) if part)


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """One data set. `number` is its place in the report; `verbs`: openings of its instructions, as `verbs.Tally`."""

    number: int
    card: dict[str, Any]
    curate: Folder
    others: dict[str, Folder]
    """By role: sample, rate, moderate; those that finished."""
    verbs: dict[str, Any]
    question: str = ""
    command: str = ""

    @property
    def name(self) -> str:
        return self.curate.name.rpartition("/")[2]

    @property
    def folders(self) -> list[Folder]:
        """In the order of work."""
        return [self.others[role] for role in _ASKING if role in self.others] + [self.curate]

    @property
    def sample(self) -> Folder | None:
        return self.others.get("sample")

    @property
    def pool(self) -> dict[str, Any]:
        return self.sample.document("pool.json") if self.sample else {}

    @property
    def teacher(self) -> dict[str, Any]:
        """teacher.json: what was requested of the teacher, what it honours, when it is shut down."""
        return self.sample.document("teacher.json") if self.sample else {}

    @property
    def way(self) -> str:
        """How the data came about: `data_gen.kind`, "" where it was not recorded."""
        return str(self.setting("data_gen", "kind") or "")

    @property
    def asked(self) -> bool:
        """Whether a teacher was asked for it."""
        return bool(self.way) and self.way not in _PUBLISHED

    @property
    def is_programmatic(self) -> bool:
        kind = self.setting("teacher", "kind")
        return kind == "programmatic" or "programmatic" in str(self.card.get("teacher") or "")

    @property
    def terms(self) -> Terms:
        """Of the answers, and where the instructions are somebody else's, of these as well."""
        if self.way in _PUBLISHED:
            each = {one.name: terms.of_published(one.hub, one.sha256) for one in self.origins}
            return terms.joined(each) if self.way == "mixture" else terms.of_published(*_known_names(self.origins))
        if not self.origins:
            return self._of_answers
        return terms.joined(
            {"Answers": self._of_answers, "Instructions": terms.of_published(*_known_names(self.origins))}
        )

    @property
    def _of_answers(self) -> Terms:
        if self.teacher.get("terms"):
            return Terms(text=str(self.teacher["terms"]))
        return terms.of_teacher(self.setting("teacher") or {"kind": "programmatic" if self.is_programmatic else ""})

    @property
    def origins(self) -> list[Origin]:
        """The published data that it was made of: the parts of a mixture, or the one file or hub data set."""
        options = self.setting("data_gen") or {}
        if self.way == "mixture":
            asked, found = options.get("sources") or {}, self.pool.get("sources") or {}
            return [_origin(name, asked.get(name) or {}, one) for name, one in found.items()]
        # A run of before the digest was recorded has its path alone.
        is_made_of = self.way == "released" or (
            self.way in _REWORKED and bool(options.get("path") or self.pool.get("source_sha256"))
        )
        return [_origin("", options, self.pool)] if is_made_of else []

    @property
    def turns(self) -> list[str]:
        """Where conversations were read, how many have turns that are not in the data; nothing elsewhere."""
        return [
            f"{f'{one.name}: ' if one.name else ''}only the first turn of {one.multi_turn:,} "
            f"conversation{'s' if one.multi_turn > 1 else ''} with several is used"
            for one in self.origins
            if one.multi_turn
        ]

    @property
    def code(self) -> list[str]:
        """The versions of the code that made it."""
        return list(dict.fromkeys(text for one in self.folders if (text := code_of(one.document("provenance.json")))))

    def setting(self, *keys: str) -> Any:
        """A leaf of the sample stage's frozen configuration."""
        return self.sample.setting(*keys) if self.sample else None


def _origin(name: str, options: Mapping[str, Any], found: Mapping[str, Any]) -> Origin:
    """options: what was asked for; found: what pool.json tells of it. A path goes before the hub, as when loading."""
    path = str(options.get("path") or "")
    return Origin(
        name=name,
        hub="" if path else str(options.get("hub") or ""),
        revision=str(options.get("revision") or ""),
        commit=str(found.get("commit") or ""),
        file=str(found.get("source_path_name") or "") or PurePath(path).name,
        sha256=str(found.get("source_sha256") or found.get("sha256") or ""),
        multi_turn=int(found.get("multi_turn") or 0),
    )


def _known_names(origins: Sequence[Origin]) -> list[str]:
    return [text for one in origins for text in (one.hub, one.sha256) if text]


def by_role(folders: dict[str, Folder]) -> dict[str, Folder]:
    """Those that finished and are asked about on the card."""
    return {role: folder for role, folder in folders.items() if role in _ASKING and folder.path is not None}


def total(folders: Sequence[Folder], name: str) -> float | None:
    """A number of `cost` summed over folders; None where no folder has it."""
    costs = [folder.document("provenance.json").get("cost") or {} for folder in folders]
    known = [cost[name] for cost in costs if cost.get(name) is not None]
    return sum(known) if known else None
