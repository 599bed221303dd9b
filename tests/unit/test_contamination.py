from __future__ import annotations

import json
from pathlib import Path

import pytest

from alpaca.curation.contamination import EXACT, LCS, NGRAM, find
from alpaca.evalsets import load_user_items
from alpaca.records import EvalItem, Example

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


def example(id: str, instruction: str, input: str = "", output: str = "") -> Example:
    return Example(id=id, instruction=instruction, input=input, output=output)


def item(id: str, instruction: str, input: str = "", reference: str = "") -> EvalItem:
    return EvalItem(id=id, instruction=instruction, input=input, reference=reference)


RIVERS = item("rivers", "Name three long rivers of Asia.", reference="The Yangtze, the Yellow River and the Mekong.")
TENSE = item("tense", "Put the sentence in the past tense.", input="She walks home in the rain every evening.")
ITEMS = [RIVERS, TENSE]


def hits(examples: list[Example], *, lcs: float | None = None, ngram: int | None = None) -> list[tuple[str, str]]:
    found = find(examples, {"set": ITEMS}, lcs=lcs, ngram=ngram)["set"]
    return [(hit.example, hit.item) for each in found.hits.values() for hit in each]


def test_a_similar_instruction_is_a_hit_with_the_item_and_the_score() -> None:
    examples = [example("a", "Name five long rivers of Asia!"), example("b", "Bake a cake with apples.")]
    (hit,) = find(examples, {"set": ITEMS}, lcs=0.7, ngram=None)["set"].hits[LCS]
    assert (hit.example, hit.item, hit.evaluation, hit.method) == ("a", "rivers", "set", "lcs")
    assert hit.score == pytest.approx(5 / 6)


def test_the_threshold_itself_is_no_hit() -> None:
    five_of_six = [example("a", "Name five long rivers of Asia!")]
    score = find(five_of_six, {"set": ITEMS}, lcs=0.7, ngram=None)["set"].hits[LCS][0].score
    assert hits(five_of_six, lcs=score) == []


def test_instruction_and_input_count_together_too() -> None:
    moved = example("a", "Put this in the past: She walks home in the rain every evening.")
    assert hits([moved], lcs=0.7) == [("a", "tense")]
    assert hits([example("a", "Put this in the past: He eats.")], lcs=0.7) == []


def test_words_in_a_row_are_found_in_every_field_whatever_their_case_and_punctuation() -> None:
    text = "HOME IN THE RAIN, every -- evening"
    for field in ("instruction", "input", "output"):
        one = example("a", **{"instruction": "Go", field: text})
        assert hits([one], ngram=6) == [("a", "tense")]
        assert hits([one], ngram=7) == []


def test_references_are_looked_for() -> None:
    assert hits([example("a", "Go", output="the yangtze the yellow river and")], ngram=6) == [("a", "rivers")]


def test_an_item_of_fewer_words_must_occur_whole() -> None:
    short = {"set": [item("s", "Who wrote Faust, part one?", reference="Goethe")]}
    for text, wanted in (("x who wrote faust part one goethe y", ["a"]), ("who wrote faust part one", [])):
        (found,) = find([example("a", text)], short, lcs=None, ngram=13).values()
        assert [hit.example for hit in found.hits[NGRAM]] == wanted


def test_an_item_of_a_few_words_is_not_looked_for_as_a_whole() -> None:
    short = {"set": [item("one", "Hello"), item("four", "Translate the word dog")]}
    examples = [example("a", "Say hello."), example("b", "Translate the word dog into French.")]
    (found,) = find(examples, short, lcs=None, ngram=13).values()
    assert found.examples() == set()
    assert found.unsearchable == 2
    (found,) = find(examples, short, lcs=None, ngram=3).values()
    assert (found.examples(), found.unsearchable) == ({"b"}, 1)
    assert find(examples, short, lcs=0.8, ngram=13)["set"].unsearchable == 0


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("请写一首关于春天的诗，要求押韵", "请写一首关于春天的诗，要求押韵 "),
        ("Напишите стихи о весне", "напишите  стихи\nо весне"),
        ("Hello", "ＨＥＬＬＯ"),
    ],
)
def test_equal_ones_are_found_in_every_script_and_length(text: str, same: str) -> None:
    examples = [
        example("a", same, "春天"),
        example("b", f"{same} 春天"),
        example("c", same, "夏天"),
        example("d", "", ""),
    ]
    items = [item("x", "", ""), item("s", text, "春天")]
    for settings in ({"lcs": 0.8, "ngram": None}, {"lcs": None, "ngram": 13}):
        found = find(examples, {"set": items}, **settings)["set"]
        assert [(hit.example, hit.item, hit.score) for hit in found.hits[EXACT]] == [("a", "s", 1.0), ("b", "s", 1.0)]


def test_words_in_a_row_are_of_any_script() -> None:
    items = {
        "russian": [item("r", "Напишите короткое стихотворение о весне для моей мамы")],
        "hindi": [item("h", "हिन्दी में वसंत के बारे में एक छोटी कविता लिखिए")],
    }
    examples = [
        example("a", "Короткое стихотворение о ВЕСНЕ для моей сестры"),
        example("b", "में वसंत के बारे में"),
        example("c", "वसंत के बारे में"),
    ]
    found = find(examples, items, lcs=None, ngram=5)
    assert found["russian"].examples() == {"a"}
    assert found["hindi"].examples() == {"b"}
    assert (found["russian"].unsearchable, found["hindi"].unsearchable) == (0, 0)
    assert find(examples, items, lcs=0.8, ngram=None)["russian"].unsearchable == 1


def test_items_without_words_hit_nothing() -> None:
    (found,) = find([example("a", "!?"), example("b", "x")], {"set": [item("s", "??")]}, lcs=0.1, ngram=1).values()
    assert found.examples() == set()


def test_methods_and_sets_are_counted_apart_and_together() -> None:
    examples = [
        example("both", "Name three long rivers of Asia. The Yangtze, the Yellow River and the Mekong."),
        example("like", "Name three long rivers of Asia"),
        example("free", "Bake a cake with apples."),
    ]
    found = find(examples, {"one": ITEMS, "two": [RIVERS]}, lcs=0.9, ngram=8)
    assert found["one"].examples(LCS) == found["two"].examples(LCS) == {"like"}
    assert found["one"].examples(NGRAM) == {"both"}
    assert found["one"].examples() == {"both", "like"}
    assert found["one"].items == 2


def test_a_method_not_asked_for_is_not_there() -> None:
    assert list(find([], {"set": ITEMS}, lcs=None, ngram=3)["set"].hits) == [EXACT, NGRAM]


@pytest.mark.slow
def test_the_released_data_against_the_user_oriented_items() -> None:
    if not SHARED.exists():
        pytest.skip("../shared is not beside the project: the released data cannot be checked")
    rows = json.loads((SHARED / "data/alpaca/alpaca_data.json").read_text(encoding="utf-8"))
    examples = [Example(id=str(number), **row) for number, row in enumerate(rows)]
    items = load_user_items(SHARED / "data/eval252/user_oriented_instructions.jsonl")
    (found,) = find(examples, {"user": items}, lcs=0.7, ngram=13).values()
    assert (found.items, len(found.examples(LCS)), len(found.examples(NGRAM))) == (252, 32, 2)
