"""Results keep the order of the items, a bounded number is in flight, and the first failure ends all."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from stepsearch_data.core.ordered import ordered


def run_ordered(delays: list[float], in_flight: int) -> tuple[list[int], int]:
    """Results of calls that take these seconds, and how many ever ran at once."""
    running = most = 0

    async def work(at: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(delays[at])
        running -= 1
        return at

    async def main() -> list[int]:
        return [result async for result in ordered(work, range(len(delays)), in_flight)]

    return asyncio.run(main()), most


def test_results_keep_the_order_of_the_items() -> None:
    results, _ = run_ordered([0.02, 0.01, 0, 0.015, 0], in_flight=5)
    assert results == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("in_flight", [1, 3])
def test_a_bounded_number_is_in_flight(in_flight: int) -> None:
    results, most = run_ordered([0.001] * 20, in_flight)
    assert results == list(range(20))
    assert most == in_flight


def test_items_are_not_taken_far_ahead_of_an_unused_result(caplog: pytest.LogCaptureFixture) -> None:
    taken: list[int] = []

    def endless() -> Iterator[int]:
        for item in range(10**9):
            taken.append(item)
            yield item

    async def slow_first(item: int) -> int:
        await asyncio.sleep(0.05 if item == 0 else 0)
        return item

    async def first() -> int:
        results = ordered(slow_first, endless(), 4)
        try:
            return await anext(results)
        finally:
            await results.aclose()  # type: ignore[attr-defined]  # an async generator, as AsyncIterator says not

    assert asyncio.run(first()) == 0
    assert len(taken) < 100
    gc.collect()
    assert caplog.records == []


def test_a_fault_of_the_items_is_raised_after_what_precedes_it() -> None:
    def two_and_a_fault() -> Iterator[int]:
        yield from (0, 1)
        raise ZeroDivisionError

    async def work(item: int) -> int:
        return item

    async def main(seen: list[int]) -> None:
        async for result in ordered(work, two_and_a_fault(), 3):
            seen.append(result)  # noqa: PERF401 - a comprehension would lose them with the fault

    seen: list[int] = []
    with pytest.raises(ZeroDivisionError):
        asyncio.run(main(seen))
    assert seen == [0, 1]


def test_the_first_failure_ends_all_and_the_others_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(item: int) -> None:
        raise ValueError(item)

    async def main() -> None:
        async for _ in ordered(fail, range(100), 10):
            pass

    with pytest.raises(ValueError, match=r"^0$"):
        asyncio.run(main())
    gc.collect()
    assert caplog.records == []
