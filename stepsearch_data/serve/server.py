"""The HTTP server, on aiohttp: connections, and the end."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from aiohttp import web
from aiohttp.http import HttpProcessingError

from stepsearch_data.serve.app import App, Served
from stepsearch_data.serve.door import ACCEPTED, Door
from stepsearch_data.serve.protocol import LARGEST_BODY

IDLE_SECONDS = 120.0  # that a connection may be kept without a request, or with half of one
GRACE_SECONDS = 3.0  # that requests in flight have to end when the server does
LINGERING_SECONDS = 2.0  # that the rest of a body is read which nobody wants
_BACKLOG = 1024
_CHARACTERS = 100  # of a first question


def _is_news(record: logging.LogRecord) -> bool:
    """Whether the log should have it: what is no HTTP has been answered with 400, and that will do."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_log = logging.getLogger(__name__)
_log.addFilter(_is_news)


async def run(served: Served, bound: socket.socket, ready: Callable[[], None]) -> None:
    """Serve on a bound socket until SIGTERM or SIGINT, then finish what is in flight."""
    title, text = served.documents[0][1:]
    await asyncio.to_thread(served.index.find, [f"{title} {text}"[:_CHARACTERS]], served.topk)  # bm25 compiles then
    app = App(served)
    try:
        await run_until_stopped(web.ServerRunner(_server(app), shutdown_timeout=GRACE_SECONDS), bound, ready)
    finally:
        app.searcher.close()


async def run_until_stopped(runner: web.BaseRunner, bound: socket.socket, ready: Callable[[], None]) -> None:
    """Serve on a bound socket until SIGTERM or SIGINT, as many connections as there may be files."""
    loop = asyncio.get_running_loop()
    await runner.setup()
    try:
        assert runner.server
        door = Door(runner.server)
        server = await loop.create_server(door, sock=bound, backlog=ACCEPTED)
        bound.listen(_BACKLOG)
        with door.watching(loop), closing(server), stopping() as stop:
            ready()
            await stop.wait()
    finally:
        await runner.cleanup()


def _server(app: App) -> web.Server:
    """The lower half of aiohttp's server: its routing and its sessions would cost a sixth of a request more."""
    loop = asyncio.get_running_loop()

    def request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=LARGEST_BODY)

    return web.Server(
        app.handle,
        request_factory=request,
        handler_cancellation=True,
        access_log=None,
        logger=_log,
        keepalive_timeout=IDLE_SECONDS,
        lingering_time=LINGERING_SECONDS,
    )


@contextmanager
def stopping() -> Iterator[asyncio.Event]:
    """Set by a signal that asks for the end; after the block the next one ends the process at once."""
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
