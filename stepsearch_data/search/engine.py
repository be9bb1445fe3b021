"""The interface of a search engine, and that of an index of this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from stepsearch_data.core.errors import SearchError
from stepsearch_data.search.compiled import REBUILD
from stepsearch_data.search.documents import Documents


class Found(NamedTuple):
    """A document that an engine returned, with the engine's own score (higher is better).

    A passage of the corpus has its id; a document from elsewhere has title, text and URL.
    """

    passage_id: str | None
    score: float
    title: str = ""
    text: str = ""
    url: str = ""


class Answer(NamedTuple):
    """An engine's answer to a query, best document first; none where there is an `error`.

    `latency` is in seconds; None for engines of this process, whose answers come in batches.
    """

    found: Sequence[Found] = ()
    error: str = ""
    latency: float | None = None


class SearchEngine(Protocol):
    """Answers queries: `batch` of them at a time serve it best, in `in_flight` calls at once."""

    @property
    def name(self) -> str:
        """Return what `hits.engine` calls it."""

    @property
    def batch(self) -> int:
        """Return the number of queries per call."""

    @property
    def in_flight(self) -> int:
        """Return the number of calls at once."""

    async def search(self, queries: Sequence[str], k: int) -> list[Answer]:
        """Return an answer for each query, with at most k documents; engines of this process give scores above 0.

        Same queries, same answers, whatever else is in the batch. A query without a word finds nothing.
        Raises SearchError when no query can be answered, and BudgetError.
        """

    async def close(self) -> None:
        """Close connections and files."""


class Index(Protocol):
    """A built index, which a local engine searches."""

    @property
    def size(self) -> int:
        """Return the number of documents that it was made of."""

    def find(self, queries: Sequence[str], k: int) -> list[list[tuple[int, float]]]:
        """Return at most k pairs per query, a document's number and its score, best first, ties in corpus order.

        Only scores above 0; an empty list where nothing matches. Called from one thread at a time.
        """


class LocalEngine:
    """An index of this process as a `SearchEngine`.

    A document of the run's own corpus is returned as its id; one of an index from `elsewhere` as its title and text.
    Raises SearchError where the index was made of other documents.
    """

    batch = 500
    in_flight = 1

    def __init__(
        self,
        name: str,
        index: Index,
        documents: Documents,
        *,
        elsewhere: bool = False,
        record: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        if index.size != len(documents):
            raise SearchError(
                f"the index of {name} was made of {index.size:,} documents, not {len(documents):,}", REBUILD
            )
        self.name = name
        self.index = index
        self.documents = documents
        self._elsewhere = elsewhere
        self._record = record

    async def search(self, queries: Sequence[str], k: int) -> list[Answer]:
        """See `SearchEngine.search`."""
        begun = time.perf_counter()
        answers = await asyncio.to_thread(self.answer, queries, k)
        if self._record:
            errors = [answer.error for answer in answers if answer.error]
            latency, said = time.perf_counter() - begun, "; ".join(sorted(set(errors)))
            self._record(call(self.name, len(queries), latency, failed=len(errors), error=said))
        return answers

    def answer(self, queries: Sequence[str], k: int) -> list[Answer]:
        """Search as `search` does, in the thread of the caller."""
        return [
            Answer([self._found(number, score) for number, score in found]) for found in self.index.find(queries, k)
        ]

    def _found(self, number: int, score: float) -> Found:
        document = self.documents[number]
        return Found(None, score, document.title, document.text) if self._elsewhere else Found(document.id, score)

    async def close(self) -> None:
        """Do nothing: arrays are mapped, not opened."""


def call(
    engine: str, queries: int, latency: float, *, failed: int = 0, cached: bool = False, error: str = ""
) -> dict[str, Any]:
    """Return a record of `search_calls`."""
    return {
        "engine": engine,
        "queries": queries,
        "failed": failed,
        "cached": cached,
        "attempts": 0 if cached else 1,  # each one is a request of its own: a build may end between two
        "latency": round(latency, 4),
        "error": error,
        "answered_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
