"""Tantivy finds what BM25 finds, goes on after a kill, and trips over no character."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stepsearch_data.core.errors import SearchError
from stepsearch_data.search import tantivy
from stepsearch_data.search.documents import Document
from tests.search.local import PART, Counter, ask, build, built, chosen, ids, opened, write

ROOT = Path(__file__).resolve().parents[3]
RANDOM = random.Random(7)
WORDS = [f"word{n}" for n in range(300)]
CORPUS = [
    Document(f"p{n}", RANDOM.choice(WORDS), " ".join(RANDOM.choices(WORDS, k=RANDOM.randint(5, 40))))
    for n in range(700)
]
QUERIES = [" ".join(RANDOM.choices(WORDS, k=RANDOM.randint(1, 5))) for _ in range(40)]

KILLED = """
import os, signal, sys
from pathlib import Path
from stepsearch_data.core.progress import Meter
from stepsearch_data.search import tantivy
from stepsearch_data.search.documents import Documents
from stepsearch_data.search.kinds import choose

class Killer(Meter):
    left = 430

    def advance(self, rows=1):
        self.left -= rows
        if self.left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

tantivy._COMMIT = 100
folder = Path(sys.argv[1])
tantivy.build(choose(["tantivy"], {})[0], Documents(folder), folder / "part", Killer(None, "tantivy"))
"""


def test_scores_are_those_of_bm25_but_for_the_length_kept_in_a_byte(tmp_path: Path) -> None:
    """All of tantivy's are multiplied by k1 + 1, which bm25s leaves out; lengths below 40 are exact in a byte."""
    short = [document._replace(text=" ".join(document.text.split()[:30])) for document in CORPUS]
    exact = ask(built("bm25", tmp_path / "bm25", short), QUERIES)
    found = ask(built("tantivy", tmp_path / "tantivy", short), QUERIES)
    for query, ours, theirs in zip(QUERIES, found, exact, strict=True):
        assert [hit.score / 2.2 for hit in ours] == pytest.approx([hit.score for hit in theirs], rel=1e-4), query


def test_long_passages_are_scored_nearly_as_by_bm25(tmp_path: Path) -> None:
    long = [document._replace(text=" ".join([document.text] * (1 + n % 4))) for n, document in enumerate(CORPUS)]
    exact = ask(built("bm25", tmp_path / "bm25", long), QUERIES)
    found = ask(built("tantivy", tmp_path / "tantivy", long), QUERIES)
    for ours, theirs in zip(found, exact, strict=True):
        assert [hit.score / 2.2 for hit in ours] == pytest.approx([hit.score for hit in theirs], rel=0.05)


def test_a_word_asked_twice_counts_twice(tmp_path: Path) -> None:
    searched = built("tantivy", tmp_path / "index", CORPUS)
    once, twice = ask(searched, ["word1", "word1 word1"])
    assert [hit.score for hit in twice] == pytest.approx([2 * hit.score for hit in once], rel=1e-5)


@pytest.mark.parametrize(
    "query", ['"word1', "(word1", "word1:", "+word1 -word2", "word1^2 AND", "text:word1~", "[* TO"]
)
def test_what_a_query_language_would_read_is_only_punctuation(tmp_path: Path, query: str) -> None:
    searched = built("tantivy", tmp_path / "index", CORPUS)
    words = " ".join(word for word in ("word1", "word2", "AND", "text", "TO") if word in query)
    assert ask(searched, [query]) == ask(searched, [words])


def test_all_scripts_are_searched(tmp_path: Path) -> None:
    corpus = [
        Document("de", "Öl", "Straßenbahn ÄPFEL"),
        Document("ja", "日本語", "東京"),
        Document("el", "Ρώμη", "ὈΔΥΣΣΕΎΣ"),
    ]
    searched = built("tantivy", tmp_path / "index", corpus)
    found = [ids(searched, query) for query in ("äpfel", "STRASSENBAHN straßenbahn", "東京", "ρώμη", "ὀδυσσεύς")]
    assert found == [["de"], ["de"], ["ja"], ["el"], ["el"]]


def test_words_are_neither_stemmed_nor_cut_nor_left_out(tmp_path: Path) -> None:
    long = "x" * 300
    searched = built(
        "tantivy", tmp_path / "index", [Document("a", "the", f"running {long}"), Document("b", "run", "x" * 299)]
    )
    assert [ids(searched, query) for query in ("the", "run", long, "x" * 299)] == [["a"], ["b"], ["a"], ["b"]]


def test_a_common_word_has_a_small_score_but_has_one(tmp_path: Path) -> None:
    searched = built("tantivy", tmp_path / "index", [Document(str(n), "", "everywhere") for n in range(2_000)])
    assert ids(searched, "everywhere", 3) == ["0", "1", "2"]


def test_ties_are_in_the_order_of_the_corpus_across_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tantivy, "_COMMIT", 30)
    texts = [f"alike other{n % 3}" for n in range(1_000)]
    searched = built("tantivy", tmp_path / "index", [Document(str(n), "", text) for n, text in enumerate(texts)])
    for k in (1, 10, 200):
        assert ids(searched, "alike", k) == [str(n) for n in range(k)]


def test_a_killed_build_goes_on_from_its_last_commit(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    write(folder, CORPUS)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(folder)], cwd=ROOT, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    meter = Counter()
    build(chosen("tantivy"), folder, meter)
    assert meter.steps == [400] + [1] * 300
    whole = ask(built("tantivy", tmp_path / "whole", CORPUS), QUERIES)
    assert ask(opened(chosen("tantivy"), folder), QUERIES) == whole


def test_a_whole_index_is_not_built_again(tmp_path: Path) -> None:
    before = ask(built("tantivy", tmp_path, CORPUS), QUERIES)
    meter = Counter()
    build(chosen("tantivy"), tmp_path, meter)
    assert meter.steps == [len(CORPUS)]
    assert ask(opened(chosen("tantivy"), tmp_path), QUERIES) == before


def test_a_broken_index_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, CORPUS[:1])
    (tmp_path / PART / "meta.json").write_text("{")
    with pytest.raises(SearchError, match="no tantivy index"):
        opened(chosen("tantivy"), tmp_path)
