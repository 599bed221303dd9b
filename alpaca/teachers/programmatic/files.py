"""The files of the server: uploaded as multipart forms, kept in memory as long as the server runs."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from alpaca.teachers.programmatic.refusal import bad_request, not_found
from alpaca.teachers.programmatic.wire import Call

PURPOSES = ("batch",)


@dataclass(kw_only=True, slots=True, frozen=True)
class Upload:
    """A file as it came in."""

    name: str
    purpose: str
    content: bytes


class Files:
    """The files by id."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[Upload, int]] = {}

    def add(self, upload: Upload) -> dict[str, Any]:
        """Keeps a file; the file object that describes it."""
        id = f"file-{uuid.uuid4().hex}"
        self._files[id] = upload, int(time.time())
        return self.described(id)

    def described(self, id: str) -> dict[str, Any]:
        """The file object; raises RefusedError for an unknown id."""
        upload, created = self._found(id)
        return {
            "id": id, "object": "file", "bytes": len(upload.content), "created_at": created, "filename": upload.name,
            "purpose": upload.purpose, "status": "processed", "expires_at": None, "status_details": None,
        }  # fmt: skip

    def content(self, id: str) -> bytes:
        """The bytes of a file; raises RefusedError for an unknown id."""
        return self._found(id)[0].content

    def delete(self, id: str) -> dict[str, Any]:
        """Forgets a file; raises RefusedError for an unknown id."""
        self._found(id)
        del self._files[id]
        return {"id": id, "object": "file", "deleted": True}

    def _found(self, id: str) -> tuple[Upload, int]:
        if id not in self._files:
            raise not_found(f"No such File object: {id}", param="id")
        return self._files[id]


def uploaded(call: Call) -> Upload:
    """The file of a multipart form with the fields `purpose` and `file` (RFC 7578); raises RefusedError."""
    form = {name: (filename, content) for name, filename, content in _parts(call)}
    purpose = form.get("purpose", ("", b""))[1].decode("utf-8", "replace")
    if purpose not in PURPOSES:
        raise bad_request(f"purpose is {purpose!r}; supported: {', '.join(PURPOSES)}", param="purpose")
    if "file" not in form:
        raise bad_request("the form holds no file", param="file")
    name, content = form["file"]
    return Upload(name=name, purpose=purpose, content=content)


def _parts(call: Call) -> Iterator[tuple[str, str, bytes]]:
    """Name, file name and content of each part."""
    # Imported here because the package costs 30 ms, and most servers never see a file.
    from email.message import Message
    from email.parser import BytesParser

    form = Message()
    form["content-type"] = call.content_type
    boundary = form.get_boundary()
    if form.get_content_type() != "multipart/form-data" or not boundary:
        raise bad_request(f"content-type is {call.content_type!r}, expected multipart/form-data with a boundary")
    # Split by hand and not by the parser, which reads contents line by line and changes their line ends.
    for piece in (b"\r\n" + call.body).split(f"\r\n--{boundary}".encode())[1:-1]:
        head, _, content = piece.partition(b"\r\n\r\n")
        header = BytesParser().parsebytes(head.lstrip(), headersonly=True)
        name = header.get_param("name", "", "content-disposition")
        yield str(name), header.get_filename() or "upload", content
