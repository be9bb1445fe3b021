"""What engines of this process share: bm25s's compiled search, its ties in order, and advice on broken indexes.

numba compiles once per machine: that takes longer than everything else that a server does first.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

FROM = 5_000  # passages; with fewer, numpy has finished before numba is loaded
REBUILD = (
    "build it again: remove the whole index folder, then run the same command with --corpus;"
    " in a run: stepsearch-data build --force --stage index"
)
_SPARE = 16  # documents asked for beyond k, to see whether the k-th score goes on
_WIDER = 8  # times as many when it does
_CELLS = 1_000_000  # documents and scores of a batch in memory at once, unless a single query has more


def speed_up(index: Any, passages: int) -> None:
    """Have a bm25s index search with numba where it holds so many passages that this is faster.

    numba keeps what it compiled beside bm25s, or in the user's cache folder, and finds it there the next time.
    """
    if passages < FROM:
        return
    from bm25s.numba import retrieve_utils

    with suppress(AttributeError, RuntimeError):  # another bm25s, or nowhere to keep it: then it is compiled each time
        retrieve_utils._retrieve_internal_jitted_serial.enable_caching()  # noqa: SLF001 - bm25s has no option for it
    index.backend = "numba"


def best(index: Any, asked: Sequence[list[int]], k: int) -> list[list[tuple[int, float]]]:
    """Return the k best documents of a bm25s index, with scores, per list of word numbers, as `Index.find` does.

    bm25s leaves it to chance which of equal documents are among the first k: a query whose k-th score is also that of
    the last document it got is asked again for more. Scores are rounded to six digits.
    """
    results: list[list[tuple[int, float]]] = [[] for _ in asked]
    left, most = list(range(len(asked))), k + _SPARE
    while left:
        most = min(most, index.scores["num_docs"])
        size, again = max(1, _CELLS // most), []
        for part in (left[start : start + size] for start in range(0, len(left), size)):
            for at, pairs in zip(part, _ranked(index, [asked[at] for at in part], k, most), strict=True):
                if pairs is None:
                    again.append(at)
                else:
                    results[at] = pairs
        left, most = again, most * _WIDER
    return results


def _ranked(index: Any, asked: list[list[int]], k: int, most: int) -> list[list[tuple[int, float]] | None]:
    """Return the k best of `most` documents per query; None where the k-th score may go on beyond them."""
    documents, scores = index.retrieve(asked, k=most, sorted=False, show_progress=False, n_threads=0)
    bits = _rounded(scores)
    keys = (~bits).astype(np.uint64) << np.uint64(32) | documents.astype(np.uint64)  # sorting numbers is fastest
    keys.sort(axis=1)
    scores = (~(keys >> np.uint64(32)).astype(np.uint32)).view(np.float32)
    goes_on = (scores[:, -1] > 0) & (scores[:, -1] == scores[:, min(k, most) - 1])
    if most == index.scores["num_docs"]:
        goes_on[:] = False
    numbers = (keys[:, :k] & np.uint64(0xFFFFFFFF)).tolist()
    found = np.count_nonzero(scores[:, :k], axis=1).tolist()
    rows = zip(goes_on.tolist(), found, numbers, scores[:, :k].tolist(), strict=True)
    return [None if more else list(zip(row[:many], values[:many], strict=True)) for more, many, row, values in rows]


def _rounded(scores: Any) -> Any:
    """Return the bits of float32s, rounded to six decimal digits: the order of adding up decides the seventh.

    Numbers from 0 up are in the order of their bits; those below become 0.
    """
    bits = np.maximum(scores, np.float32(0)).view(np.uint32)
    return (bits + np.uint32(8)) & np.uint32(0xFFFFFFF0)
