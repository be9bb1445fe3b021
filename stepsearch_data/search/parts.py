"""An index in parts, each over a range of the passages and searched by a worker of its own: same answers as one index.

The folder of an engine then holds a folder for each part, and `parts.json`, the number of passages of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import orjson
from pydantic import Field

from stepsearch_data.core.atomic import write_whole
from stepsearch_data.executors import Executor
from stepsearch_data.search.arrays import reading
from stepsearch_data.search.engine import ArrayIndex, Hits
from stepsearch_data.search.kinds import LocalSettings

_FILE = "parts.json"


class PartsSettings(LocalSettings):
    """Which index is searched, and in how many parts one is built."""

    parts: int = Field(
        default=1,
        ge=1,
        le=10_000,
        description="parts that the index is built in, each searched by a worker of its own; same answers as one",
    )


def ranges(documents: int, parts: int) -> list[tuple[int, int]]:
    """Return where each part begins and ends: no part is empty, and all are about as large."""
    ends = np.linspace(0, documents, min(parts, documents) + 1).astype(int).tolist()
    return list(pairwise(ends))


def write_parts(folder: Path, parts: Sequence[tuple[int, int]]) -> None:
    """Write the sizes of the parts, once all parts are there."""
    write_whole(folder / _FILE, orjson.dumps([end - start for start, end in parts]))


def read_parts(folder: Path, engine: str) -> list[int] | None:
    """Return the sizes of the parts, or None for an index that is not in parts. Raises SearchError."""
    path = folder / _FILE
    if not path.exists():
        return None
    with reading(folder, engine):
        sizes = orjson.loads(path.read_bytes())
        if not sizes or not all(type(size) is int and size > 0 for size in sizes):
            raise ValueError(f"{_FILE} holds no sizes")
    return list(sizes)


def merged(found: Sequence[Hits], sizes: Sequence[int], k: int) -> Hits:
    """Return the k best documents of all parts for each query, ties in corpus order."""
    starts = np.cumsum([0, *sizes[:-1]])
    queries = np.concatenate([np.repeat(np.arange(len(hits.counts)), hits.counts) for hits in found])
    numbers = np.concatenate([hits.numbers + start for hits, start in zip(found, starts, strict=True)])
    scores = np.concatenate([hits.scores for hits in found])
    order = np.lexsort((numbers, -scores, queries))
    counts = sum(hits.counts for hits in found)
    ranks = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    best = order[ranks < k]
    errors = {place: error for hits in found for place, error in hits.errors.items()}
    return Hits(np.minimum(counts, k), numbers[best], scores[best], errors)


class Searcher:
    """Searches a part, in a worker, which opens it first."""

    def __init__(self, open_part: Callable[[], ArrayIndex]) -> None:
        self._open = open_part

    @cached_property
    def _index(self) -> ArrayIndex:
        return self._open()

    def __call__(self, asked: tuple[Sequence[str], int]) -> Hits:
        """Find so many documents for each query."""
        return self._index.hits(*asked)


class PartsIndex:
    """Asks all parts, each in a worker of its own, and merges what they find."""

    def __init__(self, openers: Sequence[Callable[[], ArrayIndex]], sizes: Sequence[int], executor: Executor) -> None:
        self.size = sum(sizes)
        self._sizes = sizes
        self._parts = executor.parts([Searcher(open_part) for open_part in openers])

    def find(self, queries: Sequence[str], k: int) -> list[list[tuple[int, float]]]:
        """See `Index.find`."""
        return self.hits(queries, k).pairs()

    def hits(self, queries: Sequence[str], k: int) -> Hits:
        """See `ArrayIndex.hits`."""
        return merged(self._parts.ask((queries, k)), self._sizes, k)

    def close(self) -> None:
        """End the workers."""
        self._parts.close()
