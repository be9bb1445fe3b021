"""What the servers share: how an aiohttp application is run and ended, and answers in JSON, whatever fails."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import closing, contextmanager

import orjson
from aiohttp import web
from aiohttp.http import HttpProcessingError

from stepsearch_data.core.errors import QueryError, StepSearchError
from stepsearch_data.serve.connection_limit import ACCEPTED, ConnectionLimit

ANSWER_SECONDS = 120.0  # that a client has to take the answer
IDLE_SECONDS = 120.0  # that a connection may be kept without a request, or with half of one
GRACE_SECONDS = 3.0  # that requests in flight have to end when the server does
LINGERING_SECONDS = 2.0  # that the rest of a body is read which nobody wants
_BACKLOG = 1024
_LARGE = 1 << 16  # bytes

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _is_worth_logging(record: logging.LogRecord) -> bool:
    """Tell whether to log a record: a request that is not HTTP has been answered with 400, which is enough."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError | web.RequestPayloadError))


_log = logging.getLogger(__name__)
_log.addFilter(_is_worth_logging)


async def run(app: web.Application, bound: socket.socket, ready: Callable[[], None]) -> None:
    """Serve on a bound socket until SIGTERM or SIGINT, with as many connections as the limit of open files allows.

    What is in flight then is finished. Raises what the application's start raises.
    """
    loop = asyncio.get_running_loop()
    runner = web.AppRunner(
        app,
        access_log=None,
        handler_cancellation=True,
        keepalive_timeout=IDLE_SECONDS,
        lingering_time=LINGERING_SECONDS,
        logger=_log,
        shutdown_timeout=GRACE_SECONDS,
    )
    try:
        await runner.setup()
        assert runner.server
        limit = ConnectionLimit(runner.server)
        loop.set_exception_handler(limit.handle)
        server = await loop.create_server(limit, sock=bound, backlog=ACCEPTED)
        bound.listen(_BACKLOG)
        with closing(server), _stopping() as stop:
            ready()
            await stop.wait()
    finally:
        await runner.cleanup()


@contextmanager
def _stopping() -> Iterator[asyncio.Event]:
    """Yield an event that SIGINT or SIGTERM sets; after the block the next one ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


@web.middleware
async def in_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer failures with `{"detail": …}`; drop a client that does not take its answer."""
    response = await _answered(request, handler)
    if (response.content_length or 0) < _LARGE:  # the system takes it at once
        return response
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await response.prepare(request)
            await response.write_eof()
    except TimeoutError:
        if request.transport:
            request.transport.abort()
    except ConnectionError:  # the client has gone, as aiohttp will notice
        pass
    return response


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        refused = isinstance(error, web.HTTPMethodNotAllowed)
        detail = f"use {error.headers['Allow']}" if refused else (error.text or "").removeprefix(f"{error.status}: ")
        return to_json({"detail": detail}, error.status, error.headers)
    except StepSearchError as error:
        return to_json({"detail": error.message}, 400 if isinstance(error, QueryError) else 503)
    except Exception:  # noqa: BLE001 - a bug: the server goes on, and the log tells what it was
        _log.exception("a request failed")
        return to_json({"detail": "the request failed; the server's log says why"}, 500)


def to_json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return the answer that holds a value."""
    return web.Response(
        body=orjson.dumps(value), status=status, headers={**(headers or {}), "Content-Type": "application/json"}
    )
