"""One HTTP call to an OpenAI-compatible server, and what its failures mean.

aiohttp is spoken directly: at 64 calls in flight the `openai` package's client costs about five
times the processor time a call, which caps it below what a local server delivers (ADR 4).
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import IO, Any, Self

import aiohttp
import orjson

from stepsearch_data.core.errors import ProviderError, RowRejected
from stepsearch_data.llm.chat import Reply, Request, TurnRequest, Usage
from stepsearch_data.remote.http import (
    OK,
    RETRIED,
    THROTTLED,
    Http,
    NoUrlError,
    Response,
    TransientError,
    retry_after,
)
from stepsearch_data.remote.secrets import show_url


class Endpoint:
    """A server that speaks `/chat/completions`, or `/completions`. Use as an async context manager.

    Settings that a server refuses (strict schemas, a temperature, `max_tokens`, `stop`) are left out from
    then on: each refusal is met once.
    """

    def __init__(self, base_url: str, api_key: str, timeout: float, connections: int) -> None:
        self.base_url = base_url.rstrip("/")
        self.shown = show_url(self.base_url)
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = Http(timeout, connections, secrets=[api_key], headers=headers)
        self._formats = ["json_schema", "json_object", "text"]
        self._limit_name = "max_tokens"
        self._with_temperature = self._with_stop = True

    @property
    def format(self) -> str:
        """How structured output is asked for: json_schema, json_object or text."""
        return self._formats[0]

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def send(self, request: Request) -> Reply:
        """One call. Raises TransientError, RowRejected, or ProviderError when no call can succeed."""
        while True:
            payload = self.payload(request)
            path = "/completions" if "prompt" in payload else "/chat/completions"
            start = time.perf_counter()
            status, headers, body = await self._request("POST", path, orjson.dumps(payload))
            if status == OK:
                return reply_of(_object(body), time.perf_counter() - start)
            message = self._http.message(body)
            if status in (400, 422) and self._adapt(message, payload):
                continue
            self._raise(status, message, headers)

    async def models(self) -> list[str]:
        """Names of the models that the server offers. Raises like `send`."""
        return [str(_dict(item).get("id")) for item in (await self.call("GET", "/models")).get("data") or []]

    async def call(self, method: str, path: str, data: bytes | aiohttp.FormData | None = None) -> dict[str, Any]:
        """What another path than that of `send` answers. Raises like `send`."""
        status, headers, body = await self._request(method, path, data)
        if status != OK:
            self._raise(status, self._http.message(body), headers)
        return _object(body)

    async def download(self, path: str, file: IO[bytes]) -> None:
        """Write what a path answers, however large, into a file, from its start. Raises like `send`."""
        status, headers, body = await self._request("GET", path, None, file)
        if status != OK:
            self._raise(status, self._http.message(body), headers)

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
        if isinstance(request, TurnRequest):
            if request.stop and self._with_stop:
                payload["stop"] = request.stop
            if request.raw:
                payload["prompt"] = payload.pop("messages")[0]["content"]
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
        if "stop" in payload and "'stop'" in said:
            self._with_stop = False
            return True
        return False

    async def _request(
        self, method: str, path: str, data: bytes | aiohttp.FormData | None, into: IO[bytes] | None = None
    ) -> Response:
        try:
            return await self._http.request(method, self.base_url + path, data, into=into)
        except NoUrlError as error:
            raise ProviderError(
                f"{self.shown} is no URL", "set OPENAI_BASE_URL, such as http://localhost:8000/v1"
            ) from error

    def _raise(self, status: int, message: str, headers: dict[str, str]) -> None:
        if status == 401 or status == 403:  # noqa: PLR1714, PLR2004
            raise ProviderError(
                f"{self.shown} refuses the key ({status}): {message}", "set OPENAI_API_KEY to a valid key"
            )
        if status == 404:  # noqa: PLR2004
            raise ProviderError(
                f"{self.shown} knows no such model or path (404): {message}",
                "check --llm and OPENAI_BASE_URL; stepsearch-data doctor lists the models",
            )
        if status == 402 or (status == THROTTLED and ("insufficient_quota" in message or "billing" in message)):  # noqa: PLR2004
            raise ProviderError(f"{self.shown} says the account is out of credit: {message}")
        if status in RETRIED:
            raise TransientError(f"{status}: {message}", retry_after(headers), throttled=status == THROTTLED)
        raise RowRejected(f"the server refuses the request ({status}): {message}")

    def clean(self, text: str) -> str:
        """The text without what gives a key away."""
        return self._http.clean(text)


def reply_of(data: dict[str, Any], latency: float) -> Reply:
    """The reply that a body of `/chat/completions` or `/completions` holds. Raises TransientError."""
    choices = data.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise TransientError("the server's reply holds no choice")
    message = _dict(choices[0].get("message"))
    refusal = message.get("refusal")
    usage = _dict(data.get("usage"))
    return Reply(
        text=str(refusal or message.get("content") or choices[0].get("text") or ""),
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
