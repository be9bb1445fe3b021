"""Character grams of texts as numbers: runs of three to five characters within words, a space at each end of a word.

They are scikit-learn's `char_wb` grams of lower-cased text. A gram is a uint64 of twelve bits per character: no
two grams of Latin, Greek, Cyrillic, Hebrew, Arabic or Indic letters share a number; characters from U+1000 on, such as
those of Chinese, are folded to twelve bits, and so are told apart by their neighbours.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

import numpy as np

from stepsearch_data.search.postings import Array, Postings, runs

SHORTEST, LONGEST = 3, 5
_BITS = 12


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


def count_grams(texts: Iterable[str]) -> Postings:
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
    documents = np.repeat(np.repeat(np.arange(len(sizes)), sizes), lengths)
    return Postings.counted(keys, ids[places], documents, len(sizes))
