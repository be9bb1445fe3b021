"""Damaged arrays: said when an index is opened, or when the postings that they spoil are first read; never followed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepsearch_data.core.errors import SearchError
from stepsearch_data.search import sparse
from stepsearch_data.search.arrays import Arrays
from stepsearch_data.search.bm25 import Bm25
from stepsearch_data.search.chargram import Chargram
from tests.builders import build_index

WORDS = ("opera", "composer", "river", "capital")
TEXTS = [f"{WORDS[n % 4]} {WORDS[n % 3]} number{n}" for n in range(40)]
NAMES = {
    "bm25": {"indptr": "indptr.csc.index.npy", "indices": "indices.csc.index.npy", "data": "data.csc.index.npy"},
    "chargram": {"indptr": "indptr.npy", "indices": "indices.npy", "data": "data.npy", "keys": "keys.npy"},
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of each engine."""
    folder = tmp_path_factory.mktemp("built")
    for kind in NAMES:
        build_index(folder, TEXTS, kind)
    return folder


def search(part: Path, queries: Sequence[str] = WORDS, documents: int = len(TEXTS)) -> Any:
    return (Bm25(part) if part.name == "bm25" else Chargram(part, documents)).find(queries, 3)


def changed(places: slice, value: float) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array[places] = value
        return array

    return change


ALL = slice(None)
DAMAGES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "documents that there are not": ("indices", changed(ALL, len(TEXTS))),
    "documents below the first": ("indices", changed(ALL, -1)),
    "documents far away": ("indices", changed(ALL, 2**31 - 1)),
    "one document again and again": ("indices", changed(ALL, 0)),
    "fewer documents than weights": ("indices", lambda array: array[:-1]),
    "documents in two dimensions": ("indices", lambda array: array[np.newaxis]),
    "documents that are no whole numbers": ("indices", lambda array: array.astype(np.float32)),
    "documents of another byte order": ("indices", lambda array: array.astype(">i4")),
    "no documents": ("indices", lambda array: array[:0]),
    "weights that are none": ("data", changed(ALL, np.nan)),
    "weights without end": ("data", changed(ALL, np.inf)),
    "weights of nothing, with which nothing is found": ("data", changed(ALL, 0)),
    "fewer weights": ("data", lambda array: array[: len(array) // 2]),
    "words that begin nowhere": ("indptr", changed(ALL, 0)),
    "words that begin behind the end": ("indptr", changed(slice(1, -1), 10**9)),
    "words that begin before the first": ("indptr", changed(slice(1, -1), -5)),
    "words that end before they begin": ("indptr", lambda array: array[::-1].copy()),
    "no words": ("indptr", lambda array: array[:0]),
    "fewer words": ("indptr", lambda array: np.concatenate([array[:3], array[-1:]])),
}


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_array_is_said(damage: str, kind: str, built: Path, tmp_path: Path) -> None:
    assert all(search(built / kind))
    part = shutil.copytree(built / kind, tmp_path / kind)
    name, spoil = DAMAGES[damage]
    path = part / NAMES[kind][name]
    np.save(path, spoil(np.load(path)))
    with pytest.raises(SearchError, match="is damaged: it") as caught:
        search(part)
    assert "build it again" in caught.value.hint


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize(
    "data", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00v\x00{'descr': '<i4', 'fortran_order': (", b"x" * 500]
)
def test_what_is_no_array_is_said(data: bytes, kind: str, built: Path, tmp_path: Path) -> None:
    part = shutil.copytree(built / kind, tmp_path / kind)
    for name in NAMES[kind].values():
        whole = (part / name).read_bytes()
        for spoilt in (data, whole[: len(whole) // 2]):
            (part / name).write_bytes(spoilt)
            with pytest.raises(SearchError, match=rf"(?i)holds no {kind} index|is damaged"):
                search(part)
        (part / name).write_bytes(whole)
    assert all(search(part))


def test_grams_that_are_not_in_order_are_said(built: Path, tmp_path: Path) -> None:
    part = shutil.copytree(built / "chargram", tmp_path / "chargram")
    np.save(part / "keys.npy", np.load(part / "keys.npy")[::-1])
    with pytest.raises(SearchError, match="its grams are not in order"):
        search(part)


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"opera": -1}', '{"opera": 1000000}', '{"opera": "one"}', '{"opera": [1]}']
)
def test_a_vocabulary_that_names_other_words_is_said(text: str, built: Path, tmp_path: Path) -> None:
    part = shutil.copytree(built / "bm25", tmp_path / "bm25")
    (part / "vocab.index.json").write_text(text)
    if text == "{}":
        assert search(part) == [[]] * len(WORDS)
        return
    with pytest.raises(SearchError, match=r"holds no BM25 index|its vocabulary names words"):
        search(part)


def test_compiled_search_is_never_handed_what_it_would_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a damaged number points, it would write."""
    monkeypatch.setattr(sparse, "LARGE", 0)
    monkeypatch.setattr(sparse, "MANY", 0)
    part = build_index(tmp_path, [f"opera number{n % 50}" for n in range(100)])
    path = part / NAMES["bm25"]["indices"]
    np.save(path, np.load(path) + 2**30)
    with pytest.raises(SearchError, match="it names documents that do not exist"):
        search(part)


def test_the_postings_of_other_words_are_not_read(built: Path, tmp_path: Path) -> None:
    """Reading all of them would take minutes for an index of twenty million passages."""
    part = shutil.copytree(built / "bm25", tmp_path / "bm25")
    paths = {name: part / file for name, file in NAMES["bm25"].items()}
    indices, starts = np.load(paths["indices"]), np.load(paths["indptr"])
    indices[starts[-2] :] = 10**6
    np.save(paths["indices"], indices)
    assert search(part) == search(built / "bm25")
    with pytest.raises(SearchError, match="it names documents that do not exist"):
        search(part, ["number39"])


def test_a_table_tells_how_many_postings_come_before_a_document() -> None:
    documents = np.array([0, 5, 6, 900, 999], np.int32)
    arrays = Arrays(
        Path(), [np.array([0, 5, 8]), np.append(documents, documents[:3]), np.ones(8, np.float32)], 1_000, positive=True
    )
    arrays.tabulate(np.array([1, 0, 1]))
    arrays.tabulate(np.array([0]))
    for word, postings in enumerate((documents, documents[:3])):
        begin = arrays.places[word]
        blocks = 1_000 >> arrays.tables[begin - 1]
        steps = np.arange(blocks + 2) << arrays.tables[begin - 1]
        assert arrays.tables[begin : begin + blocks + 2].tolist() == [int((postings < step).sum()) for step in steps]
    assert np.all(arrays.places > 0)
