"""Pruned search finds what adding up everything finds: the same documents, with the same scores, in the same order."""

from __future__ import annotations

import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepsearch_data.core.progress import Meter
from stepsearch_data.search import sparse
from stepsearch_data.search.arrays import Arrays
from stepsearch_data.search.bm25 import Bm25
from stepsearch_data.search.chargram import Chargram
from stepsearch_data.search.sparse import SparseIndex, rounded
from tests.builders import build_index

WAYS = ["numpy", "numba"]
Pairs = list[tuple[int, float]]


class Numbers(SparseIndex):
    """Its words are numbers."""

    def words_of(self, query: str) -> tuple[list[int], float]:
        return [int(word) for word in query.split()], 1.0


def use(way: str, patch: pytest.MonkeyPatch) -> None:
    """Have every query searched in this way."""
    if way == "numba":
        pytest.importorskip("numba")
        assert sparse.compiling().result()
    patch.setattr(sparse, "LARGE", 0)
    patch.setattr(sparse, "MANY", 10**9 if way == "numpy" else 0)


def made(size: int, shares: list[float], weights: int, seed: int) -> Arrays:
    """Words that occur in shares of the documents, with as many distinct weights; few make many ties."""
    draw = np.random.default_rng(seed)
    documents = [np.flatnonzero(draw.random(size) < share).astype(np.int32) for share in shares]
    starts = np.concatenate([[0], np.cumsum([len(each) for each in documents])])
    heights = draw.random(len(shares)).astype(np.float32) * 10  # the largest weight of each word
    values = [
        top * draw.integers(0, weights + 1, len(each)).astype(np.float32) / weights
        for top, each in zip(heights, documents, strict=True)
    ]
    return Arrays(Path(), [starts, np.concatenate(documents), np.concatenate(values)], size, positive=False)


def plain(arrays: Arrays, words: list[int], k: int) -> Pairs:
    """Add up everything."""
    sums = np.zeros(arrays.size, np.float32)
    for word in words:
        documents, weights = arrays.postings(word)
        sums[documents] += weights
    scores = rounded(sums)
    best = np.argsort(-scores, kind="stable")[:k]
    return [(number, float(scores[number])) for number in best.tolist() if scores[number] > 0]


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
@given(
    size=st.sampled_from([1, 7, 300, 5_000]),
    shares=st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.1, 0.5, 1.0]), min_size=1, max_size=9),
    weights=st.sampled_from([1, 3, 1_000_000]),
    k=st.sampled_from([1, 5, 40, 10_000]),
    common=st.sampled_from([0, 1, 40, 1_000, 10_000]),
    long=st.sampled_from([1, 40, 10_000]),
    seed=st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=60)
def test_the_best_are_those_of_adding_up_everything(
    way: str, size: int, shares: list[float], weights: int, k: int, common: int, long: int, seed: int
) -> None:
    arrays = made(size, shares, weights, seed)
    draw = np.random.default_rng(seed)
    asked = [draw.integers(0, len(shares), n).tolist() for n in (0, 1, 2, 4, 8, 25, 60)]  # words more than once, too
    index, expected = Numbers(arrays, 2), [plain(arrays, words, k) for words in asked]
    with pytest.MonkeyPatch.context() as patch:
        use(way, patch)
        patch.setattr(sparse, "_COMMON", common)
        patch.setattr(sparse, "_LONG", long)
        for _ in range(2):  # the best of common words are unknown, known
            assert index.find([" ".join(map(str, words)) for words in asked], k) == expected


def test_what_is_found_of_common_words_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    use("numba", monkeypatch)
    monkeypatch.setattr(sparse, "_COMMON", 100)
    monkeypatch.setattr(sparse, "_KEPT", 2)
    arrays = made(1_000, [0.5, 0.5, 0.01, 0.05], 1_000, 1)
    arrays.weights[:] += np.float32(1e-3)
    index = Numbers(arrays, 1)
    states = []
    for query in ("2 3", "3 0", "0 2", "0", "1 2 0", "1", "3 1"):
        assert index.find([query], 20) == [plain(arrays, [int(word) for word in query.split()], 20)]
        states.append([(len(documents), bound > 0) for documents, bound in index._known.values()])
    none, few, more, all_ = (0, True), (17, True), (18, True), (20, False)
    assert states == [[], [none], [few], [all_], [all_, more], [all_, more, all_], []]


def test_what_is_remembered_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    use("numba", monkeypatch)
    monkeypatch.setattr(sparse, "_COMMON", 100)
    monkeypatch.setattr(sparse, "_KEPT_BYTES", 40_000)
    index = Numbers(made(2_000, [0.9] * 8, 1_000_000, 1), 1)
    held = []
    for at in range(1, 2**8):
        assert len(index.find([" ".join(str(word) for word in range(8) if at >> word & 1)], 1_000)[0]) == 1_000
        held.append(sum(documents.nbytes for documents, _ in index._known.values()))
    assert 0 < max(held) < 2 * 40_000


def test_long_queries_are_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    use("numba", monkeypatch)
    monkeypatch.setattr(sparse, "_COMMON", 100)
    index = Numbers(made(1_000, [0.5, 0.5], 1_000, 1), 1)
    for length, remembered in ((257, 0), (256, 1)):
        index.find([" ".join(["0", "1"] * 129)[: 2 * length - 1]], 20)
        assert len(index._known) == remembered


@pytest.mark.parametrize("kind", [Bm25, Chargram])
def test_both_ways_find_the_same_texts(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(1)
    texts = [" ".join(f"word{n}" for n in draw.zipf(1.3, 12) if n < 500) or "x" for _ in range(700)]
    part = build_index(tmp_path, texts, kind.__name__.lower())
    queries = [*texts[:150], "word1", "word1 word2", "nothing", ""]
    answers = []
    for way in WAYS:
        use(way, monkeypatch)
        index = kind(part) if kind is Bm25 else kind(part, len(texts))
        answers.append(index.find(queries, 5))
        assert answers[-1] == [found[:5] for found in index.find(queries, 700)]
    assert answers[0] == answers[1]


def test_numba_is_loaded_for_many_queries_of_a_large_index_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = made(50, [0.5, 0.5], 3, 0)
    monkeypatch.setattr(sparse, "LARGE", 50)
    monkeypatch.setattr(sparse, "MANY", 3)
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "stepsearch_data.search.kernel", raising=False)
    sparse._kernel.cache_clear()
    sparse.compiling.cache_clear()
    try:
        index = Numbers(arrays, 1)
        for queries in (["0", "1"], ["0 1", "1 0", "0"]):
            words = [[int(word) for word in query.split()] for query in queries]
            assert index.find(queries, 4) == [plain(arrays, each, 4) for each in words]
        assert sparse.compiling().result() is None
        assert sparse._kernel.cache_info().currsize == 1
    finally:
        sparse._kernel.cache_clear()
        sparse.compiling.cache_clear()


def test_queries_do_not_wait_until_the_search_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: Future[None] = Future()
    monkeypatch.setattr(sparse, "LARGE", 0)
    monkeypatch.setattr(sparse, "MANY", 0)
    monkeypatch.setattr(sparse, "compiling", lambda: compiled)
    assert len(Numbers(made(50, [0.5], 3, 0), 1).find(["0"], 4)[0]) == 4


def test_a_huge_index_without_numba_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(sparse, "_kernel", lambda: None)
    for passages in (sparse.LARGE, 50_000):
        sparse.prepare(passages, Meter(None, "index", told.append))
    assert told == ["pip install 'stepsearch-data[fast]' answers two to eight times as many queries a second"]
