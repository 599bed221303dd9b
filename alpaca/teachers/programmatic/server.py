"""The table of what the server answers: chat and legacy completions, models, files, batches, moderations."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from alpaca.teachers.programmatic import MODEL, Programmatic
from alpaca.teachers.programmatic.batches import Batches, BatchRules
from alpaca.teachers.programmatic.completions import CREATED, complete_chat, complete_text
from alpaca.teachers.programmatic.files import Files, uploaded
from alpaca.teachers.programmatic.moderations import moderate
from alpaca.teachers.programmatic.refusal import RefusedError, bad_request, not_found
from alpaca.teachers.programmatic.wire import Call, Reply, encoded, listening

__all__ = ["BatchRules", "complete_chat", "serve"]

Body = dict[str, Any]
COMPLETIONS = {"/v1/chat/completions": complete_chat, "/v1/completions": complete_text}


@contextmanager
def serve(options: Programmatic, port: int = 0, *, batches: BatchRules | None = None) -> Iterator[str]:
    """Runs the server in a thread of this process and gives its base URL, ending in "/v1"; port 0: a free one.

    batches: how long batches take and how many of their requests expire; None: done at once, none expires.
    """
    application = Application(options, batches or BatchRules())
    with listening(application.respond, port) as base_url:
        yield base_url


@dataclass(kw_only=True, slots=True, frozen=True)
class Route:
    """A method, a pattern that the whole path matches, and what answers with the pattern's groups."""

    method: str
    path: re.Pattern[str]
    answer: Callable[..., Reply]


class Application:
    """The state of a running server: its options, the files that were uploaded and the batches."""

    def __init__(self, options: Programmatic, rules: BatchRules) -> None:
        self._options, self._files = options, Files()
        self._batches = Batches(self._files, rules, self._batched)
        self._routes = tuple(self._table())

    def respond(self, call: Call) -> Reply:
        """The reply to one call; raises RefusedError."""
        if call.method == "POST" and call.path in COMPLETIONS:  # nearly all calls, so before the table
            return self._complete(call)
        found = [(route, match) for route in self._routes if (match := route.path.fullmatch(call.path))]
        if not found and call.path not in COMPLETIONS:
            raise not_found(f"unknown path {call.path}", code="unknown_url")
        for route, match in found:
            if route.method == call.method:
                return route.answer(call, **match.groupdict())
        methods = ", ".join(route.method for route, _ in found) or "POST"
        raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, f"{call.path} takes {methods} requests")

    def _table(self) -> Iterator[Route]:
        files, batches = self._files, self._batches
        one_file, one_batch = "/v1/files/(?P<id>[^/]+)", "/v1/batches/(?P<id>[^/]+)"
        yield _route("GET", "/v1/models", lambda call: _json(_listed([_model()])))
        yield _route("GET", f"/v1/models/{MODEL}", lambda call: _json(_model()))
        yield _route("POST", "/v1/files", lambda call: _json(files.add(uploaded(call))))
        yield _route("GET", one_file, lambda call, id: _json(files.described(id)))
        yield _route("DELETE", one_file, lambda call, id: _json(files.delete(id)))
        yield _route("GET", f"{one_file}/content", self._content)
        yield _route("POST", "/v1/batches", lambda call: _json(batches.create(decoded(call.body))))
        yield _route("GET", "/v1/batches", lambda call: _json(batches.page(call.query)))
        yield _route("GET", one_batch, lambda call, id: _json(batches.described(id)))
        yield _route("POST", f"{one_batch}/cancel", lambda call, id: _json(batches.cancel(id)))
        yield _route("POST", "/v1/moderations", lambda call: _json(moderate(decoded(call.body))))

    def _complete(self, call: Call) -> Reply:
        answer = COMPLETIONS[call.path](decoded(call.body), self._options)
        return Reply(body=encoded(answer), delay=self._options.latency)

    def _batched(self, url: str, body: Body) -> Body:
        """The answer to one line of a batch; raises RefusedError."""
        return COMPLETIONS[url](body, self._options) if url in COMPLETIONS else moderate(body)

    def _content(self, call: Call, id: str) -> Reply:
        return Reply(body=self._files.content(id), content_type="application/octet-stream")


def decoded(body: bytes) -> Body:
    """The JSON object of a body; raises RefusedError."""
    try:
        value = json.loads(body)
    except ValueError as error:
        raise bad_request(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise bad_request("the body is no JSON object")
    return value


def _route(method: str, pattern: str, answer: Callable[..., Reply]) -> Route:
    return Route(method=method, path=re.compile(pattern), answer=answer)


def _model() -> Body:
    return {"id": MODEL, "object": "model", "created": CREATED, "owned_by": "alpaca"}


def _listed(data: list[Body]) -> Body:
    return {"object": "list", "data": data}


def _json(answer: Body) -> Reply:
    return Reply(body=encoded(answer))
