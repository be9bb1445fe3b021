"""`/retrieve`, `/open`, `/find`, `/health` and `/metrics`: what is done with a request, from its body to its answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from stepsearch_data.core.version import __version__
from stepsearch_data.search.engine import LocalEngine
from stepsearch_data.serve.metrics import Metrics
from stepsearch_data.serve.protocol import LARGEST_BODY, read_body, read_question
from stepsearch_data.serve.reading import FindRequest, Library, OpenRequest
from stepsearch_data.serve.searcher import Searcher
from stepsearch_data.serve.server import Handler, in_json, to_json

BODY_SECONDS = 20.0  # that a client has to send a request's body
_CHARACTERS = 100  # of the query that is searched first, so that no client waits for it
_PATHS = ("/retrieve", "/open", "/find", "/health", "/metrics")


def application(engine: LocalEngine, topk: int) -> web.Application:
    """Return the routes over an engine, with `topk` documents per query by default. Searches in a thread."""
    retriever = _Retriever(engine, topk)
    app = web.Application(middlewares=[in_json, _name_paths], client_max_size=LARGEST_BODY)
    app.add_routes(
        [
            web.post("/retrieve", retriever.retrieve),
            web.post("/open", retriever.open),
            web.post("/find", retriever.find),
            web.get("/health", retriever.health),
            web.get("/metrics", retriever.metrics),
        ]
    )
    app.cleanup_ctx.append(retriever.searching)
    app.on_response_prepare.append(retriever.count)
    return app


class _Retriever:
    """The handlers of requests, and what they share."""

    def __init__(self, engine: LocalEngine, topk: int) -> None:
        self._engine, self._topk = engine, topk
        self._library = Library(engine.documents)
        self._metrics = Metrics(lambda: self._searcher.waiting)

    async def searching(self, _app: web.Application) -> AsyncIterator[None]:
        """Search once, as bm25 compiles then; keep a searcher until the application ends."""
        _, title, text = self._engine.documents[0]
        await asyncio.to_thread(self._engine.index.find, [f"{title} {text}"[:_CHARACTERS]], self._topk)
        self._searcher = Searcher(self._engine, self._metrics.searched)
        yield
        self._searcher.close()

    async def count(self, request: web.Request, response: web.StreamResponse) -> None:
        """Count an answer that is about to be sent."""
        self._metrics.requests(request.path if request.path in _PATHS else "other", response.status).inc()

    async def retrieve(self, request: web.Request) -> web.Response:
        """Answer queries with documents."""
        with self._metrics.in_flight.track_inprogress(), self._metrics.seconds.time():
            question = read_question(await _body(request), self._topk)
            return web.Response(body=await self._searcher.ask(question), content_type="application/json")

    async def open(self, request: web.Request) -> web.Response:
        """Answer ids with pages of documents."""
        return await self._read(read_body(OpenRequest, await _body(request)))

    async def find(self, request: web.Request) -> web.Response:
        """Answer ids and words with the places where these stand."""
        return await self._read(read_body(FindRequest, await _body(request)))

    async def _read(self, asked: OpenRequest | FindRequest) -> web.Response:
        return to_json({"result": await asyncio.to_thread(self._library.read, asked)})

    async def health(self, _request: web.Request) -> web.Response:
        """Tell what is served."""
        name, passages = self._engine.name, len(self._engine.documents)
        return to_json({"status": "ok", "engine": name, "passages": passages, "version": __version__})

    async def metrics(self, _request: web.Request) -> web.Response:
        """Show all metrics."""
        return web.Response(body=generate_latest(self._metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _body(request: web.Request) -> bytes:
    """Read a request's whole body. Raises HTTPRequestTimeout where it takes too long, HTTPBadRequest."""
    try:
        async with asyncio.timeout(None if request.content.is_eof() else BODY_SECONDS):  # a short one has come already
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text=f"the body did not come within {BODY_SECONDS:g} s") from None
    except web.RequestPayloadError as error:
        raise web.HTTPBadRequest(text=f"the body cannot be read: {error}") from None


@web.middleware
async def _name_paths(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Say which paths there are where there is nothing."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        raise web.HTTPNotFound(text=f"not found; there are {', '.join(_PATHS)}") from None
