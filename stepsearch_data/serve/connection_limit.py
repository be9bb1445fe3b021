"""Accepts connections while this process may open files for them, and refuses the others with a 503.

Each connection is an open file. Beyond the limit of open files no engine could read its index, and asyncio would try
to accept the same connection without end.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from aiohttp import web

ACCEPTED = 4  # connections that asyncio accepts at once, before each is served or refused
_SPARE = 128  # files that are kept for the work itself; a quarter of the limit where that is low
_REFUSALS = 8  # refused connections that are kept until their request comes
_IN_BETWEEN = 3 * ACCEPTED + _REFUSALS  # connections that are not counted yet, or no longer
_REFUSAL_SECONDS = 1.0  # that a refused client has to send its request
_LOG_SECONDS = 60.0
_NO_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_BODY = b'{"detail":"too many connections; try again soon"}'
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)
_log = logging.getLogger(__name__)


class Door:
    """Makes the protocol of each new connection: the server's, or one that refuses."""

    def __init__(self, server: web.Server) -> None:
        self._server = server
        self._limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = most_connections(self._limit)
        self._coming = 0  # connections that the server does not count yet
        self._told_at = -_LOG_SECONDS
        self.refusing = 0

    def __call__(self) -> asyncio.BaseProtocol:
        """Return the protocol of a connection that has just been accepted."""
        if self._coming + len(self._server.connections) < self._most:
            self._coming += 1
            asyncio.get_running_loop().call_soon(self._came)  # right before the server counts it
            return self._server()
        self.tell()
        return _Refusal(self)

    def _came(self) -> None:
        self._coming -= 1

    @property
    def is_crowded(self) -> bool:
        """Tell whether too many refused connections are waited for."""
        return self.refusing >= _REFUSALS

    def tell(self) -> None:
        """Say that connections are refused, once a minute."""
        if time.monotonic() - self._told_at < _LOG_SECONDS:
            return
        self._told_at = time.monotonic()
        _log.warning(
            "warning: more than %s connections at once are refused, as this process may open %s files; "
            "allow it more: ulimit -n 65536",
            f"{self._most:,}",
            f"{self._limit:,}",
        )

    @contextmanager
    def watching(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """Tell, rather than print a traceback, where a connection cannot even be accepted."""
        loop.set_exception_handler(self._handle)
        try:
            yield
        finally:
            loop.set_exception_handler(None)

    def _handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in _NO_FILES and "accept" in context.get("message", ""):
            self.tell()
        else:
            loop.default_exception_handler(context)


def most_connections(limit: int) -> int:
    """Return how many connections leave enough of `limit` files for the work, besides those that are open now."""
    if limit == resource.RLIM_INFINITY:
        return 1 << 30
    used = len(os.listdir("/dev/fd"))  # noqa: PTH208 - names are all that is wanted
    return max(1, limit - used - _IN_BETWEEN - min(_SPARE, limit // 4))


class _Refusal(asyncio.Protocol):
    """Answers the first request with a 503: before it has come, closing would reset the connection."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the request, unless too many others are waiting."""
        self._transport = cast("asyncio.Transport", transport)
        if self._door.is_crowded:
            self.data_received(b"")
        self._door.refusing += 1
        self._timer = asyncio.get_running_loop().call_later(_REFUSAL_SECONDS, self._transport.abort)

    def data_received(self, _data: bytes) -> None:
        """Answer, whatever it was."""
        if self._transport and not self._transport.is_closing():
            self._transport.write(_BUSY)
            self._transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        """Count one refused connection less."""
        self._door.refusing -= 1
        if self._timer:
            self._timer.cancel()
