"""The calls of a Batch API that are needed, with their failures told as a teacher tells them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import openai

from alpaca.errors import TeacherError
from alpaca.teachers.base import Completion, Request, RetryableError
from alpaca.teachers.chat import explain
from alpaca.teachers.redaction import without_key
from alpaca.teachers.wire import Endpoint, decoded, quote, read_answer

WINDOW = "24h"
TAG = "alpaca_batch"  # the metadata field by which a batch is found again
PAGE = 100
# Batches are listed newest first; clocks may differ by so many seconds.
CLOCKS = 3600.0
OK = 200
MISSING = (404, 405)

Row = dict[str, Any]


class GoneError(Exception):
    """The server no longer has a batch or a file."""


class BatchApi:
    """Files and batches of one endpoint. Every method raises RetryableError and TeacherError as a teacher does."""

    def __init__(self, api: openai.AsyncOpenAI, endpoint: Endpoint) -> None:
        self._api, self.endpoint = api, endpoint

    @property
    def url(self) -> str:
        """What each line of a batch is sent to."""
        return f"/v1{self.endpoint.path}"

    async def upload(self, path: Path) -> str:
        """Sends a file of requests; its id."""
        with self._told(self._no_batches("POST /files")), path.open("rb") as file:
            raw = await self._api.files.with_raw_response.create(file=(path.name, file), purpose="batch")
            return self._id(decoded(raw.content))

    async def create(self, file_id: str, name: str) -> str:
        """Makes a batch of a file; its id."""
        body = {"input_file_id": file_id, "endpoint": self.url, "completion_window": WINDOW, "metadata": {TAG: name}}
        with self._told(self._no_batches("POST /batches")):
            response = await self._api.post("/batches", cast_to=httpx2.Response, body=body)
            return self._id(decoded(response.content))

    async def find(self, name: str, file_id: str, planned: float) -> str | None:
        """The id of the batch that was made of a file, None if there is none. planned: seconds since 1970."""
        after: str | None = None
        while True:
            rows, after = await self._page(after)
            for row in rows:
                if (row.get("metadata") or {}).get(TAG) == name or row.get("input_file_id") == file_id:
                    with without_key(self.endpoint.key):
                        return self._id(row)
                if isinstance(row.get("created_at"), int) and row["created_at"] < planned - CLOCKS:
                    return None
            if after is None:
                return None

    async def look(self, batch_id: str) -> Row:
        """The batch object as of now; GoneError when the server does not have it."""
        with self._told(GoneError(f"the server no longer has {batch_id}")):
            response = await self._api.get(f"/batches/{batch_id}", cast_to=httpx2.Response)
            return self._object(decoded(response.content))

    async def download(self, file_id: str, path: Path) -> None:
        """Writes the content of a file; the path appears whole or not at all. GoneError when the server lacks it."""
        part = path.with_name(path.name + ".part")
        with self._told(GoneError(f"the server no longer has {file_id}")):
            async with self._api.files.with_streaming_response.content(file_id) as response:
                await response.stream_to_file(part)
        part.replace(path)

    async def _page(self, after: str | None) -> tuple[list[Row], str | None]:
        """Batches, the newest first, and where the next page begins; None on the last one."""
        query = {"limit": str(PAGE)} | ({} if after is None else {"after": after})
        with self._told(self._no_batches("GET /batches")):
            response = await self._api.get("/batches", cast_to=httpx2.Response, options={"params": query})
            page = self._object(decoded(response.content))
            data = page.get("data")
            rows = [row for row in data if isinstance(row, dict)] if isinstance(data, list) else []
            more = bool(page.get("has_more")) and bool(rows)
            return rows, self._id(rows[-1]) if more else None

    @contextmanager
    def _told(self, missing: Exception) -> Iterator[None]:
        """missing: what a 404 means here."""
        with without_key(self.endpoint.key), self._explained(missing):
            yield

    @contextmanager
    def _explained(self, missing: Exception) -> Iterator[None]:
        try:
            yield
        except openai.APIStatusError as error:
            raise missing if error.status_code in MISSING else explain(error, self.endpoint) from error
        except (openai.APIConnectionError, aiohttp.ClientError, httpx2.HTTPError) as error:
            cause = error.__cause__ or error
            reason = f"connection to {self.endpoint.base_url} failed ({type(cause).__name__}: {cause})"
            raise RetryableError(reason) from error

    def _no_batches(self, call: str) -> TeacherError:
        return TeacherError(
            what=f"{self.endpoint.base_url} has no Batch API: it does not know {call}",
            where="teacher.base_url",
            remedy="take teacher=openai, or a base_url up to and including /v1",
        )

    def _object(self, payload: object) -> Row:
        if not isinstance(payload, dict):
            raise RetryableError(f"the answer is no object: {quote(payload)}")
        return payload

    def _id(self, payload: object) -> str:
        id = self._object(payload).get("id")
        if not isinstance(id, str) or not id:
            raise RetryableError(f"the answer has no id: {quote(payload)}")
        return id


def read_row(row: Row, request: Request, endpoint: Endpoint) -> Completion:
    """The completion in one line of a batch's answers or errors, checked as an online one is.

    Raises RetryableError for what may heal, which is not billed unless the answer says so, TeacherError for the rest.
    """
    with without_key(endpoint.key):
        return _read_row(row, request, endpoint)


def _read_row(row: Row, request: Request, endpoint: Endpoint) -> Completion:
    response = row.get("response")
    if not isinstance(response, dict) or not isinstance(response.get("status_code"), int):
        error = row.get("error")
        raise RetryableError(f"not answered in its batch: {quote(error or 'no reason given')}")
    if response["status_code"] != OK:
        raise _refusal(response, endpoint)
    completion = read_answer(response.get("body"), request, response.get("request_id"))
    return replace(completion, service_tier=completion.service_tier or "batch")


def _refusal(response: Row, endpoint: Endpoint) -> Exception:
    """What the online endpoint would have meant by this status."""
    body = response.get("body")
    told = body.get("error", body) if isinstance(body, dict) else None
    http = httpx2.Response(response["status_code"], json=body, request=httpx2.Request("POST", endpoint.base_url))
    return explain(openai.APIStatusError(quote(body), response=http, body=told), endpoint)
