"""Postings that are counted by chunks and merged are those of all documents at once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepsearch_data.search import postings
from stepsearch_data.search.postings import Array, Postings, find, merge, runs

DOCUMENTS = [[3, 1, 3], [], [1, 0], [4, 4, 4, 1], [0]]


def count(documents: list[list[int]]) -> Postings:
    terms = np.array([term for document in documents for term in document], np.int64)
    keys, places = np.unique(terms, return_inverse=True)
    owners = np.repeat(np.arange(len(documents)), [len(document) for document in documents])
    return Postings.counted(keys, places, owners, len(documents))


@given(st.lists(st.lists(st.integers(0, 9), max_size=8), max_size=12))
def test_a_term_is_counted_in_each_document(documents: list[list[int]]) -> None:
    found = count(documents)
    by_term = {
        term: [(n, Counter(d)[term]) for n, d in enumerate(documents) if term in d] for d in documents for term in d
    }
    assert found.keys.tolist() == sorted(by_term)
    pairs = iter(zip(found.documents.tolist(), found.counts.tolist(), strict=True))
    for term, length in zip(found.keys.tolist(), found.lengths.tolist(), strict=True):
        assert [next(pairs) for _ in range(length)] == by_term[term]


@pytest.mark.parametrize("block", [1, 3, 100])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_chunks_and_blocks_decide_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, block: int
) -> None:
    monkeypatch.setattr(postings, "_BLOCK", block)
    chunks: list[Path] = []
    for start in range(0, len(DOCUMENTS), size):
        chunks.append(tmp_path / str(len(chunks)))
        count(DOCUMENTS[start : start + size]).save(chunks[-1])
    keys, frequencies = np.array([0, 1, 4]), np.array([2, 3, 1])  # 3 is not asked for

    def weigh(places: Array, documents: Array, counts: Array) -> Array:
        return np.asarray(keys[places] * 100 + documents * 10 + counts)

    merge(chunks, size, keys, frequencies, weigh, tmp_path / "documents.npy", tmp_path / "weights.npy")
    assert np.load(tmp_path / "documents.npy").tolist() == [2, 4, 0, 2, 3, 3]
    assert np.load(tmp_path / "weights.npy").tolist() == [21, 41, 101, 121, 131, 433]


def test_numbers_are_found_among_others() -> None:
    places, known = find(np.array([2, 5, 7]), np.array([7, 1, 9, 2]))
    assert known.tolist() == [True, False, False, True]
    assert places[known].tolist() == [2, 0]


def test_runs_follow_each_other() -> None:
    assert runs(np.array([5, 9, 1]), np.array([2, 3, 0])).tolist() == [5, 6, 9, 10, 11]
