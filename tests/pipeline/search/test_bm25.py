from __future__ import annotations

import random
from pathlib import Path

import pytest
from rank_bm25 import BM25Okapi

from stepsearch_data.pipeline.errors import SearchError
from stepsearch_data.pipeline.search import bm25
from stepsearch_data.pipeline.search.bm25 import Bm25, build_index
from stepsearch_data.text import tokens

WORDS = [f"word{n}" for n in range(400)]
RANDOM = random.Random(7)
TEXTS = {f"p{n:03}": " ".join(RANDOM.choices(WORDS, k=RANDOM.randint(5, 40))) for n in range(300)}
QUERIES = [" ".join(RANDOM.choices(WORDS, k=RANDOM.randint(1, 5))) for _ in range(50)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build_index(TEXTS.items(), tmp_path, k1=1.2, b=0.75)
    return tmp_path


def test_it_ranks_as_rank_bm25_does(folder: Path) -> None:
    """The variants differ by idf alone; on one-word queries the order of the documents is the same."""
    oracle = BM25Okapi([tokens(text) for text in TEXTS.values()], k1=1.2, b=0.75)
    engine = Bm25(folder)
    for word in WORDS[:60]:
        scores = dict(zip(TEXTS, oracle.get_scores([word]), strict=True))
        found = engine.search([word], 10)[0]
        expected = sorted((score for score in scores.values() if score > 0), reverse=True)[:10]
        ranked = [scores[result.passage_id] for result in found]
        assert ranked == pytest.approx(expected)


@pytest.mark.parametrize("numba_from", [1, 10_000], ids=["numba", "numpy"])
def test_answers_do_not_depend_on_threads_or_batch(
    folder: Path, numba_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bm25, "_NUMBA_FROM", numba_from)
    one = Bm25(folder, workers=1).search(QUERIES, 5)
    assert Bm25(folder, workers=8).search(QUERIES, 5) == one
    assert [Bm25(folder).search([query], 5)[0] for query in QUERIES[:5]] == one[:5]


def test_ties_are_in_the_order_of_the_corpus(tmp_path: Path) -> None:
    build_index([("b", "same words"), ("a", "same words"), ("c", "other text")], tmp_path, k1=1.2, b=0.75)
    assert [found.passage_id for found in Bm25(tmp_path).search(["same"], 3)[0]] == ["b", "a"]


def test_nothing_in_common_is_no_result(folder: Path) -> None:
    assert Bm25(folder).search(["zyzzyva", "", "?!", "a", "(X:"], 5) == [[], [], [], [], []]


def test_k_may_exceed_the_corpus(folder: Path) -> None:
    assert 0 < len(Bm25(folder).search(["word1"], 10_000)[0]) <= len(TEXTS)


def test_a_corpus_without_a_word_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="no word"):
        build_index([("p1", "? ! .")], tmp_path, k1=1.2, b=0.75)


def test_a_folder_that_is_no_index_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="no BM25 index"):
        Bm25(tmp_path)


def test_the_same_corpus_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        build_index(TEXTS.items(), tmp_path / name, k1=1.2, b=0.75)
    for file in sorted((tmp_path / "one").iterdir()):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
