"""Under which terms data may be used that came from a teacher or a publisher: a reminder of whom to ask, no advice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """What is known, in words; `licence`: an identifier as hubs know it, "" where there is none."""

    text: str
    licence: str = ""


_OPENAI = (
    "OpenAI's terms forbid using its models' output to develop models that compete with OpenAI: read the terms of use "
    "in force before training on, or publishing, this data."
)
_UNKNOWN = Terms(text="Not known: ask whoever provides the teacher or published the data.")
_UNPUBLISHED = Terms(text="Not known: ask who published it.")
_KINDS = {
    "programmatic": Terms(
        text="Computed by a program of this project, no model wrote it: it may be used under the project's own licence "
        "(Apache 2.0).",
        licence="apache-2.0",
    ),
    "replay": Terms(
        text="Answers recorded earlier: the terms of the teacher that wrote them hold, and the recording does not say "
        "which these are."
    ),
    "local": Terms(
        text="Written by a model on the user's own machine: the licence of its weights says whether its output may "
        "train other models."
    ),
}
_KINDS["vllm"] = _KINDS["local"]
_HOSTS = {
    "api.openai.com": Terms(text=_OPENAI),
    "openai.azure.com": Terms(text=f"{_OPENAI} Microsoft's product terms hold as well."),
}
"""By host of the endpoint, its subdomains included."""
_OWN_HOSTS = ("localhost", "127.0.0.1", "::1", "0.0.0.0")
_ALPACA = Terms(
    text="The released Alpaca data is published under CC BY-NC 4.0, so for non-commercial use, and was written by a "
    f"model of OpenAI. {_OPENAI}",
    licence="cc-by-nc-4.0",
)
_PUBLISHED = {
    "tatsu-lab/alpaca": _ALPACA,
    "2eddafc6b977608d778aaab8dfc7e50e547b3af9826dfb9e909d9fc362e4a419": _ALPACA,
    "databricks/databricks-dolly-15k": Terms(
        text="Written by employees of Databricks and published under CC BY-SA 3.0.", licence="cc-by-sa-3.0"
    ),
}
"""By id on the hub or sha256 of the file."""


def of_teacher(settings: Mapping[str, Any]) -> Terms:
    """The terms of a teacher by its frozen options: `kind`, and `base_url` of those behind an endpoint."""
    kind = str(settings.get("kind") or "")
    if kind in _KINDS:
        return _KINDS[kind]
    if kind not in ("openai", "openai_batch"):
        return _UNKNOWN
    host = _host(settings.get("base_url"))
    if host in _OWN_HOSTS:
        return _KINDS["local"]
    known = [terms for name, terms in _HOSTS.items() if host == name or host.endswith(f".{name}")]
    return known[0] if known else Terms(text=f"Not known: read the terms of the provider of {host or 'the endpoint'}.")


def of_published(*names: str) -> Terms:
    """The terms of a published data set by its hub id or its sha256, whichever is known."""
    return next((_PUBLISHED[name] for name in names if name in _PUBLISHED), _UNPUBLISHED)


def joined(parts: Mapping[str, Terms]) -> Terms:
    """The terms of all parts, each after its name: all of them hold, and a licence is named only where all agree."""
    licences = {one.licence for one in parts.values()}
    text = " ".join(f"{name}: {one.text}" for name, one in parts.items())
    return Terms(text=text or _UNKNOWN.text, licence=licences.pop() if len(licences) == 1 else "")


def _host(base_url: Any) -> str:
    if not base_url:
        return "api.openai.com"
    try:
        return urlsplit(str(base_url)).hostname or ""
    except ValueError:
        return ""
