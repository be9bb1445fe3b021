"""BM25 by `bm25s`: an index is a folder of arrays, memory-mapped when searched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
from bm25s.tokenization import Tokenized

from stepsearch_data.pipeline.errors import SearchError
from stepsearch_data.pipeline.search.engine import Found
from stepsearch_data.text import tokens

NAME = "bm25"
_NUMBA_FROM = 20_000  # passages; below, compiling takes longer than numpy's slower search


def build_index(passages: Iterable[tuple[str, str]], folder: Path, k1: float, b: float) -> None:
    """Write a BM25 index (Lucene's variant) of (passage_id, text) pairs to an empty folder.

    Raises SearchError for a corpus without a single word.
    """
    vocabulary: dict[str, int] = {}
    ids, documents = [], []
    for passage_id, text in passages:
        ids.append(passage_id)
        documents.append([vocabulary.setdefault(token, len(vocabulary)) for token in tokens(text)])
    if not vocabulary:
        raise SearchError("the corpus holds no word to index", "check that the sources hold paragraphs")
    index = bm25s.BM25(method="lucene", k1=k1, b=b)
    index.index(Tokenized(ids=documents, vocab=vocabulary), create_empty_token=False, show_progress=False)
    index.save(folder, show_progress=False)
    np.save(folder / "passage_ids.npy", np.array(ids))


class Bm25:
    """A built index, ready to search on `workers` threads."""

    name = NAME

    def __init__(self, folder: Path, workers: int = 1) -> None:
        try:
            self._ids = np.load(folder / "passage_ids.npy", mmap_mode="r")
            self._index = bm25s.BM25.load(folder, mmap=True, show_progress=False)
        except (OSError, ValueError, KeyError) as error:
            raise SearchError(f"{folder} holds no BM25 index: {error}", "build it: --stage index") from error
        self._vocabulary: dict[str, int] = self._index.vocab_dict
        self._workers = workers
        if len(self._ids) >= _NUMBA_FROM:
            import numba

            self._workers = min(workers, numba.get_num_threads())  # it refuses more than it was started with
            self._index.backend = "numba"
            self._index.activate_numba_scorer()

    def search(self, queries: Sequence[str], k: int) -> list[list[Found]]:
        """See `SearchEngine.search`. Documents that share no word with the query are no results."""
        words = [[self._vocabulary[t] for t in tokens(query) if t in self._vocabulary] for query in queries]
        asked = [at for at, ids in enumerate(words) if ids]
        results: list[list[Found]] = [[] for _ in queries]
        if not asked:
            return results
        documents, scores = self._retrieve([words[at] for at in asked], min(k, len(self._ids)))
        for row, at in enumerate(asked):
            results[at] = self._found(documents[row], scores[row])
        return results

    def _retrieve(self, words: list[list[int]], k: int) -> tuple[Any, Any]:
        found: tuple[Any, Any] = self._index.retrieve(words, k=k, show_progress=False, n_threads=self._workers)
        return found

    def _found(self, documents: Any, scores: Any) -> list[Found]:
        """Best first; equal scores in the order of the corpus."""
        order = np.lexsort((documents, -scores))
        return [Found(str(self._ids[documents[at]]), float(scores[at])) for at in order if scores[at] > 0]
