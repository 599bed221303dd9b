"""What an instruction asks for: its first verb and that verb's object, or the question word it opens with.

Self-instruct and Alpaca drew these as two rings, from a dependency parse. The rules here need no model: a list of verbs
that open instructions (verbs.txt), and the last word of the noun phrase that follows. `tally` says how many
instructions they cover. A parser finds more; what it finds depends on the machine, so it has no part in card.json.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from alpaca.curation.diversity import effective_number

RULES = "rules"
TOP_VERBS, TOP_OBJECTS = 20, 4
LEXICON = Path(__file__).with_name("verbs.txt")
LONGEST_PHRASE = 7
"""Words of a noun phrase; what goes on longer has no end that the rules can see."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TOKEN = re.compile(r"[A-Za-z]+(?:[-'’][A-Za-z]+)*|\d+(?:[.,]\d+)*(?:-[A-Za-z]+)*|\S|\n")
_STOPS = frozenset('.?!:;\n"“”()[]')
_QUESTIONS = _words("what how why who whom whose when where which what's who's how's where's")
_AUXILIARIES = _words("is are was were am does did can could should would will has have may might do")
# What politeness and framing put before the verb; longer ones first, so that "can you please" goes as a whole.
_FILLERS = tuple(
    tuple(phrase.split())
    for phrase in (
        "i would like you to", "i want you to", "i need you to", "i'd like you to", "i would like to", "i want to",
        "your task is to", "your job is to", "your goal is to", "the task is to", "you are asked to", "you need to",
        "you have to", "you should", "you must", "we need to", "help me to", "help us to", "help me", "help us",
        "can you", "could you", "would you", "will you", "be sure to", "try to", "let us", "let's", "please", "kindly",
        "now", "then", "next", "first", "finally", "also", "just", "briefly", "carefully", "quickly", "to", "and",
    )
)  # fmt: skip
# A sentence that opens with one of these tells the circumstances first; the verb comes after a comma.
_INTRODUCTIONS = _words(
    "given in using for if when based from with to as by after before at on considering assuming suppose there here "
    "according without considering while once following out of among between within under you i we your my this these"
)
_SKIPPED = _words(
    "a an the this that these those some any each every all both another other its his her their our your my no "
    "me us you him them it itself up out down off over away back together "
    "following given above below provided new own same given's such more most few several many much two three four "
    "five six seven eight nine ten twelve fifteen twenty fifty hundred one at least exactly only also please and/or"
)
_DETERMINERS = _words("a an the this these those each every its your my his her their our how why")
_BOUNDARIES = _words(
    "of in on for from to with about into by at as between among against during before after through within without "
    "under over near toward towards across along behind beyond per via versus vs like than because since until unless "
    "while although though if whether and or but nor so then that which who whom whose where when why how what is are "
    "was were be been being has have had do does did can could should would will may might must not using given based "
    "containing involving including describing explaining comparing expressing featuring showing related called named "
    "titled written made consisting starting beginning ending according regarding concerning discussing outlining "
    "summarizing talking relating following below above i we they he she it you please aloud again correctly properly "
    "out up down away together"
)
_NO_NOUNS = _words(
    "following given above below provided new own same different other another short long brief simple one ones two "
    "three four five six seven eight nine ten best better good least most more many few several such each all both "
    "any some here there yourself himself herself themselves itself me us you him them it this that these those"
)
_ADVERB = re.compile(r"[a-z]{3,}ly")
_NO_ADVERBS = _words(
    "reply supply apply imply comply rely family assembly anomaly ally butterfly jelly monopoly fly lily belly bully "
    "italy july"
)
_NOUNS_IN_ED = _words("bed breed creed deed feed need red seed shed speed weed")
_PHRASAL = ("come up with",)
_IRREGULAR = {
    "people": "person", "children": "child", "men": "man", "women": "woman", "criteria": "criterion", "mice": "mouse",
    "phenomena": "phenomenon", "analyses": "analysis", "hypotheses": "hypothesis", "theses": "thesis", "feet": "foot",
    "leaves": "leaf", "lives": "life", "wives": "wife", "knives": "knife", "teeth": "tooth", "indices": "index",
    "matrices": "matrix", "vertices": "vertex", "movies": "movie", "cookies": "cookie", "calories": "calorie",
    "lies": "lie", "ties": "tie", "series": "series", "species": "species", "news": "news", "lens": "lens",
    "business": "business", "process": "process", "maths": "maths", "physics": "physics", "economics": "economics",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Opening:
    """How an instruction opens: with a verb (and perhaps its object), with a question word, or otherwise."""

    verb: str = ""
    object: str = ""
    question: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verb:
    """A verb's instructions, and its most frequent objects with theirs."""

    verb: str
    count: int
    objects: list[tuple[str, int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """Openings of many instructions. with_verb + questions + other = instructions."""

    method: str
    instructions: int
    with_verb: int
    with_object: int
    questions: int
    other: int
    effective_verbs: float
    """exp of the entropy of the verbs: as many equally frequent ones would be as varied."""
    different_verbs: int
    top: list[Verb]
    question_words: list[tuple[str, int]]


def tally(instructions: Iterable[str]) -> Tally:
    """The openings of the instructions by the rules of this module."""
    return of_openings((opening(instruction) for instruction in instructions), RULES)


def of_openings(openings: Iterable[Opening], method: str) -> Tally:
    """Counts of openings, whoever found them; equal counts stand in alphabetical order."""
    found = list(openings)
    pairs = Counter((one.verb, one.object) for one in found)
    verbs, questions = Counter[str](), Counter(one.question for one in found if one.question)
    for (verb, _), number in pairs.items():
        verbs[verb] += number
    other = verbs.pop("", 0) - sum(questions.values())
    return Tally(
        method=method,
        instructions=len(found),
        with_verb=sum(verbs.values()),
        with_object=sum(number for (verb, noun), number in pairs.items() if verb and noun),
        questions=sum(questions.values()),
        other=other,
        effective_verbs=round(effective_number(verbs.values()), 2),
        different_verbs=len(verbs),
        top=[_top_verb(verb, number, pairs) for verb, number in _most(verbs, TOP_VERBS)],
        question_words=_most(questions, TOP_VERBS),
    )


def _top_verb(verb: str, number: int, pairs: Counter[tuple[str, str]]) -> Verb:
    objects = Counter({noun: count for (other, noun), count in pairs.items() if other == verb and noun})
    return Verb(verb=verb, count=number, objects=_most(objects, TOP_OBJECTS))


def _most(counts: Counter[str], number: int) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:number]


def opening(instruction: str) -> Opening:
    """The first clause that opens with a known verb or a question word decides; without one there is nothing."""
    tokens = _TOKEN.findall(instruction)
    words = [token.lower().replace("’", "'") for token in tokens]
    known = lexicon()
    asked = "?" in words
    for start in _clauses(words):
        place = _past_fillers(words, start)
        if place >= len(words):
            break
        word = words[place]
        if word in _QUESTIONS and (asked or word not in ("when", "where")):
            return Opening(question=word.removesuffix("'s"))
        if word in _AUXILIARIES and (asked or word != "do"):
            return Opening(question=word)
        if word in known:
            phrasal = " ".join(words[place : place + 3])
            verb, after = (phrasal, place + 3) if phrasal in _PHRASAL else (known[word], place + 1)
            return Opening(verb=verb, object=_object(words, after, known))
    return Opening()


def _clauses(words: Sequence[str]) -> list[int]:
    """Where clauses begin that can hold the request: sentences, and what follows a comma after an introduction."""
    starts, introduced = [0], bool(words) and words[0] in _INTRODUCTIONS
    for place, word in enumerate(words[:-1]):
        if word in _STOPS or word == "-":
            starts.append(place + 1)
            introduced = words[place + 1] in _INTRODUCTIONS
        elif word == "," and introduced:
            starts.append(place + 1)
    return starts


def _past_fillers(words: Sequence[str], start: int) -> int:
    place, moved = start, True
    while moved:
        moved = False
        for phrase in _FILLERS:
            if tuple(words[place : place + len(phrase)]) == phrase:
                place, moved = place + len(phrase), True
                break
        if not moved and place < len(words) and _is_adverb(words[place]):
            place, moved = place + 1, True
    return place


def _is_adverb(word: str) -> bool:
    return _ADVERB.fullmatch(word) is not None and word not in _NO_ADVERBS


def _object(words: Sequence[str], start: int, known: dict[str, str]) -> str:
    """The last noun of the phrase that follows the verb, in the singular; "" where none does."""
    phrase: list[str] = []
    following = words[_past_verbs(words, start, known) :][: LONGEST_PHRASE + 1]
    for word, after in itertools.pairwise([*following, ""]):
        participle = word.endswith("ed") and word not in _NOUNS_IN_ED
        if not phrase and (word in _SKIPPED or participle or _is_adverb(word)):
            continue
        # "a release announcing a product", but "a machine learning algorithm".
        takes_object = word.endswith("ing") and after in _DETERMINERS
        if word in _BOUNDARIES or word in _DETERMINERS or participle or takes_object or not word[0].isalnum():
            break
        phrase.append(word)
    return _head(phrase)


def _past_verbs(words: Sequence[str], start: int, known: dict[str, str]) -> int:
    """ "compare and contrast": the second verb's object is the first one's too."""
    place = start
    while place + 1 < len(words) and words[place] in ("and", "or", "then") and words[place + 1] in known:
        place += 2
    return place


def _head(phrase: list[str]) -> str:
    left = list(phrase)
    while left and _is_adverb(left[-1]):
        left.pop()
    if not left or left[-1] in _NO_NOUNS or not left[-1][0].isalpha():
        return ""
    return singular(left[-1].removesuffix("'s"))


def singular(noun: str) -> str:
    """The singular of an English noun by rule: "stories" -> "story"; what does not look like a plural stays."""
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    if noun.endswith("ies") and len(noun) > 4:
        return f"{noun[:-3]}y"
    if noun.endswith(("sses", "shes", "ches", "xes", "zzes")):
        return noun[:-2]
    if noun.endswith("s") and len(noun) > 3 and not noun.endswith(("ss", "us", "is")):
        return noun[:-1]
    return noun


@functools.cache
def lexicon() -> dict[str, str]:
    """Spelling -> base form, of every verb in verbs.txt."""
    lines = [line.split() for line in LEXICON.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return {spelling: line[0] for line in lines for spelling in line}
