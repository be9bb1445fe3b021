"""Rows of a JSON Lines file, or of a file that is one JSON array, without holding the file.

The compression follows from the name (.gz, .bz2, .zst). A row is the bytes of one JSON value: the
caller parses them, so that one bad row affects no other.
"""

from __future__ import annotations

import bz2
import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from stepsearch_data.core.errors import SourceError
from stepsearch_data.core.files import open_regular

_CHUNK = 1 << 20
_PIECE = 1 << 10
LONGEST_ROW = 64 << 20  # bytes; a longer one is a broken file, not a row
_FAULTS = (OSError, EOFError, zlib.error)
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_BOM = b"\xef\xbb\xbf"
# A whole string, or one structural character; a lone quote is a string that has not ended yet.
_TOKEN = re.compile(rb'"[^"\\\n]*(?:\\.[^"\\\n]*)*"|["\[\]{},]', re.DOTALL)


@dataclass(frozen=True)
class Broken:
    """Bytes that are not a row, and why."""

    raw: bytes
    reason: str


class _Cut(Exception):
    """The file cannot be read any further."""


def rows(path: Path) -> Iterator[bytes | Broken]:
    """Yield the JSON values of a file, in order; an empty one for a blank line, so that they can be numbered.

    Raises SourceError when the file cannot be opened or is not JSON.
    """
    chunks = _chunks(path)
    first = b""
    try:
        while len(first) <= len(_BOM) or not first.removeprefix(_BOM).strip():  # to tell its encoding and its form
            first += next(chunks)
    except StopIteration:
        pass
    except _Cut as cut:
        raise SourceError(f"cannot read {path}: {cut}") from cut
    if first.startswith(_UTF16):
        raise SourceError(f"{path} is UTF-16, not UTF-8", f"convert it: iconv -f UTF-16 -t UTF-8 {path}")
    first = first.removeprefix(_BOM)
    opening = first.lstrip()[:1]
    if not opening:
        raise SourceError(f"{path} is empty")
    return (_array if opening == b"[" else _lines)(chain([first], chunks))


def _chunks(path: Path) -> Iterator[bytes]:
    """Yield the decompressed file in pieces. Raises SourceError, and _Cut where the stream breaks off."""
    try:
        with open_stream(path) as stream:
            chunk, fault = _read(stream)
            while chunk:
                yield chunk
                chunk, fault = (b"", fault) if fault else _read(stream)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}", "check the path") from error
    if fault:
        raise _Cut(f"the file cannot be read any further: {fault}")


@contextmanager
def open_stream(path: Path) -> Iterator[Any]:
    """Open the file as a stream of decompressed bytes. Raises OSError, also for what is not a regular file."""
    # Of the standard library: it keeps what precedes a fault, Arrow does not.
    zst = partial(pa.input_stream, compression="zstd", buffer_size=_CHUNK)
    formats: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".zst": zst}
    with open_regular(path) as file, formats.get(path.suffix.lower(), nullcontext)(file) as stream:
        yield stream


def _read(stream: Any) -> tuple[bytes, str]:
    """Return the next chunk, and what ended it early. Read piece by piece, a fault costs the last piece at most."""
    if stream.seekable():
        start = stream.tell()
        try:
            return stream.read(_CHUNK), ""
        except _FAULTS:
            stream.seek(start)  # and now piece by piece
    chunk = bytearray()
    try:
        while len(chunk) < _CHUNK and (piece := stream.read1(min(_PIECE, _CHUNK - len(chunk)))):
            chunk += piece
    except _FAULTS as error:
        return bytes(chunk), str(error)
    return bytes(chunk), ""


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes | Broken]:
    rest, cut = b"", ""
    try:
        for chunk in chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (line.strip() for line in lines)
            if len(rest) > LONGEST_ROW:
                yield _too_long(rest)
                return
    except _Cut as error:
        cut = str(error)
    if rest.strip():
        yield rest
    if cut:
        yield Broken(b"", cut)


class _ArrayScanner:
    """Cuts a growing buffer into the elements of one JSON array."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.depth = 0
        self._start = 0  # of the current element
        self._scanned = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the elements that end in what is known so far."""
        self.buffer += chunk
        data = bytes(self.buffer)
        for token in _TOKEN.finditer(data, self._scanned):
            mark = token.group()
            if mark == b'"' and data.find(b"\n", token.end()) < 0:
                self._scanned = token.start()
                break
            self._scanned = token.end()
            if self._ends_element(mark):
                element = data[self._start : token.start()].strip()
                self._start = token.end()
                if element:
                    yield element
            if self.depth == 0:
                break
        else:
            self._scanned = len(data)
        del self.buffer[: self._start]
        self._scanned -= self._start
        self._start = 0

    def _ends_element(self, mark: bytes) -> bool:
        if mark in b"[{" and len(mark) == 1:
            self.depth += 1
            if self.depth == 1:
                self._start = self._scanned
        elif mark in b"]}" and len(mark) == 1:
            self.depth -= 1
            return self.depth == 0
        return mark == b"," and self.depth == 1


def _array(chunks: Iterator[bytes]) -> Iterator[bytes | Broken]:
    scanner = _ArrayScanner()
    reason = "the file breaks off: the array is not closed"
    try:
        for chunk in chunks:
            yield from scanner.feed(chunk)
            if scanner.depth == 0:
                if rest := next(filter(None, map(bytes.strip, chain([bytes(scanner.buffer)], chunks))), b""):
                    yield Broken(rest, "there is text after the end of the array")
                return
            if len(scanner.buffer) > LONGEST_ROW:
                yield _too_long(bytes(scanner.buffer))
                return
    except _Cut as cut:
        reason = str(cut)
    rest = b"" if scanner.depth == 0 else bytes(scanner.buffer).strip()
    if scanner.depth == 1 and rest.endswith(b"}"):  # the last row is whole, only the array's end is missing
        yield rest
        rest = b""
    yield Broken(rest[:_CHUNK], reason)


def _too_long(row: bytes) -> Broken:
    return Broken(row[:_CHUNK], f"the row is longer than {LONGEST_ROW >> 20} MiB; nothing after it was read")
