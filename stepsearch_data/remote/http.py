"""One HTTP exchange, and which failures may pass when it is repeated.

aiohttp is the client of everything here: of the libraries we know it costs the least processor time a call (ADR 4).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import IO, NamedTuple, Self

import aiohttp
import orjson

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.remote.secrets import HIDDEN, redact

OK = 200
THROTTLED = 429
RETRIED = {408, 409, 425, THROTTLED, 500, 502, 503, 504, 520, 522, 524, 529}
_LARGEST_REPLY = 8 << 20
_PATIENT = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=120.0)  # for whole files
_WORDS = 300  # characters of a server's message that we repeat
_READ = 20 * _WORDS  # characters of it that are looked at


class TransientError(Exception):
    """The call may succeed when it is sent again, after `retry_after` seconds where the server says so."""

    def __init__(self, reason: str, retry_after: float | None = None, *, throttled: bool = False) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.throttled = throttled


class NoUrlError(Exception):
    """What should be a URL is none."""


class Response(NamedTuple):
    """Status, headers with lower-case names, and body."""

    status: int
    headers: dict[str, str]
    body: bytes


class Http:
    """A client with a pool of connections. Use as an async context manager.

    `secrets` never appear in a message or a body; `headers` are sent with every request.
    """

    def __init__(
        self, timeout: float, connections: int, secrets: Sequence[str] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, 10.0))
        self._connections = connections
        self._secrets = [secret for secret in secrets if secret]
        self._headers = dict(headers or {})
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=self._connections)
        self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout, headers=self._headers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session:
            await self._session.close()

    async def request(
        self,
        method: str,
        url: str,
        data: bytes | aiohttp.FormData | None = None,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        into: IO[bytes] | None = None,
    ) -> Response:
        """One exchange; a body that is a file goes `into` one.

        Raises TransientError when no answer comes, RowRejected for an answer that is too large, and NoUrlError.
        """
        assert self._session is not None
        form = isinstance(data, aiohttp.FormData)
        sent = {} if form else {"Content-Type": "application/json"}
        timeout = _PATIENT if form or into else self._timeout
        try:
            async with self._session.request(
                method,
                url,
                data=data,
                params=params,
                headers={**sent, **(headers or {})},
                timeout=timeout,
                allow_redirects=False,  # a key is for the server that was named
            ) as response:
                names = {key.lower(): value for key, value in response.headers.items()}
                if into and response.status == OK:
                    await _save(response, into)
                    return Response(OK, names, b"")
                return Response(response.status, names, self._without_secrets(await _read(response)))
        except TimeoutError as error:
            raise TransientError("the server did not answer in time") from error
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            raise NoUrlError(url) from error
        except (aiohttp.ClientError, OSError) as error:
            raise TransientError(self.clean(f"{type(error).__name__}: {error}")) from error

    def _without_secrets(self, body: bytes) -> bytes:
        """A body that repeats a key would bring it into the rows."""
        for secret in self._secrets:
            body = body.replace(secret.encode(), HIDDEN.encode())
        return body

    def message(self, body: bytes) -> str:
        """What an error body says, in one line and without secrets."""
        try:
            data = orjson.loads(body)
            error = data.get("error", data) if isinstance(data, dict) else data
            text = str(error.get("message") or error.get("detail") or error) if isinstance(error, dict) else str(error)
            code = f" [{error['code']}]" if isinstance(error, dict) and error.get("code") else ""
        except orjson.JSONDecodeError:
            text, code = body.decode("utf-8", "replace"), ""
        return self.clean(" ".join(text[:_READ].split()))[:_WORDS] + self.clean(code[:_WORDS])

    def clean(self, text: str) -> str:
        """The text without what gives a key away."""
        return redact(text, self._secrets)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `retry-after`, which may hold a date."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit)
        except (KeyError, ValueError):
            continue
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (KeyError, ValueError):
        return None


async def _save(response: aiohttp.ClientResponse, file: IO[bytes]) -> None:
    file.seek(0)
    file.truncate()
    async for chunk in response.content.iter_any():
        file.write(chunk)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > _LARGEST_REPLY:
            raise RowRejected(f"the server's reply is larger than {_LARGEST_REPLY >> 20} MiB")
    return b"".join(chunks)
