"""The forms in which instruction data is published: names of the fields, what they must hold, how they are read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from typing import Any

from alpaca.errors import UserError
from alpaca.records import TEXT, is_text
from alpaca.records.reading import LONGEST

IDS = (str, int)


class Form(ABC):
    """One form. A new one is one class and one line in `FORMS`."""

    fields: tuple[str, ...]
    """What every record has."""
    told_by: str
    """The field that no other form has."""
    optional: tuple[str, ...] = ("id",)
    """What is kept as provenance, where it is a text."""
    shape: str
    """In words, for messages."""

    @abstractmethod
    def problems(self, record: dict[str, Any]) -> Iterator[str]:
        """What is wrong with the fields that are read."""

    @abstractmethod
    def convert(self, record: dict[str, Any]) -> tuple[str, str, str]:
        """Instruction, input and output of a record without problems."""

    def extra(self, record: dict[str, Any]) -> dict[str, Any]:
        """What a record says about where it comes from."""
        return {
            name: record[name]
            for name in self.optional
            if is_text(record.get(name)) or (name == "id" and isinstance(record.get(name), int))
        }

    def is_multi_turn(self, record: dict[str, Any]) -> bool:
        """Whether there is more than the one turn that is used."""
        return False


class Texts(Form):
    """A form with three texts, in the order of instruction, input and output."""

    def problems(self, record: dict[str, Any]) -> Iterator[str]:
        for name in self.fields:
            if name not in record:
                yield f'"{name}" is missing'
            else:
                yield from _text_problems(f'"{name}"', record[name])

    def convert(self, record: dict[str, Any]) -> tuple[str, str, str]:
        instruction, input, output = (record[name] for name in self.fields)
        return instruction, input, output


class Alpaca(Texts):
    """Alpaca's own (tatsu-lab/stanford_alpaca, alpaca_data.json)."""

    fields = ("instruction", "input", "output")
    told_by = "output"
    shape = 'a JSON array or JSONL of objects {"instruction", "input", "output"}, all of them texts'


class Dolly(Texts):
    """databricks-dolly-15k: written by people, each record with the category of its task."""

    fields = ("instruction", "context", "response")
    told_by = "response"
    optional = ("id", "category")
    shape = 'JSONL of objects {"instruction", "context", "response", "category"}, all of them texts'


class Lima(Form):
    """LIMA (Zhou et al., arXiv 2305.11206): user and assistant in turn; of several turns only the first is read."""

    fields = ("conversations",)
    told_by = "conversations"
    shape = 'JSONL of objects {"conversations": [user, assistant, ...], "source"}, the turns being texts'

    def problems(self, record: dict[str, Any]) -> Iterator[str]:
        turns = record.get("conversations")
        if "conversations" not in record:
            yield '"conversations" is missing'
        elif not isinstance(turns, list):
            yield f'"conversations" is {_named(turns)}, expected a list of texts'
        elif len(turns) < 2:
            yield f'"conversations" has {len(turns)} of the two turns of a user and an assistant'
        else:
            for number, turn in enumerate(turns):
                yield from _text_problems(f'"conversations"[{number}]', turn)

    def convert(self, record: dict[str, Any]) -> tuple[str, str, str]:
        return record["conversations"][0], "", record["conversations"][1]

    def extra(self, record: dict[str, Any]) -> dict[str, Any]:
        # "source" is already the name of the file's digest.
        found = super().extra(record)
        return {**found, "origin": record["source"]} if is_text(record.get("source")) else found

    def is_multi_turn(self, record: dict[str, Any]) -> bool:
        return len(record["conversations"]) > 2


FORMS: dict[str, Form] = {"alpaca": Alpaca(), "dolly": Dolly(), "lima": Lima()}
KNOWN_FORMS = "known forms: " + "; ".join(f"{name}: {form.shape}" for name, form in FORMS.items())


def recognise(fields: Collection[str], place: str, where: str) -> Form:
    """The form of a record with these fields. Raises UserError that lists the known forms.

    A record without any field contradicts no form: it is read as Alpaca's, which says what is missing.
    """
    for form in FORMS.values():
        if form.told_by in fields or not fields:
            return form
    if "instruction" in fields:
        return FORMS["alpaca"]
    named = ", ".join(f'"{name}"' for name in list(fields)[:8])
    raise UserError(what=f"{place} has the fields {named[:200]}: no known form", where=where, remedy=KNOWN_FORMS)


def _text_problems(name: str, value: object) -> Iterator[str]:
    if not is_text(value):
        yield f"{name} is {_named(value)}, expected {TEXT}"
    elif isinstance(value, str) and len(value) > LONGEST:
        yield f"{name} has {len(value):,} characters, at most {LONGEST:,} are read"


def _named(value: object) -> str:
    return "NoneType (null)" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
