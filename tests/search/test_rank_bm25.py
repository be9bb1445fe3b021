"""The check on BM25: another library's Okapi finds the same."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from stepsearch_data.core.errors import SearchError
from stepsearch_data.search import rank_bm25
from stepsearch_data.search.documents import Document
from tests.search.local import ask, built, ids

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


def test_a_large_corpus_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_bm25, "_MOST", len(CORPUS) - 1)
    with pytest.raises(SearchError, match="499 passages at most, and the corpus holds 500") as refused:
        built("rank-bm25", tmp_path, CORPUS)
    assert "--engine bm25" in refused.value.hint
