"""What is done with a request: it is read, handed over to the searcher, and answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import orjson
from aiohttp import web

from stepsearch_data import __version__
from stepsearch_data.core.errors import SearchError
from stepsearch_data.search.documents import Documents
from stepsearch_data.search.engine import Index
from stepsearch_data.serve.metrics import Metrics
from stepsearch_data.serve.protocol import LARGEST_BODY, BadRequestError, read_question, write_error
from stepsearch_data.serve.searcher import OverloadedError, Searcher

BODY_SECONDS = 20.0  # that a client has to send a request's body
ANSWER_SECONDS = 120.0  # that a client has to take the answer
_RETRY_SECONDS = 1
LARGE = 1 << 16  # bytes


@dataclass(frozen=True)
class Served:
    """What is served: an engine's name, its index and its documents, and how many of these a query gets by default."""

    engine: str
    index: Index
    documents: Documents
    topk: int


class App:
    """Answers requests: `/retrieve`, `/health` and `/metrics`. To be made and used inside a running event loop."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self.metrics = Metrics(lambda: self.searcher.waiting)
        self.searcher = Searcher(served.index, served.documents, self.metrics.searched)
        self._routes: dict[str, tuple[str, Callable[[web.BaseRequest], Awaitable[web.Response]]]] = {
            "/retrieve": ("POST", self._retrieve),
            "/health": ("GET", self._health),
            "/metrics": ("GET", self._metrics),
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request, and see that its client takes the answer."""
        path = request.rel_url.raw_path
        if path in self._routes:
            method, answer = self._routes[path]
            known = request.method in {method, "HEAD" if method == "GET" else method}
            response = await answer(request) if known else _error(405, f"use {method}", Allow=method)
        else:
            path = "other"
            response = _error(404, f"there is {', '.join(self._routes)}")
        self.metrics.count(path, response.status)
        if (response.content_length or 0) > LARGE:  # a shorter one is in the system's hands at once
            await send(response, request)
        return response

    async def _retrieve(self, request: web.BaseRequest) -> web.Response:
        begun = time.perf_counter()
        self.metrics.in_flight.inc()
        try:
            return await self._answer(request)
        except BadRequestError as error:
            return _error(error.status, str(error))
        except OverloadedError:
            return _error(503, "too many queries wait; try again soon", **{"Retry-After": str(_RETRY_SECONDS)})
        except SearchError as error:
            return _error(503, error.message)
        except ConnectionError:
            return _error(499, "the client has gone")
        except Exception:  # noqa: BLE001 - a bug of an engine: the server goes on, and the log tells what it was
            return _error(500, "the engine failed; the server's log says why")
        finally:
            self.metrics.in_flight.dec()
            self.metrics.seconds.observe(time.perf_counter() - begun)

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        question = read_question(await _body(request), self._served.topk)
        return _json(await self.searcher.ask(question))

    async def _health(self, _request: web.BaseRequest) -> web.Response:
        served = self._served
        passages = len(served.documents)
        facts = {"status": "ok", "engine": served.engine, "passages": passages, "version": __version__}
        return _json(orjson.dumps(facts))

    async def _metrics(self, _request: web.BaseRequest) -> web.Response:
        from prometheus_client import CONTENT_TYPE_LATEST

        return web.Response(body=self.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _body(request: web.BaseRequest) -> bytes:
    """A request's whole body. Raises BadRequestError when it is too long, or too long in coming."""
    if (request.content_length or 0) > LARGEST_BODY:
        raise _too_large()
    try:
        if request.content.is_eof():  # it came with the headers, as short ones do: no timer is worth its time
            return await request.read()
        async with asyncio.timeout(BODY_SECONDS):
            if request.headers.get("Expect", "").lower() == "100-continue":  # as curl says before a long body
                await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                request.writer.output_size = 0  # or aiohttp would take the answer for begun
            return await request.read()
    except TimeoutError:
        raise BadRequestError(f"the body did not come within {BODY_SECONDS:g} s", 408) from None
    except web.HTTPRequestEntityTooLarge:
        raise _too_large() from None
    except web.RequestPayloadError as error:
        raise BadRequestError(f"the body cannot be read: {error}", 400) from None


async def send(response: web.StreamResponse, request: web.BaseRequest) -> None:
    """Send an answer, until its client has taken most of it; one that does not is dropped."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await response.prepare(request)
            await response.write_eof()
    except TimeoutError:
        if request.transport:
            request.transport.abort()
    except ConnectionError:  # the client has gone, as aiohttp will notice
        pass


def _too_large() -> BadRequestError:
    return BadRequestError(f"the body is larger than {LARGEST_BODY >> 20} MiB; send fewer queries at once", 413)


def _json(body: bytes, status: int = 200, **headers: str) -> web.Response:
    return web.Response(body=body, status=status, headers={"Content-Type": "application/json", **headers})


def _error(status: int, detail: str, **headers: str) -> web.Response:
    return _json(write_error(detail), status, **headers)
