"""The check on BM25: another library's Okapi finds the same."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from stepsearch_data.core.errors import SearchError
from stepsearch_data.search import rank_bm25
from stepsearch_data.search.documents import Document
from tests.search.local import PART, ask, built, chosen, ids, opened, write

RANDOM = random.Random(3)
WORDS = [f"word{n}" for n in range(200)]
SAME = {"k1": 1.5, "b": 0.75}


def sentence(words: int) -> str:
    return " ".join(RANDOM.choices(WORDS, weights=[1 / n for n in range(1, 201)], k=words))


CORPUS = [Document(f"p{n}", sentence(2), sentence(RANDOM.randint(5, 60))) for n in range(500)]
QUERIES = [sentence(RANDOM.randint(1, 6)) for _ in range(60)]


def hold_the_same_scores(folder: Path, corpus: list[Document], queries: list[str]) -> None:
    """Ties are broken differently, so scores are compared, not ids."""
    ours = ask(built("bm25", folder / "bm25", corpus, variant="atire", **SAME), queries)
    theirs = ask(built("rank-bm25", folder / "rank", corpus, epsilon=0.0, **SAME), queries)
    for one, other in zip(ours, theirs, strict=True):
        assert [hit.score for hit in one] == pytest.approx([hit.score for hit in other], rel=1e-4)


def test_bm25_scores_random_text_alike(tmp_path: Path) -> None:
    hold_the_same_scores(tmp_path, CORPUS, QUERIES)


def test_bm25_scores_real_paragraphs_alike(tmp_path: Path, shared_data: Path) -> None:
    lines = (shared_data / "musique_ans_dev.sample.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    texts = dict.fromkeys((p["title"], p["paragraph_text"]) for row in rows for p in row["paragraphs"])
    corpus = [Document(str(number), *text) for number, text in enumerate(texts)]
    hold_the_same_scores(tmp_path, corpus, [row["question"] for row in rows])


def test_epsilon_weighs_the_words_of_more_than_half_of_the_passages(tmp_path: Path) -> None:
    corpus = [Document(str(n), "", f"common own{n}") for n in range(5)]
    assert ids(built("rank-bm25", tmp_path / "none", corpus, epsilon=0.0), "common") == []
    assert ids(built("rank-bm25", tmp_path / "some", corpus), "common") == ["0", "1", "2", "3", "4"]


def test_the_title_counts_as_often_as_it_weighs(tmp_path: Path) -> None:
    others = [Document(f"other{n}", "", "something else") for n in range(5)]
    corpus = [Document("in text", "Seville", "opera opera"), Document("in title", "opera", "seville"), *others]
    assert ids(built("rank-bm25", tmp_path / "none", corpus, title_weight=0), "opera") == ["in text"]
    assert ids(built("rank-bm25", tmp_path / "thrice", corpus, title_weight=3), "opera") == ["in title", "in text"]


def test_nothing_in_common_is_no_result(tmp_path: Path) -> None:
    assert ask(built("rank-bm25", tmp_path, CORPUS), ["zyzzyva", "", "?!", "a", "(X:"]) == [[], [], [], [], []]


def test_k_may_exceed_the_corpus(tmp_path: Path) -> None:
    found = ask(built("rank-bm25", tmp_path, CORPUS), ["word1"], k=10_000)[0]
    assert 0 < len(found) < len(CORPUS)


def test_ties_are_in_the_order_of_the_corpus(tmp_path: Path) -> None:
    corpus = [Document(str(n), "", "alike" if n % 3 == 0 else "other text") for n in range(30)]
    assert ids(built("rank-bm25", tmp_path, corpus), "alike", 4) == ["0", "3", "6", "9"]


def test_a_large_corpus_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_bm25, "_MOST", len(CORPUS) - 1)
    with pytest.raises(SearchError, match="499 passages at most, and the corpus holds 500") as refused:
        built("rank-bm25", tmp_path, CORPUS)
    assert "--engine bm25" in refused.value.hint


def test_a_corpus_without_a_word_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="no word"):
        built("rank-bm25", tmp_path, [Document("p1", "?", "! .")])


def test_a_folder_that_is_no_index_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, CORPUS[:1])
    with pytest.raises(SearchError, match="no rank-bm25 index"):
        opened(chosen("rank-bm25"), tmp_path)
    assert not list((tmp_path / PART).iterdir())
