"""Many calls at a time, results in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")

IN_FLIGHT = 64
_AHEAD = 16


async def ordered(
    function: Callable[[T], Awaitable[U]], items: Iterable[T], in_flight: int = IN_FLIGHT
) -> AsyncIterator[U]:
    """Yield the results in the order of the items.

    `in_flight` workers take the next item as soon as they are free, so a slow item delays no other.
    At most sixteen times as many results wait for an earlier one.
    """
    pending = enumerate(items)
    finished: dict[int, asyncio.Future[U]] = {}
    room = asyncio.Semaphore(_AHEAD * in_flight)
    news = asyncio.Event()

    async def work() -> None:
        while True:
            await room.acquire()
            entry = next(pending, None)
            if entry is None:
                room.release()
                return
            place, item = entry
            finished[place] = await _outcome(function, item)
            news.set()

    workers = [asyncio.create_task(work()) for _ in range(in_flight)]
    everyone = asyncio.gather(*workers)
    everyone.add_done_callback(lambda _: news.set())
    place = 0
    try:
        while True:
            while place in finished:
                yield finished.pop(place).result()
                place += 1
                room.release()
            if everyone.done() and not finished:
                await everyone  # raises an error of the items' iterator
                return
            await news.wait()
            news.clear()
    finally:
        everyone.cancel()
        await asyncio.gather(everyone, return_exceptions=True)


async def _outcome(function: Callable[[T], Awaitable[U]], item: T) -> asyncio.Future[U]:
    """Return the result or the exception of one call, to be raised in its turn."""
    outcome: asyncio.Future[U] = asyncio.get_running_loop().create_future()
    try:
        outcome.set_result(await function(item))
    except Exception as error:  # noqa: BLE001 - raised again by result()
        outcome.set_exception(error)
        outcome.exception()  # marks it as retrieved, as the build may stop before its turn
    return outcome
