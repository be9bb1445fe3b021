"""Postings in arrays, which may be damaged.

Their shapes are checked when an index is opened, which reads only where each word's postings begin. A word's postings
are checked when it is first searched for, so that an index of twenty million passages opens fast.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from stepsearch_data.core.errors import SearchError
from stepsearch_data.search.compiled import REBUILD


@contextmanager
def reading(folder: Path, engine: str) -> Iterator[None]:
    """Raise SearchError in place of whatever a library raises over damaged files."""
    try:
        yield
    except SearchError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise  # a panic of Rust is a BaseException
        reason = str(error).partition("\n")[0]
        raise SearchError(f"{folder} holds no {engine} index: {reason}", REBUILD) from error


def check_numbers(numbers: Sequence[int], size: int) -> None:
    """Raise SearchError where an index found the number of a document that it does not have."""
    if numbers and not 0 <= min(numbers) <= max(numbers) < size:
        raise SearchError("the index is damaged: it names documents that do not exist", REBUILD)


class Arrays:
    """The postings of an index: of word w, documents and weights `indptr[w]` to `indptr[w + 1]`, by bm25s's names.

    Documents ascend; weights are finite, and above 0 where they are `positive`. Raises SearchError for other shapes.
    """

    def __init__(self, folder: Path, scores: Mapping[str, Any], *, positive: bool) -> None:
        self._folder, self._positive = folder, positive
        self._starts, self._documents, self._weights = (scores[name] for name in ("indptr", "indices", "data"))
        self._size = scores["num_docs"]
        arrays = (self._starts, self._documents, self._weights)
        kinds = [(array.ndim, array.dtype.kind, array.dtype.isnative) for array in arrays]
        if kinds != [(1, "i", True), (1, "i", True), (1, "f", True)] or not len(self._starts):
            raise self._damage("its arrays have other types")
        held = (self._starts[0], self._starts[-1], len(self._documents))
        if held != (0, len(self._weights), len(self._weights)) or np.any(self._starts[1:] < self._starts[:-1]):
            raise self._damage("its arrays have other lengths")
        self._checked = np.zeros(len(self._starts) - 1, bool)

    def __len__(self) -> int:
        return len(self._checked)

    def check(self, words: Sequence[int]) -> None:
        """Raise SearchError where the postings of a word name documents that do not exist, or have invalid weights."""
        if not all(type(word) is int and 0 <= word < len(self) for word in words):
            raise self._damage("its vocabulary names words that it does not have")
        for word in words:
            if not self._checked[word]:
                part = slice(self._starts[word], self._starts[word + 1])
                self._check(self._documents[part], self._weights[part])
                self._checked[word] = True

    def _check(self, documents: Any, weights: Any) -> None:
        if not len(documents):
            return
        if documents[0] < 0 or documents[-1] >= self._size or np.any(documents[1:] <= documents[:-1]):
            raise self._damage("it names documents that do not exist")
        if not np.isfinite(weights).all() or (self._positive and weights.min() <= 0):
            raise self._damage("it holds weights that are not valid")

    def _damage(self, reason: str) -> SearchError:
        return SearchError(f"the index {self._folder} is damaged: {reason}", REBUILD)
