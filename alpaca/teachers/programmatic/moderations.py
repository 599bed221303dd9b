"""POST /v1/moderations in OpenAI's form: a text is flagged when it holds a word of the small list here.

Nothing is understood: the list is there so that a pipeline with moderation runs, and its tests know what is flagged.
"""

from __future__ import annotations

import re
import uuid
from functools import cache
from typing import Any

from alpaca.teachers.programmatic.refusal import bad_request, not_found

MODELS = ("omni-moderation-latest", "omni-moderation-2024-09-26", "text-moderation-latest", "text-moderation-stable")
WORDS: dict[str, tuple[str, ...]] = {
    "harassment": ("idiot", "moron", "scumbag"),
    "harassment/threatening": (),
    "hate": ("subhuman", "untermensch"),
    "hate/threatening": (),
    "illicit": ("counterfeit", "shoplift", "meth"),
    "illicit/violent": ("pipebomb", "molotov"),
    "self-harm": ("suicide", "self-harm"),
    "self-harm/instructions": (),
    "self-harm/intent": (),
    "sexual": ("porn", "pornography", "erotica"),
    "sexual/minors": (),
    "violence": ("murder", "stab", "massacre"),
    "violence/graphic": ("gore", "disembowel"),
}
"""Category -> words that flag a text, matched as whole words in any case."""
# Far from and close to certainty, as a model's scores are; never 0 or 1.
CLEAN_SCORE, FLAGGED_SCORE = 0.0001, 0.98


def moderate(body: dict[str, Any]) -> dict[str, Any]:
    """A moderation object, one result per text of `input` (a text or a list of texts); raises RefusedError."""
    model = body.get("model", MODELS[0])
    if model not in MODELS:
        raise not_found(f"The model {model!r} does not exist", code="model_not_found", param="model")
    texts = body.get("input")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise bad_request("input must be a text or a list of texts that is not empty", param="input")
    return {"id": f"modr-{uuid.uuid4().hex}", "model": model, "results": [_result(text) for text in texts]}


def _result(text: str) -> dict[str, Any]:
    found = {category for category, pattern in _patterns().items() if pattern.search(text)}
    return {
        "flagged": bool(found),
        "categories": {category: category in found for category in WORDS},
        "category_scores": {category: FLAGGED_SCORE if category in found else CLEAN_SCORE for category in WORDS},
        "category_applied_input_types": {category: ["text"] for category in WORDS},
    }


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    return {
        category: re.compile(rf"\b(?:{'|'.join(map(re.escape, words))})\b", re.IGNORECASE)
        for category, words in WORDS.items()
        if words
    }
