"""Postings in arrays, that may be damaged: compiled search reads wherever they point to, and checks nothing.

Their shapes are checked when an index is opened, which reads no more than the place where each word's postings begin;
the postings of a word when it is first asked for: an index of twenty million passages opens as fast as before.
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
    """Raise SearchError in place of what a library raises over damaged files, which may be anything."""
    try:
        yield
    except SearchError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise  # a panic of Rust is no Exception
        reason = str(error).partition("\n")[0]
        raise SearchError(f"{folder} holds no {engine} index: {reason}", REBUILD) from error


def check_numbers(numbers: Sequence[int], size: int) -> None:
    """Raise SearchError where what an index found is none of its documents."""
    if numbers and not 0 <= min(numbers) <= max(numbers) < size:
        raise SearchError("the index is damaged: it names documents that there are not", REBUILD)


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
            raise self._damage("its arrays are of other kinds")
        held = (self._starts[0], self._starts[-1], len(self._documents))
        if held != (0, len(self._weights), len(self._weights)) or np.any(self._starts[1:] < self._starts[:-1]):
            raise self._damage("its arrays are of other lengths")
        self._checked = np.zeros(len(self._starts) - 1, bool)

    def __len__(self) -> int:
        return len(self._checked)

    def check(self, words: Sequence[int]) -> None:
        """Raise SearchError where the postings of a word point to no document, or weigh nothing."""
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
            raise self._damage("it names documents that there are not")
        if not np.isfinite(weights).all() or (self._positive and weights.min() <= 0):
            raise self._damage("it weighs documents by what is no weight")

    def _damage(self, reason: str) -> SearchError:
        return SearchError(f"the index {self._folder} is damaged: {reason}", REBUILD)
