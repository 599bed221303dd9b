from __future__ import annotations

import random
import subprocess
import sys

import pytest

from alpaca.curation.language import LANGUAGES, NO_LANGUAGE, check_language, is_other
from alpaca.errors import UserError
from alpaca.world.tasks import draw_task, held_out

OTHERS = [
    "Expliquez pourquoi le ciel est bleu.",
    "Écrivez un court poème sur l'automne.",
    "Was ist die Hauptstadt von Portugal?",
    "Fasse den folgenden Text in zwei Sätzen zusammen.",
    "Explica por qué el cielo es azul.",
    "Scrivi una breve poesia sull'autunno.",
    "Qual é a capital de Portugal?",
    "Leg uit waarom de lucht blauw is.",
    "Wyjaśnij, dlaczego niebo jest niebieskie.",
    "Skriv en kort dikt om hösten.",
    "Gökyüzünün neden mavi olduğunu açıklayın.",
    "Jelaskan mengapa langit berwarna biru.",
    "Selitä, miksi taivas on sininen.",
    "Назовите три реки в Европе.",
    "请说出欧洲的三条河流。",
    "空が青い理由を説明してください。",
    "하늘이 왜 파란지 설명하세요.",
    "اشرح لماذا السماء زرقاء.",
]
ENGLISH = [
    "Name three rivers of Europe.",
    "Write a macroeconomic slogan",
    "Convert 58 Fahrenheit to Celsius.",
    "Compose a sonnet in iambic pentameter.",
    "Generate a recipe for a chili con carne dish.",
    'Translate the sentence "Il est très beau aujourd\'hui" into English.',
    "Translate “Ich bin ein Berliner, und wer bist du eigentlich?” into English.",
    "print(sum(x ** 2 for x in range(10)))",
    "3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3",
]


@pytest.mark.parametrize("text", OTHERS)
def test_instructions_of_other_languages_are_found(text: str) -> None:
    assert is_other(text, "en")


@pytest.mark.parametrize("text", ENGLISH)
def test_english_stays_whatever_it_quotes(text: str) -> None:
    assert not is_other(text, "en")


@pytest.mark.parametrize("text", ["", "Ja, natürlich.", "Où?", "你好", "?!"])
def test_nothing_is_said_of_short_texts(text: str) -> None:
    assert not is_other(text, "en")


def test_close_languages_are_not_told_apart_by_force() -> None:
    text = "Objasni zašto je nebo plavo."
    assert not is_other(text, "hr")
    assert not is_other(text, "bs")
    assert is_other(text, "en")


def test_invented_words_are_no_other_language() -> None:
    rng = random.Random(0)
    tasks = [*held_out(300), *(draw_task(rng) for _ in range(700))]
    assert [task.instruction for task in tasks if is_other(task.instruction, "en")] == []


def test_equal_texts_get_equal_verdicts() -> None:
    assert [is_other(text, "fr") for text in OTHERS] == [is_other(text, "fr") for text in OTHERS]


def test_known_languages_pass() -> None:
    for code in ("en", "de", "zh", "hr"):
        check_language(code)


def test_unknown_languages_are_refused() -> None:
    for code in ("xx", "english", NO_LANGUAGE):
        with pytest.raises(UserError, match=f"unknown language '{code}'") as error:
            check_language(code)
        assert "en, eo" in error.value.remedy


def test_the_known_languages_are_those_of_the_identifier_in_order() -> None:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    labels = set(LanguageIdentifier.from_model_file(MODEL_FILE).labels)
    assert list(LANGUAGES) == sorted(labels - {NO_LANGUAGE})


def test_a_plan_can_know_them_without_the_identifier() -> None:
    code = "import sys, alpaca.curation.language as l; l.check_language('de'); sys.exit('py3langid' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
