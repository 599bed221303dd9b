"""Is a text written in another language than the wanted one? Only where that is certain: short texts are let pass.

The identifier is py3langid (139 languages, naive Bayes over byte n-grams; a fork of langid.py, Lui & Baldwin 2012): its
model comes with the package, is no pickle and needs no network. It must all but exclude the wanted language, so a text
between two close ones (Bosnian and Croatian) is not lost to either; and it must name a few others, so a text of words
that no language has ("Copy paka basa rego exactly."), over which it spreads its probability, is none of another one.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

from alpaca.errors import UserError

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

LEAST_BYTES = 24
"""Letters of a text in UTF-8 bytes, below which nothing is said: some four words, or eight Chinese characters."""
CERTAIN = 0.999
"""Least probability that a text is in any language but the wanted one."""
NAMED, FEW = 0.8, 3
"""Least probability that it is in one of the likeliest few of these: a language and its closest relatives."""
REMEMBERED = 2**16
"""Texts whose answer is kept."""
NO_LANGUAGE = "zxx"
"""py3langid's class of numbers, markup and code."""

# Written down, so that a plan can check a code without the model; py3langid's labels without NO_LANGUAGE.
LANGUAGES = (
    "ace", "af", "am", "an", "ar", "ary", "arz", "as", "az", "ba", "bcl", "be", "bg", "bn", "br", "bs", "ca", "crh",
    "cs", "cy", "da", "de", "dz", "el", "en", "eo", "es", "et", "eu", "ext", "fa", "fi", "fo", "fr", "fuv", "fy", "ga",
    "gcf", "gcr", "gd", "gl", "gom", "grc", "gu", "gug", "guw", "ha", "hbo", "he", "hi", "hr", "ht", "hu", "hy", "id",
    "ig", "is", "it", "ja", "jv", "ka", "kab", "kik", "kk", "km", "kn", "ko", "ku", "ky", "la", "lb", "lg", "lij", "ln",
    "lo", "lt", "ltg", "lv", "mg", "mk", "ml", "mn", "mr", "ms", "mt", "my", "ne", "nl", "nn", "no", "nso", "oc", "om",
    "or", "pa", "pcm", "pl", "ps", "pt", "qu", "ro", "ru", "rw", "sa", "sdh", "se", "si", "sk", "sl", "sn", "so", "sq",
    "sr", "st", "sv", "sw", "ta", "te", "tg", "th", "tk", "tl", "tr", "tt", "ug", "uk", "ur", "uz", "uzs", "vec", "vi",
    "vo", "wa", "wuu", "xh", "yo", "yue", "zh", "zu",
)  # fmt: skip
"""Languages that can be told, as ISO 639 codes of two or three letters, in order."""

# "Translate "Wo ist der Bahnhof?" into English" is written in English.
_QUOTED = re.compile(r'"[^"]*"|“[^”]*”|„[^“”]*[“”]|«[^»]*»|(?<!\w)[\'‘][^\'’]*[\'’](?!\w)|`[^`]*`')


# A filter asks once, and the data card twice more of what is left.
@functools.lru_cache(maxsize=REMEMBERED)
def is_other(text: str, wanted: str) -> bool:
    """Whether the text, without what it quotes, is certainly not in `wanted` (ISO 639-1), e.g. "en"."""
    own = _QUOTED.sub(" ", text)
    if len("".join(filter(str.isalpha, own)).encode()) < LEAST_BYTES:
        return False
    identifier = _identifier()
    likeliest, _ = identifier.classify(own)
    if likeliest == wanted:
        return False
    scores = dict(identifier.rank(own))
    certain = 1 - scores.pop(wanted) - scores.pop(NO_LANGUAGE) > CERTAIN
    return bool(certain and sum(sorted(scores.values())[-FEW:]) > NAMED)


def check_language(code: str, *, where: str = "data.language") -> None:
    """Raises UserError for a language that the identifier does not know; `where` is the configuration key shown."""
    if code not in LANGUAGES:
        raise UserError(
            what=f"unknown language {code!r}", where=where, remedy=f"a code of ISO 639: {', '.join(LANGUAGES)}"
        )


@functools.cache
def _identifier() -> LanguageIdentifier:
    # Loading takes half a second, which only a run with this filter should pay.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
