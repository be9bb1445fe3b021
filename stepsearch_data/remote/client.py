"""Calls at a server's speed: acquire, check, send, retry, release. The same for models, search APIs and embeddings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from random import uniform
from typing import Any, Protocol, TypeVar

from stepsearch_data.remote.governor import Governor
from stepsearch_data.remote.http import TransientError

T = TypeVar("T")

_FIRST_PAUSE = 0.5  # seconds at most before the second attempt; twice as long before each later one
_LONGEST_PAUSE = 30.0
_GRACE = 30.0  # seconds that calls in flight get when the build stops: they are paid for


class Judge(Protocol):
    """Decides whether a server is worth asking."""

    def check(self) -> None:
        """Raise where no call may be sent."""

    async def failed(self, error: TransientError) -> bool:
        """Return whether a failure counts as an attempt: one that says how long to wait does not.

        Raises where the server is given up.
        """

    def succeeded(self, latency: float) -> None:
        """Note that a call was answered after so many seconds."""


class Client:
    """Sends calls. One that fails for now is sent at most `max_attempts` times, with a `sleep` in between."""

    def __init__(
        self,
        governor: Governor,
        judge: Judge,
        max_attempts: int,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._governor, self._judge, self._max_attempts, self._sleep = governor, judge, max_attempts, sleep
        self._calls: set[asyncio.Task[Any]] = set()

    async def send(self, call: Callable[[int], Awaitable[T]], tokens: int = 0) -> T:
        """Return what `call` brings, which is told the number of the attempt. Raises TransientError after the last one.

        `tokens` is what it may cost of the rate. Once sent, a call comes to its end even when its caller is cancelled.
        """
        number = 1
        while True:
            try:
                return await self._attempt(call, number, tokens)
            except TransientError:
                if number == self._max_attempts:
                    raise
            await self._sleep(uniform(0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (number - 1))))
            number += 1

    async def _attempt(self, call: Callable[[int], Awaitable[T]], number: int, tokens: int) -> T:
        """Make one attempt. A wait that the server asks for is part of it."""
        while True:
            await self._governor.acquire(tokens)
            try:
                self._judge.check()
                begun = time.perf_counter()
                task = asyncio.ensure_future(call(number))
                self._calls.add(task)
                task.add_done_callback(self._ended)
                answer = await asyncio.shield(task)
            except TransientError as error:
                if await self._judge.failed(error):
                    raise
            else:
                self._judge.succeeded(time.perf_counter() - begun)
                return answer
            finally:
                self._governor.release()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._calls.discard(task)
        if not task.cancelled():
            task.exception()  # seen, even if nobody waits for it any more

    async def close(self) -> None:
        """Wait for the calls in flight."""
        if self._calls:
            _, late = await asyncio.wait(self._calls, timeout=_GRACE)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
