"""A teacher's answer -> tasks, in either of the two request forms.

In Alpaca's numbered text the rules are the released ones (stanford_alpaca, `post_process_gpt3_response`), quirks
included:

- The number of a task is its place in the text, so a piece with a wrong number is dropped and the next keeps its own.
- A number matches as the end of a longer one ("14. Input:" holds "4. Input:").
- Three headings are required but not their order: the first is read as the instruction, the second as the input.

In the JSON-schema form the answer is {"tasks": [{"instruction", "input", "output"}, ...]}.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from alpaca.records import well_formed

TEXT_FORM, JSON_FORM = "text", "json_schema"
SEPARATOR = "###"
NO_INPUT = "<noinput>"
# re.split with one group gives: text before, then heading and body for each of instruction, input and output.
PARTS = 7
# OpenAI's two words for an answer that was ended from outside, and the one that some other servers say for "length".
CUT = frozenset({"length", "content_filter", "max_tokens"})

# Servers that do not know structured outputs often wrap the JSON as a chat message does.
_FENCE = re.compile(r"\A\s*```(?:json)?\s*\n|\n\s*```\s*\Z")
_LIST = re.compile(r'\A\s*\{\s*"tasks"\s*:\s*\[')
_BETWEEN = re.compile(r"[\s,]*")


@dataclass(kw_only=True, slots=True, frozen=True)
class ParsedTask:
    """One task of a completion; `number` is the one that the prompt's list gave it."""

    number: int
    instruction: str
    input: str
    output: str


@dataclass(kw_only=True, slots=True, frozen=True)
class Parsed:
    """The tasks of a completion in their order, and how many pieces gave none.

    malformed: pieces without exactly three headings of their number (json_schema: entries without the fields, and what
    follows a fault in the JSON, as one); cut: 1 if the last piece was cut (see `CUT`).
    Blank pieces (after a trailing separator) are counted nowhere.
    """

    tasks: tuple[ParsedTask, ...]
    malformed: int
    cut: int


def parse_tasks(text: str, *, form: str, first_number: int, finish_reason: str) -> Parsed:
    """The tasks of an answer exactly as the teacher gave it; what sample counts and curate keeps both come from here.

    form: `TEXT_FORM` or `JSON_FORM`, as the request said it; first_number: that of the first task asked for.
    """
    if form == JSON_FORM:
        return _parse_json(text, first_number, finish_reason)
    return parse_completion(continuation(text, first_number), first_number=first_number, finish_reason=finish_reason)


def parse_completion(text: str, *, first_number: int, finish_reason: str) -> Parsed:
    """The tasks in `text`, which continues a prompt that ends in "###\\n{first_number}. Instruction:".

    finish_reason: as the API names it; one of `CUT` means that the last piece was cut and is not used.
    """
    pieces = f"{first_number}. Instruction:{text}".split(SEPARATOR)
    was_cut = finish_reason in CUT
    last = pieces.pop() if was_cut else ""
    tasks = [_parse_piece(piece, number) for number, piece in enumerate(pieces, first_number)]
    malformed = sum(task is None and bool(piece.strip()) for task, piece in zip(tasks, pieces, strict=True))
    return Parsed(
        tasks=tuple(task for task in tasks if task is not None), malformed=malformed, cut=int(bool(last.strip()))
    )


def _parse_piece(piece: str, number: int) -> ParsedTask | None:
    parts = re.split(rf"{number}\.\s+(Instruction|Input|Output):", piece)
    if len(parts) != PARTS:
        return None
    instruction, input, output = (part.strip() for part in parts[2::2])
    return ParsedTask(
        number=number, instruction=instruction, input="" if input.lower() == NO_INPUT else input, output=output
    )


def continuation(text: str, first_number: int) -> str:
    """The text without a heading that only repeats the end of the prompt.

    The released recipe used a completion model, which goes on after "4. Instruction:". A chat model may say this line
    again, and the released parser, which counts separators, would then lose every task of the answer. However often
    it is said: a text that went through here once comes out of a second time unchanged.
    """
    return re.sub(rf"\A(?:\s*(?:{SEPARATOR}\s*)?{first_number}\.\s*Instruction:)+", "", text)


def _parse_json(text: str, first_number: int, finish_reason: str) -> Parsed:
    """The entries of {"tasks": [...]}, numbered by their place; of broken JSON those that end before the fault."""
    text = _FENCE.sub("", text)
    entries, complete = _entries(text)
    tasks = [_parse_entry(entry, number) for number, entry in enumerate(entries, first_number)]
    # A cut answer whose JSON is complete lost nothing, unlike a cut text, whose last task may end anywhere.
    broken, was_cut = int(not complete and bool(text.strip())), finish_reason in CUT
    return Parsed(
        tasks=tuple(task for task in tasks if task is not None),
        malformed=tasks.count(None) + (0 if was_cut else broken),
        cut=broken if was_cut else 0,
    )


def _entries(text: str) -> tuple[list[Any], bool]:
    """The entries of the list of tasks, and whether the text is that object as a whole."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return list(_complete_entries(text)), False
    tasks = whole.get("tasks") if isinstance(whole, dict) else None
    return (tasks, True) if isinstance(tasks, list) else ([], False)


def _complete_entries(text: str) -> Iterator[Any]:
    """The entries of the list that stand whole at its beginning."""
    opening, decoder = _LIST.match(text), json.JSONDecoder()
    if opening is None:
        return
    place = opening.end()
    while place < len(text) and text[place] != "]":
        try:
            entry, place = decoder.raw_decode(text, _skip(text, place))
        except (ValueError, RecursionError):
            return
        yield entry
        place = _skip(text, place)


def _skip(text: str, place: int) -> int:
    found = _BETWEEN.match(text, place)
    return found.end() if found else place


def _parse_entry(entry: Any, number: int) -> ParsedTask | None:
    """A missing or null input is none; any other value that is no text makes the entry malformed."""
    if not isinstance(entry, dict):
        return None
    given = entry.get("input")
    values = [entry.get("instruction"), "" if given is None else given, entry.get("output")]
    # JSON may name half of a surrogate pair, which no file of ours can hold.
    texts = [well_formed(value.strip()) for value in values if isinstance(value, str)]
    if len(texts) < len(values):
        return None
    instruction, input, output = texts
    return ParsedTask(
        number=number, instruction=instruction, input="" if input.lower() == NO_INPUT else input, output=output
    )
