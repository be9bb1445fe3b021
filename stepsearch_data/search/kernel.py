"""The compiled search of postings, exact, by MaxScore. Importing this module imports numba, and compiles.

Words are read from the one that can add most to a score to the one that can add least. Once all words left together
add less than the k-th best score, no new document is taken, and the words left are only looked up in those taken.
So are common words whose best documents are known.
H. Turtle, J. Flood: Query evaluation: strategies and optimizations, IPM 31(6), 1995.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import float32, int32, int64, njit, types

F = TypeVar("F", bound=Callable[..., Any])

_LESS = 1 - 1e-4  # sums of float32s in another order differ by less
_SPARE = 4  # documents beyond k that are scored early: the k-th best score of them is a bound
_WORTH = 4  # postings to read, or documents taken, that justify one look-up for a better bound
_STEPS = 24  # postings read one after the other in the time of one look-up
_LOW = np.uint64(0xFFFFFFFF)
_STARTS, _DOCUMENTS, _WEIGHTS = (types.Array(kind, 1, "C", readonly=True) for kind in (int64, int32, float32))
_FOUND = (int64[:, ::1], float32[:, ::1], int64[::1], int64[::1])
_ASKED = (int64[::1], int64[::1], int64[::1], int64[::1], int64, int64)
_SEARCH = types.void(*_ASKED, _STARTS, _DOCUMENTS, _WEIGHTS, float32[::1], float32[::1], *_FOUND)


def compiled(signature: Any = None) -> Callable[[F], F]:
    """Compile a function: at once for a signature, else when it is called.

    What was compiled is kept beside this file, or in the user's cache folder, and found there the next time.
    """

    def compiling(function: F) -> F:
        try:
            made: Any = njit(signature, nogil=True, cache=True)(function)
        except RuntimeError:  # neither folder can be written
            made = njit(signature, nogil=True)(function)
        return made  # type: ignore[no-any-return]  # it is called as the function is

    return compiling


@compiled()
def _push(heap: Any, length: int, key: Any) -> int:
    """Add a key to a heap of the largest ones, the smallest of them first; return how many it holds."""
    if length < len(heap):
        at = length
        while at > 0 and key < heap[(at - 1) >> 1]:
            heap[at] = heap[(at - 1) >> 1]
            at = (at - 1) >> 1
        heap[at] = key
        return length + 1
    at = 0
    while 2 * at + 1 < length:
        child = 2 * at + 1
        if child + 1 < length and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = key
    return length


@compiled()
def _largest(values: Any, chosen: Any, best: Any) -> int:
    """Fill `best` with the chosen of the largest values, of equal ones the lowest first; return how many they are.

    A key is the bits of a value, which order numbers from 0 up, and those of what is chosen, inverted.
    """
    bits = values.view(np.uint32)
    length = 0
    for place in range(len(chosen)):
        key = np.uint64(bits[place]) << np.uint64(32) | (_LOW - np.uint64(chosen[place]))
        if length < len(best) or key > best[0]:
            length = _push(best, length, key)
    for end in range(length - 1, 0, -1):  # the smallest of a heap goes to its end
        key = best[end]
        best[end] = best[0]
        _push(best[:end], end, key)
    return length


@compiled()
def _look_up(word: int, chosen: Any, totals: Any, starts: Any, documents: Any, weights: Any) -> None:
    """Add the weight of a word in each chosen document, 0 where it does not occur, to the document's total."""
    start, end = starts[word], starts[word + 1]
    for place in range(len(chosen)):
        document, low, high = chosen[place], start, end
        while low < high:
            middle = (low + high) >> 1
            if documents[middle] < document:
                low = middle + 1
            else:
                high = middle
        if low < end and documents[low] == document:
            totals[place] += weights[low]


@compiled()
def _read(need: float, documents: Any, weights: Any, sums: Any, taken: Any, found: int) -> int:
    """Add the weights of a word to the sums of documents; take new documents where it weighs at least `need`."""
    for place in range(len(documents)):
        document, weight = documents[place], weights[place]
        if sums[document] > 0:
            sums[document] += weight
        elif weight > 0 and weight >= need:
            sums[document] = weight
            taken[found] = document
            found += 1
    return found


@compiled()
def _keep(least: float, sums: Any, taken: Any, found: int) -> int:
    """Drop documents whose sum is less; return how many are left."""
    kept = 0
    for place in range(found):
        document = taken[place]
        if sums[document] >= least:
            taken[kept] = document
            kept += 1
        else:
            sums[document] = 0
    return kept


@compiled()
def _score(asked: Any, chosen: Any, totals: Any, starts: Any, documents: Any, weights: Any) -> None:
    """Sum up all words in the chosen documents, in the order of the query."""
    totals[:] = 0
    for word in asked:
        _look_up(word, chosen, totals, starts, documents, weights)


@compiled()
def _ordered(asked: Any, limit: int, starts: Any, maxima: Any) -> Any:
    """Return the words from the one that can add most, but those in `limit` documents or more last."""
    keys = np.empty(len(asked), np.uint64)
    _largest(maxima[asked], np.arange(len(asked)), keys)
    order = asked[(_LOW - (keys & _LOW)).astype(np.int64)]
    rare = starts[order + 1] - starts[order] < limit
    return order if rare.all() else np.concatenate((order[rare], order[~rare]))


@compiled()
def _take(
    asked: Any, limit: int, common: int, best: Any, starts: Any, documents: Any, weights: Any, maxima: Any,
    sums: Any, taken: Any, totals: Any,
) -> tuple[int, int]:  # fmt: skip
    """Take the documents that may be among the best, of words in fewer than `limit`.

    Return how many they are, and how many postings of common words were read to take them.
    """
    order, seeds = _ordered(asked, limit, starts, maxima), np.empty(len(best) + _SPARE, np.uint64)
    rest = maxima[order].astype(np.float64).sum()  # what the words that were not read yet can add
    worth = _WORTH * len(seeds) * len(asked)
    least, found, read = 0.0, 0, 0
    for at, word in enumerate(order):
        low, high = starts[word], starts[word + 1]
        more = rest >= least and high - low < limit
        if not more and found <= len(best):
            break
        rest -= maxima[word]
        if more or found * _STEPS > high - low:
            need = least - rest if more else np.inf
            read += (high - low) * (more and high - low >= common)
            found = _read(need, documents[low:high], weights[low:high], sums, taken, found)
        else:
            totals[:found] = 0
            _look_up(word, taken[:found], totals, starts, documents, weights)
            for place in range(found):
                sums[taken[place]] += totals[place]
        if found > len(best):
            last = at + 1 == len(order)
            long = not last and starts[order[at + 1] + 1] - starts[order[at + 1]] > worth
            if last or (long and (rest >= least or found > worth)):
                for place in range(found):
                    totals[place] = sums[taken[place]]
                length = _largest(totals, taken[:found], seeds)
                chosen = (_LOW - (seeds[:length] & _LOW)).astype(np.int64)
                _score(asked, chosen, totals[:length], starts, documents, weights)
                _largest(totals, chosen, best)
                kth = np.uint32(best[-1] >> np.uint64(32)).view(np.float32)
                least = max(least, float(kth) * _LESS)
            found = _keep(least - rest, sums, taken, found)
    return found, read


@compiled(_SEARCH)
def search(
    words: Any, ends: Any, best_of_common: Any, best_ends: Any, common: int, k: int,
    starts: Any, documents: Any, weights: Any, maxima: Any, sums: Any, numbers: Any, scores: Any, counts: Any,
    read: Any,
) -> None:  # fmt: skip
    """Find the k best of the documents per query, best first, ties in corpus order; round scores as `rounded` does.

    Query q asks for `words[ends[q - 1]:ends[q]]`. Common words are in `common` documents or more. The k best documents
    of its common words alone are `best_of_common[best_ends[q - 1]:best_ends[q]]`, none where they are not known.
    `maxima` holds the largest weight of each of the words. `sums` is 0 for each document, and is left so. The numbers
    of documents and their scores go to `numbers` and `scores`, shape (queries, k), how many there are to `counts`, and
    to `read` how many postings of common words were read to take documents.
    """
    taken, totals = np.empty(len(sums), np.int64), np.empty(len(sums), np.float32)
    bits, score_bits = totals.view(np.uint32), scores.view(np.uint32)
    best = np.empty(k, np.uint64)
    first, first_best = 0, 0
    for query in range(len(ends)):
        asked, given = words[first : ends[query]], best_of_common[first_best : best_ends[query]]
        first, first_best = ends[query], best_ends[query]
        limit = common if len(given) else len(sums) + 1
        found, read[query] = _take(asked, limit, common, best, starts, documents, weights, maxima, sums, taken, totals)
        for document in given:
            if sums[document] == 0:
                taken[found] = document
                found += 1
        _score(asked, taken[:found], totals[:found], starts, documents, weights)
        for place in range(found):
            sums[taken[place]] = 0
            bits[place] = (bits[place] + np.uint32(8)) & np.uint32(0xFFFFFFF0)
        counts[query] = _largest(totals, taken[:found], best)
        for place in range(counts[query]):
            numbers[query, place] = _LOW - (best[place] & _LOW)
            score_bits[query, place] = best[place] >> np.uint64(32)
