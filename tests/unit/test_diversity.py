"""Measures of variety against direct counts; first verbs by rule, and by a parser that stands in for spaCy."""

from __future__ import annotations

import json
import math
import sys
import zlib
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpaca.curation import defects, dependency, diversity, verbs
from alpaca.curation.verbs import Opening
from alpaca.records import Example

WORDS = st.lists(st.lists(st.sampled_from("abcd"), max_size=6), max_size=8)


def counted_directly(lists: list[list[str]]) -> list[float]:
    words = sum(map(len, lists))
    grams = [{tuple(text[at : at + n]) for text in lists for at in range(len(text) - n + 1)} for n in (1, 2, 3)]
    return [round(len(found) / words, 6) if words else 0.0 for found in grams]


@given(WORDS)
def test_distinct_n_counts_what_counting_tuples_counts(lists):
    assert diversity.distinct(lists) == counted_directly(lists)


def test_distinct_n_never_joins_two_texts():
    assert diversity.distinct([["a"], ["b"], ["a", "b"]]) == [0.5, 0.25, 0.0]


def test_the_fixed_measure_is_of_the_first_words_and_missing_where_there_are_fewer():
    short, long = ["one two three"] * 10, [f"word{n} and so on" for n in range(3000)]
    assert diversity.measure(short).distinct_fixed is None
    found = diversity.measure(long)
    assert found.words == 12_000
    first = [text.split() for text in long[: diversity.FIXED_WORDS // 4]]
    assert found.distinct_fixed == counted_directly(first)
    assert found.distinct[0] < found.distinct_fixed[0] + 0.01


def test_the_compression_ratio_is_that_of_zlib_and_grows_with_repetition():
    texts = ["the cat sat on the mat", "an owl flew over a barn"]
    raw = "\n".join(texts).encode()
    assert diversity.compression_ratio(texts) == round(len(raw) / len(zlib.compress(raw, 9)), 2)
    assert diversity.compression_ratio(texts * 20) > 5 * diversity.compression_ratio(texts)
    assert diversity.compression_ratio([]) == 0.0
    assert diversity.compression_ratio(["half a pair: \ud83d"]) > 0  # which no UTF-8 holds


def test_the_effective_number_is_the_number_where_all_are_equally_frequent():
    assert diversity.effective_number([3, 3, 3, 3]) == pytest.approx(4.0)
    assert diversity.effective_number([7, 0]) == pytest.approx(1.0)
    assert diversity.effective_number([]) == 0.0
    assert diversity.effective_number([9, 1]) == pytest.approx(math.exp(-0.9 * math.log(0.9) - 0.1 * math.log(0.1)))


def test_quantiles_are_linear_between_neighbours():
    assert diversity.quantiles([0.0, 1.0])["p25"] == 0.25
    assert list(diversity.quantiles([0.5])) == ["p10", "p25", "p50", "p75", "p90", "p99"]
    assert diversity.quantiles([]) == {}


@pytest.mark.parametrize(
    ("instruction", "verb", "noun"),
    [
        ("Write a short story about a dog.", "write", "story"),
        ("Summarise the main points of the article below.", "summarize", "point"),
        ("Compare and contrast cats and dogs.", "compare", "cat"),
        ("Come up with three ideas for a party.", "come up with", "idea"),
        ("Please give me 5 examples of mammals.", "give", "example"),
        ("Given a list of numbers, find the largest number.", "find", "number"),
        ("You are given a word. Translate the word into Greek.", "translate", "word"),
        ("I would like you to rewrite this sentence politely.", "rewrite", "sentence"),
        ("Create a report outlining the advantages of rain.", "create", "report"),
        ("Describe machine learning algorithms.", "describe", "algorithm"),
        ("Compose a 500-word essay on time.", "compose", "essay"),
        ("Explain why the sky is blue.", "explain", ""),
        ("Classify the following as fruit or animal.", "classify", ""),
        ("Carefully sort these people by age.", "sort", "person"),
        ("DESIGN A LOGO!", "design", "logo"),
    ],
)
def test_the_first_verb_and_its_object(instruction, verb, noun):
    assert verbs.opening(instruction) == Opening(verb=verb, object=noun)


@pytest.mark.parametrize(
    ("instruction", "word"),
    [
        ("What is the capital of Peru?", "what"),
        ("Who's the author of Emma?", "who"),
        ("Is a whale a fish?", "is"),
        ("When does the sun set?", "when"),
    ],
)
def test_questions_are_a_group_of_their_own(instruction, word):
    assert verbs.opening(instruction) == Opening(question=word)


@pytest.mark.parametrize("instruction", ["", "   ", "Zucchini bread.", "42", "?!", "\n\n"])
def test_what_opens_with_neither_is_nothing(instruction):
    assert verbs.opening(instruction) == Opening()


def test_politeness_is_no_question():
    assert verbs.opening("Can you name a river?") == Opening(verb="name", object="river")


@given(st.text(max_size=60))
def test_no_text_is_too_strange(text):
    found = verbs.opening(text)
    assert not (found.verb and found.question)


def test_a_tally_adds_up_and_orders_equal_counts_by_name():
    texts = [
        "Write a poem.",
        "Write a story.",
        "Write a story.",
        "Sort the words.",
        "Name a city.",
        "Why is it?",
        "Hm.",
    ]
    found = verbs.tally(texts)
    assert (found.instructions, found.with_verb, found.questions, found.other) == (7, 5, 1, 1)
    assert [(one.verb, one.count, one.objects) for one in found.top] == [
        ("write", 3, [("story", 2), ("poem", 1)]),
        ("name", 1, [("city", 1)]),
        ("sort", 1, [("word", 1)]),
    ]
    assert found.question_words == [("why", 1)]
    assert found.method == "rules"


def test_of_many_verbs_the_most_frequent_twenty_with_four_objects_are_kept():
    nouns = ["poem", "story", "song", "letter", "note", "list"]
    texts = [f"{verb} a {noun}." for verb in list(verbs.lexicon())[:30] for noun in nouns]
    found = verbs.tally(texts)
    assert len(found.top) == verbs.TOP_VERBS
    assert {len(one.objects) for one in found.top} == {verbs.TOP_OBJECTS}


def test_the_lexicon_has_each_spelling_once_and_enough_of_them():
    lines = [line.split() for line in verbs.LEXICON.read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    spellings = [spelling for line in lines for spelling in line]
    assert len(lines) > 200
    assert len(spellings) == len(set(spellings))
    assert spellings == [spelling.lower() for spelling in spellings]


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        ("stories", "story"),
        ("boxes", "box"),
        ("classes", "class"),
        ("news", "news"),
        ("gas", "gas"),
        ("basis", "basis"),
    ],
)
def test_singulars(plural, singular):
    assert verbs.singular(plural) == singular


def word(lemma: str, pos: str, dep: str, children: tuple = ()):
    return SimpleNamespace(lemma_=lemma, pos_=pos, dep_=dep, children=children)


def test_without_a_parser_nothing_is_parsed():
    assert dependency.available() is None or dependency.available() in dependency.MODELS


def test_a_parser_decides_by_the_root_and_its_direct_object(monkeypatch):
    """spaCy itself is not needed: only that part of its interface that is used."""
    story = word("Story", "NOUN", "dobj")
    parsed = [
        SimpleNamespace(
            sents=[SimpleNamespace(root=word("Write", "VERB", "ROOT", (word("me", "PRON", "dative"), story)))]
        ),
        SimpleNamespace(sents=[SimpleNamespace(root=word("poem", "NOUN", "ROOT"))]),
        SimpleNamespace(sents=[]),
    ]
    pipeline = SimpleNamespace(pipe=lambda texts: parsed[: len(list(texts))], meta={"version": "3.8.0"})
    fake = SimpleNamespace(load=lambda name, exclude: pipeline, __version__="3.8.2", __spec__=object())
    monkeypatch.setitem(sys.modules, "spacy", fake)
    monkeypatch.setattr(dependency, "available", lambda: "en_core_web_sm")
    found = dependency.tally(["a", "b", "c"])
    assert found.method == "spaCy 3.8.2, en_core_web_sm 3.8.0"
    assert (found.top[0].verb, found.top[0].objects) == ("write", [("story", 1)])
    assert (found.with_verb, found.other) == (1, 2)
    monkeypatch.setattr(dependency, "MOST", 2)
    assert dependency.tally(["a", "b", "c"]).instructions == 2


def example(**texts: str) -> Example:
    return Example(**{"id": "a", "instruction": "Name a large river.", "input": "", "output": "The Nile.", **texts})


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("empty_output", {"output": " \n"}),
        ("no_input_spelling", {"input": "No input."}),
        ("merged_tasks", {"output": "Yes.\n\n7. Instruction: Name a city."}),
        ("url_only_input", {"input": "https://example.org/a"}),
        ("url_in_input", {"input": "see http://example.org today"}),
        ("input_equals_output", {"input": "The Nile. ", "output": "The Nile."}),
        ("noinput_output", {"output": "<NoInput>"}),
        ("colon_output", {"output": "The rivers are: "}),
        ("ends_in_20", {"output": "The treaty was signed in 20"}),
        ("unterminated_output", {"output": "and so on " * 30}),
    ],
)
def test_each_flaw_is_counted(name, texts):
    before, after = defects.count([example(**texts), example()], [example()])
    assert (before[name], after[name]) == (1, 0)


@pytest.mark.parametrize("output", ["It was 120", "in 2020", "20.", "It was 1.20"])
def test_a_number_that_ends_in_20_is_no_cut(output):
    assert defects.count([example(output=output)], [])[0]["ends_in_20"] == 0


def test_the_language_that_is_wanted_is_no_flaw():
    texts = [example(instruction="Nenne drei große Flüsse in Europa und beschreibe sie kurz."), example()]
    assert defects.count(texts, texts[:1])[0]["other_language"] == 1
    assert defects.count(texts, texts[:1])[1]["other_language"] == 1
    assert defects.count(texts[:1], texts[:1], "de")[0]["other_language"] == 0


def test_the_released_file_has_the_flaws_that_others_counted(shared):
    rows = json.loads((shared / "data/alpaca/alpaca_data.json").read_text(encoding="utf-8"))
    quick = [each for each in (*defects.FLAWS, *defects.SIGNS) if each.name != "other_language"]
    found = defects.count_each([Example(id=str(at), **row) for at, row in enumerate(rows)], quick)
    expected = {
        "empty_output": 28, "merged_tasks": 37, "url_only_input": 182, "url_in_input": 266, "input_equals_output": 67,
        "noinput_output": 59, "colon_output": 12, "ends_in_20": 48,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected


def test_most_released_instructions_open_with_a_verb_that_is_known(shared):
    rows = json.loads((shared / "data/alpaca/alpaca_data.json").read_text(encoding="utf-8"))
    found = verbs.tally(row["instruction"] for row in rows[::10])
    assert found.with_verb > 0.88 * found.instructions
    assert found.other < 0.03 * found.instructions
    assert {"generate", "write", "describe", "create"} <= {one.verb for one in found.top[:6]}
