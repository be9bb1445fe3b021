"""Character grams of texts as numbers: runs of three to five characters within words, a space at each end of a word.

They are scikit-learn's `char_wb` grams of lower-cased text. A gram is a uint64 of twelve bits per character: no
two grams of Latin, Greek, Cyrillic, Hebrew, Arabic or Indic letters share a number; characters from U+1000 on, such as
those of Chinese, are folded to twelve bits, and so are told apart by their neighbours.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

SHORTEST, LONGEST = 3, 5
_BITS = 12
_MOST = 2**16 - 1  # times that a gram of one document is counted, and documents of a chunk

Array = NDArray[Any]


def words_of(text: str) -> list[str]:
    """Split a text at white space, in lower case."""
    return text.lower().split()


def grams(words: Sequence[str]) -> tuple[Array, Array]:
    """Return the number of every gram, and that of its word. Shapes (grams,), ordered by length, then place."""
    text = f" {' '.join(words)} ".encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(text, np.uint32).astype(np.int64)
    space = codes == ord(" ")
    word = np.cumsum(space)[1:] - 1  # of the second character, which is always one of the word's own
    codes = ((codes - 1) % (2**_BITS - 1) + 1).astype(np.uint64)  # never 0, which marks the end of a gram
    numbers = codes[:-2] << 2 * _BITS | codes[1:-1] << _BITS | codes[2:]
    whole = ~space[1:-1]  # no space but at the ends
    found = []
    for length in range(SHORTEST, LONGEST + 1):
        found.append((numbers[whole], word[: len(whole)][whole]))
        numbers = numbers[:-1] << _BITS | codes[length:]
        whole = whole[:-1] & ~space[length - 1 : -1]
    return np.concatenate([keys for keys, _ in found]), np.concatenate([owner for _, owner in found])


class Postings(NamedTuple):
    """Which documents hold each gram, and how often.

    `keys` are the grams' numbers, ascending, and `lengths` in how many documents each occurs; `documents`, ascending
    for each gram, and `counts` are those of the first gram, then those of the second, and so on.
    """

    keys: Array
    lengths: Array
    documents: Array
    counts: Array

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """Count the grams of at most 65,535 texts, numbered from 0. Each distinct word is cut into grams once."""
        vocabulary: dict[str, int] = {}
        numbers, sizes = array("i"), []
        for text in texts:
            words = [vocabulary.setdefault(word, len(vocabulary)) for word in words_of(text)]
            numbers.extend(words)
            sizes.append(len(words))
        keys, owners = grams(list(vocabulary))
        keys, ids = np.unique(keys, return_inverse=True)
        ids = ids[np.argsort(owners, kind="stable")]
        held = np.bincount(owners, minlength=len(vocabulary))
        words_in_order = np.array(numbers, np.int32)
        lengths = held[words_in_order]
        places = runs((np.cumsum(held) - held)[words_in_order], lengths)
        pairs = ids[places] * len(sizes) + np.repeat(np.repeat(np.arange(len(sizes)), sizes), lengths)
        pairs.sort()
        first = np.flatnonzero(np.diff(pairs, prepend=-1))
        counts = np.minimum(np.diff(first, append=len(pairs)), _MOST).astype(np.uint16)
        gram, document = np.divmod(pairs[first], max(1, len(sizes)))
        return cls(keys, np.bincount(gram, minlength=len(keys)), document.astype(np.uint16), counts)

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
        """Return the place of each known gram in `keys`, which ascend, and the postings of those grams."""
        first, last = np.searchsorted(self.keys, keys[0]), np.searchsorted(self.keys, keys[-1], "right")
        places, known = find(keys, self.keys[first:last])
        lengths = self.lengths[first:last]
        start = int(self.lengths[:first].sum())
        part = slice(start, start + int(lengths.sum()))
        kept = np.repeat(known, lengths)
        documents, counts = self.documents[part][kept], self.counts[part][kept]
        return places[known], type(self)(self.keys[first:last][known], lengths[known], documents, counts)


def find(keys: Array, wanted: Array) -> tuple[Array, Array]:
    """Return where each wanted number is among ascending, distinct keys, and whether it is there at all."""
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return places, keys[places] == wanted


def runs(starts: Array, lengths: Array) -> Array:
    """Return the numbers of runs, one after the other: starts 5 and 9, lengths 2 and 3: 5, 6, 9, 10, 11."""
    return np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
