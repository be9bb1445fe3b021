"""Vectors of texts, from an OpenAI-compatible `/embeddings`."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn

import orjson

from stepsearch_data.core.errors import RowRejected, SearchError
from stepsearch_data.llm.settings import KEY
from stepsearch_data.remote.client import Client
from stepsearch_data.remote.governor import Governor
from stepsearch_data.remote.http import OK, Http, Meaning, NoUrlError, TransientError, meaning_of, transient
from stepsearch_data.remote.secrets import find_key, show_url
from stepsearch_data.search.answers import Refused
from stepsearch_data.search.api import RemoteSettings, is_page
from stepsearch_data.search.embeddings import Vectors, checked
from stepsearch_data.search.health import Health

if TYPE_CHECKING:
    import httpx2

_ATTEMPTS = 6  # times that a failing request is sent; waiting as told is free
_PATIENCE = 60.0  # seconds of nothing but failures after which a server counts as down, for as long again


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
        key = find_key(KEY)
        self._engine, self._model, self._batch = engine, model, batch
        self._url = base_url.rstrip("/") + "/embeddings"
        self._shown = show_url(self._url)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = Http(timeout, max_concurrency, [key], transport=transport)
        self._governor = Governor(max_concurrency)
        self._renew()
        self._given_up_at = 0.0
        self._dimensions = 0
        self._runner = asyncio.Runner()
        self._turn = threading.Lock()  # who has lost patience closes it from another thread, while a call runs

    def embed(self, texts: Sequence[str]) -> list[Vectors | str]:
        """See `Embedder`."""
        if self._health.down and time.monotonic() > self._given_up_at + _PATIENCE:
            self._renew()
        was_up = not self._health.down
        try:
            with self._turn:
                return self._runner.run(self._all(texts))
        finally:
            if was_up and self._health.down:
                self._given_up_at = time.monotonic()

    def close(self) -> None:
        """See `Embedder`."""
        with self._turn:
            self._runner.run(self._http.aclose())
            self._runner.close()

    def _renew(self) -> None:
        """Forget what is known of the server."""
        settings = RemoteSettings(max_attempts=_ATTEMPTS, patience=_PATIENCE)
        self._health = Health(self._engine, self._url, settings, self._governor)
        self._client = Client(self._governor, self._health, _ATTEMPTS, self._health.sleep)

    async def _all(self, texts: Sequence[str]) -> list[Vectors | str]:
        parts = (texts[start : start + self._batch] for start in range(0, len(texts), self._batch))
        tasks = [asyncio.create_task(self._part(part)) for part in parts]
        try:
            return list(chain.from_iterable(await asyncio.gather(*tasks)))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _part(self, texts: Sequence[str]) -> list[Vectors | str]:
        """Send a request while it may help, and its halves where the server refuses it, so that one text fails."""
        try:
            self._health.check()
            return list(await self._client.send(lambda _: self._exchange(texts)))
        except TransientError as error:
            return [self._health.down or str(error)] * len(texts)
        except Refused as error:
            if not self._health.down:
                self._health.refused(error)
            if self._health.down or len(texts) == 1:
                return [str(error)] * len(texts)
        middle = len(texts) // 2
        return [*await self._part(texts[:middle]), *await self._part(texts[middle:])]

    async def _exchange(self, texts: Sequence[str]) -> Vectors:
        """Return what the server says. Raises TransientError, Refused, or SearchError when it never will."""
        body = {"model": self._model, "input": list(texts), "encoding_format": "float"}
        try:
            response = await self._http.request("POST", self._url, body, headers=self._headers)
        except RowRejected as error:  # too large
            raise Refused(str(error)) from error
        except NoUrlError as error:
            raise SearchError(f"{self._shown} is no URL", self._check_url) from error
        said = self._http.body(response)
        if response.status_code != OK:
            self._fail(response, said)
        vectors = checked(self._read(said), len(texts), self._shown)
        self._dimensions = self._dimensions or vectors.shape[1]
        if vectors.shape[1] != self._dimensions:
            raise SearchError(
                f"{self._shown} sent vectors of {vectors.shape[1]:,} dimensions after some of {self._dimensions:,}",
                "serve one model under one name",
            )
        return vectors

    def _read(self, body: bytes) -> Any:
        """Read the vectors of a reply, in the order of what was asked."""
        if is_page(body):
            raise SearchError(f"{self._shown} sent a web page instead of vectors", self._check_url)
        try:
            rows = orjson.loads(body)["data"]
            return [row["embedding"] for row in sorted(rows, key=lambda row: row["index"])]
        except (ValueError, LookupError, TypeError):
            raise SearchError(f"{self._shown} sent something else than embeddings", self._check_url) from None

    def _fail(self, response: httpx2.Response, body: bytes) -> NoReturn:
        """Raise what a bad status means."""
        message = "a web page" if is_page(body) else self._http.message(body)
        said = f"({response.status_code}): {message}"
        match meaning_of(response, message):
            case Meaning.KEY:
                raise SearchError(f"{self._shown} refuses the key {said}", f"set {KEY} to a valid key")
            case Meaning.NOWHERE:
                raise SearchError(
                    f"{self._shown} knows no such model or path {said}",
                    f"check engines.{self._engine}.model and .base_url, such as http://localhost:8000/v1",
                )
            case Meaning.CREDIT:
                raise SearchError(f"{self._shown} says the account is out of credit: {message}")
            case Meaning.LATER:
                raise transient(response, message)
        raise Refused(f"the server refuses the text {said}")

    @property
    def _check_url(self) -> str:
        return f"check engines.{self._engine}.base_url, such as http://localhost:8000/v1"
