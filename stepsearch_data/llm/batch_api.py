"""OpenAI's Batch API, as the `openai` package types it: start a batch, look at it, fetch what it brought."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import IO, TYPE_CHECKING, Any, TypeVar

import orjson
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from stepsearch_data.core.errors import ProviderError, RowRejected
from stepsearch_data.llm.chat import Reply
from stepsearch_data.llm.endpoint import Endpoint, reply_of
from stepsearch_data.remote.http import TransientError

if TYPE_CHECKING:
    from openai.types import Batch

T = TypeVar("T")

_RUNNING = {"validating", "in_progress", "finalizing"}
_GIVE_UP = "use the key that it was sent with, or give it up: --llm-mode online"


class BatchApi:
    """Batches of an endpoint. A call that may succeed later is repeated for as long as `patience` (seconds) lasts."""

    def __init__(self, endpoint: Endpoint, patience: float) -> None:
        self._endpoint, self._patience = endpoint, patience

    async def start(self, file: IO[bytes]) -> str:
        """Start a batch of the requests in a file; return its id. Raises ProviderError."""
        hint = "--llm-mode online needs no Batch API"
        return await self._insist(partial(self._start, file), "the batch cannot be sent", hint)

    async def look(self, name: str) -> Batch:
        """Return the state of a batch. Raises ProviderError."""
        return await self._insist(partial(self._look, name), f"batch {name} cannot be followed", _GIVE_UP)

    async def replies(self, batch: Batch) -> AsyncIterator[tuple[str, Reply]]:
        """Yield the replies of a batch, by the digest of their request. Raises ProviderError."""
        for name in filter(None, (batch.output_file_id, batch.error_file_id)):
            with tempfile.TemporaryFile() as file:
                fault = f"what batch {batch.id} brought cannot be fetched"
                await self._insist(partial(self._download, name, file), fault, _GIVE_UP)
                for digest, reply in _rows(file):
                    yield digest, reply

    async def _start(self, file: IO[bytes]) -> str:
        file.seek(0)
        name = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # IO[bytes] reads into buffers
        with self._endpoint.errors():
            files, headers = self._endpoint.files, self._endpoint.headers
            listed = await files.batches.list(limit=100, extra_headers=headers)
            for batch in getattr(listed, "data", None) or []:  # started just before a crash or a time-out
                if (batch.metadata or {}).get("requests") == name and batch.status in _RUNNING:
                    return _id(batch)
            file.seek(0)
            sent = await files.files.create(file=("requests.jsonl", file), purpose="batch", extra_headers=headers)
            batch = await files.batches.create(
                input_file_id=_id(sent),
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={"requests": name},
                extra_headers=headers,
            )
        return _id(batch)

    async def _look(self, name: str) -> Batch:
        with self._endpoint.errors():
            batch = await self._endpoint.files.batches.retrieve(name, extra_headers=self._endpoint.headers)
        _id(batch)
        return batch

    async def _download(self, name: str, file: IO[bytes]) -> None:
        """Write a file of the server into one of ours, from its start."""
        file.seek(0)
        file.truncate()
        with self._endpoint.errors():
            files = self._endpoint.files.files.with_streaming_response
            async with files.content(name, extra_headers=self._endpoint.headers) as response:
                async for chunk in response.iter_bytes():
                    file.write(chunk)

    async def _insist(self, call: Callable[[], Awaitable[T]], fault: str, hint: str) -> T:
        """Call, again and again while that may help. Raises ProviderError with the fault; the hint is for the rest."""
        try:
            return await AsyncRetrying(
                retry=retry_if_exception_type(TransientError),
                stop=stop_after_delay(self._patience),
                wait=wait_random_exponential(multiplier=0.5, max=30),
                reraise=True,
            )(call)
        except TransientError as error:
            later = "run the same command later: what was sent is not sent again"
            raise ProviderError(f"{fault}: {self._endpoint.shown} does not answer: {error}", later) from error
        except (RowRejected, ProviderError) as error:
            raise ProviderError(f"{fault}: {error}", hint) from error


def _id(answer: Any) -> str:
    """Return the id that a server gave; a proxy's page has none. Raises TransientError."""
    if not isinstance(getattr(answer, "id", None), str):
        raise TransientError("the server's reply is not a JSON object with an id")
    return str(answer.id)


def _rows(file: IO[bytes]) -> Iterator[tuple[str, Reply]]:
    """Yield the replies in an output file by request digest; leave out rows that hold an error."""
    file.seek(0)
    for line in file:
        with suppress(orjson.JSONDecodeError, TransientError, AttributeError):
            row = orjson.loads(line)
            response = row.get("response") or {}
            if response.get("status_code") == 200:  # noqa: PLR2004
                yield str(row.get("custom_id")), reply_of(response.get("body") or {}, 0.0)
