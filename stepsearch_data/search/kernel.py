"""The compiled search of postings, exact, by MaxScore. Importing this module imports numba, and compiles.

Words are read from the one that can add most to a score to the one that can add least. Once all words left together
add less than the k-th best score, no new document is taken, and the words left are only looked up in those taken.
So are common words, where it is known that none but some documents of theirs can be among the best.
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
_WORTH = 4  # documents taken for each that is scored for a better bound
_STEPS = 12  # postings read one after the other in the time of one look-up
_BLOCK = 256  # documents whose weights are looked up at once
_LOW = np.uint64(0xFFFFFFFF)
_STARTS, _DOCUMENTS, _WEIGHTS = (types.Array(kind, 1, "C", readonly=True) for kind in (int64, int32, float32))
_HELD = types.Tuple((_STARTS, _DOCUMENTS, _WEIGHTS, float32[::1], int64[::1], int32[::1]))  # type: ignore[no-untyped-call]
_ASKED = (int64[::1], int64[::1], int64[::1], int64[::1], float32[::1], int64)
_ROOM = (float32[::1], int64[::1], float32[:, ::1])
_FOUND = (int64[:, ::1], float32[:, ::1], int64[::1], int64[:, ::1], int64[::1])
_SEARCH = types.void(*_ASKED, _HELD, *_ROOM, *_FOUND)


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
def _value(key: Any) -> Any:
    """Return the value of a key of `_largest`."""
    return np.uint32(key >> np.uint64(32)).view(np.float32)


@compiled()
def _numbers(keys: Any) -> Any:
    """Return what was chosen, of keys of `_largest`."""
    return (_LOW - (keys & _LOW)).astype(np.int64)


@compiled()
def _distinct(asked: Any, maxima: Any) -> Any:
    """Return the distinct words, from the one that can add most to a score, and how often each is asked for.

    Then the place among them of each word that is asked for.
    """
    words, times, places = np.empty_like(asked), np.zeros(len(asked), np.float32), np.empty_like(asked)
    count = 0
    for at, word in enumerate(asked):
        place = 0
        while place < count and words[place] != word:
            place += 1
        words[place] = word
        count = max(count, place + 1)
        times[place] += 1
        places[at] = place
    keys, rank = np.empty(count, np.uint64), np.empty(count, np.int64)
    _largest(maxima[words[:count]] * times[:count], np.arange(count), keys)
    order = _numbers(keys)
    rank[order] = np.arange(count)
    return words[order], times[order], rank[places]


@compiled()
def _look_up(word: int, chosen: Any, held: Any, found: Any) -> None:
    """Fill `found` with the weight of a word in each chosen document, 0 where it does not occur."""
    starts, documents, weights, _, places, tables = held
    table = places[word]
    shift = tables[table - 1] if table else 0
    for at, document in enumerate(chosen):
        low, high = starts[word], starts[word + 1]
        if table:
            block = table + (document >> shift)
            low, high = low + tables[block], low + tables[block + 1]
        if table and high - low == 1 << shift:  # all documents of this block
            found[at] = weights[low + (document & ((1 << shift) - 1))]
            continue
        left = high - low
        while left > 1:  # no branch of this may be foretold, so there is none
            half = left >> 1
            low += half if documents[low + half] <= document else 0
            left -= half
        found[at] = weights[low] if low < high and documents[low] == document else 0


@compiled()
def _read(need: float, times: Any, documents: Any, weights: Any, sums: Any, taken: Any, found: int) -> int:
    """Add the weights of a word to the sums of documents; take new documents where it adds at least `need`."""
    for place in range(len(documents)):
        document, weight = documents[place], weights[place] * times
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
def _score(query: Any, chosen: Any, common: int, held: Any, totals: Any) -> None:
    """Sum up all words in the chosen documents, in the order of the query; then, in a second row, the common ones."""
    words, _, places = query
    is_common = held[0][words + 1] - held[0][words] >= common
    weights = np.empty((len(words), min(len(chosen), _BLOCK)), np.float32)
    for first in range(0, len(chosen), _BLOCK):
        block = chosen[first : first + _BLOCK]
        for place, word in enumerate(words):
            _look_up(word, block, held, weights[place])
        of_block = totals[:, first : first + len(block)]
        of_block[:] = 0
        for place in places:
            for at in range(len(block)):
                of_block[0, at] += weights[place, at]
                if is_common[place]:
                    of_block[1, at] += weights[place, at]


@compiled()
def _take(query: Any, limit: int, least: float, best: Any, held: Any, sums: Any, taken: Any, totals: Any) -> int:
    """Take the documents that may be among the best, of words in fewer than `limit`. Return how many they are.

    A score below `least` is not among the best.
    """
    words, times, _ = query
    starts, documents, weights, maxima = held[:4]
    rare = starts[words + 1] - starts[words] < limit
    order = np.concatenate((np.flatnonzero(rare), np.flatnonzero(~rare)))
    seeds = np.empty(len(best) + _SPARE, np.uint64)
    rest = (maxima[words] * times).astype(np.float64).sum()  # what the words that were not read yet can add
    found = 0
    for place in order:
        word, more = words[place], rest >= least and rare[place]
        if not more and found <= len(best):
            break
        rest -= maxima[word] * times[place]
        low, high = starts[word], starts[word + 1]
        if more or found * _STEPS > high - low:
            need = least - rest if more else np.inf
            found = _read(need, times[place], documents[low:high], weights[low:high], sums, taken, found)
        else:
            _look_up(word, taken[:found], held, totals[0])
            for number in range(found):
                sums[taken[number]] += totals[0, number] * times[place]
        if found > _WORTH * len(seeds):
            for number in range(found):
                totals[0, number] = sums[taken[number]]
            chosen = _numbers(seeds[: _largest(totals[0], taken[:found], seeds)])
            _score(query, chosen, limit, held, totals)
            _largest(totals[0], chosen, best)
            least = max(least, _value(best[-1]) * _LESS)
        if found > len(best):
            found = _keep(least - rest, sums, taken, found)
    return found


@compiled()
def _find(
    query: Any, limit: int, least: Any, known: Any, common: int, best: Any, held: Any,
    sums: Any, taken: Any, totals: Any, numbers: Any, scores: Any,
) -> tuple[int, int]:  # fmt: skip
    """Fill `numbers` and `scores` with the best of the documents that are known, or of words in fewer than `limit`.

    Return how many they are, and how many of `taken`, with their rounded scores in `totals`, they were chosen from.
    """
    found = _take(query, limit, least * _LESS, best, held, sums, taken, totals)
    for document in known:
        if sums[document] == 0:
            taken[found] = document
            found += 1
    _score(query, taken[:found], common, held, totals)
    bits = totals.view(np.uint32)
    for place in range(found):
        sums[taken[place]] = 0
        for row in range(2):
            bits[row, place] = (bits[row, place] + np.uint32(8)) & np.uint32(0xFFFFFFF0)
    count = _largest(totals[0], taken[:found], best)
    numbers[:count] = _numbers(best[:count])
    scores.view(np.uint32)[:count] = (best[:count] >> np.uint64(32)).astype(np.uint32)
    return count, found


@compiled(_SEARCH)
def search(
    words: Any, ends: Any, given: Any, given_ends: Any, bounds: Any, common: int, held: Any, sums: Any, taken: Any,
    totals: Any, numbers: Any, scores: Any, counts: Any, learned: Any, learned_counts: Any,
) -> None:  # fmt: skip
    """Find the k best of the documents per query, best first, ties in corpus order; round scores as `rounded` does.

    Query q asks for `words[ends[q - 1]:ends[q]]`. Common words are in `common` documents or more. Of the documents that
    hold none of the others, `given[given_ends[q - 1]:given_ends[q]]` are known, and those that may score `bounds[q]` or
    more are among them. Where that does not decide, all words are read. Then `bounds[q]` is a lower one, and `learned`,
    shape (queries, k), and `learned_counts` tell the documents that are known now; else `learned_counts[q]` is -1.

    The numbers of documents and their scores go to `numbers` and `scores`, shape (queries, k), and how many there are
    to `counts`. `held` is that of `Arrays`. `sums` is 0 for each document, and is left so; `taken` and both rows of
    `totals` have room for each.
    """
    everything, k = len(sums) + 1, numbers.shape[1]
    best = np.empty(k, np.uint64)
    first, first_given = 0, 0
    for query in range(len(ends)):
        asked, known = _distinct(words[first : ends[query]], held[3]), given[first_given : given_ends[query]]
        first, first_given = ends[query], given_ends[query]
        place, room = (numbers[query], scores[query]), (sums, taken, totals)
        least = np.float32(0)
        learned_counts[query] = -1
        if bounds[query] < np.inf:
            counts[query], _ = _find(asked, common, least, known, common, best, held, *room, *place)
            least = scores[query, -1] if counts[query] == k else least
        if least < bounds[query]:
            counts[query], found = _find(asked, everything, least, known[:0], common, best, held, *room, *place)
            least = scores[query, -1] if counts[query] == k else least
            length = _largest(totals[1], taken[:found], best)
            while length and not 0 < _value(best[length - 1]) >= least:
                length -= 1
            learned[query, :length], learned_counts[query] = _numbers(best[:length]), length
            bounds[query] = 0 if length == k else least
