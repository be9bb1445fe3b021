"""How fast calls may go: adaptive concurrency, rates, and one pause for all calls after a throttled one."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from math import inf
from statistics import median

_CUT = 0.5
_SLOW = 3.0  # times the best latency: a higher median means a queue in the server
_WINDOW = 64  # replies per look at the latency
_LEAST = 8  # calls in flight below which latency is no reason to slow down
_CAUTION = 0.93  # of the rate that was accepted before a 429
_FORGETS = 270.0  # seconds without a 429 that double the pace; slowly at first: 5 % in the first minute
_SLACK = 0.05  # seconds of the pace that may be caught up with after a late wake-up
_MINUTE = 60.0


class _Bucket:
    """Spends at most `rate` units per second, `burst` seconds' worth at once; the next may be spent at `free_at`."""

    def __init__(self, rate: float, burst: float = 1.0) -> None:
        self.rate, self.free_at = rate, -inf
        self._burst = burst

    def spend(self, now: float, units: float) -> None:
        self.free_at = max(self.free_at, now - self._burst) + units / self.rate


class Governor:
    """Decides when a call may be sent: additive increase, multiplicative decrease (AIMD).

    `rpm` and `tpm` are requests and tokens per minute, `burst` seconds' worth of requests at once. A 429
    lowers the pace to just below what the server took in the second before; a rising latency, or a 429
    that names no time to wait, lowers the concurrency.
    """

    def __init__(
        self,
        max_concurrency: int,
        rpm: float | None = None,
        tpm: float | None = None,
        now: Callable[[], float] = time.monotonic,
        *,
        burst: float = 1.0,
    ) -> None:
        self.limit = float(max_concurrency)
        self.in_flight = 0
        self._most = max_concurrency
        self._now = now
        self._requests = _Bucket((rpm or inf) / _MINUTE, burst)
        self._tokens = _Bucket((tpm or inf) / _MINUTE)
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()
        self._opens_at = 0.0
        self._sent: deque[float] = deque()  # when the calls of the last second were sent, without those refused
        self._pace = _Bucket(inf)  # unlimited until the first cut
        self._cut_rate, self._least_rate = inf, 0.0
        self._last_cut = -inf
        self._latencies: list[float] = []
        self._best: float | None = None

    async def acquire(self, tokens: int) -> None:
        """Wait for a free place, the end of a pause, and the rates. `tokens` is what the call may use."""
        async with self._turn:  # the first waits for all of these, the others only for their turn
            while True:
                delay = self._delay()
                if delay > 0:
                    await asyncio.sleep(delay)
                elif self.in_flight >= max(1, int(self.limit)):
                    self._freed.clear()
                    await self._freed.wait()
                else:
                    break
            self.in_flight += 1
            self._spend(tokens)

    def release(self) -> None:
        """Give the place back."""
        self.in_flight -= 1
        self._freed.set()

    def succeeded(self, latency: float) -> None:
        """Note that a call was answered after so many seconds."""
        self.limit = min(self._most, self.limit + 1 / self.limit)
        self._latencies.append(latency)
        if len(self._latencies) == _WINDOW:
            self._look_at_latency()

    def throttled(self, retry_after: float | None) -> None:
        """Note that a call was refused for now: pause all calls, and go on slower."""
        now = self._now()
        if retry_after:
            self._opens_at = max(self._opens_at, now + retry_after)
        if self._sent:
            self._sent.pop()
        if now < self._last_cut + max(1.0, retry_after or 0.0):  # refused together with an earlier one
            self._cut_rate = max(self._least_rate, self._cut_rate - _CAUTION)
            return
        taken = sum(at > now - 1.0 for at in self._sent)
        rate = _CAUTION * taken if taken else _CUT * (self._pace.rate if self._pace.rate < inf else 2.0)
        self._cut_rate = max(1.0, rate)
        self._least_rate = max(1.0, _CUT * rate)
        self._pace = _Bucket(self._cut_rate, _SLACK)
        self._last_cut = max(now, self._opens_at)
        if not retry_after:
            self.limit = max(1.0, self.limit * _CUT)

    def _delay(self) -> float:
        opens_at = max(self._opens_at, self._requests.free_at, self._tokens.free_at, self._pace.free_at)
        return opens_at - self._now()

    def _spend(self, tokens: int) -> None:
        now = self._now()
        self._sent.append(now)
        while self._sent[0] <= now - 1.0:
            self._sent.popleft()
        self._requests.spend(now, 1)
        self._tokens.spend(now, tokens)
        self._pace.rate = self._cut_rate * (1 + ((now - self._last_cut) / _FORGETS) ** 2)
        self._pace.spend(now, 1)

    def _look_at_latency(self) -> None:
        typical, self._latencies = median(self._latencies), []
        self._best = min(self._best or typical, typical)
        if typical > _SLOW * self._best and self.limit > _LEAST:
            self.limit = max(_LEAST, self.limit * _CAUTION)
