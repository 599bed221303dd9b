"""POST /v1/chat/completions and GET /v1/models over HTTP/1.1, in a thread of the asking process or alone.

What this server cannot do it refuses with OpenAI's form of an error, rather than ignoring it silently.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import h11

from alpaca.teachers.programmatic import MODEL, Programmatic
from alpaca.teachers.programmatic.writer import Style, UnreadablePromptError, count_tokens, write

HOST = "127.0.0.1"
READ_BYTES = 1 << 16
MOST_BYTES = 16 << 20
# All requests in flight may connect at once; what does not fit waits a second for its next try.
BACKLOG = 4096
UNSUPPORTED = ("stream", "stop", "response_format", "tools", "functions", "logit_bias", "logprobs")
# The world does not change, so neither does the date at which the model was "created".
CREATED = 1678665600


class RefusedError(Exception):
    """A request that is answered with an error of OpenAI's form."""

    def __init__(self, status: HTTPStatus, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


@contextmanager
def serve(options: Programmatic, port: int = 0) -> Iterator[str]:
    """Runs the server in a thread and gives its base URL, ending in "/v1"; port 0: a free one."""
    ready: Future[_Running] = Future()
    thread = threading.Thread(
        target=lambda: asyncio.run(_serve(options, port, ready)), name="programmatic-teacher", daemon=True
    )
    thread.start()
    running = ready.result()
    try:
        yield f"http://{HOST}:{running.port}/v1"
    finally:
        running.loop.call_soon_threadsafe(running.stop.set)
        thread.join()


@dataclass(slots=True, frozen=True)
class _Running:
    loop: asyncio.AbstractEventLoop
    stop: asyncio.Event
    port: int


async def _serve(options: Programmatic, port: int, ready: Future[_Running]) -> None:
    stop, connections = asyncio.Event(), set[asyncio.Task[None]]()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(_converse(options, reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    try:
        server = await asyncio.start_server(accepted, HOST, port, backlog=BACKLOG)
    except OSError as error:  # handed to the thread that waits for the address
        ready.set_exception(error)
        return
    async with server:
        ready.set_result(_Running(asyncio.get_running_loop(), stop, server.sockets[0].getsockname()[1]))
        await stop.wait()
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def _converse(options: Programmatic, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The requests of one connection, one after the other, until a side closes it."""
    connection = h11.Connection(h11.SERVER)
    try:
        with suppress(ConnectionError, h11.LocalProtocolError):
            while await _exchange(options, connection, reader, writer):
                connection.start_next_cycle()
    finally:
        writer.close()


async def _exchange(
    options: Programmatic, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    """Reads one request and answers it; false when the connection cannot be used again."""
    try:
        read = await _read_request(connection, reader)
        if read is None:
            return False
        request, body = read
        if options.latency:
            await asyncio.sleep(options.latency)
        status, answer = HTTPStatus.OK, answer_to(request, body, options)
    except RefusedError as refused:
        status, answer = refused.status, refused.body
    except h11.RemoteProtocolError as error:
        status, answer = HTTPStatus.BAD_REQUEST, RefusedError(HTTPStatus.BAD_REQUEST, f"not HTTP/1.1: {error}").body
    writer.write(_response(connection, status, answer))
    await writer.drain()
    return connection.our_state is h11.DONE and connection.their_state is h11.DONE


async def _read_request(connection: h11.Connection, reader: asyncio.StreamReader) -> tuple[h11.Request, bytes] | None:
    """A request with its whole body; None when the client has closed the connection."""
    request: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(READ_BYTES))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MOST_BYTES:
                raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is longer than {MOST_BYTES} bytes")
        elif isinstance(event, h11.EndOfMessage) and request is not None:
            return request, bytes(body)
        else:  # closed or paused
            return None


def _response(connection: h11.Connection, status: HTTPStatus, answer: dict[str, Any]) -> bytes:
    body = json.dumps(answer).encode()
    headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
    events = (
        h11.Response(status_code=status, headers=headers, reason=status.phrase),
        h11.Data(data=body),
        h11.EndOfMessage(),
    )
    return b"".join(connection.send(event) or b"" for event in events)


def answer_to(request: h11.Request, body: bytes, options: Programmatic) -> dict[str, Any]:
    """The body of the answer to one HTTP request; raises RefusedError."""
    path = request.target.decode("ascii", "replace").partition("?")[0].rstrip("/")
    expected = {"/v1/chat/completions": b"POST", "/v1/models": b"GET", f"/v1/models/{MODEL}": b"GET"}.get(path)
    if expected is None:
        raise RefusedError(HTTPStatus.NOT_FOUND, f"unknown path {path}", code="unknown_url")
    if request.method != expected:
        raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes {expected.decode()} requests")
    model = {"id": MODEL, "object": "model", "created": CREATED, "owned_by": "alpaca"}
    if path == "/v1/models":
        return {"object": "list", "data": [model]}
    return complete_chat(_json(body), options) if expected == b"POST" else model


def complete_chat(body: dict[str, Any], options: Programmatic) -> dict[str, Any]:
    """A chat completion object for the body of a request; raises RefusedError."""
    _check(body)
    prompt, seed = _prompt(body), body.get("seed")
    style = Style(error_rate=options.error_rate, verbosity=options.verbosity, diversity=options.diversity)
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    try:
        written = write(prompt, seed=seed, style=style, max_tokens=limit)
    except UnreadablePromptError as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, str(error), param="messages") from error
    asked = count_tokens(prompt)
    return {
        "id": f"chatcmpl-{seed if seed is not None else 'unseeded'}",
        "object": "chat.completion",
        "created": CREATED,
        "model": MODEL,
        "choices": [{
            "index": 0, "message": {"role": "assistant", "content": written.text},
            "finish_reason": written.finish_reason, "logprobs": None,
        }],
        "usage": {
            "prompt_tokens": asked, "completion_tokens": written.tokens, "total_tokens": asked + written.tokens,
        },
    }  # fmt: skip


def _json(body: bytes) -> dict[str, Any]:
    try:
        decoded = json.loads(body)
    except ValueError as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {error}") from error
    if not isinstance(decoded, dict):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "the body is no JSON object")
    return decoded


def _check(body: dict[str, Any]) -> None:
    if body.get("model") != MODEL:
        message = f"The model {body.get('model')!r} does not exist; this server has {MODEL!r}"
        raise RefusedError(HTTPStatus.NOT_FOUND, message, code="model_not_found", param="model")
    for name in UNSUPPORTED:
        if body.get(name):
            message = f"unsupported parameter {name!r}"
            raise RefusedError(HTTPStatus.BAD_REQUEST, message, code="unsupported_parameter", param=name)
    if body.get("n") not in (None, 1):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "only n = 1 is supported", code="unsupported_value", param="n")
    for name, least in (("seed", None), ("max_tokens", 1), ("max_completion_tokens", 1)):
        value = body.get(name)
        is_number = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and (not is_number or (least is not None and value < least)):
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"{name} is {value!r}, expected an integer", param=name)


def _prompt(body: dict[str, Any]) -> str:
    """The text of the last message."""
    messages = body.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    content = last.get("content") if isinstance(last, dict) else None
    if not isinstance(content, str):
        raise RefusedError(
            HTTPStatus.BAD_REQUEST, "messages must be a list whose last one has a text", param="messages"
        )
    return content
