"""Is a text written in another language than the wanted one? Only where that is certain: short texts are let pass.

The identifier is py3langid (139 languages, naive Bayes over byte n-grams; a fork of langid.py, Lui & Baldwin 2012): its
model comes with the package, is no pickle and needs no network. Of its probabilities only that of the wanted language
counts, so a text between two close languages (Bosnian and Croatian) is not lost to either.
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
CERTAIN = 0.98
"""Probability of all other languages together from which a text counts as written in one of them."""
REMEMBERED = 2**16
"""Texts whose answer is kept."""
NO_LANGUAGE = "zxx"
"""py3langid's class of numbers, markup and code."""

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
    return bool(1 - scores[wanted] - scores[NO_LANGUAGE] > CERTAIN)


def check_language(code: str, *, where: str = "data.language") -> None:
    """Raises UserError for a language that the identifier does not know; `where` is the configuration key shown."""
    known = [name for name in _identifier().labels if name != NO_LANGUAGE]
    if code not in known:
        raise UserError(
            what=f"unknown language {code!r}", where=where, remedy=f"a code of ISO 639: {', '.join(sorted(known))}"
        )


@functools.cache
def _identifier() -> LanguageIdentifier:
    # Loading takes half a second, which only a run with this filter should pay.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
