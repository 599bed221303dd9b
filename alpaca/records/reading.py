"""Text files of users and of stages, read strictly and in bounded memory: UTF-8, one record at a time, no NaN."""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from alpaca.errors import UserError

LONGEST = 2**24
"""Bytes that one record may take: more than any training example, little beside the memory of a laptop."""
CHUNK = 2**20
SHOWN = 20  # problems listed in one message
SAMPLE = 64  # first bytes by which a file is recognised
NEAR_END = 16  # characters in which a literal, an escape or a number can be cut by the end of a chunk

PICKLE = "is a Python pickle, which is never opened because that can run code"
KNOWN_STARTS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "is compressed by gzip", "gunzip -k FILE"),
    (b"PK\x03\x04", "is a ZIP archive", "unzip FILE"),
    (b"\x28\xb5\x2f\xfd", "is compressed by zstd", "zstd -d FILE"),
    (b"BZh", "is compressed by bzip2", "bunzip2 -k FILE"),
    (b"\xfd7zXZ", "is compressed by xz", "unxz -k FILE"),
    *((bytes((0x80, protocol)), PICKLE, "export it as JSONL") for protocol in range(2, 6)),
    (b"PAR1", "is a Parquet file", "give a text file"),
    (b"\xff\xfe\x00\x00", "is UTF-32 text, expected UTF-8", "iconv -f UTF-32 -t UTF-8 FILE > NEW"),
    (b"\xff\xfe", "is UTF-16 text, expected UTF-8", "iconv -f UTF-16 -t UTF-8 FILE > NEW"),
    (b"\xfe\xff", "is UTF-16 text, expected UTF-8", "iconv -f UTF-16 -t UTF-8 FILE > NEW"),
    (b"version https://git-lfs", "is a pointer of Git LFS, not the file itself", "git lfs pull"),
    (b"<!DOCTYPE", "is an HTML page", "download the file itself"),
    (b"<html", "is an HTML page", "download the file itself"),
)


class NotJson(ValueError):
    """Text that is no JSON; the message says why, and where in the text."""


class Problems:
    """What is wrong with a file: the first 20 in words, and the number of all."""

    def __init__(self) -> None:
        self.first: list[str] = []
        self.count = 0

    def add(self, text: str) -> None:
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(text)

    def raise_if_any(self, where: str, remedy: str) -> None:
        """Raises one UserError with all of them."""
        if self.count:
            more = f"\n    and {self.count - SHOWN:,} more" if self.count > SHOWN else ""
            raise UserError(what="\n    ".join(self.first) + more, where=where, remedy=remedy)


def decode(text: str) -> Any:
    """The value of one JSON text. Raises NotJson, also for NaN, Infinity and numbers that no float can hold."""
    try:
        return _STRICT.decode(text)
    except (ValueError, RecursionError) as error:
        raise not_json(text, error) from error


def not_json(text: str, error: Exception) -> NotJson:
    """Why a JSON text was refused, with the field where it is a number that is not finite."""
    if isinstance(error, _NotFiniteError):
        return _not_finite_in(text)
    if isinstance(error, json.JSONDecodeError):
        return NotJson(f"not JSON ({error.msg} at column {error.colno})")
    if isinstance(error, RecursionError):
        return NotJson("nested too deeply")
    return NotJson("a number with too many digits")


def check_is_text(path: Path, where: str) -> None:
    """Raises UserError for what is no readable text file: a folder, an archive, UTF-16, a web page."""
    if path.is_dir():
        raise UserError(what=f"{str(path)!r} is a folder, expected a file", where=where, remedy="give a file")
    try:
        with path.open("rb") as file:
            start = file.read(SAMPLE)
    except OSError as error:
        raise UserError(
            what=f"cannot read {path}: {error.strerror or error}", where=where, remedy="give a file that can be read"
        ) from error
    for mark, problem, remedy in KNOWN_STARTS:
        if start.startswith(mark):
            raise UserError(what=f"{str(path)!r} {problem}", where=where, remedy=f"for example: {remedy}")
    if b"\0" in start:
        raise UserError(
            what=f"{str(path)!r} has NUL bytes: UTF-16 or no text at all, expected UTF-8",
            where=where,
            remedy="for example: iconv -f UTF-16 -t UTF-8 FILE > NEW",
        )


def read_text(path: Path, where: str) -> str:
    """The whole UTF-8 text of a file that holds one thing, such as a prompt; a byte order mark is left out."""
    check_is_text(path, where)
    if path.stat().st_size > LONGEST:
        raise _too_long(f"{path} is", where)
    with path.open("rb") as file:
        return _decoded(file.read(), path, 1).removeprefix("\ufeff")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""The lines of a UTF-8 file that are not blank, with their numbers from 1; only \n ends a line.

    Raises UserError at a line that is not UTF-8 or longer than `LONGEST`, of which no more than that is read.
    """
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LONGEST + 1):
            number += 1
            if len(line) > LONGEST:
                raise _too_long(f"line {number} is", f"{path}:{number}")
            text = _decoded(line, path, number)
            if number == 1:
                text = text.removeprefix("\ufeff")
            if text.strip():
                yield number, text


def starts_with(path: Path, mark: str) -> bool:
    """Whether the first character of a text file that is no white space is this one."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            text = chunk.removeprefix(codecs.BOM_UTF8).lstrip()
            if text:
                return text.startswith(mark.encode())
    return False


def read_array(path: Path) -> Iterator[tuple[int, Any]]:
    """The elements of a file that holds one JSON array, with the lines where they start; a NotJson for one with NaN.

    The file is never held whole. Raises UserError with line and column where the text breaks off or is no JSON.
    """
    with path.open("rb") as file:
        yield from _ArrayReader(path, file).elements()


class _NotFiniteError(ValueError):
    """NaN, Infinity or a number as large."""


def _refuse(name: str) -> NoReturn:
    raise _NotFiniteError(name)


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _NotFiniteError(text)
    return value


# Python's own decoder takes NaN and Infinity, which are no JSON and which no other reader of our files would take.
_STRICT = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)
_LENIENT = json.JSONDecoder()


def _not_finite_in(text: str) -> NotJson:
    try:
        return NotJson(_not_finite(_LENIENT.decode(text)))
    except (ValueError, RecursionError) as error:
        return not_json(text, error)


def _not_finite(value: Any) -> str:
    """Names the first field that is not finite."""
    place, number = next(_not_finite_fields(value, ""))
    return f"{place or 'the value'} is {json.dumps(number)}, which is no JSON; expected a finite number or null"


def _not_finite_fields(value: Any, place: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for name, child in value.items():
            yield from _not_finite_fields(child, f'{place}["{name}"]' if place else f'"{name}"')
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _not_finite_fields(child, f"{place}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield place, value


def _decoded(line: bytes, path: Path, number: int) -> str:
    """UTF-8 text; number: that of its first line."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _wrong_encoding(error, path, number) from error


def _wrong_encoding(error: UnicodeDecodeError, path: Path, number: int) -> UserError:
    """number: line of the first byte that was decoded."""
    before = error.object[: error.start]
    line = number + before.count(b"\n")
    context = before.rpartition(b"\n")[2][-20:].decode("utf-8", errors="ignore")
    return UserError(
        what=f"not UTF-8: byte 0x{error.object[error.start]:02x} after {context!r}",
        where=f"{path}:{line}",
        remedy="save the file as UTF-8, for example: iconv -f LATIN1 -t UTF-8 FILE > NEW",
    )


def _too_long(what: str, where: str) -> UserError:
    return UserError(
        what=f"{what} longer than {LONGEST // 2**20} MiB, the most that one record may have",
        where=where,
        remedy="one record a line; records of this length cannot be trained on anyway",
    )


class _ArrayReader:
    """A window over the text of a file, moved on record by record."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._at, self._ended = "", 0, False
        self._counted, self._line, self._column = 0, 1, 1  # a place in the window, and its line and column in the file
        self._read_lines = 1

    def elements(self) -> Iterator[tuple[int, Any]]:
        """Each element with its line."""
        self._expect("[")
        mark = self._next_mark()
        count = 0
        while mark != "]":
            self._count()
            yield self._line, self._element(count)
            count += 1
            mark = self._next_mark()
            if mark == ",":
                self._at += 1
                self._next_mark()
            elif mark != "]":
                raise self._broken(count - 1, "expected , or ] after it", self._at)
        self._at += 1
        if self._next_mark(may_end=True):
            raise self._error("text after the end of the array", self._at)

    def _element(self, number: int) -> Any:
        while True:
            try:
                value, end = self._decode_here()
            except json.JSONDecodeError as error:
                if not self._may_go_on(error) or not self._more(number):
                    raise self._broken(number, error.msg, error.pos) from error
                continue
            except (ValueError, RecursionError) as error:
                raise self._broken(number, str(not_json("", error)), self._at) from error
            if end - self._at > LONGEST:
                raise self._record_too_long(number)
            if end > len(self._text) - NEAR_END and self._more(number):
                continue  # "1" may be the beginning of "1.5e3"
            self._at = end
            return value

    def _decode_here(self) -> tuple[Any, int]:
        """The value at the window's place and its end; for a value with NaN the problem, so that reading can go on."""
        try:
            return _STRICT.raw_decode(self._text, self._at)
        except _NotFiniteError:
            value, end = _LENIENT.raw_decode(self._text, self._at)
            return NotJson(_not_finite(value)), end

    def _may_go_on(self, error: json.JSONDecodeError) -> bool:
        """Whether the error can come from the end of the window: the text is right as far as it goes."""
        return error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - NEAR_END

    def _more(self, number: int) -> bool:
        """Reads on, so much that a long record is not tried too often; False at the end of the file."""
        if self._ended:
            return False
        held = len(self._text) - self._at
        if held > LONGEST:
            raise self._record_too_long(number)
        data = self._file.read(max(CHUNK, held))
        self._count()
        try:
            text = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise _wrong_encoding(error, self._path, self._read_lines) from error
        self._read_lines += data.count(b"\n")
        self._text, self._at, self._counted, self._ended = self._text[self._at :] + text, 0, 0, not data
        return True

    def _record_too_long(self, number: int) -> UserError:
        return _too_long(f"record {number} is", f"{self._path}:{self._position(self._at)[0]}")

    def _expect(self, mark: str) -> None:
        if self._next_mark() != mark:
            raise self._error(f"expected {mark}", self._at)
        self._at += 1

    def _next_mark(self, *, may_end: bool = False) -> str:
        """The next character that is no white space; empty at the end of the file, where it may end there."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more(0):
                if may_end:
                    return ""
                raise self._error("the array has no end: the file was cut off", self._at)

    def _count(self) -> None:
        """Notes line and column of the present place, so that no text is counted twice."""
        self._line, self._column = self._position(self._at)
        self._counted = self._at

    def _position(self, at: int) -> tuple[int, int]:
        """Line and column, both from 1, of a place in the window."""
        lines = self._text.count("\n", self._counted, at)
        column = at - self._text.rfind("\n", self._counted, at) if lines else self._column + at - self._counted
        return self._line + lines, column

    def _broken(self, number: int, problem: str, at: int) -> UserError:
        if at >= len(self._text.rstrip()) or (self._ended and problem.startswith("Unterminated string")):
            return self._error(f"record {number} has no end: the file was cut off, or a quote is missing", at)
        return self._error(f"not JSON: {problem} (record {number})", at)

    def _error(self, problem: str, at: int) -> UserError:
        line, column = self._position(at)
        return UserError(
            what=problem,
            where=f"{self._path}:{line}:{column}",
            remedy="a JSON array of objects, or JSONL: one object a line",
        )
