"""The name of a request by what it asks: two requests with one digest are the same question to any teacher.

It is what `request_sha256` in raw.jsonl holds, by which answers are taken over between runs, found again in a batch
and replayed from a cassette.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from alpaca.records import well_formed
from alpaca.teachers.base import Request


def sent(request: Request) -> dict[str, Any]:
    """All that is sent with a request but the teacher's name; the request's id is not sent.

    What is neutral (no stop, no bias, no schema, no penalty) is left out, so a knob that comes later changes no digest
    of before. Neither does the order of keys, nor whether a whole number was written as 1 or 1.0.
    """
    found: dict[str, Any] = {
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
        "temperature": float(request.temperature),
        "top_p": float(request.top_p),
        "max_tokens": request.max_tokens,
        "seed": request.seed,
    }
    if request.stop:
        found["stop"] = list(request.stop)
    if request.presence_penalty:
        found["presence_penalty"] = float(request.presence_penalty)
    if request.logit_bias:
        found["logit_bias"] = {token: float(bias) for token, bias in request.logit_bias.items()}
    if request.schema is not None:
        found["schema"] = request.schema
    return found


def request_digest(request: Request) -> str:
    """sha256 (64 hex digits) of what is `sent`."""
    text = json.dumps(sent(request), sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(well_formed(text).encode()).hexdigest()
