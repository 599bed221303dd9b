"""What a data card is made from: the folders of one data set and what they recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alpaca.report import terms
from alpaca.report.folders import Folder
from alpaca.report.ledger import code_of
from alpaca.report.terms import Terms

_ASKING = ("sample", "rate", "moderate")
_PUBLISHED = ("released", "mixture")


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
        if self.teacher.get("terms"):
            return Terms(text=str(self.teacher["terms"]))
        if self.way == "mixture":
            return _of_mixture(self.pool.get("sources") or {}, self.setting("data_gen", "sources") or {})
        if self.way in _PUBLISHED:
            return terms.of_published(str(self.setting("data_gen", "hub")), str(self.pool.get("source_sha256")))
        return terms.of_teacher(self.setting("teacher") or {"kind": "programmatic" if self.is_programmatic else ""})

    @property
    def code(self) -> list[str]:
        """The versions of the code that made it."""
        return list(dict.fromkeys(text for one in self.folders if (text := code_of(one.document("provenance.json")))))

    def setting(self, *keys: str) -> Any:
        """A leaf of the sample stage's frozen configuration."""
        return self.sample.setting(*keys) if self.sample else None


def _of_mixture(found: dict[str, Any], asked: dict[str, Any]) -> Terms:
    """Every source's terms hold; a licence is named only where all agree."""
    each = {
        name: terms.of_published(str((asked.get(name) or {}).get("hub")), str(one.get("sha256")))
        for name, one in found.items()
    }
    licences = {one.licence for one in each.values()}
    text = " ".join(f"{name}: {one.text}" for name, one in each.items())
    return Terms(text=text or terms.of_published().text, licence=licences.pop() if len(licences) == 1 else "")


def by_role(folders: dict[str, Folder]) -> dict[str, Folder]:
    """Those that finished and are asked about on the card."""
    return {role: folder for role, folder in folders.items() if role in _ASKING and folder.path is not None}


def total(folders: Sequence[Folder], name: str) -> float | None:
    """A number of `cost` summed over folders; None where no folder has it."""
    costs = [folder.document("provenance.json").get("cost") or {} for folder in folders]
    known = [cost[name] for cost in costs if cost.get(name) is not None]
    return sum(known) if known else None
