"""Chargram's scores are scikit-learn's, and forgive what words do not."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from stepsearch_data.core.errors import SearchError
from stepsearch_data.search import chargram, postings
from stepsearch_data.search.documents import Document
from stepsearch_data.search.grams import count_grams, grams
from tests.search.local import PART, ask, build, built, chosen, ids, opened, write
from tests.tree import tree

RANDOM = random.Random(5)
LETTERS = ["ba", "ri", "ton", "el", "so", "na", "ta", "qu", "é", "ß", "ж", "7", "-", "’", "a"]
WORDS = ["".join(RANDOM.choices(LETTERS, k=RANDOM.randint(1, 5))) for _ in range(400)]
SPACES = [" ", "  ", "\n", "\t", " \u00a0"]


def sentence(words: int) -> str:
    """Words with capitals and white space as it comes."""
    chosen_words = (word.title() if RANDOM.random() < 0.2 else word for word in RANDOM.choices(WORDS, k=words))
    return "".join(word + RANDOM.choice(SPACES) for word in chosen_words)


CORPUS = [Document(f"p{n}", sentence(2).strip(), sentence(RANDOM.randint(5, 60))) for n in range(400)]
QUERIES = [sentence(RANDOM.randint(1, 8)) for _ in range(60)]


def cosines(corpus: list[Document], queries: list[str], title_weight: int = 2, **options: Any) -> Any:
    """What scikit-learn says of each query and document; shape (queries, documents)."""
    oracle = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, **options)
    documents = oracle.fit_transform([f"{d.title}\n" * title_weight + d.text for d in corpus])
    oracle._tfidf.sublinear_tf = False  # a query's grams count as often as they occur
    return (oracle.transform(queries) @ documents.T).toarray()


@pytest.mark.parametrize("max_df", [1.0, 0.3])
def test_scores_are_those_of_scikit_learn(tmp_path: Path, max_df: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chargram, "_COMMON_FROM", 1)
    expected = cosines(CORPUS, QUERIES, max_df=max_df)
    for cosine, found in zip(expected, ask(built("chargram", tmp_path, CORPUS, max_df=max_df), QUERIES), strict=True):
        best = np.sort(cosine)[::-1][:10]
        assert [hit.score for hit in found] == pytest.approx(best[best > 0], abs=1e-5)
        own = [cosine[int(str(hit.passage_id)[1:])] for hit in found]
        assert own == pytest.approx([hit.score for hit in found], rel=3e-6)


def test_real_paragraphs_are_scored_as_by_scikit_learn(tmp_path: Path, sample_store: Path) -> None:
    import polars as pl

    passages = pl.read_parquet(next(sample_store.rglob("passages.parquet")))
    corpus = [Document(*row) for row in passages.select("passage_id", "title", "text").iter_rows()]
    queries = pl.read_parquet(next(sample_store.rglob("queries.parquet")))["query"].head(100).to_list()
    expected = cosines(corpus, queries)
    for cosine, found in zip(expected, ask(built("chargram", tmp_path, corpus), queries), strict=True):
        best = np.sort(cosine)[::-1][:10]
        assert [hit.score for hit in found] == pytest.approx(best[best > 0], abs=1e-5)


def test_the_title_counts_as_often_as_it_weighs(tmp_path: Path) -> None:
    for weight in (0, 3):
        expected = cosines(CORPUS, QUERIES[:5], title_weight=weight).max(axis=1)
        found = ask(built("chargram", tmp_path / str(weight), CORPUS, title_weight=weight), QUERIES[:5], k=1)
        assert [hits[0].score for hits in found] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("chunk", "block"), [(7, 500), (60, 100), (16, 10_000)])
def test_an_index_does_not_depend_on_the_pieces_it_is_built_in(
    tmp_path: Path, chunk: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    built("chargram", tmp_path / "whole", CORPUS[:60])
    monkeypatch.setattr(chargram, "_CHUNK", chunk)
    monkeypatch.setattr(postings, "_BLOCK", block)
    built("chargram", tmp_path / "pieces", CORPUS[:60])
    assert tree(tmp_path / "pieces" / PART) == tree(tmp_path / "whole" / PART)


def test_nothing_but_the_arrays_is_left(tmp_path: Path) -> None:
    built("chargram", tmp_path, CORPUS)
    assert sorted(path.name for path in (tmp_path / PART).iterdir()) == [
        "data.npy",
        "indices.npy",
        "indptr.npy",
        "keys.npy",
    ]


def test_a_gram_lies_within_a_word_and_the_space_around_it() -> None:
    keys, owners = grams(["ab", "c", "defg"])
    cut = sorted((int(owner), spelt(int(key))) for key, owner in zip(keys, owners, strict=True))
    assert cut == [
        (0, " ab"),
        (0, " ab "),
        (0, "ab "),
        (1, " c "),
        *(
            (2, gram)
            for gram in (" de", " def", " defg", "def", "defg", "defg ", "ef", "efg", "efg ", "fg ")
            if gram != "ef"
        ),
    ]


def spelt(key: int) -> str:
    """The characters of a gram's number."""
    return (spelt(key >> 12) if key >> 12 else "") + chr(key & 0xFFF)


def test_grams_of_letters_below_u_1000_share_no_number() -> None:
    alphabet = "abcdefghijklmnopqrstuvwxyzäöüßéñøабвгдежзαβγδεאבגابتकखग"
    words = ["".join(RANDOM.choices(alphabet, k=7)) for _ in range(3_000)]
    keys, owners = grams(words)
    padded = {f" {word} "[at : at + n] for word in words for n in (3, 4, 5) for at in range(10 - n)}
    assert len(np.unique(keys)) == len(padded)
    assert np.bincount(owners).tolist() == [7 + 6 + 5] * len(words)


def test_characters_that_are_no_letters_do_no_harm() -> None:
    keys, _ = grams(["\x00\x00\x00", "\ud800x", "💥💥", "日本語"])
    assert all(0 < key < 2**60 for key in keys.tolist())


def test_postings_of_nothing_are_empty() -> None:
    for texts in ([], ["", " \n"]):
        assert [len(column) for column in count_grams(texts)] == [0, 0, 0, 0]


def test_misspelt_and_inflected_words_find_what_words_alone_do_not(tmp_path: Path) -> None:
    corpus = [Document("seville", "Seville", "barbers and composers"), Document("rome", "Rome", "fountains")]
    assert ids(built("bm25", tmp_path / "bm25", corpus), "Sevile barber composer") == []
    assert ids(built("chargram", tmp_path / "chargram", corpus), "Sevile barber composer") == ["seville"]


def test_all_scripts_are_searched(tmp_path: Path) -> None:
    corpus = [
        Document("ja", "日本語", "東京タワー"),
        Document("el", "Ρώμη", "ὈΔΥΣΣΕΎΣ"),
        Document("ru", "Чехов", "вишня"),
    ]
    searched = built("chargram", tmp_path, corpus)
    assert [ids(searched, query) for query in ("東京タワー", "ὀδυσσεύς", "ВИШНИ")] == [["ja"], ["el"], ["ru"]]


def test_nothing_in_common_is_no_result(tmp_path: Path) -> None:
    searched = built("chargram", tmp_path, [*CORPUS, Document("odd", "?!", "?! … --- a")])
    assert ask(searched, ["xyxyx", "", "?!", "---", "a", " \n", "\ud800"]) == [[], [], [], [], [], [], []]


def test_common_grams_count_in_a_small_corpus(tmp_path: Path) -> None:
    assert ids(built("chargram", tmp_path, [Document("only", "Seville", "opera")]), "opera") == ["only"]


def test_an_index_that_was_cut_off_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, CORPUS)
    build(chosen("chargram"), tmp_path)
    data = tmp_path / PART / "data.npy"
    data.write_bytes(data.read_bytes()[:-40])
    with pytest.raises(SearchError, match="no chargram index"):
        opened(chosen("chargram"), tmp_path)
