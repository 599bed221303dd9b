from __future__ import annotations

import pytest

from alpaca.curation.language import check_language, is_other

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


def test_equal_texts_get_equal_verdicts() -> None:
    assert [is_other(text, "fr") for text in OTHERS] == [is_other(text, "fr") for text in OTHERS]


def test_known_languages_pass() -> None:
    for code in ("en", "de", "zh", "hr"):
        check_language(code)
