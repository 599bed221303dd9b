"""First verbs and their objects by a dependency parse, as Self-Instruct and Alpaca had them, where spaCy has a model.

Nothing is downloaded: without spaCy, or without an English pipeline of its own installed, there is no parse. What a
parser finds depends on its version, so no result of a stage is made of it; the report's page shows it, and says so.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

from alpaca.curation.verbs import Opening, Tally, of_openings

MODELS = ("en_core_web_trf", "en_core_web_lg", "en_core_web_md", "en_core_web_sm")
"""spaCy's English pipelines, best first."""
MOST = 10_000
"""Instructions that are parsed: some ten seconds, so that a report of many data sets stays a matter of minutes."""
_NOT_NEEDED = ("ner",)
_OBJECTS = ("dobj", "obj")


def available() -> str | None:
    """The name of the installed pipeline that `tally` would use; None where there is none."""
    if importlib.util.find_spec("spacy") is None:
        return None
    return next((name for name in MODELS if importlib.util.find_spec(name) is not None), None)


def tally(instructions: Sequence[str]) -> Tally | None:
    """The openings of the first `MOST` instructions as spaCy parses them; None where it is not `available`."""
    name = available()
    if name is None:
        return None
    spacy = importlib.import_module("spacy")
    pipeline = spacy.load(name, exclude=list(_NOT_NEEDED))
    part = f", the first {MOST:,} instructions" if len(instructions) > MOST else ""
    method = f"spaCy {spacy.__version__}, {name} {pipeline.meta['version']}{part}"
    return of_openings((opening(document) for document in pipeline.pipe(instructions[:MOST])), method)


def opening(document: Any) -> Opening:  # spaCy is no dependency, so its types are not known here
    """The root of the first sentence that is a verb, and its direct object, as lemmas in lower case."""
    root = next((sentence.root for sentence in document.sents), None)
    if root is None or root.pos_ != "VERB":
        return Opening()
    found = [child for child in root.children if child.dep_ in _OBJECTS]
    return Opening(verb=root.lemma_.lower(), object=found[0].lemma_.lower() if found else "")
