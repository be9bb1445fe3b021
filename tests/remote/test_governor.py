from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from stepsearch_data.remote.governor import Governor
from tests.llm.virtual import Clock, run


class World:
    """Calls that go through a governor, in virtual time; `starts` is when each was sent."""

    def __init__(self, max_concurrency: int, rpm: float | None = None, tpm: float | None = None) -> None:
        self.clock = Clock()
        self.governor = Governor(max_concurrency, rpm, tpm, self.clock)
        self.starts: list[float] = []
        self.most = 0

    async def call(self, latency: float = 0.1, tokens: int = 0) -> None:
        """One call that succeeds."""
        await self.governor.acquire(tokens)
        self.starts.append(self.clock.elapsed)
        self.most = max(self.most, self.governor.in_flight)
        await asyncio.sleep(latency)
        self.governor.succeeded(latency)
        self.governor.release()

    async def calls(self, number: int, latency: Callable[[int], float] = lambda _: 0.1, tokens: int = 0) -> None:
        """Many calls, as a build makes them: so many workers take the next one as soon as they are free."""
        await pool(lambda n: self.call(latency(n), tokens), number)


async def pool(call: Callable[[int], Awaitable[None]], number: int, workers: int = 80) -> None:
    pending = iter(range(number))

    async def work() -> None:
        for n in pending:
            await call(n)

    await asyncio.gather(*(work() for _ in range(workers)))


@pytest.mark.parametrize(("limit", "calls", "seconds"), [(8, 80, 1.0), (1, 5, 0.5)])
def test_never_more_calls_in_flight_than_allowed(limit: int, calls: int, seconds: float) -> None:
    world = World(limit)
    run(world.clock, world.calls(calls))
    assert (world.most, len(world.starts), world.governor.in_flight) == (limit, calls, 0)
    assert world.clock.elapsed == pytest.approx(seconds, abs=0.01)  # and never fewer


def test_a_slow_call_holds_up_no_other() -> None:
    world = World(4)
    run(world.clock, world.calls(40, lambda n: 1.0 if n == 0 else 0.1))
    assert world.clock.elapsed < 1.5


def test_requests_a_minute() -> None:
    world = World(64, rpm=600)
    run(world.clock, world.calls(100))
    assert 8.8 <= world.starts[-1] <= 9.1  # a second's worth at once, then ten a second
    for start in range(9):
        assert sum(start <= at < start + 1 for at in world.starts) <= 21


def test_tokens_a_minute() -> None:
    world = World(64, tpm=60_000)
    run(world.clock, world.calls(50, tokens=500))
    assert 23.0 <= world.starts[-1] <= 25.0


def test_a_call_larger_than_a_seconds_worth_waits_but_goes() -> None:
    world = World(64, tpm=600)
    run(world.clock, world.calls(3, tokens=1_000))
    assert world.starts == pytest.approx([0.0, 99.0, 199.0], abs=0.1)


def test_a_refusal_with_a_delay_closes_the_gate_for_all() -> None:
    world = World(8)

    async def go() -> None:
        first = asyncio.create_task(world.calls(8))
        await asyncio.sleep(0.05)
        world.governor.throttled(5.0)
        await asyncio.gather(first, world.calls(8))

    run(world.clock, go())
    assert world.starts[:8] == pytest.approx([0.0] * 8, abs=0.01)
    assert all(at >= 5.049 for at in world.starts[8:])


def test_a_longer_delay_wins_over_a_shorter_one() -> None:
    world = World(2)

    async def go() -> None:
        world.governor.throttled(10.0)
        world.governor.throttled(1.0)
        await world.call()

    run(world.clock, go())
    assert world.starts == [pytest.approx(10.0)]


def test_a_refusal_without_a_delay_slows_down_and_closes_no_gate() -> None:
    world = World(8)

    async def go() -> None:
        await world.calls(8)
        world.governor.throttled(None)
        await world.calls(4)

    run(world.clock, go())
    assert world.starts[8] == pytest.approx(0.1, abs=0.01)
    assert world.starts[-1] > 0.4  # the next ones keep a distance


def test_calls_that_are_refused_together_cut_once() -> None:
    governor = Governor(64, now=Clock())
    for _ in range(64):
        governor.throttled(None)
    assert governor.limit == 32.0


def test_refusals_never_stop_the_calls_and_success_lifts_the_limit_again() -> None:
    world = World(8)

    async def go() -> None:
        for _ in range(10):
            world.governor.throttled(None)
            await asyncio.sleep(2.0)
        assert world.governor.limit == 1.0
        await world.calls(2_000)

    run(world.clock, go())
    assert len(world.starts) == 2_000
    assert world.governor.limit == 8.0


@pytest.mark.parametrize(
    ("calls", "before", "after", "least", "most"),
    [(640, 0.1, 0.1, 64.0, 64.0), (640, 0.1, 2.0, 8.0, 63.9), (10_000, 0.01, 1.0, 8.0, 64.0)],
)
def test_a_rising_latency_lowers_the_concurrency_but_never_to_nothing(
    calls: int, before: float, after: float, least: float, most: float
) -> None:
    world = World(64)
    run(world.clock, world.calls(calls, lambda n: before if n < 64 else after))
    assert least <= world.governor.limit <= most


def test_who_gives_up_waiting_takes_no_place_along() -> None:
    world = World(1)

    async def go() -> None:
        first = asyncio.create_task(world.call())
        await asyncio.sleep(0)
        impatient = [asyncio.create_task(world.call()) for _ in range(3)]
        await asyncio.sleep(0.01)
        for task in impatient:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await asyncio.gather(first, world.call())

    run(world.clock, go())
    assert len(world.starts) == 2


@pytest.mark.parametrize(("latency", "concurrency"), [(0.05, 64), (0.1, 64), (0.5, 128)])
def test_a_server_with_a_cap_is_kept_busy_and_seldom_refuses(latency: float, concurrency: int) -> None:
    """200 requests a second, and `Retry-After: 1` above that: within 1.4 × of the cap's own time, 429s below 5 %."""
    world, accepted, refused = World(concurrency), Counter[int](), 0
    calls = 2_000

    async def patient(_: int) -> None:
        nonlocal refused
        while True:
            await world.governor.acquire(0)
            second = int(world.clock.elapsed)
            if accepted[second] >= 200:
                refused += 1
                world.governor.throttled(1.0)
                world.governor.release()
                continue
            accepted[second] += 1
            await asyncio.sleep(latency)
            world.governor.succeeded(latency)
            world.governor.release()
            return

    run(world.clock, pool(patient, calls, 2 * concurrency))
    assert accepted.total() == calls
    assert world.clock.elapsed <= 1.4 * calls / 200
    assert refused < 0.05 * calls
