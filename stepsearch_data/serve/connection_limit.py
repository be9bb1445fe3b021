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
from typing import Any, cast

from aiohttp import web

ACCEPTED = 4  # connections that asyncio accepts at once, before each is served or refused
_SPARE = 128  # files that are kept for the work itself; a quarter of the limit where that is low
_REFUSALS = 8  # refused connections that are kept until their request comes
_UNCOUNTED = 3 * ACCEPTED + _REFUSALS  # connections that the server does not count yet, or no longer
_REFUSAL_SECONDS = 1.0  # that a refused client has to send its request
_LOG_SECONDS = 60.0
_NO_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_BODY = b'{"detail":"too many connections; try again soon"}'
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)
_log = logging.getLogger(__name__)


class ConnectionLimit:
    """Makes the protocol of each new connection: the server's, or one that refuses."""

    def __init__(self, server: web.Server) -> None:
        self._server = server
        self._files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = most_connections(self._files)
        self._warned_at = -_LOG_SECONDS
        self.refusing = 0  # connections that are open until they have been told

    def __call__(self) -> asyncio.BaseProtocol:
        """Return the protocol of a connection that has just been accepted."""
        if len(self._server.connections) < self._most:
            return self._server()
        self._warn()
        return _Refusal(self)

    def handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Warn, rather than print a traceback, where a connection cannot even be accepted: a loop's handler."""
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in _NO_FILES and "accept" in context.get("message", ""):
            self._warn()
        else:
            loop.default_exception_handler(context)

    def _warn(self) -> None:
        """Say that connections are refused, once per minute."""
        if time.monotonic() - self._warned_at < _LOG_SECONDS:
            return
        self._warned_at = time.monotonic()
        _log.warning(
            "warning: more than %s connections at once are refused, as this process may open %s files; "
            "allow it more: ulimit -n 65536",
            f"{self._most:,}",
            f"{self._files:,}",
        )


def most_connections(files: int) -> int:
    """Return how many connections leave enough of so many files for the work, besides those that are open now."""
    if files == resource.RLIM_INFINITY:
        return 1 << 30
    used = len(os.listdir("/dev/fd"))  # noqa: PTH208 - names are all that is wanted
    return max(1, files - used - _UNCOUNTED - min(_SPARE, files // 4))


class _Refusal(asyncio.Protocol):
    """Answers the first request with a 503: before it has come, closing would reset the connection."""

    def __init__(self, limit: ConnectionLimit) -> None:
        self._limit = limit

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the request, unless too many others are waiting."""
        self._transport = cast("asyncio.Transport", transport)
        self._timer = asyncio.get_running_loop().call_later(_REFUSAL_SECONDS, self._transport.abort)
        self._limit.refusing += 1
        if self._limit.refusing > _REFUSALS:
            self.data_received(b"")

    def data_received(self, _data: bytes) -> None:
        """Answer, whatever it was."""
        if not self._transport.is_closing():
            self._transport.write(_BUSY)
            self._transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        """Count one refused connection less."""
        self._limit.refusing -= 1
        self._timer.cancel()
