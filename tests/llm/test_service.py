from __future__ import annotations

import asyncio
import errno
import gc
import json
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any, TypeVar

import pytest

from stepsearch_data.core.errors import ConfigError, ProviderError, RowRejected, StoreError
from stepsearch_data.llm.chat import Message, Reply, Request
from stepsearch_data.llm.money import Budget
from stepsearch_data.llm.replay import Replay
from stepsearch_data.llm.service import Llm
from stepsearch_data.llm.settings import LlmSettings
from stepsearch_data.remote import cache as remote_cache
from stepsearch_data.remote import client
from tests.fake import FakeServer, Fault, reach
from tests.llm_server import Answer, LlmServer, completion, error

Outcome = Reply | BaseException
Server = FakeServer | str
T = TypeVar("T")

TRANSIENT: dict[str, Fault | dict[str, Any]] = {
    **{str(status): error(status, "later") for status in (408, 429, 500, 502, 503)},
    "cut": Fault(cut=True),
    "drip": Fault(drip=True),
    "HTML": Fault(body=b"<html>Bad gateway</html>"),
    "no choices": {"choices": []},
    "truncated": Fault(body=json.dumps(completion("text")).encode()[:-30]),
}
WAIT = {f"wait {wait} s": error(429, "later", **{"Retry-After": wait}) for wait in ("0", "0.3", "3600")}


async def until(happened: Callable[[], bool]) -> None:
    while not happened():  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.01)


class Full(list[Any]):
    """Records on a full disk."""

    def append(self, _record: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


class World:
    """A replay cache in a folder of its own, and models of a server that use it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records: list[dict[str, Any]] = []
        self.model: Llm | None = None

    def settings(self, url: str, **changes: Any) -> LlmSettings:
        quick = {"timeout": 0.5, "patience": 2, "max_attempts": 2, "max_concurrency": 8}
        return LlmSettings(base_url=url, replay=self.folder / "replay.sqlite", **{**quick, **changes})

    def ask(self, server: Server, *requests: Request, budget: Budget | None = None, **changes: Any) -> list[Outcome]:
        """What becomes of some requests that are made together."""

        async def go(model: Llm) -> list[Outcome]:
            return list(await asyncio.gather(*map(model.complete, requests), return_exceptions=True))

        return self.run(server, go, budget, **changes)

    def stop(self, server: Server, number: int, **changes: Any) -> BaseException:
        """What stops a build that makes so many requests."""

        async def go(model: Llm) -> BaseException:
            try:
                async with asyncio.TaskGroup() as group:
                    for n in range(number):
                        group.create_task(model.complete(ask_for(str(n))))
            except ExceptionGroup as stops:
                return stops.exceptions[0]
            raise AssertionError("nothing stopped it")

        return self.run(server, go, **changes)

    def run(
        self, server: Server, work: Callable[[Llm], Awaitable[T]], budget: Budget | None = None, **changes: Any
    ) -> T:
        """What some work with a model returns."""

        async def go() -> T:
            url, transport = reach(server)
            self.model = Llm(self.settings(url, **changes), "decompose", budget, self.records.append, transport)
            try:
                return await work(self.model)
            finally:
                await self.model.close()

        return asyncio.run(go())


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(client, "uniform", lambda *_: 0.0)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return World(tmp_path)


def ask_for(text: str) -> Request:
    return Request("mock", (Message("user", text),))


def asked(request: dict[str, Any]) -> str:
    return str(request["messages"][-1]["content"])


def echo(request: dict[str, Any]) -> str:
    return f"reply to {asked(request)}"


def one_bad(bad: Fault | dict[str, Any], times: int = 10**9) -> Answer:
    """Answers all but the request `bad`, which fails so often."""
    left = repeat(bad, times)

    def answer(request: dict[str, Any]) -> str | Fault | dict[str, Any]:
        return next(left, "at last") if asked(request) == "bad" else echo(request)

    return answer


def text(outcome: Outcome) -> str:
    assert isinstance(outcome, Reply), outcome
    return outcome.text


def cached(outcome: Outcome) -> bool:
    return isinstance(outcome, Reply) and outcome.cached


@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT)
def test_what_may_pass_is_sent_again(world: World, fault: Fault | dict[str, Any]) -> None:
    with LlmServer(one_bad(fault, times=1)).serving(fault) as server:
        bad, good = world.ask(server, ask_for("bad"), ask_for("good"))
    assert (text(bad), text(good)) == ("at last", "reply to good")
    assert isinstance(bad, Reply)
    assert bad.attempts == 2


@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT)
def test_a_row_that_the_server_always_fails_on_is_rejected_alone(world: World, fault: Fault | dict[str, Any]) -> None:
    with LlmServer(one_bad(fault)).serving(fault) as server:
        bad, *good = world.ask(server, ask_for("bad"), *(ask_for(str(n)) for n in range(5)))
    assert isinstance(bad, RowRejected), bad
    assert "the server failed 2 times: " in str(bad)
    assert [text(reply) for reply in good] == [f"reply to {n}" for n in range(5)]


@pytest.mark.parametrize("patience", [2.0, 0.05])
def test_such_a_row_does_not_stop_a_build_even_when_it_is_the_last(world: World, patience: float) -> None:
    """As it is when the build is run again: everything else comes from the cache."""
    server = LlmServer(one_bad(error(500, "boom")), delay=0.05)
    (bad,) = world.ask(server, ask_for("bad"), patience=patience, max_attempts=3)
    assert isinstance(bad, RowRejected), bad
    assert "boom" in str(bad)
    assert next(request for request in server.requests if asked(request) != "bad")["max_tokens"] <= 16


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        *((error(status, "no"), RowRejected) for status in (400, 413, 422)),
        (Fault(body=b" " * 10_000_000), RowRejected),
        *((error(status, "no"), ProviderError) for status in (401, 402, 403, 404)),
        (error(429, "insufficient_quota"), ProviderError),
    ],
)
def test_what_will_not_pass_is_sent_once(world: World, fault: Fault, kind: type[Exception]) -> None:
    with LlmServer(one_bad(fault)).serving(fault) as server:
        bad, good = world.ask(server, ask_for("bad"), ask_for("good"))
    assert (type(bad), text(good)) == (kind, "reply to good")
    assert len(server.requests) == 2


@pytest.mark.parametrize("finish_reason", ["length", "content_filter", "refusal", "stop"])
def test_replies_to_repair_are_replies_and_kept(world: World, finish_reason: str) -> None:
    server = LlmServer(lambda _: completion("half a rep", finish_reason))
    for replayed in (False, True):
        (got,) = world.ask(server, ask_for("a"))
        assert isinstance(got, Reply)
        assert (got.finish_reason, got.cached) == (finish_reason, replayed)
    assert len(server.requests) == 1


@pytest.mark.parametrize("fault", [*TRANSIENT.values(), *WAIT.values()], ids=[*TRANSIENT, *WAIT])
def test_a_server_that_only_fails_stops_the_build_within_its_patience(world: World, fault: Fault) -> None:
    begun = time.monotonic()
    with LlmServer(lambda _: fault).serving(fault) as server:
        stop = world.stop(server, 20, timeout=0.2, patience=1)
    assert time.monotonic() - begun < 2.5
    assert isinstance(stop, ProviderError)
    assert stop.exit_code == 5
    assert "does not answer" in stop.message
    assert "what was paid is kept" in stop.hint


def test_a_wait_that_the_server_asks_for_costs_no_attempt(world: World) -> None:
    answers: Iterator[Fault | str] = chain(
        repeat(error(429, "slow down", **{"retry-after-ms": "50"}), 2), repeat("at last")
    )
    server = LlmServer(lambda _: next(answers))
    begun = time.monotonic()
    (reply,) = world.ask(server, ask_for("a"), max_attempts=1)
    assert time.monotonic() - begun >= 0.1
    assert (text(reply), len(server.requests)) == ("at last", 3)
    assert world.records[0]["attempts"] == 1


def test_a_single_failure_after_a_long_silence_is_no_breakdown(world: World) -> None:
    """Nothing is sent for minutes where everything comes from the cache."""
    answers: Iterator[Fault | str] = iter(["one", error(500, "hiccup"), "two"])

    async def work(model: Llm) -> str:
        await model.complete(ask_for("a"))
        await asyncio.sleep(0.4)
        return (await model.complete(ask_for("b"))).text

    assert world.run(LlmServer(lambda _: next(answers)), work, patience=0.3) == "two"


def test_the_same_request_at_once_is_one_call_or_one_failure(world: World) -> None:
    server = LlmServer(one_bad(error(400, "no")), delay=0.05)
    outcomes = world.ask(server, *[ask_for("a")] * 10, *[ask_for("bad")] * 5)
    assert list(map(text, outcomes[:10])) == ["reply to a"] * 10
    assert all(isinstance(outcome, RowRejected) for outcome in outcomes[10:])
    assert len(server.requests) == 2
    assert sum(not record["cached"] for record in world.records) == 1


def test_nothing_is_paid_twice(world: World) -> None:
    requests = [ask_for(str(n)) for n in range(5)]
    server = LlmServer(echo)
    first = world.ask(server, *requests)
    server.url += "/"  # the same endpoint
    second = world.ask(server, *requests)
    assert len(server.requests) == 5
    world.ask(server, *(ask_for(str(n)) for n in range(8)))
    assert len(server.requests) == 8
    assert list(map(text, first)) == list(map(text, second))
    assert all(isinstance(reply, Reply) and reply.cached and reply.attempts == 0 for reply in second)
    another = LlmServer(echo)
    another.url = "http://another/v1"
    world.ask(another, *requests)
    assert len(another.requests) == 5


@pytest.mark.parametrize("fault", [error(400, "no"), *(TRANSIENT[name] for name in ("500", "HTML", "no choices"))])
def test_failures_are_never_kept(world: World, fault: Fault | dict[str, Any]) -> None:
    server = LlmServer(one_bad(fault))
    outcomes = world.ask(server, ask_for("bad"), ask_for("good"))
    assert isinstance(outcomes[0], RowRejected)
    server.answer = echo
    bad, good = world.ask(server, ask_for("bad"), ask_for("good"))
    assert (text(bad), cached(bad), cached(good)) == ("reply to bad", False, True)


def test_every_reply_is_recorded_with_what_it_cost(world: World) -> None:
    server = LlmServer(one_bad(error(500, "hiccup"), times=1), delay=0.02)
    for _ in range(2):
        world.ask(server, ask_for("bad"), prices={"mock": [1.0, 10.0]})
    first, second = world.records
    assert first["latency"] >= 0.02
    kept = {"stage": "decompose", "model": "mock", "prompt_tokens": 100, "completion_tokens": 20}
    assert first.items() >= {**kept, "attempts": 2, "cached": False, "finish_reason": "stop"}.items()
    assert first["cost"] == pytest.approx(0.0003)  # of tokens as the server counts them
    assert second.items() >= {**kept, "attempts": 0, "cached": True, "cost": 0.0, "latency": 0.0}.items()
    assert world.model
    assert (world.model.counts["cached"], world.model.budget.cost) == (1, 0.0)
    assert "1 cached" in world.model.describe()


def test_what_is_in_flight_when_the_build_stops_is_kept(world: World) -> None:
    """It is paid for."""

    async def work(model: Llm) -> None:
        tasks = [asyncio.create_task(model.complete(ask_for(str(n)))) for n in range(6)]
        await until(lambda: len(server.requests) == 6)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    server = LlmServer(echo, delay=0.2)
    world.run(server, work)
    assert [record["cached"] for record in world.records] == [False] * 6
    replies = world.ask(server, *(ask_for(str(n)) for n in range(6)))
    assert len(server.requests) == 6
    assert all(map(cached, replies))


def test_who_will_not_wait_for_what_is_in_flight_keeps_what_has_come(world: World) -> None:
    async def work(model: Llm) -> None:
        await model.complete(ask_for("a"))
        waiting = asyncio.create_task(model.complete(ask_for("slow")))
        await until(lambda: len(server.requests) == 2)
        closing = asyncio.create_task(model.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        assert not model.replay._pending
        await asyncio.gather(waiting, return_exceptions=True)

    server = LlmServer(lambda request: Fault(delay=0.5) if "slow" in str(request) else "fine")
    world.run(server, work)


def test_a_reply_whose_record_cannot_be_written_is_kept(world: World) -> None:
    world.records = Full()
    server = LlmServer(echo)
    assert isinstance(world.ask(server, ask_for("a"))[0], OSError)
    world.records = []
    assert cached(world.ask(server, ask_for("a"))[0])
    assert len(server.requests) == 1


def test_the_api_itself_needs_a_key(world: World) -> None:
    with pytest.raises(ConfigError, match="no key") as fault:
        Llm(LlmSettings(), "decompose")
    assert "OPENAI_BASE_URL" in fault.value.hint


def test_a_cache_that_somebody_else_locks_stops_the_build_and_leaves_no_connection(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that is not closed is a ResourceWarning, and those are errors here."""
    monkeypatch.setattr(remote_cache, "LOCKED_SECONDS", 0.1)
    monkeypatch.setattr(remote_cache, "WINDOW_SECONDS", 0.0)
    Replay(world.folder / "replay.sqlite").close()
    other = sqlite3.connect(world.folder / "replay.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with LlmServer(echo) as server, pytest.raises(StoreError, match="another process keeps the replay cache"):
        world.ask(server, ask_for("a"), ask_for("b"))
    gc.collect()
    other.close()
