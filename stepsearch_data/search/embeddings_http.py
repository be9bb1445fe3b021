"""Vectors of texts, from an OpenAI-compatible `/embeddings`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import chain
from typing import Any

import orjson
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from stepsearch_data.core.errors import RowRejected, SearchError
from stepsearch_data.llm.settings import KEY
from stepsearch_data.remote.governor import Governor
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
from stepsearch_data.remote.secrets import find_key, show_url
from stepsearch_data.search.answers import Refused
from stepsearch_data.search.api import RemoteSettings, is_page
from stepsearch_data.search.embeddings import Vectors, checked
from stepsearch_data.search.health import Health

_ATTEMPTS = 6  # times that a failing request is sent; waiting as told is free
_PATIENCE = 60.0  # seconds of nothing but failures after which a server counts as down, for as long again


class RemoteEmbedder:
    """A server that speaks `POST base_url/embeddings`; the key comes from OPENAI_APIKEY alone.

    Connections outlive a call: they live in an event loop that runs while a call does.
    """

    def __init__(
        self, engine: str, model: str, base_url: str, batch: int, max_concurrency: int, timeout: float
    ) -> None:
        key = find_key(KEY)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._engine, self._model, self._batch = engine, model, batch
        self._url = base_url.rstrip("/") + "/embeddings"
        self._shown = show_url(self._url)
        self._http = Http(timeout, max_concurrency, [key], headers)
        self._governor = Governor(max_concurrency)
        self._health = self._new_health()
        self._given_up_at = 0.0
        self._dimensions = 0
        self._runner = asyncio.Runner()
        self._open = False

    def embed(self, texts: Sequence[str]) -> list[Vectors | str]:
        """See `Embedder`."""
        if self._health.down and time.monotonic() > self._given_up_at + _PATIENCE:
            self._health = self._new_health()
        was_up = not self._health.down
        try:
            return self._runner.run(self._all(texts))
        finally:
            if was_up and self._health.down:
                self._given_up_at = time.monotonic()

    def close(self) -> None:
        """See `Embedder`."""
        if self._open:
            self._runner.run(self._http.__aexit__(None, None, None))
        self._runner.close()

    def _new_health(self) -> Health:
        settings = RemoteSettings(max_attempts=_ATTEMPTS, patience=_PATIENCE)
        return Health(self._engine, self._url, settings, self._governor)

    async def _all(self, texts: Sequence[str]) -> list[Vectors | str]:
        if not self._open:
            self._open = True
            await self._http.__aenter__()
        parts = (texts[start : start + self._batch] for start in range(0, len(texts), self._batch))
        tasks = [asyncio.create_task(self._part(part)) for part in parts]
        try:
            return list(chain.from_iterable(await asyncio.gather(*tasks)))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _part(self, texts: Sequence[str]) -> list[Vectors | str]:
        """One request, as often as it may help; its halves where the server refuses it, so that one text fails."""
        try:
            self._health.check()
            return list(await self._insist(texts))
        except TransientError as error:
            return [self._health.down or str(error)] * len(texts)
        except Refused as error:
            if self._health.down or len(texts) == 1:
                return [str(error)] * len(texts)
        middle = len(texts) // 2
        return [*await self._part(texts[:middle]), *await self._part(texts[middle:])]

    async def _insist(self, texts: Sequence[str]) -> Vectors:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(TransientError),
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.5, max=30),
            sleep=self._health.sleep,
            reraise=True,
        ):
            with attempt:
                return await self._send(texts)
        raise AssertionError("tenacity raises the last error")

    async def _send(self, texts: Sequence[str]) -> Vectors:
        """One attempt. A wait that the server asks for is part of it."""
        while True:
            await self._governor.acquire(0)
            try:
                self._health.check()
                begun = time.perf_counter()
                vectors = await self._exchange(texts)
            except TransientError as error:
                if self._health.failed(error):
                    raise
            except Refused as error:
                self._health.refused(error)
                raise
            else:
                self._health.succeeded(time.perf_counter() - begun)
                return vectors
            finally:
                self._governor.release()

    async def _exchange(self, texts: Sequence[str]) -> Vectors:
        """What the server says. Raises TransientError, Refused, or SearchError when it will never say anything else."""
        body = orjson.dumps({"model": self._model, "input": list(texts), "encoding_format": "float"})
        try:
            response = await self._http.request("POST", self._url, body)
        except RowRejected as error:  # too large
            raise Refused(str(error)) from error
        except NoUrlError as error:
            raise SearchError(f"{self._shown} is no URL", self._check_url) from error
        if response.status != OK:
            self._fail(response)
        vectors = checked(self._read(response), len(texts), self._shown)
        self._dimensions = self._dimensions or vectors.shape[1]
        if vectors.shape[1] != self._dimensions:
            raise SearchError(
                f"{self._shown} sent vectors of {vectors.shape[1]:,} dimensions after some of {self._dimensions:,}",
                "serve one model under one name",
            )
        return vectors

    def _read(self, response: Response) -> Any:
        """The vectors of a reply, in the order of what was asked."""
        if is_page(response):
            raise SearchError(f"{self._shown} sent a web page instead of vectors", self._check_url)
        try:
            rows = orjson.loads(response.body)["data"]
            return [row["embedding"] for row in sorted(rows, key=lambda row: row["index"])]
        except (ValueError, LookupError, TypeError):
            raise SearchError(f"{self._shown} sent something else than embeddings", self._check_url) from None

    def _fail(self, response: Response) -> None:
        """Raise what a bad status means."""
        status, message = response.status, self._http.message(response.body)
        if is_page(response):
            message = "a web page"
        if status in (401, 403):
            raise SearchError(f"{self._shown} refuses the key ({status}): {message}", f"set {KEY} to a valid key")
        if status == 404:  # noqa: PLR2004
            raise SearchError(
                f"{self._shown} knows no such model or path (404): {message}",
                f"check engines.{self._engine}.model and .base_url, such as http://localhost:8000/v1",
            )
        if status == 402 or (status == THROTTLED and ("insufficient_quota" in message or "billing" in message)):  # noqa: PLR2004
            raise SearchError(f"{self._shown} says the account is out of credit: {message}")
        if status in RETRIED:
            raise TransientError(f"{status}: {message}", retry_after(response.headers), throttled=status == THROTTLED)
        raise Refused(f"the server refuses the text ({status}): {message}")

    @property
    def _check_url(self) -> str:
        return f"check engines.{self._engine}.base_url, such as http://localhost:8000/v1"
