"""A teacher's completion in Alpaca's numbered format -> tasks.

The rules are the released ones (stanford_alpaca, `post_process_gpt3_response`), quirks included:

- The number of a task is its place in the text, so a piece with a wrong number is dropped and the next keeps its own.
- A number matches as the end of a longer one ("14. Input:" holds "4. Input:").
- Three headings are required but not their order: the first is read as the instruction, the second as the input.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SEPARATOR = "###"
NO_INPUT = "<noinput>"
# re.split with one group gives: text before, then heading and body for each of instruction, input and output.
PARTS = 7
# OpenAI's two words for an answer that was ended from outside, and the one that some other servers say for "length".
CUT = frozenset({"length", "content_filter", "max_tokens"})


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

    malformed: pieces without exactly three headings of their number; cut: 1 if the last piece was cut (see `CUT`).
    Blank pieces (after a trailing separator) are counted nowhere.
    """

    tasks: tuple[ParsedTask, ...]
    malformed: int
    cut: int


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
    again, and the released parser, which counts separators, would then lose every task of the answer.
    """
    return re.sub(rf"\A\s*(?:{SEPARATOR}\s*)?{first_number}\.\s*Instruction:", "", text)
