"""Which tasks are dropped for what they say: Alpaca's five released filters, and filters for the released data's flaws.

`FILTERS` is the table of all filters; a new one is a predicate and a line there. The released filters look at the
instruction alone (stanford_alpaca, generate_instruction.py; the first 13 keywords come from self-instruct). The flaws
are those that users of the released 52,002 examples found (AlpacaDataCleaned and others); the counts in the docstrings
are of that file, each filter by itself.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from alpaca.curation.language import check_language, is_other
from alpaca.errors import UserError

MIN_WORDS = 4
MAX_WORDS = 150
SELF_INSTRUCT_KEYWORDS = (
    "image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps",
    "draw", "plot", "go to",
)  # fmt: skip
ALPACA_KEYWORDS = ("video", "audio", "music", "flowchart", "diagram")
KEYWORDS = SELF_INSTRUCT_KEYWORDS + ALPACA_KEYWORDS

LONG_OUTPUT = 200
"""Characters from which a missing mark of the end is a sign that the output was cut."""
LEAST_LINE_WORDS = 4

_KEYWORD = re.compile(rf"\b(?:{'|'.join(KEYWORDS)})\b", re.IGNORECASE)
_PUNCTUATION = tuple(string.punctuation)
# Whole fields only. A bare "NA" is left alone: it is also sodium and North America.
_NO_INPUT = re.compile(r"no ?input(?: (?:required|needed|necessary|provided|given))?|none|n/a")
_WRAPPING = re.compile(r"^[\W_]+|[\W_]+$")

_NEXT_TASK = re.compile(r"\d\.\s*Instruction:")
_URL = re.compile(r"https?://\S+")
_NO_INPUT_MARK = "<noinput>"
_MULTIMODAL = re.compile(r"\b(?:photo(?:graph)?s?|charts?|screenshots?|gifs?)\b", re.IGNORECASE)
_PICTURE = re.compile(r"!\[[^\]]{0,500}\]\(|<img\b", re.IGNORECASE)
# Closing brackets, quotes and marks of code and lists can end a text as well as a full stop.
_ENDS = tuple(".!?\"')]}`:;»”…。！？")
_SENTENCE_END = re.compile(r"[.!?:;…][\"”'’)\]*]*$")
_SENTENCE_BEFORE = re.compile(r"[a-z0-9)\"”'][.!?][\"”')]*\s+[\"“'(]*[A-Z0-9]")
_CUT_AT = re.compile(r"[^\W_]\Z|[,;(&/–—-]\Z")
# Lines of code and tables, hashtags, addresses and list items end as they like.
_UNPUNCTUATED = re.compile(r"[{}=;<>\\|]|\w\(\)|//|\bwww\.")
_TAG = re.compile(r"[#@]")
_ITEM = re.compile(r"(?:[-*•–>|]|\(?\w{1,3}[.):])")


class TaskText(Protocol):
    """What a filter looks at; an Example, a SeedTask and a ParsedTask all are one."""

    @property
    def instruction(self) -> str: ...
    @property
    def input(self) -> str: ...
    @property
    def output(self) -> str: ...


@dataclass(kw_only=True, slots=True, frozen=True)
class Filter:
    """A named reason to drop a task: `drops(task)` is true where the task must go."""

    name: str
    drops: Callable[[TaskText], bool]


def bad_length(task: TaskText) -> bool:
    """The instruction has fewer than 4 or more than 150 words (separated by white space)."""
    return not MIN_WORDS <= len(task.instruction.split()) <= MAX_WORDS


def unsuitable_keyword(task: TaskText) -> bool:
    """The instruction names, as a whole word in any case, something that a text model cannot see or make."""
    return _KEYWORD.search(task.instruction) is not None


def write_a_program(task: TaskText) -> bool:
    """The instruction starts with exactly "Write a program", which the teacher liked to put before other tasks."""
    return task.instruction.startswith("Write a program")


def starts_with_punctuation(task: TaskText) -> bool:
    """The first character of the instruction is ASCII punctuation."""
    return task.instruction.startswith(_PUNCTUATION)


def starts_outside_ascii(task: TaskText) -> bool:
    """The first character of the instruction is no ASCII character, taken as a sign of another language."""
    return not task.instruction[:1].isascii()


def empty_output(task: TaskText) -> bool:
    """The output is empty or blank, as it is in 28 released examples."""
    return not task.output.strip()


def no_input_spelling(task: TaskText) -> bool:
    """The input only says that there is none (671, see `normalise_no_input`); blank inputs pass.

    Nothing is left to drop where `data.normalise_no_input` repairs them first.
    """
    return task.input != normalise_no_input(task.input)


def merged_tasks(task: TaskText) -> bool:
    """The output holds the heading of another task, "7. Instruction:" (37)."""
    return _NEXT_TASK.search(task.output) is not None


def url_only_input(task: TaskText) -> bool:
    """The input is an http address and nothing else, which a text model cannot open (182)."""
    return _URL.fullmatch(task.input.strip()) is not None


def input_equals_output(task: TaskText) -> bool:
    """The output repeats the input (67, in 12 of which both are blank), surrounding white space aside."""
    return task.input.strip() == task.output.strip()


def noinput_output(task: TaskText) -> bool:
    """The output holds the mark "<noinput>" in any case (59), which belongs into the input field."""
    return _NO_INPUT_MARK in task.output.lower()


def colon_output(task: TaskText) -> bool:
    """The output ends with a colon (12), surrounding white space aside."""
    return task.output.rstrip().endswith(":")


def multimodal(task: TaskText) -> bool:
    """The instruction names a photo, chart, screenshot or GIF, or the input embeds a picture (257).

    The released keywords leave these out.
    """
    return _MULTIMODAL.search(task.instruction) is not None or _PICTURE.search(task.input) is not None


def unterminated_output(task: TaskText) -> bool:
    """The output has more than 200 characters and no closing mark at its end (1,431, 2.8 %).

    Mostly complete lists, tables, code and lines of hashtags, so dropping these changes what is learnt; those that are
    really cut are found by `cut_output`.
    """
    return len(task.output) > LONG_OUTPUT and not task.output.rstrip().endswith(_ENDS)


def cut_output(task: TaskText) -> bool:
    """The output is long, punctuated prose that stops without a closing mark (27).

    Prose: the last line holds a finished sentence before its last, or has at least four words where all earlier lines
    of four words end in punctuation. Lists without full stops, code, tables, hashtags, addresses and signatures pass.
    """
    text = task.output.rstrip()
    if len(text) <= LONG_OUTPUT or not _CUT_AT.search(text):
        return False
    *earlier, last = [line.strip() for line in text.split("\n") if line.strip()]
    if _UNPUNCTUATED.search(last) or _TAG.search(last.split()[-1]) or (earlier and earlier[-1].endswith(",")):
        return False
    if _SENTENCE_BEFORE.search(last) and not _ITEM.match(last):
        return True
    lines = [line for line in earlier if _has_words(line)]
    return _has_words(last) and bool(lines) and all(map(_SENTENCE_END.search, lines))


def _has_words(line: str) -> bool:
    return len(line.split()) >= LEAST_LINE_WORDS


def other_language(task: TaskText, language: str) -> bool:
    """The instruction is certainly written in another language (none for English; the only one that is, "Combien de
    cotes ...", is too short to be certain).

    Inputs and outputs may be: most of the released outputs that are not English answer a request to translate.
    """
    return is_other(task.instruction, language)


RELEASED: tuple[Filter, ...] = (
    Filter(name="length", drops=bad_length),
    Filter(name="keywords", drops=unsuitable_keyword),
    Filter(name="write_a_program", drops=write_a_program),
    Filter(name="punctuation", drops=starts_with_punctuation),
    Filter(name="non_ascii", drops=starts_outside_ascii),
)
EMPTY_OUTPUT = Filter(name="empty_output", drops=empty_output)
OTHER_LANGUAGE = "other_language"
DEFAULT_LANGUAGE = "en"
FLAWS: tuple[Filter, ...] = (
    EMPTY_OUTPUT,
    Filter(name="no_input_spelling", drops=no_input_spelling),
    Filter(name="merged_tasks", drops=merged_tasks),
    Filter(name="url_only_input", drops=url_only_input),
    Filter(name="input_equals_output", drops=input_equals_output),
    Filter(name="noinput_output", drops=noinput_output),
    Filter(name="colon_output", drops=colon_output),
    Filter(name="multimodal", drops=multimodal),
    Filter(name="cut_output", drops=cut_output),
    Filter(name="unterminated_output", drops=unterminated_output),
    Filter(name=OTHER_LANGUAGE, drops=partial(other_language, language=DEFAULT_LANGUAGE)),
)
FILTERS: tuple[Filter, ...] = (*RELEASED, *FLAWS)


def filters_named(
    names: Iterable[str], *, language: str = DEFAULT_LANGUAGE, where: str = "data.filters"
) -> tuple[Filter, ...]:
    """The filters of these names, each once, in the given order; `language` (ISO 639-1) is what other_language keeps.

    Raises UserError that lists the known names for unknown ones, or the known languages where other_language is among
    the filters; `where` is the configuration key shown.
    """
    known, wanted = {each.name: each for each in FILTERS}, list(dict.fromkeys(names))
    if unknown := [name for name in wanted if name not in known]:
        raise UserError(
            what=f"unknown filter {', '.join(map(repr, unknown))}",
            where=where,
            remedy=f"known filters: {', '.join(known)}",
        )
    if OTHER_LANGUAGE in wanted:
        check_language(language)
        known[OTHER_LANGUAGE] = Filter(name=OTHER_LANGUAGE, drops=partial(other_language, language=language))
    return tuple(known[name] for name in wanted)


def dropped_by(task: TaskText, filters: Sequence[Filter] = RELEASED) -> str | None:
    """The name of the first filter that drops the task, None if all let it pass."""
    return next((each.name for each in filters if each.drops(task)), None)


def count_drops(tasks: Iterable[TaskText], filters: Sequence[Filter] = RELEASED) -> dict[str, int]:
    """How many tasks each filter drops, in the order of `filters`; a task counts only for the first that drops it."""
    counts = {each.name: 0 for each in filters}
    for task in tasks:
        if name := dropped_by(task, filters):
            counts[name] += 1
    return counts


def count_each(tasks: Sequence[TaskText], filters: Sequence[Filter] = FILTERS) -> dict[str, int]:
    """How many tasks each filter would drop by itself, whatever the others do."""
    return {each.name: sum(map(each.drops, tasks)) for each in filters}


def normalise_no_input(input: str) -> str:
    """ "" for an input that only says that there is none, otherwise the input unchanged.

    Matched as the whole field, in any case, without surrounding punctuation and brackets: "no input" or "noinput"
    (alone or with required, needed, necessary, provided, given), "none" and "n/a". The released file has 671 such
    fields, since the released parser knows "<noinput>" alone.
    """
    words = " ".join(_WRAPPING.sub("", input).lower().split())
    return "" if _NO_INPUT.fullmatch(words) else input
