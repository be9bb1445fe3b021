"""Exact search of weighted postings: the k documents of the largest sums of weights, without summing up all of them.

With the package numba (the extra `fast`), a large index is searched by `kernel.py` after its first thousand queries,
two to eight times as fast as by numpy. Both find the same documents with the same scores.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import accumulate, chain, pairwise
from threading import local
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepsearch_data.core.progress import Meter
from stepsearch_data.search.arrays import Arrays
from stepsearch_data.search.engine import Hits

LARGE = 5_000  # passages of an index that is worth loading numba for
MANY = 1_000  # queries, likewise
_HUGE = 50_000  # passages of an index that is slow to search without numba
_PART = 64  # queries that a thread takes at a time, at most
_LESS = 1 - 1e-4  # sums of float32s in another order differ by less
_FEW = 64  # documents that are scored in full without a further look at which of them may be dropped
_MANY_WORDS = 32  # of a query, above which adding up all postings is faster
_SPARE = 8  # documents beyond k that are scored early
_COMMON = 512  # documents that a common word is in, at least
_LONG = 1_024  # documents that a word is in which has a table
_KEPT = 2**16  # queries' common words that are remembered, at most
_KEPT_BYTES = 2**26  # of the documents that are remembered of them, at most
_KEPT_WORDS = 2**8  # common words of a query that is remembered, at most

Found = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Documents and scores of a query, best first."""

_Known = tuple[NDArray[np.int64], float]
"""Documents of common words, and the score that no other document of these words reaches unless k of the former do."""

_NOTHING: _Known = (np.empty(0, np.int64), np.inf)
_ALL: _Known = (np.empty(0, np.int64), 0.0)


class SparseIndex(ABC):
    """An index of words with weights, or of character grams, searched by `workers` threads.

    The score of a document is the sum of the weights of the query's words, each as often as it is asked for, added up
    in their order as float32, and divided by the query's length.

    Common words are in more documents the larger the index is. But a document that has only common words of a query can
    only be among its k best if it is among the k best of these words alone. The compiled search remembers what it finds
    of those, for many queries have the same common words: then it reads the documents of rare words only.
    """

    def __init__(self, arrays: Arrays, workers: int) -> None:
        self.size = arrays.size
        self._arrays, self._workers, self._asked = arrays, workers, 0
        self._threads = ThreadPoolExecutor(workers)
        self._known: dict[bytes, _Known] = {}
        self._local = local()

    @abstractmethod
    def words_of(self, query: str) -> tuple[list[int], float]:
        """Return the numbers of a query's words, and its length: what scores are divided by."""

    def find(self, queries: Sequence[str], k: int) -> list[list[tuple[int, float]]]:
        """See `Index.find`."""
        return self.hits(queries, k).pairs()

    def hits(self, queries: Sequence[str], k: int) -> Hits:
        """See `ArrayIndex.hits`."""
        self._asked += len(queries)
        worth_it = self.size >= LARGE and self._asked > MANY
        fast = compiling().result() if worth_it and compiling().done() else None
        size = min(_PART, -(-len(queries) // self._workers)) or 1
        parts = [queries[start : start + size] for start in range(0, len(queries), size)]
        found = self._threads.map(lambda part: self._part(part, min(k, self.size), fast), parts)
        arrays = zip(*(part[:3] for part in (Hits.of([]), *found)), strict=True)
        counts, numbers, scores = (np.concatenate(each) for each in arrays)
        return Hits(counts, numbers, scores)

    def _part(self, queries: Sequence[str], k: int, fast: Callable[..., None] | None) -> Hits:
        asked = [self.words_of(query) for query in queries]
        words = [words for words, _ in asked]
        self._arrays.check(chain.from_iterable(words))
        counts, numbers, scores = self._by_kernel(fast, words, k) if fast else self._by_numpy(words, k)
        return Hits(counts, numbers, scores / np.repeat([length for _, length in asked], counts))

    def _by_kernel(self, search: Callable[..., None], asked: Sequence[list[int]], k: int) -> Any:
        """Search with what is known of the queries' common words alone, and remember what was learned of them."""
        words, ends = np.fromiter(chain.from_iterable(asked), np.int64), [0, *accumulate(map(len, asked))]
        lengths = self._arrays.starts[words + 1] - self._arrays.starts[words]
        self._arrays.tabulate(words[lengths >= _LONG])
        first, rest = np.int32(k).tobytes(), words[lengths >= _COMMON].astype(np.int32).tobytes()
        cuts = 4 * np.append(0, np.cumsum(lengths >= _COMMON))[ends]
        keys = [first + rest[start:end] for start, end in pairwise(cuts.tolist())]
        known = [self._known.get(key, _NOTHING) if len(key) > len(first) else _ALL for key in keys]
        given, least = zip(*known, strict=True)
        numbers, scores = np.empty((len(asked), k), np.int64), np.empty((len(asked), k), np.float32)
        learned, counts, learned_counts = np.empty_like(numbers), *np.empty((2, len(asked)), np.int64)
        bounds = np.array(least, np.float32)
        given_ends = np.cumsum(np.fromiter(map(len, given), np.int64))
        queries = (words, np.array(ends[1:], np.int64), np.concatenate(given), given_ends, bounds, _COMMON)
        search(*queries, self._arrays.held, *self._room(), numbers, scores, counts, learned, learned_counts)
        if len(self._known) > min(_KEPT, _KEPT_BYTES // (8 * k)):
            self._known.clear()
        is_short = np.diff(cuts) <= 4 * _KEPT_WORDS
        for place in np.flatnonzero((learned_counts >= 0) & is_short).tolist():
            self._known[keys[place]] = learned[place, : learned_counts[place]].copy(), float(bounds[place])
        there = np.arange(k) < counts[:, np.newaxis]
        return counts, numbers[there], scores[there]

    def _room(self) -> Any:
        """Return what `kernel.search` needs room for, of this thread."""
        if not hasattr(self._local, "room"):
            sums, taken, totals = np.zeros(self.size, np.float32), np.empty(self.size, np.int64), (2, self.size)
            self._local.room = sums, taken, np.empty(totals, np.float32)
        return self._local.room

    def _by_numpy(self, asked: Sequence[list[int]], k: int) -> Any:
        found = [self._summed(words, k) if len(words) > _MANY_WORDS else self._pruned(words, k) for words in asked]
        counts = np.array([len(numbers) for numbers, _ in found], np.int64)
        return counts, *(np.concatenate(column) for column in zip(*found, strict=True))

    def _summed(self, words: list[int], k: int) -> Found:
        """Find the k best documents by adding up the weights of all."""
        scores = np.zeros(self.size, np.float32)
        for word in words:
            documents, weights = self._arrays.postings(word)
            scores[documents] += weights
        found = np.flatnonzero((scores >= np.partition(scores, -k)[-k] * _LESS) & (scores > 0))
        return _best(found, scores[found], k)

    def _pruned(self, words: list[int], k: int) -> Found:
        """Find the k best documents, as `kernel.search` does."""
        found, totals, least = np.empty(0, np.int32), np.empty(0, np.float32), 0.0
        order = sorted(words, key=self._arrays.maxima.__getitem__, reverse=True)
        left = [0.0, *accumulate(float(self._arrays.maxima[word]) for word in reversed(order))][::-1]
        for word, (most, rest) in zip(order, pairwise(left), strict=True):
            if most < least and len(found) <= _FEW:
                break
            totals = totals + self._weights(word, found)
            if most >= least:
                documents, weights = self._arrays.postings(word)
                if rest < least:
                    heavy = np.flatnonzero(weights >= least - rest)
                    documents, weights = documents[heavy], weights[heavy]
                found, totals = np.concatenate([found, documents]), np.concatenate([totals, weights])
            if len(found) > max(_FEW, k + _SPARE):
                seeds = np.unique(found[np.argpartition(totals, -k - _SPARE)[-k - _SPARE :]])
                if len(seeds) >= k:
                    least = max(least, float(np.sort(self._scores(words, seeds))[-k]) * _LESS)
                high = totals + np.float32(rest) >= least
                found, totals = found[high], totals[high]
        found = np.unique(found)
        return _best(found, self._scores(words, found), k)

    def _scores(self, words: list[int], chosen: NDArray[np.int32]) -> NDArray[np.float32]:
        scores = np.zeros(len(chosen), np.float32)
        for word in words:
            scores += self._weights(word, chosen)
        return scores

    def _weights(self, word: int, chosen: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the weight of a word in each chosen document, 0 where it does not occur."""
        documents, weights = self._arrays.postings(word)
        if not len(documents):
            return np.zeros(len(chosen), np.float32)
        places = documents.searchsorted(chosen)
        there = documents.take(places, mode="clip") == chosen
        return np.where(there, weights.take(places, mode="clip"), np.float32(0))


def _best(found: NDArray[Any], scores: NDArray[np.float32], k: int) -> Found:
    """Return the best of some documents, in corpus order, whose scores are above 0."""
    scores = rounded(scores)
    best = np.argsort(-scores, kind="stable")[:k]
    best = best[scores[best] > 0]
    return found[best].astype(np.int64), scores[best]


def rounded(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to six decimal digits: the order of adding up decides the seventh."""
    return ((scores.view(np.uint32) + np.uint32(8)) & np.uint32(0xFFFFFFF0)).view(np.float32)


@cache
def _kernel() -> Callable[..., None] | None:
    """Return the search that numba compiles, or loads from its cache; None without numba, or with too old a one."""
    try:
        from stepsearch_data.search.kernel import search
    except ImportError:
        return None
    return search


@cache
def compiling() -> Future[Callable[..., None] | None]:
    """Compile the search, or load it, while queries are answered by numpy: it may take six seconds."""
    return ThreadPoolExecutor(1).submit(_kernel)


def prepare(passages: int, meter: Meter) -> None:
    """Compile the search of an index of so many passages, so that a process that starts later need not.

    Where it cannot be compiled and the index is huge, the meter tells what would help.
    """
    if passages >= LARGE and _kernel() is None and passages >= _HUGE:
        meter.tell("pip install 'stepsearch-data[fast]' answers two to eight times as many queries a second")
