"""Postings in arrays, which may be damaged.

Their shapes are checked when an index is opened, which reads only where each word's postings begin. A word's postings
are checked when it is first searched for, so that an index of twenty million passages opens fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepsearch_data.core.errors import SearchError

REBUILD = (
    "build it again: remove the whole index folder, then run the same command with --corpus;"
    " in a run: stepsearch-data build --force --stage index"
)

_POSTINGS = 16  # between two entries of a table, at most on average


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
    """The postings of an index: word w occurs in `documents[starts[w]:starts[w + 1]]`, and weighs `weights` there.

    Documents ascend; weights are finite, and above 0 where they are `positive`, else from 0 up. `maxima` holds the
    largest weight of each word that was checked. Raises SearchError for other shapes.

    A word of many documents may have a table, which tells where a document is among its postings. It begins at
    `places[word]` in `tables`; 0 there is none. It holds for every `2**tables[places[word] - 1]` documents how many
    postings come before them.
    """

    def __init__(self, folder: Path, arrays: Sequence[Any], size: int, *, positive: bool) -> None:
        self._folder, self._positive, self.size = folder, positive, size
        self.starts, self.documents, self.weights = map(np.asarray, arrays)  # slices of a memmap are slow
        kinds = [(array.ndim, array.dtype) for array in arrays]
        if kinds != [(1, np.int64), (1, np.int32), (1, np.float32)] or not len(self.starts):
            raise self._damage("its arrays have other types")
        held = (self.starts[0], self.starts[-1], len(self.documents))
        if held != (0, len(self.weights), len(self.weights)) or np.any(self.starts[1:] < self.starts[:-1]):
            raise self._damage("its arrays have other lengths")
        self.maxima: NDArray[np.float32] = np.full(len(self), -1, np.float32)
        self.places: NDArray[np.int64] = np.zeros(len(self), np.int64)
        self.tables: NDArray[np.int32] = np.zeros(1, np.int32)
        self._used, self._lock = 1, Lock()

    def __len__(self) -> int:
        return len(self.starts) - 1

    def postings(self, word: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Return the documents of a word and its weights there."""
        part = slice(self.starts[word], self.starts[word + 1])
        return self.documents[part], self.weights[part]

    def check(self, words: Iterable[int]) -> None:
        """Raise SearchError where the postings of a word name documents that do not exist, or have invalid weights."""
        for word in words:
            if type(word) is not int or not 0 <= word < len(self):
                raise self._damage("its vocabulary names words that it does not have")
            if self.maxima[word] < 0:
                self.maxima[word] = self._maximum(*self.postings(word))

    @property
    def held(self) -> tuple[NDArray[Any], ...]:
        """Return all arrays."""
        return self.starts, self.documents, self.weights, self.maxima, self.places, self.tables

    def tabulate(self, words: NDArray[np.int64]) -> None:
        """Make the tables of words that have postings, were checked, and have no table yet."""
        with self._lock:
            for word in np.unique(words[self.places[words] == 0]).tolist():
                documents, _ = self.postings(word)
                shift = (_POSTINGS * self.size // len(documents)).bit_length() - 1
                table = documents.searchsorted(np.arange((self.size >> shift) + 2) << shift)
                begin = self._used + 1
                self._used = begin + len(table)
                if self._used > len(self.tables):  # searches that run keep the array that they were given
                    self.tables = np.concatenate([self.tables, np.zeros(self._used, np.int32)])
                self.tables[begin - 1], self.tables[begin : self._used] = shift, table
                self.places[word] = begin

    def _maximum(self, documents: NDArray[np.int32], weights: NDArray[np.float32]) -> Any:
        if not len(documents):
            return 0
        if documents[0] < 0 or documents[-1] >= self.size or (documents[1:] <= documents[:-1]).any():
            raise self._damage("it names documents that do not exist")
        least, most = weights.min(), weights.max()  # not a number where one of them is not
        if not 0 <= least <= most < np.inf or (self._positive and least == 0):
            raise self._damage("it holds weights that are not valid")
        return most

    def _damage(self, reason: str) -> SearchError:
        return SearchError(f"the index {self._folder} is damaged: {reason}", REBUILD)
