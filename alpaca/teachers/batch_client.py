"""The client behind `teacher=openai_batch`: gathers requests, sends batches, follows them and hands out answers."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from alpaca.errors import TeacherError
from alpaca.records import encode
from alpaca.teachers.base import Completion, Request, RetryableError, Session
from alpaca.teachers.batch_api import BatchApi, GoneError, Row, read_row
from alpaca.teachers.batch_journal import Journal, Sent
from alpaca.teachers.chat import QUOTA_CODES, ChatClient, open_api
from alpaca.teachers.digest import request_digest
from alpaca.teachers.openai_batch import OpenAIBatch
from alpaca.teachers.redaction import redacted, without_key
from alpaca.teachers.wire import Endpoint, request_body

HTTP_SECONDS = 600.0  # for one call; a file may be large
TRIES = 5  # of a call before anything can be paid; afterwards there is no end to patience
GROWTH, LONGEST_POLLS = 1.5, 20.0
ENDED = ("completed", "expired", "cancelled", "failed")
# Codes of a batch that was not taken because too much is waiting already.
NO_ROOM = ("token_limit_exceeded", "batch_limit_exceeded", "enqueued_token_limit_exceeded")
HOPELESS = (*QUOTA_CODES, "model_not_found", "invalid_api_key")
SHOWN = 20

Result = TypeVar("Result")


@asynccontextmanager
async def batching(options: OpenAIBatch, endpoint: Endpoint, session: Session) -> AsyncIterator[BatchClient]:
    """A client that has attached to the batches of earlier starts; what is out stays out when it is closed."""
    async with open_api(replace(endpoint, timeout=HTTP_SECONDS)) as api:
        online = ChatClient(api, endpoint)
        client = BatchClient(options, BatchApi(api, endpoint), Journal(session.work), session.say, online)
        try:
            await client.attach()
            yield client
        finally:
            await client.close()


@dataclass(slots=True)
class _Entry:
    """A request on its way. request: None as long as only an earlier start has asked it.

    outcome: its line of a batch's answers or errors, or why there is none. waiting: how many wait for that.
    """

    digest: str
    outcome: asyncio.Future[Row | Exception]
    request: Request | None = None
    waiting: int = 0


class _NoRoomError(Exception):
    """The server takes no further batch, or none of this size, as long as others are at work."""


class BatchClient:
    """`TeacherClient` over a Batch API. Requests with one digest are one line of one batch.

    online: the endpoint that answers at once, at the full price.
    """

    def __init__(
        self, options: OpenAIBatch, api: BatchApi, journal: Journal, say: Callable[[str], None], online: ChatClient
    ) -> None:
        self._options, self._api, self._journal, self.online = options, api, journal, online
        self._tell = say
        self._loop = asyncio.get_running_loop()
        self._entries: dict[str, _Entry] = {}  # by digest: gathered, in a batch, or answered and not yet asked for
        self._gathered: list[_Entry] = []
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy = 0  # batches that are sent or worked on
        self._one_ended = asyncio.Event()

    async def complete(self, request: Request) -> Completion:
        """One try, which waits for a batch; see `TeacherClient`."""
        digest = request_digest(request)
        entry = self._entries.get(digest)
        if entry is None:
            entry = _Entry(digest, self._loop.create_future(), request)
            self._gather(entry)
        entry.request = request
        entry.waiting += 1
        try:
            outcome = await asyncio.shield(entry.outcome)
        finally:
            entry.waiting -= 1
        # From here on the answer is the caller's, and a second try is another line of another batch.
        if self._entries.get(digest) is entry:
            del self._entries[digest]
        if isinstance(outcome, Exception):
            raise outcome.with_traceback(None)  # of many callers, it would grow with each
        return read_row(outcome, request, self._api.endpoint)

    async def attach(self) -> None:
        """Takes up what earlier starts have sent: answers that came, batches that are out, uploads that got lost.

        Raises TeacherError when it has to look for a batch and the server cannot be reached.
        """
        for sent in list(self._journal.sent.values()):
            if sent.status is not None:
                self._restore(sent)
            elif await self._is_batch(sent):
                entries = [self._entry(digest) for digest in sent.digests]
                self._say(f"attached to {sent.batch_id} with {len(entries):,} requests of an earlier start")
                self._spawn(self._take_up(sent, entries))
            else:
                self._journal.dropped(sent)

    async def close(self) -> None:
        """Stops gathering and following; batches that are out are taken up by the next start."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _say(self, text: str) -> None:
        self._tell(redacted(text, self._api.endpoint.key))

    # --- gathering

    def _gather(self, entry: _Entry) -> None:
        size = len(self._line(entry))
        if size > self._options.batch_bytes:
            raise TeacherError(
                what=f"a request of {size:,} bytes is larger than a whole batch may be",
                where="teacher.batch_bytes",
                remedy=f"at least {size:,}, where the server takes it",
            )
        if self._bytes + size > self._options.batch_bytes:
            self._send()
        self._entries[entry.digest] = entry
        self._gathered.append(entry)
        self._bytes += size
        if len(self._gathered) >= self._options.batch_requests:
            self._send()
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self._options.gather, self._send)

    def _send(self) -> None:
        """What was gathered becomes a batch."""
        if self._timer is not None:
            self._timer.cancel()
        entries, self._gathered, self._bytes, self._timer = self._gathered, [], 0, None
        if entries:
            self._spawn(self._carry(entries))

    def _line(self, entry: _Entry) -> bytes:
        if entry.request is None:
            return b""
        body = request_body(entry.request, self._api.endpoint)
        row = {"custom_id": entry.digest, "method": "POST", "url": self._api.url, "body": body}
        return (encode(row) + "\n").encode()

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- the way of a batch

    async def _carry(self, entries: Sequence[_Entry]) -> None:
        """Sends requests and hands out their answers; in halves, one after the other, where the whole has no room."""
        while error := await self._brought(entries, self._sent_and_followed(entries)):
            if self._busy:
                self._say(f"{error}; waiting for one of {self._busy} other batches to end")
                await self._news()
            elif len(entries) == 1:
                return self._settle(entries, _no_room(error))
            else:
                self._say(f"{error}; going on with half of its {len(entries):,} requests")
                await self._carry(entries[: len(entries) // 2])
                return await self._carry(entries[len(entries) // 2 :])
        return None

    async def _take_up(self, sent: Sent, entries: Sequence[_Entry]) -> None:
        """Hands out the answers of a batch of an earlier start."""
        if error := await self._brought(entries, self._follow(sent, entries)):
            self._settle(entries, RetryableError(str(error)))

    async def _brought(self, entries: Sequence[_Entry], work: Awaitable[None]) -> _NoRoomError | None:
        """Does the work for these requests, which get whatever goes wrong but a lack of room."""
        self._busy += 1
        try:
            await work
        except _NoRoomError as error:
            return error
        except Exception as error:  # a defect too belongs to those who wait, else they would wait for ever
            self._settle(entries, error)
        finally:
            self._busy -= 1
            self._one_ended.set()
        return None

    async def _sent_and_followed(self, entries: Sequence[_Entry]) -> None:
        await self._follow(await self._submit(entries), entries)

    async def _submit(self, entries: Sequence[_Entry]) -> Sent:
        """A file, an upload and a batch. RetryableError when the server cannot be reached for long."""
        requests = {entry.digest: entry.request.id if entry.request else "" for entry in entries}
        sent = self._journal.planned(uuid.uuid4().hex, requests)
        path = self._journal.input(sent)
        _write_lines(path, (self._line(entry) for entry in entries))
        file_id = await self._patiently(lambda: self._api.upload(path), TRIES)
        self._journal.uploaded(sent, file_id)
        self._journal.created(sent, await self._create(sent, file_id))
        path.unlink()
        self._say(f"{sent.batch_id}: {len(entries):,} requests sent")
        return sent

    async def _create(self, sent: Sent, file_id: str) -> str:
        """Makes the batch once, without an end to patience: a call whose answer got lost may have been heard."""
        calls = count()

        async def call() -> str:
            found = await self._api.find(sent.name, file_id, sent.planned) if next(calls) else None
            return found or await self._api.create(file_id, sent.name)

        return await self._patiently(call)

    async def _is_batch(self, sent: Sent) -> bool:
        """Whether a batch came of it, which is looked for where only its upload is known."""
        if sent.batch_id is None and sent.file_id is not None:
            found = await self._found(sent, sent.file_id)
            if found is None:  # the list may lag behind
                await asyncio.sleep(self._options.poll)
                found = await self._found(sent, sent.file_id)
            if found is not None:
                self._journal.created(sent, found)
        return sent.batch_id is not None

    async def _found(self, sent: Sent, file_id: str) -> str | None:
        try:
            return await self._patiently(lambda: self._api.find(sent.name, file_id, sent.planned), TRIES)
        except RetryableError as fault:
            raise TeacherError(
                what=f"cannot find out whether a batch of an earlier start was created: {fault.reason}",
                where="teacher.base_url",
                remedy="run again when the server can be reached: without knowing, its requests could be paid twice",
            ) from fault

    async def _follow(self, sent: Sent, entries: Sequence[_Entry]) -> None:
        """Waits for the end of a batch and hands out what it has brought."""
        try:
            batch = await self._at_its_end(sent)
        except GoneError as error:
            self._journal.ended(sent, "gone")
            raise RetryableError(str(error)) from error
        if batch["status"] == "failed":
            self._journal.ended(sent, "failed")
            with without_key(self._api.endpoint.key):
                raise _failure(batch)
        await self._download(sent, batch)
        self._journal.ended(sent, batch["status"])
        rows = self._rows(sent)
        missing = RetryableError(f"{sent.batch_id} ended ({batch['status']}) without an answer to it")
        for entry in entries:
            self._settle([entry], rows.get(entry.digest, missing))
        self._say(f"{sent.batch_id}: {batch['status']}, {len(rows):,} lines for {len(sent.digests):,} requests")

    async def _at_its_end(self, sent: Sent) -> Row:
        """The batch object once it has ended, looked at with growing pauses."""
        batch_id, pause, told = sent.batch_id or "", self._options.poll, ""
        while True:
            batch = await self._patiently(lambda: self._api.look(batch_id))
            if batch.get("status") in ENDED:
                return batch
            if (state := _state(batch)) != told:
                told = state
                self._say(f"{batch_id}: {state}")
            await asyncio.sleep(pause)
            pause = min(LONGEST_POLLS * self._options.poll, GROWTH * pause)

    async def _download(self, sent: Sent, batch: Row) -> None:
        """The files of answers and errors, where the batch has them."""
        names = ("output_file_id", "error_file_id")
        for name, path in zip(names, self._journal.answers(sent), strict=True):
            file_id = batch.get(name)
            if isinstance(file_id, str):
                await self._fetch(file_id, path)

    async def _fetch(self, file_id: str, path: Path) -> None:
        cuts = count(1)

        async def fetch() -> None:
            await self._api.download(file_id, path)
            if not _is_whole(path) and next(cuts) < TRIES:
                raise RetryableError(f"the download of {file_id} was cut")

        try:
            await self._patiently(fetch)
        except GoneError as error:
            self._say(f"{error}: its answers are lost")

    async def _patiently(self, call: Callable[[], Awaitable[Result]], tries: int | None = None) -> Result:
        """Repeats what may heal, with growing pauses; `tries` times at most, None: as long as the caller waits."""
        pause, tried = self._options.poll, 0
        while True:
            try:
                return await call()
            except RetryableError as fault:
                tried += 1
                if tried == tries:
                    raise
                wait = max(pause, fault.after or 0.0)
                self._say(f"{fault.reason}; again in {wait:.0f} s")
            await asyncio.sleep(wait)
            pause = min(LONGEST_POLLS * self._options.poll, 2 * pause)

    async def _news(self) -> None:
        """Waits until a batch has ended, or one that another process sent may have."""
        self._one_ended.clear()
        try:
            async with asyncio.timeout(LONGEST_POLLS * self._options.poll):
                await self._one_ended.wait()
        except TimeoutError:
            return

    # --- answers

    def _settle(self, entries: Sequence[_Entry], outcome: Row | Exception) -> None:
        for entry in entries:
            if not entry.outcome.done():
                entry.outcome.set_result(outcome)
            # An answer waits for whoever asks for it, a failure for nobody.
            if isinstance(outcome, Exception) and not entry.waiting and self._entries.get(entry.digest) is entry:
                del self._entries[entry.digest]

    def _entry(self, digest: str) -> _Entry:
        return self._entries.setdefault(digest, _Entry(digest, self._loop.create_future()))

    def _restore(self, sent: Sent) -> None:
        """Answers of an ended batch wait to be asked for; its failures were told when it ended."""
        nobody = Request(id="", messages=(), temperature=1.0, top_p=1.0, max_tokens=1)
        for digest, row in self._rows(sent).items():
            try:
                read_row(row, nobody, self._api.endpoint)
            except (RetryableError, TeacherError):
                continue
            self._settle([self._entry(digest)], row)

    def _rows(self, sent: Sent) -> dict[str, Row]:
        """The lines of a batch by digest; an answer counts more than an error."""
        found, known = dict[str, Row](), set(sent.digests)
        for path in self._journal.answers(sent):
            for line in path.read_bytes().split(b"\n") if path.exists() else ():
                row = _parsed(line)
                if row is not None and row.get("custom_id") in known:
                    found.setdefault(row["custom_id"], row)
        return found


def _write_lines(path: Path, lines: Any) -> None:
    with path.open("wb") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())


def _parsed(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _is_whole(path: Path) -> bool:
    """Whether the last line of a download is one."""
    lines = path.read_bytes().rstrip().rpartition(b"\n")
    return _parsed(lines[2]) is not None


def _state(batch: Row) -> str:
    counts = batch.get("request_counts")
    done = f", {counts.get('completed')} of {counts.get('total')} done" if isinstance(counts, dict) else ""
    return f"{batch.get('status')}{done}"


def _failure(batch: Row) -> Exception:
    """What a batch that was not taken at all means for its requests."""
    errors = batch.get("errors")
    data = errors.get("data") if isinstance(errors, dict) else None
    problems = [problem for problem in data if isinstance(problem, dict)] if isinstance(data, list) else []
    told = "; ".join(_problem(problem) for problem in problems[:SHOWN]) or "no reason given"
    codes = {problem.get("code") for problem in problems}
    if codes & set(NO_ROOM):
        return _NoRoomError(f"{batch.get('id')} was not taken: {told}")
    if codes & set(HOPELESS) or any(problem.get("line") is not None for problem in problems):
        return TeacherError(
            what=f"{batch.get('id')} was refused: {told}",
            where="teacher",
            remedy="nothing of it was paid; mend what it names (teacher.model, teacher.endpoint, the account)",
        )
    return RetryableError(f"{batch.get('id')} failed: {told}")


def _problem(problem: Row) -> str:
    place = f"line {problem['line']}: " if problem.get("line") is not None else ""
    return f"{place}{problem.get('code')}: {problem.get('message')}"


def _no_room(error: Exception) -> TeacherError:
    return TeacherError(
        what=f"not even one request has room: {error}",
        where="teacher",
        remedy="wait until other batches of this account have ended, or ask for a higher limit",
    )
