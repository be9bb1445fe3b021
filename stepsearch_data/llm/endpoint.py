"""One call to an OpenAI-compatible server, by the `openai` package, and what its failures mean.

The package owns addresses, authentication, headers and the typed Batch API; it repeats nothing, as retries must have
one owner: `remote.client`. Replies are read here, because servers that call themselves compatible are not.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson

from stepsearch_data.core.errors import ConfigError, ProviderError, RowRejected
from stepsearch_data.llm.chat import Call, Reply, Request, ToolRequest, TurnRequest, Usage
from stepsearch_data.llm.settings import AZURE, KEY, LlmSettings
from stepsearch_data.remote.http import THROTTLED, Http, TransientError, may_pass, retry_after
from stepsearch_data.remote.secrets import CUSTOM_HEADERS, check_headers, find_key, show_url

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

_KEYS = (KEY, "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN")
_ADAPTABLE = (400, 422)
_SCHEMA_WORDS = ("response_format", "json_schema", "json_object", "schema", "guided")
_REFUSED_WORDS = {"max_tokens": "max_completion_tokens", "temperature": "temperature", "stop": "'stop'"}


class Endpoint:
    """A server that speaks `/chat/completions`, or `/completions`. Close it.

    `format` is how structured output is requested: json_schema, json_object or text. Parameters that a server refuses
    (a schema, a temperature, `max_tokens`, `stop`) are left out of later calls: it refuses each only once.
    Raises ConfigError for a key that no header can hold.
    """

    def __init__(
        self, settings: LlmSettings, connections: int, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self.base_url = settings.base_url.rstrip("/")
        self.shown = show_url(self.base_url)
        self._azure = self.base_url == (os.environ.get(AZURE, "").rstrip("/") or None)
        self._key, azure_key, azure_token, *_ = map(find_key, (*_KEYS, "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"))
        self.has_key = bool(azure_key or azure_token if self._azure else self._key)
        check_headers()
        bad_url = ProviderError(f"{self.shown} is not a URL", "set OPENAI_BASE_URL, such as http://localhost:8000/v1")
        self._http = Http(settings.timeout, connections, bad_url, transport=transport)
        self._files = Http(settings.timeout, connections, bad_url, files=True, transport=transport)
        self.headers: dict[str, Any] = {}
        self.format = "json_schema"
        self._refused: set[str] = set()

    @cached_property
    def client(self) -> AsyncOpenAI:
        """Return the package's client, or its client for Azure. Raises ConfigError; for more, see `errors`."""
        import openai

        options: dict[str, Any] = {"http_client": self._http.client, "timeout": None, "max_retries": 0}
        if self._azure:
            try:
                return openai.AsyncAzureOpenAI(azure_endpoint=self.base_url, **options)
            except (openai.OpenAIError, ValueError) as error:
                raise ConfigError(f"{AZURE} is not enough: {error}") from error
        if not (self._key or re.search("(?im)^authorization *:", os.environ.get(CUSTOM_HEADERS, ""))):
            self.headers = {"Authorization": openai.Omit()}  # or the package refuses to send anything
        return openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self._key,
            admin_api_key="",  # that of the environment is for OpenAI's own server
            _enforce_credentials=False,
            **options,
        )

    @cached_property
    def files(self) -> AsyncOpenAI:
        """Return the same client for files of any length."""
        return self.client.copy(http_client=self._files.client)

    async def aclose(self) -> None:
        """Drop the connections."""
        await self._http.aclose()
        await self._files.aclose()

    async def send(self, request: Request) -> Reply:
        """Send one call. Raises TransientError, RowRejected, or ProviderError when no call can succeed."""
        import httpx2
        import openai

        while True:
            payload = self.payload(request)
            path = "/completions" if "prompt" in payload else "/chat/completions"
            start = time.perf_counter()
            with self.errors():
                post = self.client.post  # sets `headers`
                try:
                    response = await post(
                        path, cast_to=httpx2.Response, body=payload, options={"headers": self.headers}
                    )
                except openai.APIStatusError as error:
                    ours = {name: value for name, value in payload.items() if name not in (request.extra_body or {})}
                    if error.status_code in _ADAPTABLE and self._adapt(self._said(error.response), ours):
                        continue
                    raise
            return reply_of(_object(self._http.body(response)), time.perf_counter() - start)

    async def models(self) -> list[str]:
        """Return the names of the models that the server offers. Raises like `send`."""
        import httpx2

        with self.errors():
            get = self.client.get
            response = await get("/models", cast_to=httpx2.Response, options={"headers": self.headers})
        listed = _object(self._http.body(response)).get("data")
        return [str(_dict(item).get("id")) for item in listed] if isinstance(listed, list) else []

    def payload(self, request: Request) -> dict[str, Any]:
        """Return the body of a call, less what this server is known to refuse."""
        limit = "max_completion_tokens" if "max_tokens" in self._refused else "max_tokens"
        payload: dict[str, Any] = {
            "model": request.model,
            "messages": [message.as_sent() for message in request.messages],
            limit: request.max_tokens,
            "temperature": request.temperature,
        }
        more: dict[str, Any] = {"seed": request.sample, "reasoning_effort": request.reasoning_effort}
        if isinstance(request, TurnRequest):
            more["stop"] = request.stop
            if request.raw:
                payload["prompt"] = payload.pop("messages")[0]["content"]
        if isinstance(request, ToolRequest):
            more["tools"] = [{"type": "function", "function": tool} for tool in request.tools]
        payload |= {name: value for name, value in more.items() if value}
        for name in self._refused:
            payload.pop(name, None)
        if request.schema and self.format == "json_schema":
            schema = {"name": "reply", "strict": True, "schema": request.schema}
            payload["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif request.schema and self.format == "json_object":
            payload["response_format"] = {"type": "json_object"}
        return payload | (request.extra_body or {})

    def _adapt(self, message: str, payload: dict[str, Any]) -> bool:
        """Leave out what the server refuses; return whether that may help."""
        said = message.lower()
        asked = payload.get("response_format", {}).get("type")
        if asked and any(word in said for word in _SCHEMA_WORDS):
            if self.format == asked:  # no other call has met the refusal before
                self.format = "json_object" if asked == "json_schema" else "text"
            return True
        refused = next((name for name, word in _REFUSED_WORDS.items() if name in payload and word in said), None)
        if refused:
            self._refused.add(refused)
        return refused is not None

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Raise the package's errors as what they mean: TransientError, RowRejected, or ProviderError for all calls."""
        import httpx2
        import openai

        from stepsearch_data.remote.transport import TooLargeError

        try:
            yield
        except openai.APIStatusError as error:
            raise self._fault(error.response) from None
        except (openai.APIConnectionError, httpx2.InvalidURL, httpx2.TransportError, TooLargeError) as error:
            cause = isinstance(error, openai.APIConnectionError) and error.__cause__
            raise self._http.failure(cause or error) from None

    def _said(self, response: httpx2.Response) -> str:
        return self._http.message(self._http.body(response))

    def _fault(self, response: httpx2.Response) -> Exception:
        message, status = self._said(response), response.status_code
        said = f"({status}): {message}"
        if status in (401, 403):
            return ProviderError(f"{self.shown} refuses the key {said}", f"set {_KEYS[self._azure]} to a valid key")
        if status == HTTPStatus.NOT_FOUND:
            return ProviderError(
                f"{self.shown} knows no such model or path {said}",
                "check --llm and OPENAI_BASE_URL; stepsearch-data doctor lists the models",
            )
        throttled = status == THROTTLED
        if status == HTTPStatus.PAYMENT_REQUIRED or (throttled and re.search("insufficient_quota|billing", message)):
            return ProviderError(f"{self.shown} says the account is out of credit: {message}")
        if may_pass(response):
            return TransientError(f"{status}: {message}", retry_after(response.headers), throttled=throttled)
        return RowRejected(f"the server refuses the request {said}")


def reply_of(data: dict[str, Any], latency: float) -> Reply:
    """Read the reply from a body of `/chat/completions` or `/completions`. Raises TransientError."""
    choices = data.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise TransientError("the server's reply holds no choice")
    message = _dict(choices[0].get("message"))
    refusal = message.get("refusal")
    usage = _dict(data.get("usage"))
    thoughts = message.get("reasoning_content") or message.get("reasoning")
    return Reply(
        text=str(refusal or message.get("content") or choices[0].get("text") or ""),
        finish_reason="refusal" if refusal else str(choices[0].get("finish_reason") or "stop"),
        usage=Usage(_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))),
        latency=latency,
        reasoning=thoughts if isinstance(thoughts, str) else "",
        calls=list(_calls(message.get("tool_calls"))),
    )


def _calls(given: Any) -> Iterator[Call]:
    """Yield the calls of a message. What is no function's is left out; arguments that are no object are none."""
    for at, call in enumerate(given if isinstance(given, list) else ()):
        function = _dict(_dict(call).get("function"))
        name, arguments = function.get("name"), function.get("arguments")
        if isinstance(name, str) and name:
            identity = str(call.get("id") or f"call-{at}")
            yield {"id": identity, "type": "function", "function": {"name": name, "arguments": _arguments(arguments)}}


def _arguments(given: Any) -> str:
    """Return the arguments of a call as JSON, `{}` where they are no object. JSON can be read deeper than written."""
    with suppress(orjson.JSONDecodeError, orjson.JSONEncodeError):
        if isinstance(given, str):
            return given if isinstance(orjson.loads(given), dict) else "{}"
        return orjson.dumps(_dict(given)).decode()
    return "{}"


def _object(body: bytes) -> dict[str, Any]:
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise TransientError("the server's reply is not JSON") from error
    if not isinstance(data, dict):
        raise TransientError("the server's reply is not a JSON object")
    return data


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
