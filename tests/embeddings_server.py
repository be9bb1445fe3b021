"""A real server of `/v1/embeddings` on loopback, whose vectors count words, and that misbehaves on command.

    with EmbeddingsServer() as server: ... server.url ... server.texts

`faults` are what it says instead, request by request, until there are none left; `answer` decides by the request.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self
from zlib import crc32

from aiohttp import web

from stepsearch_data.core.text import tokens
from tests.llm_server import Fault, error

MODEL = "words"
DIMENSIONS = 256


def vector(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """How often the words of each bucket occur. The prefixes of E5 count in none."""
    counts = [0.0] * dimensions
    for word in tokens(text.removeprefix("query: ").removeprefix("passage: ")):
        counts[crc32(word.encode()) % dimensions] += 1.0
    return counts


def reply(vectors: list[list[float]]) -> dict[str, Any]:
    """The body of a usual reply, its rows in no particular order."""
    rows = [{"object": "embedding", "index": at, "embedding": row} for at, row in enumerate(vectors)]
    return {"object": "list", "model": MODEL, "data": rows[::-1], "usage": {"prompt_tokens": 1, "total_tokens": 1}}


class EmbeddingsServer:
    """Serves in a thread of its own until the block ends; `delay` is in seconds a request."""

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self.dimensions = DIMENSIONS
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.in_flight = self.most_in_flight = 0
        self.faults: list[Fault | dict[str, Any]] = []
        self.answer: Callable[[dict[str, Any]], Fault | dict[str, Any] | None] = lambda _: None
        self.key = ""  # when set, a request without it gets 401
        self.url = ""
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def texts(self) -> list[str]:
        """Every text that was asked for, as often as it was."""
        return [text for request in self.requests for text in request["input"]]

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.run_until_complete(self._runner.cleanup())
        self._loop.close()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._started.set()
        self._loop.run_forever()

    async def _start(self) -> None:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/embeddings", self._embed)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def _embed(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.delay)
            return self._reply(request, body)
        finally:
            self.in_flight -= 1

    def _reply(self, request: web.Request, body: dict[str, Any]) -> web.Response:
        said = self._refusal(request, body) or (self.faults.pop(0) if self.faults else self.answer(body))
        if isinstance(said, Fault):
            return web.Response(status=said.status, body=said.body, headers=said.headers)
        usual = reply([vector(text, self.dimensions) for text in body["input"]])
        return web.json_response(said or usual, dumps=json.dumps)

    def _refusal(self, request: web.Request, body: dict[str, Any]) -> Fault | None:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.key not in ("", given):
            return error(401, f"Incorrect API key provided: {given}")
        return None if body["model"] == MODEL else error(404, f"The model `{body['model']}` does not exist.")
