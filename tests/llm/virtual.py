"""An event loop whose time only passes while everybody waits: minutes of calls in milliseconds, always the same."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Clock:
    """Like `time.monotonic`, which does not begin at 0 either; `elapsed` is seconds since the loop began."""

    def __init__(self) -> None:
        self.now = self._begin = 1_000.0

    def __call__(self) -> float:
        return self.now

    @property
    def elapsed(self) -> float:
        return self.now - self._begin


class _Selector(selectors.SelectSelector):
    """Instead of waiting, puts the clock forward."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everybody waits, and nobody will wake them"
        self._clock.now += timeout
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        super().__init__(_Selector(clock))

    def time(self) -> float:
        return self._clock.now


def run(clock: Clock, work: Coroutine[Any, Any, T]) -> T:
    """Like `asyncio.run`, in the clock's time."""
    with asyncio.Runner(loop_factory=lambda: _Loop(clock)) as runner:
        return runner.run(work)
