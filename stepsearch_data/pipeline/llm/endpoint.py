"""One HTTP call to an OpenAI-compatible server, and what its failures mean.

aiohttp is spoken directly: at 64 calls in flight the `openai` package's client costs about five
times the processor time a call, which caps it below what a local server delivers (ADR 4).
"""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import IO, Any, Self

import aiohttp
import orjson

from stepsearch_data.pipeline.errors import ProviderError, RowRejected
from stepsearch_data.pipeline.llm.chat import Reply, Request, Usage

_LARGEST_REPLY = 8 << 20
_RETRIED = {408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529}
_SECRET = re.compile(r"\b(?:sk|hf|key)[-_][A-Za-z0-9_\-*]{8,}")
_PATIENT = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=120.0)  # for whole files
_WORDS = 300  # characters of a server's message that we repeat


class TransientError(Exception):
    """The call may succeed when it is sent again, after `retry_after` seconds where the server says so."""

    def __init__(self, reason: str, retry_after: float | None = None, *, throttled: bool = False) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.throttled = throttled


class Endpoint:
    """A server that speaks `/chat/completions`. Use as an async context manager.

    Settings that a server refuses (strict schemas, a temperature, `max_tokens`) are left out from
    then on: each refusal is met once.
    """

    def __init__(self, base_url: str, api_key: str, timeout: float, connections: int) -> None:
        self.base_url = base_url.rstrip("/")
        self._key = api_key
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, 10.0))
        self._connections = connections
        self._formats = ["json_schema", "json_object", "text"]
        self._limit_name = "max_tokens"
        self._with_temperature = True
        self._session: aiohttp.ClientSession | None = None

    @property
    def format(self) -> str:
        """How structured output is asked for: json_schema, json_object or text."""
        return self._formats[0]

    async def __aenter__(self) -> Self:
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        connector = aiohttp.TCPConnector(limit=self._connections)
        self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout, headers=headers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session:
            await self._session.close()

    async def send(self, request: Request) -> Reply:
        """One call. Raises TransientError, RowRejected, or ProviderError when no call can succeed."""
        while True:
            payload = self.payload(request)
            start = time.perf_counter()
            status, headers, body = await self._post("/chat/completions", payload)
            if status == 200:  # noqa: PLR2004
                return reply_of(_object(body), time.perf_counter() - start)
            message = self._message(body)
            if status in (400, 422) and self._adapt(message, payload):
                continue
            self._raise(status, message, headers)

    async def models(self) -> list[str]:
        """Names of the models that the server offers. Raises like `send`."""
        return [str(_dict(item).get("id")) for item in (await self.call("GET", "/models")).get("data") or []]

    async def call(self, method: str, path: str, data: bytes | aiohttp.FormData | None = None) -> dict[str, Any]:
        """What another path than that of `send` answers. Raises like `send`."""
        status, headers, body = await self._request(method, path, data)
        if status != 200:  # noqa: PLR2004
            self._raise(status, self._message(body), headers)
        return _object(body)

    async def download(self, path: str, file: IO[bytes]) -> None:
        """Write what a path answers, however large, into a file, from its start. Raises like `send`."""
        status, headers, body = await self._request("GET", path, None, file)
        if status != 200:  # noqa: PLR2004
            self._raise(status, self._message(body), headers)

    def payload(self, request: Request) -> dict[str, Any]:
        """The body of a call, less what this server is known to refuse."""
        payload: dict[str, Any] = {
            "model": request.model,
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
            self._limit_name: request.max_tokens,
        }
        if self._with_temperature:
            payload["temperature"] = request.temperature
        if request.sample:
            payload["seed"] = request.sample
        if request.schema and self.format == "json_schema":
            schema = {"name": "reply", "strict": True, "schema": request.schema}
            payload["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif request.schema and self.format == "json_object":
            payload["response_format"] = {"type": "json_object"}
        return payload

    def _adapt(self, message: str, payload: dict[str, Any]) -> bool:
        """Leave out what the server refuses; whether that may help."""
        said = message.lower()
        asked = payload.get("response_format", {}).get("type")
        if asked and any(
            word in said for word in ("response_format", "json_schema", "json_object", "schema", "guided")
        ):
            if self.format == asked:
                self._formats.pop(0)
            return True
        if "max_tokens" in payload and "max_completion_tokens" in said:
            self._limit_name = "max_completion_tokens"
            return True
        if "temperature" in payload and "temperature" in said:
            self._with_temperature = False
            return True
        return False

    async def _post(self, path: str, payload: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        return await self._request("POST", path, orjson.dumps(payload))

    async def _request(
        self, method: str, path: str, data: bytes | aiohttp.FormData | None, into: IO[bytes] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        assert self._session is not None
        form = isinstance(data, aiohttp.FormData)
        headers = {} if form else {"Content-Type": "application/json"}
        timeout = _PATIENT if form or into else self._timeout
        try:
            async with self._session.request(
                method, self.base_url + path, data=data, headers=headers, timeout=timeout
            ) as response:
                if into and response.status == 200:  # noqa: PLR2004
                    into.seek(0)
                    into.truncate()
                    async for chunk in response.content.iter_any():
                        into.write(chunk)
                    return 200, {}, b""
                chunks, size = [], 0
                async for chunk in response.content.iter_any():
                    chunks.append(chunk)
                    size += len(chunk)
                    if size > _LARGEST_REPLY:
                        raise RowRejected(f"the server's reply is larger than {_LARGEST_REPLY >> 20} MiB")
                return (
                    response.status,
                    {key.lower(): value for key, value in response.headers.items()},
                    b"".join(chunks),
                )
        except TimeoutError as error:
            raise TransientError("the server did not answer in time") from error
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            raise ProviderError(
                f"{self.base_url} is no URL", "set OPENAI_BASE_URL, such as http://localhost:8000/v1"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise TransientError(self.clean(f"{type(error).__name__}: {error}")) from error

    def _raise(self, status: int, message: str, headers: dict[str, str]) -> None:
        if status == 401 or status == 403:  # noqa: PLR1714, PLR2004
            raise ProviderError(
                f"{self.base_url} refuses the key ({status}): {message}", "set OPENAI_API_KEY to a valid key"
            )
        if status == 404:  # noqa: PLR2004
            raise ProviderError(
                f"{self.base_url} knows no such model or path (404): {message}",
                "check --llm and OPENAI_BASE_URL; stepsearch-data doctor lists the models",
            )
        if status == 402 or (status == 429 and ("insufficient_quota" in message or "billing" in message)):  # noqa: PLR2004
            raise ProviderError(f"{self.base_url} says the account is out of credit: {message}")
        if status in _RETRIED:
            raise TransientError(f"{status}: {message}", _retry_after(headers), throttled=status == 429)  # noqa: PLR2004
        raise RowRejected(f"the server refuses the request ({status}): {message}")

    def _message(self, body: bytes) -> str:
        """What an error body says, in one line and without secrets."""
        try:
            data = orjson.loads(body)
            error = data.get("error", data) if isinstance(data, dict) else data
            text = str(error.get("message") or error) if isinstance(error, dict) else str(error)
            code = f" [{error['code']}]" if isinstance(error, dict) and error.get("code") else ""
        except orjson.JSONDecodeError:
            text, code = body.decode("utf-8", "replace"), ""
        return self.clean(" ".join(text.split()))[:_WORDS] + self.clean(code)

    def clean(self, text: str) -> str:
        """The text without what looks like a key."""
        text = text.replace(self._key, "***") if self._key else text
        return _SECRET.sub("***", text)


def reply_of(data: dict[str, Any], latency: float) -> Reply:
    """The reply that a body of `/chat/completions` holds. Raises TransientError."""
    choices = data.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise TransientError("the server's reply holds no choice")
    message = _dict(choices[0].get("message"))
    refusal = message.get("refusal")
    usage = _dict(data.get("usage"))
    return Reply(
        text=str(refusal or message.get("content") or ""),
        finish_reason="refusal" if refusal else str(choices[0].get("finish_reason") or "stop"),
        usage=Usage(_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))),
        latency=latency,
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise TransientError("the server's reply is no JSON") from error
    if not isinstance(data, dict):
        raise TransientError("the server's reply is no JSON object")
    return data


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _retry_after(headers: dict[str, str]) -> float | None:
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
