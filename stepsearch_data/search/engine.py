"""The interface of a search engine, and that of an index of this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from stepsearch_data.core.errors import SearchError
from stepsearch_data.search.arrays import REBUILD
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


class Hits(NamedTuple):
    """What an index found for some queries, in arrays: no Python object per document.

    `counts` says how many documents were found for each query. `numbers` and `scores` hold those of the first query,
    best first, then those of the second, and so on. `errors` says why a query was not answered, by its place.
    """

    counts: NDArray[np.int64]
    numbers: NDArray[np.int64]
    scores: NDArray[np.float64]
    errors: Mapping[int, str] = {}

    @classmethod
    def of(cls, found: Sequence[Sequence[tuple[int, float]] | str]) -> Self:
        """Put pairs of numbers and scores into arrays; a text in place of them is an error."""
        errors = {place: pairs for place, pairs in enumerate(found) if isinstance(pairs, str)}
        each = [() if isinstance(pairs, str) else pairs for pairs in found]
        pairs = list(chain.from_iterable(each))
        return cls(
            np.fromiter(map(len, each), np.int64),
            np.fromiter((number for number, _ in pairs), np.int64),
            np.fromiter((score for _, score in pairs), np.float64),
            errors,
        )

    def pairs(self) -> list[list[tuple[int, float]]]:
        """Return the number and score of each document, per query."""
        pairs = zip(self.numbers.tolist(), self.scores.tolist(), strict=True)
        return [list(islice(pairs, count)) for count in self.counts.tolist()]


class Index(Protocol):
    """A built index, which a local engine searches."""

    @property
    def size(self) -> int:
        """Return the number of documents that it was made of."""

    def find(self, queries: Sequence[str], k: int) -> list[list[tuple[int, float]]]:
        """Return at most k pairs per query, a document's number and its score, best first, ties in corpus order.

        Only scores above 0; an empty list where nothing matches. Called from one thread at a time.
        """


@runtime_checkable
class ArrayIndex(Index, Protocol):
    """An index that finds documents without making a Python object of each, or whose single queries may fail."""

    def hits(self, queries: Sequence[str], k: int) -> Hits:
        """Find what `find` does."""


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
        self.elsewhere = elsewhere
        self._record = record

    async def search(self, queries: Sequence[str], k: int) -> list[Answer]:
        """See `SearchEngine.search`."""
        hits = await self.hits(queries, k)
        return [
            Answer([self._found(*pair) for pair in pairs], hits.errors.get(place, ""))
            for place, pairs in enumerate(hits.pairs())
        ]

    async def hits(self, queries: Sequence[str], k: int) -> Hits:
        """Search as `search` does, for the numbers of the documents."""
        begun = time.perf_counter()
        hits = await asyncio.to_thread(self._hits, queries, k)
        if self._record:
            latency, said = time.perf_counter() - begun, "; ".join(sorted(set(hits.errors.values())))
            self._record(call(self.name, len(queries), latency, failed=len(hits.errors), error=said))
        return hits

    def _hits(self, queries: Sequence[str], k: int) -> Hits:
        index = self.index
        return index.hits(queries, k) if isinstance(index, ArrayIndex) else Hits.of(index.find(queries, k))

    def _found(self, number: int, score: float) -> Found:
        document = self.documents[number]
        return Found(None, score, document.title, document.text) if self.elsewhere else Found(document.id, score)

    async def close(self) -> None:
        """Close the index, where it has something to close."""
        close = getattr(self.index, "close", None)
        if close:
            await asyncio.to_thread(close)


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
