from __future__ import annotations

import random
from pathlib import Path

import pytest
from rank_bm25 import BM25Okapi

from stepsearch_data.core.text import tokens
from stepsearch_data.search.bm25 import Bm25
from tests.builders import build_index

WORDS = [f"word{n}" for n in range(400)]
RANDOM = random.Random(7)
TEXTS = [" ".join(RANDOM.choices(WORDS, k=RANDOM.randint(5, 40))) for n in range(300)]
QUERIES = [" ".join(RANDOM.choices(WORDS, k=RANDOM.randint(1, 5))) for _ in range(50)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return build_index(tmp_path, TEXTS)


def test_it_ranks_as_rank_bm25_does(folder: Path) -> None:
    """The variants differ by idf alone; on one-word queries the order of the documents is the same."""
    oracle = BM25Okapi([tokens(text) for text in TEXTS], k1=1.2, b=0.75)
    engine = Bm25(folder)
    for word in WORDS[:60]:
        scores = oracle.get_scores([word])
        found = engine.find([word], 10)[0]
        expected = sorted((score for score in scores if score > 0), reverse=True)[:10]
        assert [scores[number] for number, _ in found] == pytest.approx(expected)


def test_the_same_corpus_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = build_index(tmp_path / "one", TEXTS), build_index(tmp_path / "two", TEXTS)
    for file in sorted(one.iterdir()):
        assert file.read_bytes() == (two / file.name).read_bytes()
