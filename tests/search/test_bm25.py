from __future__ import annotations

import json
import random
from pathlib import Path

import bm25s
import numpy as np
import pytest
from rank_bm25 import BM25Okapi

from stepsearch_data.core.text import tokens
from stepsearch_data.search import bm25_parts
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


@pytest.mark.parametrize("variant", ["lucene", "robertson", "atire"])
@pytest.mark.parametrize("chunk", [7, 10_000])
def test_its_files_are_those_of_bm25s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str, chunk: int
) -> None:
    monkeypatch.setattr(bm25_parts, "_CHUNK", chunk)
    texts = [*TEXTS, "...", WORDS[0] * 3]
    folder = build_index(tmp_path, texts, variant=variant, k1=0.9, title_weight=0)
    idf = "robertson" if variant == "atire" else variant
    theirs = bm25s.BM25(method=variant, idf_method=idf, k1=0.9, b=0.75)
    theirs.index([tokens(text) for text in texts], create_empty_token=False, show_progress=False)
    theirs.save(tmp_path / "theirs", show_progress=False)
    ours, expected = ({path.name: path.read_bytes() for path in of.iterdir()} for of in (folder, tmp_path / "theirs"))
    assert ours.keys() == expected.keys()
    numbers, known = (json.loads(files["vocab.index.json"]) for files in (ours, expected))
    assert numbers.keys() == known.keys()
    for word in numbers:
        assert postings(folder, numbers[word]) == postings(tmp_path / "theirs", known[word])
    assert ours["params.index.json"] == expected["params.index.json"]


def postings(folder: Path, word: int) -> list[list[float]]:
    """The documents of a word, and its weights there."""
    starts, *arrays = (np.load(folder / f"{name}.csc.index.npy") for name in ("indptr", "indices", "data"))
    return [array[starts[word] : starts[word + 1]].tolist() for array in arrays]
