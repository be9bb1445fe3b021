"""A remote search engine: replay first, then its API, at its speed, within the budget."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from stepsearch_data.core.errors import BudgetError, RowRejected, SearchError
from stepsearch_data.remote.client import Client
from stepsearch_data.remote.governor import Governor
from stepsearch_data.remote.http import OK, Http, NoUrlError, TransientError
from stepsearch_data.remote.secrets import show_url
from stepsearch_data.search.answers import Refused
from stepsearch_data.search.api import Api
from stepsearch_data.search.documents import Documents
from stepsearch_data.search.engine import Answer, SearchEngine, call
from stepsearch_data.search.health import Health
from stepsearch_data.search.kinds import Engine, Service
from stepsearch_data.search.replay import Replay

if TYPE_CHECKING:
    import httpx2

_WORD = re.compile(r"\w")


def opener(api: Api) -> Callable[[Engine, Path | None, Documents | None, Service], SearchEngine]:
    """Return what a `Kind` of this API opens its engines with."""
    return lambda engine, _folder, _documents, service: RemoteEngine(engine, api, service)


class RemoteEngine:
    """An API as a `SearchEngine`.

    Answers are kept by what was asked, so a query is sent once for all runs; failures are not kept. A
    query whose request fails has an error for an answer. Every request that is sent, a repeated one too, is a record
    of `search_calls`, and counts for `max_requests`.
    """

    def __init__(
        self, engine: Engine, api: Api, service: Service, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._settings = settings = engine.settings
        self.name, self.batch, self.in_flight = engine.name, api.batch, settings.max_concurrency
        self._api, self._config = api, engine.config
        self._url = api.find_url(engine.name, settings.url)
        self._key = api.find_key(engine.name)
        governor = Governor(settings.max_concurrency, 60 * settings.rps if settings.rps else None, burst=0.0)
        self._health = Health(engine.name, self._url, settings, governor)
        self._client = Client(governor, self._health, settings.max_attempts, self._health.sleep)
        self._http = Http(settings.timeout, settings.max_concurrency, [self._key], transport=transport)
        asked = {**engine.fingerprint(), "url": self._url}
        self._replay = Replay(service.replay, asked) if service.replay else None
        self._record = service.record
        self._sent = service.used.get(engine.name, 0)

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
            known.update(zip(part, await self._ask(part, k), strict=True))
        return [
            answer._replace(found=answer.found[:shown]) for query in queries if (answer := known[query]) is not None
        ]

    async def close(self) -> None:
        """Wait for the requests in flight, commit what was paid for, and drop the connections."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._http.aclose)
            if self._replay:
                stack.callback(self._replay.close)
            await self._client.close()

    def _known(self, query: str, k: int) -> Answer | None:
        """Return the answer that needs no request: to a query without a word, or to one that was asked before."""
        if not _WORD.search(query):
            return Answer()
        return self._replay.get(query, k) if self._replay else None

    async def _ask(self, queries: Sequence[str], k: int) -> list[Answer]:
        """Send a request while it may help, and its halves where the server fails on it, so that one query fails."""
        try:
            self._health.check()
            return await self._client.send(lambda _: self._call(queries, k))
        except (Refused, TransientError) as error:
            reason, chokes = str(error), isinstance(error, Refused) or str(error).startswith("500:")
        if self._health.down or not chokes or len(queries) == 1:
            return [Answer(error=self._health.down or reason)] * len(queries)
        middle = len(queries) // 2
        return [*await self._ask(queries[:middle], k), *await self._ask(queries[middle:], k)]

    def _count(self) -> None:
        """Count a request that is about to be sent. Raises BudgetError."""
        most = self._settings.max_requests
        if most is not None and self._sent >= most:
            raise BudgetError(
                f"{self.name}: {self._sent:,} requests were sent, of {most:,} allowed; what they brought is kept",
                f"--set engines.{self.name}.max_requests={2 * most or 1000}, then run the same command",
            )
        self._sent += 1

    async def _call(self, queries: Sequence[str], k: int) -> list[Answer]:
        """Send, record and keep."""
        self._count()
        begun = time.perf_counter()
        try:
            read = await self._exchange(queries, k)
        except (TransientError, Refused, SearchError) as error:
            self._note(len(queries), 0.0, str(error), failed=len(queries))
            if isinstance(error, Refused):
                self._health.refused(error)
            raise
        latency = round(time.perf_counter() - begun, 4)
        answers = [Answer(answer.found[:k], self._http.clean(answer.error), latency) for answer in read]
        for query, answer in zip(queries, answers, strict=True):
            if self._replay and not answer.error:
                self._replay.put(query, k, answer)
        errors = [answer.error for answer in answers if answer.error]
        self._note(len(queries), latency, "; ".join(sorted(set(errors))), failed=len(errors))
        return answers

    async def _exchange(self, queries: Sequence[str], k: int) -> list[Answer]:
        """Return the API's answers to queries. Raises TransientError, Refused, or SearchError when it never will."""
        method, body, params, headers = self._api.ask(self._config, self._key, queries, k)
        response, fault = None, ""
        try:
            response = await self._http.request(method, self._url, body, params=params, headers=headers)
        except RowRejected as error:
            fault = str(error)
        except NoUrlError:
            pass
        if response is None and fault:
            raise Refused(fault)
        if response is None:  # raised out here, without the client's error as its context: that may hold the key
            raise SearchError(
                f"{show_url(self._url)} is no URL", f"--set engines.{self.name}.url=http://localhost:8000"
            )
        if response.status_code != OK:
            self._api.fail(response, self._http, self.name, self._url, one_query=self._health.worked)
        return self._api.answers(self._http.body(response), len(queries))

    def _note(self, queries: int, latency: float, error: str = "", *, failed: int = 0, cached: bool = False) -> None:
        if self._record:
            attempts = 0 if cached else 1  # each one is a request of its own: a build may end between two
            self._record(
                call(self.name, queries, latency, failed=failed, attempts=attempts, cached=cached, error=error)
            )
