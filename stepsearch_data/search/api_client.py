"""The client of an API: sends texts in batches, at the server's pace, for as long as that may help."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

import orjson

from stepsearch_data.core.errors import RowRejected, SearchError
from stepsearch_data.remote.client import Client
from stepsearch_data.remote.governor import Governor
from stepsearch_data.remote.http import OK, THROTTLED, Http, TransientError, may_pass
from stepsearch_data.remote.secrets import find_key, show_url
from stepsearch_data.search.api import Api, RemoteSettings

if TYPE_CHECKING:
    import httpx2

_HOPELESS = 30  # requests refused before the first good answer, after which no other will do better
_QUOTA = 3600.0  # seconds; a server that asks to wait longer means a quota, not a rate

T = TypeVar("T")


class ApiClient(Generic[T]):
    """Asks one server. `down` says why it is not asked any more, since `down_at` of the monotonic clock. Close it."""

    def __init__(
        self,
        api: Api[T],
        engine: str,
        config: object,
        settings: RemoteSettings,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = api.url(settings.url.rstrip("/"))
        self.shown = show_url(self.url)
        self.key = find_key(api.key) if api.key else ""
        self.down, self.down_at = "", 0.0
        self._api, self._engine, self._config, self._settings = api, engine, config, settings
        bad_url = SearchError(f"{self.shown} is not a URL", f"set {self._setting} to one such as http://localhost:8000")
        self.http = Http(settings.timeout, settings.max_concurrency, bad_url, [self.key], transport=transport)
        self._governor = Governor(settings.max_concurrency, 60 * settings.rps if settings.rps else None, burst=0.0)
        self._client = Client(self._governor, self, settings.max_attempts, self._sleep)
        self._worked = False
        self._refused = self._failures = 0
        self._failing_since = 0.0
        self._gave_up = asyncio.Event()

    async def close(self) -> None:
        """Wait for the requests in flight, and drop the connections."""
        try:
            await self._client.close()
        finally:
            await self.http.aclose()

    async def ask(self, texts: Sequence[str], call: Callable[[Sequence[str]], Awaitable[list[T]]]) -> list[T | str]:
        """Return what `call` brings for each text, or why it brings nothing. Raises what `call` raises otherwise.

        `call` sends one `exchange`. Where the server fails on several texts, each half is sent, so that one text fails.
        Raises SearchError where the server has refused all that was ever sent.
        """
        if self.down:
            return [self.down] * len(texts)
        try:
            return list(await self._client.send(lambda _: call(texts)))
        except TransientError as error:
            reason, chokes = str(error), str(error).startswith("500:")
        except RowRejected as error:
            reason, chokes = str(error), True
            self._refused += 1
            if self._refused >= _HOPELESS and not (self._worked or self.down):
                advice = f"check the section engines.{self._engine}"
                raise SearchError(f"{self.shown} answers nothing: {error}", advice) from error
        if self.down or not chokes or len(texts) == 1:
            return [self.down or reason] * len(texts)
        middle = len(texts) // 2
        return [*await self.ask(texts[:middle], call), *await self.ask(texts[middle:], call)]

    async def exchange(self, texts: Sequence[str], k: int) -> list[T]:
        """Send a request, and return the result for each text.

        Raises TransientError, RowRejected where the server refuses these texts, or SearchError when it never will
        answer.
        """
        method, body, params, headers = self._api.ask(self._config, self.key, texts, k)
        response = await self.http.request(method, self.url, body, params=params, headers=headers)
        content = self.http.body(response)
        if response.status_code != OK:
            self._fail(response, content)
        try:
            data = _parsed(content)
        except (ValueError, RecursionError):
            data = None
        if data is None:
            raise TransientError(f"the server sent {'a web page' if _is_page(content) else 'something else than JSON'}")
        results = self._api.read(data)
        if len(results) != len(texts):
            raise RowRejected(f"the server sent {len(results)} results for {len(texts)} texts")
        return results

    def _fail(self, response: httpx2.Response, body: bytes) -> NoReturn:
        """Raise what a bad status means: TransientError, RowRejected, or SearchError where no text can be answered.

        A page in place of JSON that comes after good answers is about one query: a firewall refused its words.
        """
        api, status, page = self._api, response.status_code, _is_page(body)
        said = f"{status}: {'a web page' if page else self.http.message(body)}"
        wait = api.wait(response.headers)
        if re.search(api.spent, said, re.IGNORECASE) or (status == THROTTLED and (wait or 0.0) > _QUOTA):
            renewed = f"; the server asks to wait {wait / 3600:,.1f} hours" if wait else ""
            raise SearchError(
                f"{self._engine}: nothing is left of the account's quota ({said}{renewed})",
                "buy more or wait, then run the same command: what was paid is kept; or leave the engine out",
            )
        about_one_query = page and self._worked
        if re.search(api.denied, said) and not about_one_query:
            refuses = "refuses the key" if self.key else "refuses requests without a key"
            advice = f"set {api.key} to a valid key" if api.key else "choose a server that needs no key"
            raise SearchError(f"{self.shown} {refuses} ({said})", advice)
        if status in (404, 405) and not about_one_query:
            raise SearchError(f"{self.shown} {api.nowhere} ({said})", f"check {self._setting}")
        if may_pass(response):
            raise TransientError(said, wait, throttled=status == THROTTLED)
        raise RowRejected(f"the server refuses the request ({said})")

    @property
    def _setting(self) -> str:
        return f"engines.{self._engine}.{self._api.address}"

    def check(self) -> None:
        """See `Judge.check`. Raises RowRejected where the server is down."""
        if self.down:
            raise RowRejected(self.down)

    def succeeded(self, latency: float) -> None:
        """See `Judge.succeeded`."""
        self._worked, self._failures = True, 0
        self._governor.succeeded(latency)

    async def failed(self, error: TransientError) -> bool:
        """See `Judge.failed`. Slow down after a throttled request; give the server up when it fails for too long."""
        now, patience, wait = time.monotonic(), self._settings.patience, error.retry_after or 0.0
        if not self._failures:
            self._failing_since = now
        self._failures += 1
        lasting = self._failures >= self._settings.max_attempts and now - self._failing_since >= patience
        if lasting or wait > patience:
            self.down = f"{self.shown} is down: {error}" + (f"; it asks to wait {wait:,.0f} s" if wait else "")
            self.down_at = now
            self._gave_up.set()
        elif error.throttled or wait:
            self._governor.throttled(error.retry_after)
        return bool(self.down) or not wait

    async def _sleep(self, seconds: float) -> None:
        """Wait so long, but no longer than until the server is given up."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._gave_up.wait(), seconds)


def _parsed(body: bytes) -> Any:
    """Parse the JSON of a body. Raises ValueError or RecursionError."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        if rb"\ud" not in body.lower():
            raise
    # a snippet that was cut within an emoji: valid JSON with a lone surrogate, which orjson refuses
    return orjson.loads(json.dumps(json.loads(body), ensure_ascii=False).encode("utf-8", "replace"))


def _is_page(body: bytes) -> bool:
    """Tell whether something sent HTML instead of JSON: a proxy, or a firewall before the server."""
    return body.lstrip()[:1] == b"<"
