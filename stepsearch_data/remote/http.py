"""The HTTP client of the whole package, and which failures may pass when a call is repeated.

It is httpx2's, on aiohttp; the `openai` package sends its calls over it too (ADR 4). httpx2 is imported with the first
call: a build that asks nobody needs none.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING

import orjson

from stepsearch_data.core.errors import RowRejected, StepSearchError
from stepsearch_data.remote.secrets import HIDDEN, SURELY, known_secrets, redact

if TYPE_CHECKING:
    import httpx2

OK = 200
THROTTLED = 429
RETRIED = {408, 409, 425, THROTTLED, 500, 502, 503, 504, *range(520, 528), 529, 530}
_LARGEST_REPLY = 8 << 20
_CONNECT = 10.0  # seconds
_SILENCE = 120.0  # seconds without a byte, where a whole file may take any time
_WORDS = 300  # characters of a server's message that we repeat
_READ = 20 * _WORDS  # characters of it that are looked at


class TransientError(Exception):
    """The call may succeed when it is sent again, after `retry_after` seconds where the server says so."""

    def __init__(self, reason: str, retry_after: float | None = None, *, throttled: bool = False) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.throttled = throttled


class Http:
    """An httpx2 client with a pool of connections, as `client`. Close it.

    `timeout` is for a whole exchange, in seconds. `bad_url` is raised for what is not a URL. `secrets` and those of the
    environment never appear in a message or a body. With `files`, replies may be of any length and take any time.
    `transport` replaces the network.
    """

    def __init__(
        self,
        timeout: float,
        connections: int,
        bad_url: StepSearchError,
        secrets: Sequence[str] = (),
        *,
        files: bool = False,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._timeout, self._connections, self._files = timeout, connections, files
        self._bad_url, self._transport = bad_url, transport
        self._secrets = [*filter(None, secrets), *known_secrets()]

    @cached_property
    def client(self) -> httpx2.AsyncClient:
        """Return the client. A key is for the server that was named: redirects are not followed."""
        import aiohttp
        import httpx2

        from stepsearch_data.remote.transport import AiohttpTransport

        logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs whole URLs, and SerpApi's hold the key
        whole, silence = (None, _SILENCE) if self._files else (self._timeout, None)
        limits = aiohttp.ClientTimeout(whole, sock_connect=min(self._timeout, _CONNECT), sock_read=silence)
        largest = None if self._files else _LARGEST_REPLY
        transport = self._transport or AiohttpTransport(limits, self._connections, largest)
        headers = {"Accept-Encoding": "gzip, deflate"}
        return httpx2.AsyncClient(transport=transport, headers=headers, timeout=None, trust_env=False)

    async def aclose(self) -> None:
        """Drop the connections."""
        if "client" in self.__dict__:
            await self.client.aclose()

    async def request(
        self,
        method: str,
        url: str,
        body: object = None,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """Send a request; a body is sent as JSON.

        Raises TransientError when no answer comes, RowRejected for an answer that is too large, and `bad_url`.
        """
        content = None if body is None else orjson.dumps(body)
        sent = {"Content-Type": "application/json", **(headers or {})}
        try:
            return await self.client.request(method, url, content=content, params=params, headers=sent)
        except Exception as error:  # noqa: BLE001 - `failure` raises those that it does not know
            raise self.failure(error) from None  # the client's error may hold a key

    def failure(self, error: BaseException) -> Exception:
        """Return what a client's error means: TransientError, RowRejected or `bad_url`. Raises others, as bugs."""
        import httpx2

        from stepsearch_data.remote.transport import TooLargeError

        match error:
            case TooLargeError():
                return RowRejected(str(error))
            case httpx2.InvalidURL() | httpx2.UnsupportedProtocol():
                return self._bad_url
            case httpx2.TransportError():
                return TransientError(self.clean(str(error))[:_WORDS])
        raise error

    def body(self, response: httpx2.Response) -> bytes:
        """Return what a server says, without our keys: one that repeats them would bring them into the rows.

        Short keys stay: they are words, such as the `none` that servers without keys are given.
        """
        content = response.content
        for secret in self._secrets:
            if len(secret) >= SURELY:
                content = content.replace(secret.encode(), HIDDEN.encode())
        return content

    def message(self, body: bytes) -> str:
        """Return what an error body says, in one line and without secrets."""
        try:
            data = orjson.loads(body)
            if isinstance(data, dict) and isinstance(data.get("detail"), dict):  # as Tavily wraps it
                data = data["detail"]
            error = data.get("error", data) if isinstance(data, dict) else data
            text = str(error.get("message") or error.get("detail") or error) if isinstance(error, dict) else str(error)
            code = f" [{error['code']}]" if isinstance(error, dict) and error.get("code") else ""
        except orjson.JSONDecodeError:
            text, code = body.decode("utf-8", "replace"), ""
        return self.clean(" ".join(text[:_READ].split()))[:_WORDS] + self.clean(code[:_WORDS])

    def clean(self, text: str) -> str:
        """Remove from a text what gives a key away."""
        return redact(text, self._secrets)


def may_pass(response: httpx2.Response) -> bool:
    """Tell whether a bad answer may be a good one the next time; the header `x-should-retry` outranks the status."""
    told = response.headers.get("x-should-retry")
    return told == "true" or (response.status_code in RETRIED and told != "false")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait, from `retry-after-ms` or `retry-after`, which may hold a date."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with suppress(KeyError, ValueError):
            return max(0.0, float(headers[name]) * unit)
    with suppress(KeyError, ValueError, OverflowError):
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    return None
