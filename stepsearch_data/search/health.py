"""Tells whether a server is worth asking again."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from stepsearch_data.core.errors import SearchError
from stepsearch_data.remote.governor import Governor
from stepsearch_data.remote.http import TransientError
from stepsearch_data.remote.secrets import show_url
from stepsearch_data.search.answers import Refused
from stepsearch_data.search.api import RemoteSettings

_HOPELESS = 30  # requests refused before the first good answer, after which no other will do better


class Health:
    """A `Judge` that knows whether a server ever `worked`, and why it counts as `down`, where it does."""

    def __init__(self, engine: str, url: str, settings: RemoteSettings, governor: Governor) -> None:
        self.worked = False
        self.down = ""
        self._engine, self._url, self._settings, self._governor = engine, show_url(url), settings, governor
        self._refused = self._failures = 0
        self._failing_since = 0.0
        self._gave_up = asyncio.Event()

    def check(self) -> None:
        """See `Judge.check`. Raises Refused where the server is down."""
        if self.down:
            raise Refused(self.down)

    def succeeded(self, latency: float) -> None:
        """See `Judge.succeeded`."""
        self.worked, self._failures = True, 0
        self._governor.succeeded(latency)

    async def failed(self, error: TransientError) -> bool:
        """See `Judge.failed`. Slow down after a throttled request; give the server up when it fails for too long."""
        now, patience, wait = time.monotonic(), self._settings.patience, error.retry_after or 0.0
        if not self._failures:
            self._failing_since = now
        self._failures += 1
        lasting = self._failures >= self._settings.max_attempts and now - self._failing_since >= patience
        if lasting or wait > patience:
            self.down = f"{self._url} is down: {error}" + (f"; it asks to wait {wait:,.0f} s" if wait else "")
            self._gave_up.set()
        elif error.throttled or wait:
            self._governor.throttled(error.retry_after)
        return bool(self.down) or not wait

    def refused(self, error: Refused) -> None:
        """Raise SearchError when all that was ever asked has been refused: then it is not the queries."""
        self._refused += 1
        if self._refused >= _HOPELESS and not self.worked:
            raise SearchError(f"{self._url} answers nothing: {error}", f"check the section engines.{self._engine}")

    async def sleep(self, seconds: float) -> None:
        """Wait so long, but no longer than until the server is given up."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._gave_up.wait(), seconds)
