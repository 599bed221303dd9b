"""Words of the checks."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """ "did you mean a, b?" or the list of what is known, for a remedy."""
    names = sorted(set(known))
    close = difflib.get_close_matches(word, names, n=3, cutoff=0.6)
    if close:
        return "did you mean " + ", ".join(close) + "?"
    return "known: " + ", ".join(names[:40]) + (" …" if len(names) > 40 else "")
