"""Vectors of texts, from an OpenAI-compatible `/embeddings`."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from stepsearch_data.core.errors import RowRejected, SearchError
from stepsearch_data.llm.settings import KEY
from stepsearch_data.search.api import Api, Exchange, RemoteSettings
from stepsearch_data.search.api_client import ApiClient
from stepsearch_data.search.embeddings import Vectors, checked

if TYPE_CHECKING:
    import httpx2

_ATTEMPTS = 6  # times that a failing request is sent; a wait that the server asks for is not counted
_PATIENCE = 60.0  # seconds of nothing but failures after which a server counts as down, for as long again


def ask(model: str, key: str, texts: Sequence[str], _k: int) -> Exchange:
    """Make a request for the vectors of texts."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return Exchange("POST", {"model": model, "input": list(texts), "encoding_format": "float"}, headers=headers)


def read(data: Any) -> list[Any]:
    """Read the vectors of a reply, in the order of what was asked. Raises RowRejected."""
    try:
        return [row["embedding"] for row in sorted(data["data"], key=lambda row: row["index"])]
    except (LookupError, TypeError):
        raise RowRejected("the server's JSON holds no embeddings") from None


API = Api(
    ask,
    read,
    url=lambda url: f"{url}/embeddings",
    address="base_url",
    key=KEY,
    spent=r"^402:|^429:.*(insufficient_quota|billing)",
    nowhere="knows no such model or path",
)


class RemoteEmbedder:
    """A server that speaks `POST base_url/embeddings`; the key comes from OPENAI_API_KEY alone.

    Connections are kept between calls: they belong to an event loop that runs while a call does.
    """

    def __init__(
        self,
        engine: str,
        model: str,
        base_url: str,
        batch: int,
        max_concurrency: int,
        timeout: float,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        settings = RemoteSettings(
            url=base_url, timeout=timeout, max_concurrency=max_concurrency, max_attempts=_ATTEMPTS, patience=_PATIENCE
        )
        self._connect = partial(ApiClient, API, engine, model, settings, transport)
        self._client = self._connect()
        self._batch = batch
        self._dimensions = 0
        self._runner = asyncio.Runner()
        self._turn = threading.Lock()  # who has lost patience closes it from another thread, while a call runs

    def embed(self, texts: Sequence[str]) -> list[Vectors | str]:
        """See `Embedder`."""
        with self._turn:
            return self._runner.run(self._all(texts))

    def embed_each(self, lists: Iterable[Sequence[str]]) -> Iterator[list[Vectors | str]]:
        """See `Embedder`."""
        return map(self.embed, lists)

    def close(self) -> None:
        """See `Embedder`."""
        with self._turn:
            self._runner.run(self._client.close())
            self._runner.close()

    async def _all(self, texts: Sequence[str]) -> list[Vectors | str]:
        if self._client.down and time.monotonic() > self._client.down_at + _PATIENCE:
            await self._client.close()
            self._client = self._connect()
        parts = (texts[start : start + self._batch] for start in range(0, len(texts), self._batch))
        tasks = [asyncio.create_task(self._client.ask(part, self._vectors)) for part in parts]
        try:
            return list(chain.from_iterable(await asyncio.gather(*tasks)))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _vectors(self, texts: Sequence[str]) -> list[Vectors]:
        """Send a request. Raises as `exchange` does, and SearchError for what cannot be an index's vectors."""
        vectors = checked(await self._client.exchange(texts, 0), len(texts), self._client.shown)
        self._dimensions = self._dimensions or vectors.shape[1]
        if vectors.shape[1] != self._dimensions:
            raise SearchError(
                f"{self._client.shown} sent vectors of {vectors.shape[1]:,} dimensions after some of"
                f" {self._dimensions:,}",
                "serve one model under one name",
            )
        return list(vectors)
