"""Many calls at a time, results in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")

IN_FLIGHT = 64
_AHEAD = 16


async def ordered(
    function: Callable[[T], Awaitable[U]], items: Iterable[T], in_flight: int = IN_FLIGHT
) -> AsyncIterator[U]:
    """Yield the results in the order of the items.

    The next item is taken as soon as fewer than `in_flight` calls are at work, so a slow item delays no other.
    At most sixteen times as many results wait for an earlier one.
    """
    free = asyncio.Semaphore(in_flight)
    calls: deque[asyncio.Task[U]] = deque()
    faults: list[Exception] = []

    async def call(item: T) -> U:
        try:
            return await function(item)
        finally:
            free.release()

    try:
        for item in _until_fault(items, faults):
            await free.acquire()
            calls.append(asyncio.create_task(call(item)))
            while calls and (calls[0].done() or len(calls) >= _AHEAD * in_flight):
                yield await calls.popleft()
        while calls:
            yield await calls.popleft()
        for fault in faults:
            raise fault
    finally:
        for left in calls:
            left.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


def _until_fault(items: Iterable[T], faults: list[Exception]) -> Iterator[T]:
    """Yield the items; their own fault is added to `faults`, to be raised after the results of those before it."""
    try:
        yield from items
    except Exception as error:  # noqa: BLE001 - see above
        faults.append(error)
