"""Postings of terms, be they words or character grams: counted by chunks of documents, then merged term by term.

Memory: what a chunk of documents and a block of postings take. The chunks are in files until they are merged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_BLOCK = 4_000_000  # postings put in order at once
_MOST = 2**16 - 1  # times that a term of one document is counted, and documents of a chunk


class Postings(NamedTuple):
    """Which documents hold each term, and how often.

    `keys` are the terms' numbers, ascending, and `lengths` in how many documents each occurs; `documents`, ascending
    for each term, and `counts` are those of the first term, then those of the second, and so on.
    """

    keys: Array
    lengths: Array
    documents: Array
    counts: Array

    @classmethod
    def counted(cls, keys: Array, terms: Array, documents: Array, size: int) -> Self:
        """Count how often each term, an index into `keys`, occurs in each of at most 65,535 documents."""
        pairs = terms.astype(np.int64) * size + documents
        pairs.sort()
        first = np.flatnonzero(np.diff(pairs, prepend=-1))
        counts = np.minimum(np.diff(first, append=len(pairs)), _MOST).astype(np.uint16)
        term, document = np.divmod(pairs[first], max(1, size))
        return cls(keys, np.bincount(term, minlength=len(keys)), document.astype(np.uint16), counts)

    def save(self, folder: Path) -> None:
        """Write the arrays to a new folder."""
        folder.mkdir()
        for name, values in self._asdict().items():
            np.save(folder / f"{name}.npy", values)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Map what `save` has written: only what is used is read."""
        return cls(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in cls._fields))

    def among(self, keys: Array) -> tuple[Array, Self]:
        """Return the place of each known term in `keys`, which ascend, and the postings of those terms."""
        first, last = np.searchsorted(self.keys, keys[0]), np.searchsorted(self.keys, keys[-1], "right")
        places, known = find(keys, self.keys[first:last])
        lengths = self.lengths[first:last]
        start = int(self.lengths[:first].sum())
        part = slice(start, start + int(lengths.sum()))
        kept = np.repeat(known, lengths)
        documents, counts = self.documents[part][kept], self.counts[part][kept]
        return places[known], type(self)(self.keys[first:last][known], lengths[known], documents, counts)


Weigh = Callable[[Array, Array, Array], Any]
"""Gives the weight of postings, from the place of their term, their document and their count."""


def merge(
    chunks: Sequence[Path], size: int, keys: Array, frequencies: Array, weigh: Weigh, indices: Path, data: Path
) -> None:
    """Write the postings of all chunks of `size` documents, term by term: documents to `indices`, weights to `data`.

    `keys` are the terms that count, ascending, and `frequencies` in how many documents each occurs.
    """
    total = int(frequencies.sum())
    with open(indices, "wb") as documents_file, open(data, "wb") as weights_file:
        _head(documents_file, np.int32, total)
        _head(weights_file, np.float32, total)
        for block in _blocks(frequencies):
            lengths = frequencies[block]
            filled = np.cumsum(lengths) - lengths  # where the next document of each term goes
            documents, weights = np.empty(lengths.sum(), np.int32), np.empty(lengths.sum(), np.float32)
            for at, chunk in enumerate(chunks):
                places, postings = Postings.load(chunk).among(keys[block])
                to = runs(filled[places], postings.lengths)
                documents[to] = number = postings.documents.astype(np.int32) + at * size
                weights[to] = weigh(np.repeat(places + block.start, postings.lengths), number, postings.counts)
                filled[places] += postings.lengths
            documents_file.write(documents.data)
            weights_file.write(weights.data)


def _blocks(frequencies: Array) -> Iterator[slice]:
    """Yield ranges of terms with about `_BLOCK` postings each."""
    ends = np.cumsum(frequencies)
    start = 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + _BLOCK, "right")))
        yield slice(start, end)
        start = end


def _head(file: IO[bytes], dtype: Any, length: int) -> None:
    """Begin a .npy file of one dimension. It is not mapped: written pages would count as memory of this process."""
    described = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(file, {"descr": described, "fortran_order": False, "shape": (length,)})


def find(keys: Array, wanted: Array) -> tuple[Array, Array]:
    """Return where each wanted number is among ascending, distinct keys, and whether it is there at all."""
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return places, keys[places] == wanted


def runs(starts: Array, lengths: Array) -> Array:
    """Return the numbers of runs, one after the other: starts 5 and 9, lengths 2 and 3: 5, 6, 9, 10, 11."""
    return np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
