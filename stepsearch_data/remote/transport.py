"""httpx2's transport on aiohttp, which halves the processor time per call of httpx2's own (ADR 4)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property, lru_cache
from ssl import SSLContext
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2
import yarl

_ENCODING = "content-encoding"  # aiohttp has decoded the body, in small steps


class TooLargeError(Exception):
    """A reply is longer than `largest` bytes, more than any that is wanted."""

    def __init__(self, largest: int) -> None:
        super().__init__(f"the server's reply is larger than {largest >> 20} MiB")


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """A pool of `connections`, with the proxies and certificates that the environment names.

    A reply's body is read at once, up to `largest` bytes; where that is None, it is a stream of any length.
    `timeout` holds for whole exchanges. Raises TooLargeError, and httpx2's own errors.
    """

    def __init__(self, timeout: aiohttp.ClientTimeout, connections: int, largest: int | None) -> None:
        self._timeout, self._connections, self._largest = timeout, connections, largest
        self._session: aiohttp.ClientSession | None = None
        self._proxies: dict[tuple[str, str], str | None] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """See `httpx2.AsyncBaseTransport.handle_async_request`."""
        url = _checked(request.url)
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=self._connections)
            self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout)
        with _errors():
            response = await self._session.request(
                request.method,
                url,
                headers=[(name.decode(), value.decode()) for name, value in request.headers.raw],
                data=_body(request),
                allow_redirects=False,
                ssl=self._certificates if url.scheme == "https" else True,
                proxy=self._proxy(url.scheme, url.host or ""),
            )
            headers = [pair for pair in response.raw_headers if pair[0].lower() != _ENCODING.encode()]
            if self._largest is None:
                return httpx2.Response(response.status, headers=headers, stream=_Stream(response))
            return httpx2.Response(response.status, headers=headers, content=await _read(response, self._largest))

    async def aclose(self) -> None:
        """Drop the connections."""
        if self._session:
            await self._session.close()

    @cached_property
    def _certificates(self) -> SSLContext:
        return httpx2.create_ssl_context()

    def _proxy(self, scheme: str, host: str) -> str | None:
        """Return the proxy that the environment names for a host. Raises httpx2.ProxyError for one of another kind."""
        if (scheme, host) not in self._proxies:
            named = getproxies()
            proxy = None if proxy_bypass(host) else named.get(scheme) or named.get("all")
            try:
                _ = proxy and _checked(httpx2.URL(proxy))
            except (httpx2.InvalidURL, httpx2.UnsupportedProtocol):  # not as the cause: it may hold a password
                raise httpx2.ProxyError("the environment names a proxy that is not a URL of http or https") from None
            self._proxies[scheme, host] = proxy
        return self._proxies[scheme, host]


class _Stream(httpx2.AsyncByteStream):
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _errors():
            async for chunk in self._response.content.iter_any():
                yield chunk

    async def aclose(self) -> None:
        self._response.close()


async def _read(response: aiohttp.ClientResponse, largest: int) -> bytes:
    content = bytearray()
    async with response:
        async for chunk in response.content.iter_any():
            content += chunk
            if len(content) > largest:
                response.close()
                raise TooLargeError(largest)
    return bytes(content)


@lru_cache(256)  # most calls go to one address
def _checked(url: httpx2.URL) -> yarl.URL:
    """Return a URL that can be asked; user and password are in the headers. Raises httpx2.UnsupportedProtocol."""
    with suppress(ValueError):
        checked = yarl.URL(str(url.copy_with(userinfo=b"") if url.userinfo else url), encoded=True)
        if checked.scheme in ("http", "https") and re.fullmatch(r"[\w.-]+|.*:.*", checked.host or ""):
            return checked
    raise httpx2.UnsupportedProtocol("not a URL of http or https")


def _body(request: httpx2.Request) -> bytes | httpx2.AsyncByteStream | None:
    try:
        return request.content or None
    except httpx2.RequestNotRead:  # a file, sent as it is read
        return request.stream  # type: ignore[return-value]


@contextmanager
def _errors() -> Iterator[None]:
    """Raise aiohttp's errors as httpx2's, with the cause in words."""
    try:
        yield
    except TimeoutError as error:
        raise httpx2.ReadTimeout("the server did not answer in time") from error
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
        raise httpx2.UnsupportedProtocol("not a URL of http or https") from error
    except (aiohttp.ClientError, OSError) as error:
        words = " ".join(str(error).split())
        raise httpx2.NetworkError(f"{type(error).__name__}: {words}") from error
