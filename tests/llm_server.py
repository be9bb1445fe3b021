"""A real OpenAI-compatible server on loopback that misbehaves on command.

    with LlmServer(answer) as server: ... server.url ... server.requests

`answer` gets the request's JSON and returns the reply's text, or a `Fault`. Run as a program, it is
the mock of the benchmarks: fixed latency, rate caps, and faults by share.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web


@dataclass(frozen=True)
class Fault:
    """A reply that is not the usual one. `cut` drops the connection in the body; `drip` sends a byte a second.

    It comes after `delay` seconds rather than after the server's.
    """

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    drip: bool = False
    delay: float | None = None


def completion(text: str, finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    """The body of a usual reply."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "mock",
        "choices": [
            {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": text, **message}}
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
    }


def error(status: int, message: str, **headers: str) -> Fault:
    """An error as OpenAI words it."""
    return Fault(status, json.dumps({"error": {"message": message, "type": "test"}}).encode(), headers)


Answer = Callable[[dict[str, Any]], "str | Fault | dict[str, Any]"]


class LlmServer:
    """Serves in a thread of its own until the block ends; `delay` is in seconds a call.

    Requests are kept, unless `keep` is false.
    """

    def __init__(self, answer: Answer, delay: float = 0.0, *, keep: bool = True) -> None:
        self.keep = keep
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.in_flight = self.most_in_flight = 0
        self.answer, self.delay = answer, delay
        self.models: list[str] | Fault = ["mock"]
        self.key = ""  # when set, a call without it gets 401
        self.more_routes: list[web.RouteDef] = []
        self.url = ""
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)

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
        self._runner = web.AppRunner(application(self), access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}/v1"


def application(server: LlmServer) -> web.Application:
    """The routes of the server."""

    async def chat(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if server.keep:
            server.requests.append(body)
            server.headers.append(dict(request.headers))
        server.in_flight += 1
        server.most_in_flight = max(server.most_in_flight, server.in_flight)
        try:
            answer = _refusal(server, request) or server.answer(body)
            delay = answer.delay if isinstance(answer, Fault) and answer.delay is not None else server.delay
            if not (isinstance(answer, Fault) and answer.status == 429):  # a refusal is quick
                await asyncio.sleep(delay)
            return await _send(request, answer)
        finally:
            server.in_flight -= 1

    async def models(request: web.Request) -> web.StreamResponse:
        fault = _refusal(server, request) or server.models
        if isinstance(fault, Fault):
            return await _send(request, fault)
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in fault]})

    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_get("/v1/models", models)
    app.router.add_routes(server.more_routes)
    return app


def _refusal(server: LlmServer, request: web.Request) -> Fault | None:
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    return error(401, f"Incorrect API key provided: {given}") if server.key not in ("", given) else None


async def _send(request: web.Request, answer: str | Fault | dict[str, Any]) -> web.StreamResponse:
    if isinstance(answer, dict):
        return web.json_response(answer)
    if isinstance(answer, str):
        return web.json_response(completion(answer))
    if not (answer.cut or answer.drip):
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)
    response = web.StreamResponse(status=answer.status, headers={"Content-Length": "10000"})
    await response.prepare(request)
    await response.write(b"{")
    while answer.drip:
        await asyncio.sleep(1.0)
        await response.write(b" ")
    assert request.transport is not None
    request.transport.abort()
    return response


class Mock:
    """Answers of the benchmarks: shares of slow, failing and truncated replies, and a cap a second.

    `--slow-share 0.05` means every twentieth call, so that two clients meet the same number of them.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._seen: set[int] = set()
        self._second, self._tokens = 0, float(options.cap)
        self._refilled = time.monotonic()
        self.stats = {"calls": 0, "repeated": 0, "throttled": 0}

    def __call__(self, request: dict[str, Any]) -> str | Fault:
        """The next answer."""
        self.stats["calls"] += 1
        if self._options.cap and not self._admits():
            self.stats["throttled"] += 1
            return error(429, "slow down", **{"Retry-After": f"{self._options.retry_after:g}"})
        asked = hash(json.dumps(request["messages"]))
        self.stats["repeated"] += asked in self._seen
        self._seen.add(asked)
        # letters before the digits: a bare number may happen to be an answer that must not leak
        text = json.dumps({"queries": [f"query c{self.stats['calls']} {n}" for n in range(4)]})
        if self._is_one_of(self._options.fail_share, 1 / 3):
            return error(500, "internal error")
        if self._is_one_of(self._options.truncate_share, 2 / 3):
            return text[: len(text) // 2]
        if self._is_one_of(self._options.slow_share, 0.0):
            return Fault(body=json.dumps(completion(text)).encode(), delay=self._options.slow)
        return text

    def _admits(self) -> bool:
        """Count a call against the cap: a new allowance every second, or one that refills evenly (`--bucket`)."""
        cap, now = self._options.cap, time.monotonic()
        if self._options.bucket:
            self._tokens = min(cap, self._tokens + (now - self._refilled) * cap)
        elif int(now) != self._second:
            self._second, self._tokens = int(now), cap
        self._refilled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _is_one_of(self, share: float, phase: float) -> bool:
        """Whether this call is one of the share; phases keep the kinds apart."""
        count = self.stats["calls"]
        return int(count * share + phase) > int((count - 1) * share + phase)


def main() -> None:
    """Serve until killed; GET /stats tells how many calls came, came again, and were refused."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--delay", type=float, default=0.1)
    parser.add_argument("--slow-share", type=float, default=0.0, help="share of calls that take --slow seconds")
    parser.add_argument("--slow", type=float, default=1.0)
    parser.add_argument("--fail-share", type=float, default=0.0, help="share of calls that get a 500")
    parser.add_argument("--truncate-share", type=float, default=0.0, help="share of replies that are cut JSON")
    parser.add_argument("--cap", type=int, default=0, help="requests a second; above it 429")
    parser.add_argument("--bucket", action="store_true", help="the cap refills evenly, not once a second")
    parser.add_argument("--retry-after", type=float, default=1.0, help="seconds that a 429 asks to wait")
    options = parser.parse_args()
    mock = Mock(options)

    async def stats(_: web.Request) -> web.Response:
        return web.json_response(mock.stats)

    app = application(LlmServer(mock, options.delay, keep=False))
    app.router.add_get("/stats", stats)
    web.run_app(app, host="127.0.0.1", port=options.port, access_log=None, print=None)


if __name__ == "__main__":
    main()
