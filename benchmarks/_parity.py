"""Do the same recorded answers give the same kept list here as under the original's rules?

One side is the product: `Judge` of the sample stage, which parses, filters and de-duplicates. The other is written from
a description of the original's rules (stanford_alpaca, generate_instruction.py at 761dc5b), shares no code with the
product, and decides duplicates with rouge_score itself against all seeds and all kept tasks.

Both get answers of the programmatic teacher and answers in which everything is damaged that the rules look at. Two
things that the product does on purpose are left out, since the original had no such answers: a chat model's repetition
of the prompt's last heading, and tasks numbered beyond the list that was asked for.
"""

from __future__ import annotations

import json
import random
import re
import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from rouge_score import rouge_scorer

from alpaca.curation.parsing import TEXT_FORM
from alpaca.stages.sample.judge import Judge
from alpaca.teachers.programmatic.writer import Style, write
from alpaca.world import draw_task

SEED_TASKS = Path(__file__).resolve().parents[1] / "alpaca" / "stages" / "sample" / "seed_tasks.jsonl"
FIRST, LAST = 4, 20
PROMPT = f"List of {LAST} tasks:\n###\n{FIRST}. Instruction:"
UNSUITABLE = (
    "image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps", "draw", "plot",
    "go to", "video", "audio", "music", "flowchart", "diagram",
)  # fmt: skip
# Lengths n, m and an LCS with F = 0.7 exactly, which rouge_score gives as above 0.7 in the first row only.
TIES = (
    (9, 11, 7), (11, 9, 7), (8, 12, 7), (12, 8, 7), (18, 22, 14),
    (10, 10, 7), (19, 21, 14), (20, 20, 14),
)  # fmt: skip
STARTS = (
    string.punctuation, "ÉÄñ…¿“—Ω中", "\u00a0\u200b\t\n", "7Zz",
    (
        "Write a program to ", "write a program to ", "Write a programme to ", "Write a Program to ",
        "Write a  program ", " Write a program to ", "Now: Write a program to ",
    ),
)  # fmt: skip
SPELLINGS: tuple[Callable[[str], str], ...] = (
    str.lower, str.upper, str.title, str.swapcase, lambda word: word.replace(" ", "  "),
)  # fmt: skip
SETTINGS = ("{}", "{}", "{}s", "re{}", "{}_x", "_{}", "{}-like", "'{}'", "{}.", "{}2", "é{}", "{}é")
WORD_COUNTS = (0, 1, 3, 4, 150, 151)
JOINTS = (" ", "  ", "\n", "\u00a0", "\u2003")
INPUTS = ("<noinput>", "<NOINPUT>", "<NoInput> ", "<noinput>.", "no input", "", "<no input>")
HEADINGS: tuple[Callable[[str, str], str], ...] = (
    lambda number, word: "",
    lambda number, word: f"{number}. {word}:{number}. {word}:",
    lambda number, word: f"{number}. {word.lower()}:",
    lambda number, word: f"{number}.{word}:",
    lambda number, word: f"{number}.\n{word}:",
    lambda number, word: f"{number}.\u00a0{word}:",
    lambda number, word: f"{number}. {word} :",
    lambda number, word: f"{number}) {word}:",
    lambda number, word: f"0{number}. {word}:",
    lambda number, word: f"{number}. Output:",
    lambda number, word: f"{number}. Input:",
)


@dataclass(kw_only=True, slots=True, frozen=True)
class Answer:
    """A recorded answer: what follows "4. Instruction:", and why it ends, "stop" or "length"."""

    text: str
    finish_reason: str = "stop"


@dataclass(kw_only=True, slots=True, frozen=True)
class Kept:
    """A task that went into the pool."""

    instruction: str
    input: str
    output: str


def parity(count: int, seed: int = 0) -> dict[str, float]:
    """`parity_differences` over `count` recorded answers and all seed tasks, with the sizes behind it."""
    answers, seeds = recorded_answers(count, seed), seed_instructions()
    kept = kept_by_original(answers, seeds)
    differences = parity_differences(answers, seeds)
    return {"parity_differences": differences, "parity_answers": count, "parity_kept": len(kept)}


def parity_differences(answers: Sequence[Answer], seeds: Sequence[str]) -> int:
    """Places at which the two kept lists differ, in order; a task that only one of them has shifts all after it."""
    pairs = zip_longest(kept_by_product(answers, seeds), kept_by_original(answers, seeds))
    return sum(ours != theirs for ours, theirs in pairs)


def seed_instructions() -> list[str]:
    return [json.loads(line)["instruction"] for line in SEED_TASKS.read_text(encoding="utf-8").splitlines()]


def kept_by_product(answers: Iterable[Answer], seeds: Iterable[str]) -> list[Kept]:
    """The sampler's own judge, with a pool that is never full."""
    judge, kept = Judge(seeds, TEXT_FORM, 10**9), list[Kept]()
    for answer in answers:
        _, tasks = judge.judge(answer.text, answer.finish_reason, FIRST, LAST)
        kept += [Kept(instruction=task.instruction, input=task.input, output=task.output) for task in tasks]
    return kept


def kept_by_original(answers: Iterable[Answer], seeds: Iterable[str]) -> list[Kept]:
    """The original's rules, one after the other."""
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    known, kept = [scorer._tokenizer.tokenize(seed) for seed in seeds], list[Kept]()
    for answer in answers:
        for task in _tasks(answer):
            if not _suits(task.instruction):
                continue
            tokens = scorer._tokenizer.tokenize(task.instruction)
            scores = [rouge_scorer._score_lcs(tokens, other).fmeasure for other in known]
            if max(scores, default=0) > 0.7:
                continue
            known.append(tokens)
            kept.append(task)
    return kept


def _tasks(answer: Answer) -> Iterator[Kept]:
    """The pieces between "###" that hold exactly three headings with the number of their place."""
    pieces = (f"{FIRST}. Instruction:" + answer.text).split("###")
    if answer.finish_reason == "length":
        del pieces[-1]
    for number, piece in enumerate(pieces, FIRST):
        headings = list(re.finditer(rf"{number}\.\s+(?:Instruction|Input|Output):", piece))
        if len(headings) == 3:
            ends = [heading.start() for heading in headings[1:]] + [len(piece)]
            fields = [piece[one.end() : end].strip() for one, end in zip(headings, ends, strict=True)]
            given = "" if fields[1].lower() == "<noinput>" else fields[1]
            yield Kept(instruction=fields[0], input=given, output=fields[2])


def _suits(instruction: str) -> bool:
    """Filters 1 to 5: length, keywords, "Write a program", punctuation, not ASCII."""
    if len(instruction.split()) <= 3 or len(instruction.split()) > 150:
        return False
    if any(re.search(rf"(?<!\w){word}(?!\w)", instruction, re.IGNORECASE) for word in UNSUITABLE):
        return False
    if instruction.startswith("Write a program"):
        return False
    return instruction[0] not in string.punctuation and ord(instruction[0]) < 128


def recorded_answers(count: int, seed: int = 0) -> list[Answer]:
    """Answers in turn: two of the programmatic teacher, one of them cut, and three with damage of every kind."""
    rng = random.Random(seed)
    return [(_damaged, _whole, _damaged, _cut, _damaged)[number % 5](rng) for number in range(count)]


def _whole(rng: random.Random) -> Answer:
    return Answer(text=write(PROMPT, seed=rng.getrandbits(32), style=Style()).text)


def _cut(rng: random.Random) -> Answer:
    """Cut by the teacher's limit of tokens, or said to be cut where a task has just ended or begun."""
    if rng.random() < 0.5:
        written = write(PROMPT, seed=rng.getrandbits(32), style=Style(), max_tokens=rng.randrange(2, 500))
        return Answer(text=written.text, finish_reason=written.finish_reason)
    return Answer(text=_whole(rng).text + rng.choice(["", "\n###", "\n###\n", "\n###\n21."]), finish_reason="length")


def _damaged(rng: random.Random) -> Answer:
    """Ten tasks, each damaged in its fields, half of them in their block too."""
    separator = rng.choice(["\n###\n", "\n###\n", "###", "\n#### ", "\n###\n\n"])
    blocks = [_damaged_block(number, rng) for number in range(FIRST, FIRST + 10)]
    text = separator.join(blocks).removeprefix(f"{FIRST}. Instruction:")
    return Answer(text=text + rng.choice(["", "\n", "\n###", "\n###\n"]), finish_reason=rng.choice(["stop", "length"]))


def _damaged_block(number: int, rng: random.Random) -> str:
    block = _block(number, _damaged_fields(rng))
    if rng.random() < 0.5:
        return block
    # The first heading is the prompt's: an answer that says it again is none that the original's teacher gave.
    kinds = (_merged, _cut_block) if number == FIRST else (_wrong_number, _other_heading, _merged, _cut_block)
    return rng.choice(kinds)(number, block, rng)


def _block(number: int, task: Kept) -> str:
    return (
        f"{number}. Instruction: {task.instruction}\n{number}. Input:\n{task.input}\n{number}. Output:\n{task.output}"
    )


def _damaged_fields(rng: random.Random) -> Kept:
    task = draw_task(rng)
    instruction = rng.choice(INSTRUCTION_DAMAGE)(task.instruction, rng)
    output = rng.choice([task.output, task.output, "", "  <noinput>"])
    return Kept(instruction=instruction, input=rng.choice([task.input, *INPUTS]), output=output)


def _unchanged(instruction: str, rng: random.Random) -> str:
    return instruction


def _other_start(instruction: str, rng: random.Random) -> str:
    """Punctuation, signs beyond ASCII, blanks, digits and letters, and "Write a program" as it is and nearly so."""
    return rng.choice(rng.choice(STARTS)) + instruction


def _with_keyword(instruction: str, rng: random.Random) -> str:
    """A keyword in any case, on its own or as part of something longer that is a word or is none."""
    words = instruction.split(" ")
    words.insert(
        rng.randrange(len(words) + 1), rng.choice(SETTINGS).format(rng.choice(SPELLINGS)(rng.choice(UNSUITABLE)))
    )
    return " ".join(words)


def _of_length(instruction: str, rng: random.Random) -> str:
    """Word counts at and beside both bounds; the joints are white space of several kinds."""
    words = (f"{rng.choice(string.ascii_lowercase)}{rng.randrange(10**6)}" for _ in range(rng.choice(WORD_COUNTS)))
    return rng.choice(JOINTS).join(words)


def _tie(instruction: str, rng: random.Random) -> str:
    """One of two texts with F = 0.7 exactly: made of fixed words, so that the other comes sooner or later."""
    n, m, lcs = rng.choice(TIES)
    name = f"t{n}x{m}x{rng.randrange(2)}"
    common = [f"{name}c{place}" for place in range(lcs)]
    if rng.random() < 0.5:
        return " ".join(common + [f"{name}a{place}" for place in range(n - lcs)])
    return " ".join([f"{name}b{place}" for place in range(m - lcs)] + common)


def _repeated(instruction: str, rng: random.Random) -> str:
    """One of few instructions with some words changed: duplicates and those that are just none."""
    words = draw_task(random.Random(rng.randrange(6))).instruction.split()
    for _ in range(rng.randrange(len(words))):
        words[rng.randrange(len(words))] = rng.choice(["this", "that", "and", "NEW", "new!", "—"])
    return " ".join(words)


def _wrong_number(number: int, block: str, rng: random.Random) -> str:
    """Another number throughout or in one heading; "14." also ends in "4."."""
    other = rng.choice([number + 1, number - 1, number + 10, int(f"1{number}"), int(f"2{number}")])
    return block.replace(f"{number}. ", f"{other}. ", rng.choice([1, 3]))


def _other_heading(number: int, block: str, rng: random.Random) -> str:
    """A heading that is missing, doubled, spelt otherwise, set off by other white space, or another one."""
    word = rng.choice(["Instruction", "Input", "Output"])
    return block.replace(f"{number}. {word}:", rng.choice(HEADINGS)(str(number), word), 1)


def _merged(number: int, block: str, rng: random.Random) -> str:
    """The next task without a separator, under this number, the next, or none; or a separator within the task."""
    task = _damaged_fields(rng)
    added = [_block(number, task), _block(number + 1, task), task.instruction, "###", "\n###\n\n", "######", "# # #"]
    return block + "\n" + rng.choice(added)


def _cut_block(number: int, block: str, rng: random.Random) -> str:
    return block[: rng.randrange(len(block))]


INSTRUCTION_DAMAGE: tuple[Callable[[str, random.Random], str], ...] = (
    _unchanged, _other_start, _with_keyword, _of_length, _tie, _tie, _repeated,
)  # fmt: skip
