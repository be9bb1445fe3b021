"""The HTTP of OpenAI's Batch API: start a batch, look at it, fetch what it brought."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import IO, Any, TypeVar

import aiohttp
import orjson
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from stepsearch_data.core.errors import ProviderError, RowRejected
from stepsearch_data.llm.chat import Reply
from stepsearch_data.llm.endpoint import Endpoint, reply_of
from stepsearch_data.remote.http import TransientError

T = TypeVar("T")

_RUNNING = {"validating", "in_progress", "finalizing"}


class BatchApi:
    """Batches of an endpoint. A call that may succeed later is repeated for as long as `patience` (seconds) lasts."""

    def __init__(self, endpoint: Endpoint, patience: float) -> None:
        self._endpoint, self._patience = endpoint, patience

    async def start(self, file: IO[bytes]) -> str:
        """Start a batch of the requests in a file; its id. Raises ProviderError."""
        try:
            return await self._insist(partial(self._start, file))
        except (RowRejected, ProviderError) as error:
            raise ProviderError(f"the batch cannot be sent: {error}", "--llm-mode online needs no Batch API") from error

    async def look(self, name: str) -> dict[str, Any]:
        """How a batch stands. Raises ProviderError."""
        try:
            return await self._insist(partial(self._endpoint.call, "GET", f"/batches/{name}"))
        except (RowRejected, ProviderError) as error:
            raise ProviderError(
                f"batch {name} cannot be followed: {error}",
                "use the key that it was sent with, or give it up: --llm-mode online",
            ) from error

    async def replies(self, batch: dict[str, Any]) -> AsyncIterator[tuple[str, Reply]]:
        """The replies that a batch brought, by the name of their request."""
        for part in ("output_file_id", "error_file_id"):
            if batch.get(part):
                with tempfile.TemporaryFile() as file:
                    await self._insist(partial(self._endpoint.download, f"/files/{batch[part]}/content", file))
                    for name, reply in _rows(file):
                        yield name, reply

    async def _start(self, file: IO[bytes]) -> str:
        name = _digest(file)
        listed = await self._endpoint.call("GET", "/batches?limit=100")
        for batch in listed.get("data", []):  # started just before a crash or a time-out
            if (batch.get("metadata") or {}).get("requests") == name and batch.get("status") in _RUNNING:
                return str(batch["id"])
        form = aiohttp.FormData()
        form.add_field("purpose", "batch")
        form.add_field("file", _copy(file), filename="requests.jsonl", content_type="application/jsonl")
        wanted = {
            "input_file_id": (await self._endpoint.call("POST", "/files", form))["id"],
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {"requests": name},
        }
        return str((await self._endpoint.call("POST", "/batches", orjson.dumps(wanted)))["id"])

    async def _insist(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(TransientError),
                stop=stop_after_delay(self._patience),
                wait=wait_random_exponential(multiplier=0.5, max=30),
                reraise=True,
            ):
                with attempt:
                    return await call()
        except TransientError as error:
            raise ProviderError(
                f"{self._endpoint.shown} does not answer: {error}",
                "run the same command later: what was sent is not sent again",
            ) from error
        raise AssertionError


def _digest(file: IO[bytes]) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # IO[bytes] reads into buffers too


def _copy(file: IO[bytes]) -> IO[bytes]:
    """The file's content as another file: aiohttp closes what it sends."""
    file.seek(0)
    return open(file.fileno(), "rb", closefd=False)


def _rows(file: IO[bytes]) -> Iterator[tuple[str, Reply]]:
    """The replies in an output file by request digest; a row that holds an error is left out."""
    file.seek(0)
    for line in file:
        with suppress(orjson.JSONDecodeError, TransientError, AttributeError):
            row = orjson.loads(line)
            response = row.get("response") or {}
            if response.get("status_code") == 200:  # noqa: PLR2004
                yield str(row.get("custom_id")), reply_of(response.get("body") or {}, 0.0)
