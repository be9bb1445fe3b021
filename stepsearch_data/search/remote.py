"""A remote search engine: replay first, then its API, within the budget."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from stepsearch_data.core.errors import BudgetError, RowRejected, SearchError
from stepsearch_data.remote.cache import Cache
from stepsearch_data.remote.http import TransientError
from stepsearch_data.search.api import Api
from stepsearch_data.search.api_client import ApiClient
from stepsearch_data.search.documents import Documents
from stepsearch_data.search.engine import Answer, Found, SearchEngine, call
from stepsearch_data.search.kinds import Engine, Service

if TYPE_CHECKING:
    import httpx2

_WORD = re.compile(r"\w")


def opener(api: Api[Answer]) -> Callable[[Engine, Path | None, Documents | None, Service], SearchEngine]:
    """Return what a `Kind` of this API opens its engines with."""
    return lambda engine, _folder, _documents, service: RemoteEngine(engine, api, service)


class RemoteEngine:
    """An API as a `SearchEngine`.

    Answers are kept by what was asked, so a query is sent once for all runs; failures are not kept. A
    query whose request fails has an error for an answer. Every request that is sent, a repeated one too, is a record
    of `search_calls`, and counts for `max_requests`. Raises SearchError where a key or a URL is missing.
    """

    def __init__(
        self, engine: Engine, api: Api[Answer], service: Service, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._settings = settings = engine.settings
        self.name, self.batch, self.in_flight = engine.name, api.batch, settings.max_concurrency
        if not settings.url:
            raise SearchError(
                f"the engine {self.name} needs the URL of its server",
                f"--set engines.{self.name}.url=http://localhost:8000",
            )
        self._api, self._client = api, ApiClient(api, self.name, engine.config, settings, transport)
        if api.key and not self._client.key:
            raise SearchError(f"the engine {self.name} needs a key, and {api.key} is not set", f"set {api.key}")
        self._asked = {**engine.fingerprint(), "url": self._client.url}
        self._replay = Cache(service.replay) if service.replay else None
        self._record = service.record
        self._sent = service.used.get(self.name, 0)

    async def search(self, queries: Sequence[str], k: int) -> list[Answer]:
        """See `SearchEngine.search`; at most as many documents as the API gives."""
        shown = min(k, self._api.most)
        k = shown if self._api.sized else self._api.most  # the same request, however many are wanted
        known = {query: self._known(query, k) for query in queries}
        replayed = sum(answer is not None and answer.latency is not None for answer in known.values())
        if replayed:
            self._note(replayed, 0.0, cached=True)
        new = [query for query, answer in known.items() if answer is None]
        for start in range(0, len(new), self.batch):
            part = new[start : start + self.batch]
            results = await self._client.ask(part, lambda texts: self._call(texts, k))
            known.update(zip(part, (Answer(error=a) if isinstance(a, str) else a for a in results), strict=True))
        return [
            answer._replace(found=answer.found[:shown]) for query in queries if (answer := known[query]) is not None
        ]

    async def close(self) -> None:
        """Wait for the requests in flight, commit what was paid for, and drop the connections."""
        try:
            await self._client.close()
        finally:
            if self._replay:
                self._replay.close()

    def _known(self, query: str, k: int) -> Answer | None:
        """Return the answer that needs no request: to a query without a word, or to one that was asked before."""
        if not _WORD.search(query):
            return Answer()
        kept = self._replay.load(self._digest(query, k)) if self._replay else None
        if kept is None:
            return None
        latency, found = orjson.loads(kept)
        return Answer([Found(None, *document) for document in found], latency=latency)

    def _digest(self, query: str, k: int) -> str:
        """Return what an answer is kept by; it holds no key."""
        asked = {**self._asked, "query": query, "k": k}
        return hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).hexdigest()

    async def _call(self, queries: Sequence[str], k: int) -> list[Answer]:
        """Send, record and keep. Raises BudgetError, and as `exchange` does."""
        most = self._settings.max_requests
        if most is not None and self._sent >= most:
            raise BudgetError(
                f"{self.name}: {self._sent:,} requests were sent, of {most:,} allowed; what they brought is kept",
                f"--set engines.{self.name}.max_requests={2 * most or 1000}, then run the same command",
            )
        self._sent += 1
        begun = time.perf_counter()
        try:
            read = await self._client.exchange(queries, k)
        except (TransientError, RowRejected, SearchError) as error:
            self._note(len(queries), 0.0, str(error), failed=len(queries))
            raise
        latency = round(time.perf_counter() - begun, 4)
        answers = [Answer(answer.found[:k], self._client.http.clean(answer.error), latency) for answer in read]
        for query, answer in zip(queries, answers, strict=True):
            if self._replay and not answer.error:
                kept = [latency, [found[1:] for found in answer.found]]
                self._replay.keep(self._digest(query, k), orjson.dumps(kept))
        errors = [answer.error for answer in answers if answer.error]
        self._note(len(queries), latency, "; ".join(sorted(set(errors))), failed=len(errors))
        return answers

    def _note(self, queries: int, latency: float, error: str = "", *, failed: int = 0, cached: bool = False) -> None:
        if self._record:
            self._record(call(self.name, queries, latency, failed=failed, cached=cached, error=error))
