"""What a client cannot easily bring about: an engine that fails or takes its time, and limits on time."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from stepsearch_data.core.errors import SearchError
from stepsearch_data.search import LocalEngine
from stepsearch_data.serve import app, searcher, server
from stepsearch_data.serve.app import application
from stepsearch_data.serve.start import bind
from tests.builders import documents

Pairs = list[tuple[int, float]]
pytestmark = pytest.mark.anyio


class Slow:
    """An index that knows one document, and searches while `go` is set."""

    size = 1

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.batches: list[list[str]] = []
        self.searching = threading.Event()
        self.calls = 0
        self.waiting: Callable[[], Coroutine[Any, Any, float]]  # queries, by the server's metrics

    def find(self, queries: Sequence[str], _k: int) -> list[Pairs]:
        self.calls += 1
        if "fail" in queries:
            raise ZeroDivisionError("a secret of the engine")
        if "down" in queries:
            raise SearchError("the embedding server does not answer")
        self.batches.append(list(queries))
        self.searching.set()
        assert self.go.wait(20)
        return [[(0, 1.0)] for _ in queries]

    async def go_on(self, *requests: asyncio.Task[Any]) -> list[Any]:
        """Search again, once all requests have come, each with a query or more; return their answers."""
        before = -1.0
        for _ in range(50):
            waiting = await self.waiting()
            if len(requests) <= waiting == before:
                break
            before = waiting
            await asyncio.sleep(0.1)
        self.go.set()
        return await asyncio.gather(*requests)


Client = Callable[..., Coroutine[Any, Any, tuple[int, dict[str, str], Any]]]


@asynccontextmanager
async def served(index: Slow, folder: Path, text: str = "a text") -> AsyncIterator[tuple[Client, tuple[str, int]]]:
    """A server of this process until the block ends, which is by a signal; and a client of it."""
    ready = asyncio.Event()
    bound = bind("127.0.0.1", 0)
    address = bound.getsockname()[:2]
    serving = application(LocalEngine("slow", index, documents(folder, [text])), 3)
    ended = asyncio.create_task(server.run(serving, bound, ready.set))
    await ready.wait()
    index.batches.clear()
    index.searching.clear()
    async with ClientSession(f"http://127.0.0.1:{address[1]}") as session:

        async def ask(*queries: str, **fields: Any) -> tuple[int, dict[str, str], Any]:
            async with session.post("/retrieve", json={"queries": queries, **fields}) as response:
                return response.status, dict(response.headers), await response.json()

        async def waiting() -> float:
            async with session.get("/metrics") as response:
                found = re.search(r"^\w*queries_waiting\S* (\S+)$", await response.text(), re.MULTILINE)
                assert found
                return float(found[1])

        index.waiting = waiting
        try:
            yield ask, address
        finally:
            index.go.set()
            os.kill(os.getpid(), signal.SIGTERM)
            await ended
            bound.close()


@asynccontextmanager
async def busy(folder: Path, *queries: str) -> AsyncIterator[tuple[Slow, Client, asyncio.Task[Any]]]:
    """A server whose engine searches for some queries until it may go on; the request for them."""
    index = Slow()
    async with served(index, folder) as (ask, _):
        index.go.clear()
        first = asyncio.create_task(ask(*queries or ["first"]))
        await asyncio.to_thread(index.searching.wait, 10)
        yield index, ask, first


FOUND = [{"id": "d0", "contents": "a text"}]


async def test_what_waits_is_searched_together_next(tmp_path: Path) -> None:
    async with busy(tmp_path) as (index, ask, first):
        others = [asyncio.create_task(ask(f"query {n}", topk=1 + n % 2)) for n in range(10)]
        answers = await index.go_on(first, *others)
    assert [answer[2] for answer in answers] == [{"result": [FOUND]}] * 11
    assert sorted(map(len, index.batches)) == [1, 5, 5]  # one k a batch


async def test_long_requests_take_turns_with_short_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searcher, "BATCH", 8)
    monkeypatch.setattr(searcher, "TURN", 4)
    async with busy(tmp_path) as (index, ask, first):
        long = asyncio.create_task(ask(*(f"long {n}" for n in range(100))))
        await asyncio.sleep(0.2)
        short = asyncio.create_task(ask("short"))
        heavy = asyncio.create_task(ask("x" * 2000, "after it"))
        answers = await index.go_on(first, long, short, heavy)
    assert len(answers[1][2]["result"]) == 100
    assert index.batches[1][4] == "short"
    assert index.batches[1][5][:1] == "x"  # weighs 11 queries: the batch is full
    assert len(index.batches[1]) == 6
    assert all(len(batch) <= 8 for batch in index.batches)
    assert [query for batch in index.batches for query in batch if query[:4] == "long"] == [
        f"long {n}" for n in range(100)
    ]


async def test_a_query_that_breaks_the_engine_fails_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with busy(tmp_path) as (index, ask, first):
        others = [asyncio.create_task(ask(query)) for query in ("good", "fail", "fine")]
        good, bad, fine, _ = await index.go_on(*others, first)
        assert good[2] == fine[2] == {"result": [FOUND]}
        assert (bad[0], bad[2]) == (500, {"detail": "the engine failed; the server's log says why"})
        assert (await ask("again"))[0] == 200
    assert "a secret of the engine" in caplog.text


async def test_an_engine_that_is_down_is_said_to_be(tmp_path: Path) -> None:
    async with served(Slow(), tmp_path) as (ask, _):
        status, _, body = await ask("down")
        assert (status, body) == (503, {"detail": "the embedding server does not answer"})
    async with busy(tmp_path) as (index, ask, first):
        others = [asyncio.create_task(ask("down")) for _ in range(20)]
        answers = await index.go_on(first, *others)
        assert [status for status, *_ in answers] == [200] + [503] * 20
        assert index.calls < 10  # it is not tried for each of them
        assert (await ask("again"))[0] == 200


async def test_too_many_waiting_queries_are_refused_for_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searcher, "MOST_WAITING", 10)
    fifteen = (f"query {n}" for n in range(15))  # alone, any request is welcome
    async with busy(tmp_path, *fifteen) as (index, ask, first):
        status, headers, body = await ask("one more")
        assert (status, headers["Retry-After"]) == (503, "1")
        assert "too many" in body["detail"]
        index.go.set()
        assert (await first)[0] == 200
        assert (await ask("one more"))[0] == 200


async def test_a_body_that_is_too_long_in_coming_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "BODY_SECONDS", 0.2)
    async with served(Slow(), tmp_path) as (ask, address):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"POST /retrieve HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        answer = await asyncio.wait_for(reader.read(), 10)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["detail"] == "the body did not come within 0.2 s"
        writer.close()
        assert (await ask("others"))[0] == 200


async def test_a_client_that_does_not_take_its_answer_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "ANSWER_SECONDS", 0.3)
    async with served(Slow(), tmp_path, text="x" * 100_000) as (ask, address):
        body = json.dumps({"queries": ["a"] * 200}).encode()
        loop = asyncio.get_running_loop()
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            deaf.setblocking(False)
            await loop.sock_connect(deaf, address)
            head = b"POST /retrieve HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
            await loop.sock_sendall(deaf, head + body)
            await asyncio.sleep(1.5)
            taken = 0
            with suppress(ConnectionError):
                while piece := await asyncio.wait_for(loop.sock_recv(deaf, 1 << 20), 10):
                    taken += len(piece)
            assert 0 < taken < 200 * 100_000
        assert (await ask("others"))[0] == 200


async def test_nobody_searches_for_a_client_that_has_gone(tmp_path: Path) -> None:
    async with busy(tmp_path) as (index, ask, first):
        gone = asyncio.create_task(ask(*(f"gone {n}" for n in range(100))))
        await asyncio.sleep(0.2)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        await index.go_on(first)
        assert (await ask("others"))[0] == 200
    assert index.batches == [["first"], ["others"]]


def test_the_end_waits_for_what_is_in_flight(tmp_path: Path) -> None:
    async def scene() -> None:
        async with busy(tmp_path) as (index, _, last):
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.3)
            assert not last.done()
            index.go.set()
            assert (await last)[2] == {"result": [FOUND]}
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the block sends one more

    before = signal.getsignal(signal.SIGTERM)
    try:
        asyncio.run(scene())
    finally:
        signal.signal(signal.SIGTERM, before)
