"""Fakes of HTTP APIs: one function answers the requests, on loopback or in the place of a client's transport.

    with FakeServer(handler) as server: ... server.url ... server.requests
    url, transport = reach(FakeServer(handler))

A handler gets a request and returns what is sent as JSON, or a `Fault`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from threading import Thread
from typing import Any, NamedTuple, Self

import httpx2
from aiohttp import web

_JSON = {"Content-Type": "application/json"}


class Asked(NamedTuple):
    """A request: its `body` is parsed where it is JSON and None where it is empty, `at` is by the monotonic clock."""

    method: str
    path: str
    params: dict[str, str]
    headers: httpx2.Headers  # names are lower-case, and found in any case
    body: Any
    at: float


@dataclass(frozen=True)
class Fault:
    """A reply that is not the usual one, after `delay` seconds rather than the server's.

    On loopback, `cut` drops the connection within the body, and `drip` sends its bytes slowly and never ends.
    """

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    delay: float | None = None
    cut: bool = False
    drip: bool = False

    @property
    def needs_loopback(self) -> bool:
        """Whether no transport can stand in for the network, as that has no limits of size and time."""
        return self.cut or self.drip or len(self.body) > 8 << 20 or (self.delay or 0) > 1


def fault(status: int, body: Any, **headers: str) -> Fault:
    """A reply whose body is JSON."""
    return Fault(status, json.dumps(body).encode(), {name.replace("_", "-"): value for name, value in headers.items()})


Handler = Callable[[Asked], Any]


class Loopback:
    """What listens on 127.0.0.1, in a thread of its own, until the block ends."""

    url = ""

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.url = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _start(self) -> str:
        """Listen; returns the URL."""
        raise NotImplementedError

    async def _stop(self) -> None:
        raise NotImplementedError


class FakeServer(Loopback):
    """Serves an API. `delay` is in seconds per request."""

    def __init__(self, handler: Handler, path: str = "", delay: float = 0.0) -> None:
        self._handler, self._path, self.delay = handler, path, delay
        self.url = f"http://fake{path}"
        self.requests: list[Any] = []
        self.headers: list[httpx2.Headers] = []
        self.in_flight = self.most_in_flight = 0
        self.listens = False

    @contextmanager
    def serving(self, said: object) -> Iterator[Self]:
        """Listen on loopback if what the server says needs that, or else need no network."""
        with self if isinstance(said, Fault) and said.needs_loopback else nullcontext():
            yield self

    async def _start(self) -> str:
        self._runner = web.AppRunner(self.application(), access_log=None, shutdown_timeout=0.05)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.listens = True
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}{self._path}"

    async def _stop(self) -> None:
        await self._runner.cleanup()

    def application(self) -> web.Application:
        """The server without a port."""
        app = web.Application(client_max_size=64 << 20)
        app.router.add_routes([web.route("*", "/{path:.*}", self._respond)])
        return app

    def record(self, asked: Asked) -> None:
        """Keep what tests look at of a request."""
        self.requests.append(asked)
        self.headers.append(asked.headers)

    async def reply(
        self, method: str, path: str, params: Iterable[tuple[str, str]], headers: Iterable[tuple[str, str]], body: bytes
    ) -> Fault:
        """Answer one request."""
        known = httpx2.Headers(list(headers))
        parsed = json.loads(body) if body and "json" in known.get("content-type", "") else body or None
        asked = Asked(method, path, dict(params), known, parsed, time.monotonic())
        self.record(asked)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            said = self._handler(asked)
            said = said if isinstance(said, Fault) else fault(200, said)
            usual = 0.0 if said.status == httpx2.codes.TOO_MANY_REQUESTS else self.delay  # such a refusal is quick
            await asyncio.sleep(usual if said.delay is None else said.delay)
            return said
        finally:
            self.in_flight -= 1

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        told = request.method, request.path, request.query.items(), request.headers.items(), await request.read()
        reply = await self.reply(*told)
        headers = {**_JSON, **reply.headers}
        if not (reply.cut or reply.drip):
            return web.Response(status=reply.status, body=reply.body, headers=headers)
        response = web.StreamResponse(status=reply.status, headers={**headers, "Content-Length": "10000"})
        await response.prepare(request)
        await response.write(b"{")
        while reply.drip:
            await asyncio.sleep(0.05)
            await response.write(b" ")
        assert request.transport is not None
        request.transport.abort()
        return response


def mock(server: FakeServer) -> httpx2.MockTransport:
    """A transport by which a client reaches a server without a network."""

    async def handle(request: httpx2.Request) -> httpx2.Response:
        url, headers = request.url, request.headers.multi_items()
        reply = await server.reply(request.method, url.path, url.params.multi_items(), headers, request.content)
        assert not reply.needs_loopback
        return httpx2.Response(reply.status, headers={**_JSON, **reply.headers}, content=reply.body)

    return httpx2.MockTransport(handle)


def reach(server: FakeServer | str) -> tuple[str, httpx2.MockTransport | None]:
    """A server's URL, and what stands in for the network unless it is, or was, on loopback."""
    return (server, None) if isinstance(server, str) else (server.url, None if server.listens else mock(server))
