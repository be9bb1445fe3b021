"""What holds for every engine that indexes words or letters."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from stepsearch_data.core.errors import SearchError
from stepsearch_data.search import Service
from stepsearch_data.search.arrays import REBUILD
from stepsearch_data.search.documents import Document
from tests.search.local import PART, ask, built, chosen, ids, opened, write

pytestmark = pytest.mark.parametrize("kind", ["bm25", "tantivy", "rank-bm25", "chargram"])
RANDOM = random.Random(7)
WORDS = [f"word{n}" for n in range(300)]


def sentence(words: int) -> str:
    return " ".join(RANDOM.choices(WORDS, k=words))


CORPUS = [Document(f"p{n}", sentence(1), sentence(RANDOM.randint(5, 40))) for n in range(400)]
QUERIES = [sentence(RANDOM.randint(1, 5)) for _ in range(40)]


def test_nothing_in_common_is_no_result(kind: str, tmp_path: Path) -> None:
    queries = ["zyzzyva", "", "?!", "a", "(X:", " \n"]
    assert ask(built(kind, tmp_path, CORPUS), queries) == [[] for _ in queries]


def test_k_may_exceed_the_corpus(kind: str, tmp_path: Path) -> None:
    found = ask(built(kind, tmp_path, CORPUS), ["word1"], k=10_000)[0]
    assert 0 < len(found) <= len(CORPUS)
    assert min(hit.score for hit in found) > 0


def test_ties_are_in_the_order_of_the_corpus(kind: str, tmp_path: Path) -> None:
    corpus = [Document(str(n), "", "alike" if n % 3 == 0 else "other text") for n in range(30)]
    assert ids(built(kind, tmp_path, corpus), "alike", 4) == ["0", "3", "6", "9"]


def test_answers_do_not_depend_on_threads_or_batch(kind: str, tmp_path: Path) -> None:
    one = ask(built(kind, tmp_path, CORPUS), QUERIES, 5)
    assert ask(opened(chosen(kind), tmp_path, Service(workers=8)), QUERIES, 5) == one
    assert [ask(opened(chosen(kind), tmp_path), [query], 5)[0] for query in QUERIES[:5]] == one[:5]


def test_the_title_counts_as_often_as_it_weighs(kind: str, tmp_path: Path) -> None:
    others = [Document(f"other{n}", "", "something else") for n in range(5)]
    in_text, in_title = Document("in text", "Seville", "opera opera"), Document("in title", "opera", "seville")
    found = [
        ids(built(kind, tmp_path / str(weight), [in_text, in_title, *others], title_weight=weight), "opera")
        for weight in (0, 3)
    ]
    assert found == [["in text"], ["in title", "in text"]]


def test_a_corpus_without_a_word_is_an_error(kind: str, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="no word"):
        built(kind, tmp_path, [Document("p1", "", " \n" if kind == "chargram" else "? ! .")])


def test_a_folder_that_holds_no_index_is_an_error_and_stays_as_it_is(kind: str, tmp_path: Path) -> None:
    write(tmp_path, CORPUS[:1])
    with pytest.raises(SearchError, match=f"(?i)holds no {kind} index") as error:
        opened(chosen(kind), tmp_path)
    assert error.value.hint == REBUILD
    assert not list((tmp_path / PART).iterdir())
