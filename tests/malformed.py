"""Answers that no HTTP server should give, each by bytes on a socket.

    @pytest.mark.parametrize("case", CASES, ids=name_of)
    def test_...(case: Case) -> None:
        with serve_raw(case) as server: ... server.url ... server.heads

Whatever is asked, each request gets a case's answer on a connection that then ends. No API gives such an answer; where
only its numbers are absurd, a client may still use the rest.
"""

from __future__ import annotations

import asyncio
import gzip
import re
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain, cycle, repeat
from operator import attrgetter
from random import Random
from typing import NamedTuple

from tests.fake import Loopback

Step = bytes | float | None  # bytes to send, seconds to wait, or None: reset the connection


class Case(NamedTuple):
    """An answer by its steps. Only a limit of time ends one that is `endless`."""

    name: str
    steps: Callable[[], Iterable[Step]]
    endless: bool = False


name_of = attrgetter("name")

_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
_BODY = b'{"hello": "world"}'
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"
_DEEP = 100_000


def _reply(body: bytes = _BODY, *headers: bytes, start: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """A reply that is well formed where its arguments are."""
    usual = [b"Content-Type: application/json", b"Content-Length: %d" % len(body), b"Connection: close"]
    return b"\r\n".join([start, *usual, *headers, b"", body])


def _redirect(to: bytes) -> bytes:
    return _reply(b"", b"Location: " + to, start=b"HTTP/1.1 307 Temporary Redirect")


def _gzipped(body: bytes) -> bytes:
    return _reply(body, b"Content-Encoding: gzip")


def _drip(data: Iterable[int]) -> Iterator[Step]:
    for byte in data:
        yield bytes([byte])
        yield 0.02


def _filled(number: bytes, text: bytes = b'"text"') -> bytes:
    """A reply of all APIs at once, each number and each text of which is the given one."""
    page = b'{"title": T, "link": T, "url": T, "snippet": T, "content": T, "description": T, "position": N, "score": N}'
    return (
        (
            b'{"choices": [{"index": N, "finish_reason": "stop", "message": {"role": "assistant", "content": T}}],'
            b' "usage": {"prompt_tokens": N, "completion_tokens": N, "total_tokens": N}, "created": N,'
            b' "data": [{"index": N, "embedding": [N, N]}],'
            b' "result": [[{"document": {"id": T, "contents": T}, "score": N}]],'
            b' "organic": [PAGE], "organic_results": [PAGE], "web": {"results": [PAGE]}, "results": [PAGE]}'
        )
        .replace(b"PAGE", page)
        .replace(b" N", b" " + number)
        .replace(b"[N", b"[" + number)
        .replace(b" T", b" " + text)
    )


CASES = [
    # Connections
    Case("closed at once", list),
    Case("reset at once", lambda: [None]),
    Case("reset in the body", lambda: [_reply()[:-9], 0.05, None]),
    Case("silence", lambda: repeat(1.0), endless=True),
    Case("TLS on a plain port", lambda: [b"\x15\x03\x03\x00\x02\x02\x46"]),
    # Status lines
    Case("no status line", lambda: [_reply().partition(b"\r\n")[2]]),
    Case("cut status line", lambda: [b"HTTP/1.1 20"]),
    Case("garbage", lambda: [Random(7).randbytes(5000)]),
    Case("HTTP/0.9", lambda: [b"<html>hello</html>"]),
    Case("HTTP/9.9", lambda: [_reply(start=b"HTTP/9.9 200 OK")]),
    Case("status 999", lambda: [_reply(start=b"HTTP/1.1 999 Request denied")]),
    Case("status that is no number", lambda: [_reply(start=b"HTTP/1.1 2OO OK")]),
    Case("status line of 1 MB", lambda: [_reply(start=b"HTTP/1.1 200 " + b"O" * 1_000_000)]),
    Case("flood of 1xx", lambda: [b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 5_000, _reply()]),
    Case("another protocol", lambda: [_reply(b"", b"Upgrade: chat", start=b"HTTP/1.1 101 Switching Protocols")]),
    # Headers
    Case("header of 1 MB", lambda: [_reply(_BODY, b"X-Long: " + b"x" * 1_000_000)]),
    Case("100,000 headers", lambda: [_reply(_BODY, *(b"X-%d: x" % n for n in range(100_000)))]),
    Case("header without colon", lambda: [_reply(_BODY, b"no colon")]),
    Case("NUL in a header", lambda: [_reply(_BODY, b"X-Nul: a\0b")]),
    Case("control characters in a header", lambda: [_reply(_BODY, b"X-Red: \x1b[31m\xff\xfe")]),
    Case("cut headers", lambda: [_OK]),
    Case("drip of headers", lambda: _drip(chain(_OK, b"X-Slow: ", repeat(0x78))), endless=True),
    # Lengths and chunks
    Case("two lengths", lambda: [_reply(_BODY, b"Content-Length: 5")]),
    Case("negative length", lambda: [_OK + b"Content-Length: -18\r\n\r\n" + _BODY]),
    Case("length that is no number", lambda: [_OK + b"Content-Length: many\r\n\r\n" + _BODY]),
    Case("length of 30 digits", lambda: [_OK + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n" + _BODY]),
    Case("length and chunks", lambda: [_reply(_BODY, b"Transfer-Encoding: chunked")]),
    Case("cut body", lambda: [_reply(_BODY * 9)[:-20]]),
    Case("bad chunk size", lambda: [_CHUNKED + b"zz\r\n" + _BODY + b"\r\n0\r\n\r\n"]),
    Case(
        "bad size of a later chunk",
        lambda: [_CHUNKED + b"12\r\n" + _BODY + b"\r\n", 0.05, b"zz\r\n" + _BODY + b"\r\n"],
        endless=True,  # aiohttp drops the connection, and waits on
    ),
    Case("chunk size of 1 MB", lambda: [_CHUNKED + b"1" * 1_000_000]),
    Case("negative chunk size", lambda: [_CHUNKED + b"-12\r\n" + _BODY + b"\r\n0\r\n\r\n"]),
    Case("chunk longer than its size", lambda: [_CHUNKED + b"2\r\n" + _BODY + b"\r\n0\r\n\r\n"]),
    Case("cut chunks", lambda: [_CHUNKED + b"12\r\n" + _BODY + b"\r\n12\r\n{"]),
    Case("no last chunk", lambda: [_CHUNKED + b"12\r\n" + _BODY + b"\r\n"]),
    # Sizes
    Case("body of 20 MB", lambda: [_reply(b'"' + b"x" * 20_000_000 + b'"')]),
    Case("body without end", lambda: chain([_OK + b"\r\n"], repeat(b" " * 65536))),
    Case("chunks without end", lambda: chain([_CHUNKED], repeat(b"2000\r\n" + b" " * 8192 + b"\r\n"))),
    Case("drip of a body", lambda: chain([_OK + b"Content-Length: 100000\r\n\r\n{"], _drip(cycle(b" "))), endless=True),
    # Encodings
    Case("gzip bomb", lambda: [_gzipped(gzip.compress(bytes(10 << 20)))]),
    Case("gzip in gzip", lambda: [_gzipped(gzip.compress(gzip.compress(_BODY)))]),
    Case("broken gzip", lambda: [_gzipped(b"this is no gzip")]),
    Case("truncated gzip", lambda: [_gzipped(gzip.compress(_BODY * 99)[:-12])]),
    Case("wrong checksum of gzip", lambda: [_gzipped(gzip.compress(_BODY)[:-8] + b"\0" * 8)]),
    Case("unknown encoding", lambda: [_reply(_BODY, b"Content-Encoding: rot13")]),
    # Redirects
    Case("redirect loop", lambda: [_redirect(b"/again")]),
    Case("redirect to another host", lambda: [_redirect(b"http://localhost:%PORT%/elsewhere")]),
    Case("redirect to a file", lambda: [_redirect(b"file:///etc/hostname")]),
    Case("redirect without an address", lambda: [_reply(b"", start=b"HTTP/1.1 302 Found")]),
    # Bodies
    Case("HTML", lambda: [_OK.replace(b"application/json", b"text/html") + b"\r\n<!doctype html><p>Log in</p>"]),
    Case("empty", lambda: [_reply(b"")]),
    Case("no content", lambda: [b"HTTP/1.1 204 No Content\r\n\r\n"]),
    Case("NUL in JSON", lambda: [_reply(b'{"hello": "\0"}\0')]),
    Case("invalid UTF-8", lambda: [_reply(b'{"hello": "\xff\xfe\xc3"}')]),
    Case("byte order mark", lambda: [_reply(b"\xef\xbb\xbf" + _BODY)]),
    Case("UTF-16", lambda: [_reply(_BODY.decode().encode("utf-16"))]),
    Case("unknown charset", lambda: [_reply(b"\xff" + _BODY).replace(b"/json", b"/json; charset=klingon")]),
    Case("lone surrogate", lambda: [_reply(_filled(b"1", b'"\\ud800"'))]),
    Case("nested 100,000 deep", lambda: [_reply(b"[" * _DEEP + b"]" * _DEEP)]),
    Case("nested objects", lambda: [_reply(b'{"choices":' * _DEEP + b"1" + b"}" * _DEEP)]),
    Case("number beyond floats", lambda: [_reply(_filled(b"1e999"))]),
    Case("number of 10,000 digits", lambda: [_reply(_filled(b"9" * 10_000))]),
    Case("NaN", lambda: [_reply(_filled(b"NaN"))]),
]


class RawServer(Loopback):
    """Gives one answer to all requests; `heads` are their request lines and headers, as they came."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self.heads: list[str] = []

    async def _start(self) -> str:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0, limit=1 << 20)
        self._port = self._server.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{self._port}"

    async def _stop(self) -> None:
        self._server.close()
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            try:
                await self._read(reader)
                for step in self._case.steps():
                    await self._do(step, writer)
                writer.close()
                await writer.wait_closed()
            finally:
                writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Read a request to its end, as what is left unread would reset the connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.heads.append(head)
        length = re.search(r"(?i)\ncontent-length: (\d+)", head)
        if length:
            await reader.readexactly(int(length[1]))
        elif re.search(r"(?i)\ntransfer-encoding: chunked", head):
            await reader.readuntil(b"\r\n0\r\n\r\n")

    async def _do(self, step: Step, writer: asyncio.StreamWriter) -> None:
        if isinstance(step, bytes):
            writer.write(step.replace(b"%PORT%", b"%d" % self._port))
            await writer.drain()
        elif step is not None:
            await asyncio.sleep(step)
        else:
            raw: socket.socket = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


def serve_raw(case: Case) -> RawServer:
    """A context manager whose `url` gives a case's answer under every path."""
    return RawServer(case)
