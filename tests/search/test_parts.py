"""An index in parts answers as one index does, to the last bit of a score, ties included."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepsearch_data.core.errors import SearchError
from stepsearch_data.executors import Executor, open_executor
from stepsearch_data.executors.executor import Inline
from stepsearch_data.search import dense
from stepsearch_data.search.documents import Document
from stepsearch_data.search.embeddings_http import RemoteEmbedder
from stepsearch_data.search.engine import Hits
from stepsearch_data.search.parts import PartsIndex, merged, ranges
from tests.embeddings_server import MODEL, EmbeddingsServer
from tests.fake import mock
from tests.search.local import PART, Counter, ask, build, built, chosen, opened, write

RANDOM = random.Random(16)
WORDS = [f"word{n}" for n in range(60)]


def sentence(most: int) -> str:
    return " ".join(RANDOM.choices(WORDS, k=RANDOM.randint(0, most)))


TEXTS = [sentence(12) for _ in range(120)]
CORPUS = [Document(f"p{n}", RANDOM.choice(WORDS), RANDOM.choice(TEXTS)) for n in range(300)]  # many are equal
QUERIES = ["", "nothing", *(sentence(6) for _ in range(60))]


@pytest.fixture(params=["inline", "processes"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    started = open_executor(request.param, 2)
    yield started
    started.close()


@pytest.mark.long
@pytest.mark.parametrize("variant", ["lucene", "robertson", "atire"])
@pytest.mark.parametrize("parts", [2, 7, 100])
def test_bm25_finds_what_one_index_does(parts: int, variant: str, tmp_path: Path) -> None:
    one = built("bm25", tmp_path / "one", CORPUS, variant=variant)
    several = built("bm25", tmp_path / "several", CORPUS, variant=variant, parts=parts)
    assert isinstance(several.index, PartsIndex)
    for k in (1, 5, 400):
        again = opened(chosen("bm25", variant=variant), tmp_path / "several")
        assert ask(one, QUERIES, k) == ask(again, QUERIES, k)


class Twice(Inline):
    """Sends each item again, as where its worker died before it said that it was done."""

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """See `Executor.map`."""
        return super().map(lambda item: (function(item), function(item))[1], items)


def test_work_that_is_done_again_gives_the_same_files(tmp_path: Path) -> None:
    engine = chosen("bm25", parts=3)
    found = []
    for executor in (Inline(), Twice()):
        folder = tmp_path / type(executor).__name__
        write(folder, CORPUS)
        build(replace(engine, executor=executor), folder)
        found.append({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()})
    assert found[0] == found[1]
    assert not [path for path in found[0] if "chunks" in path.parts or path.name in {"lengths.npy", "counted.arrow"}]


@pytest.mark.parametrize("factory", ["Flat", "IVF8,SQ8"])
@pytest.mark.parametrize("parts", [2, 7])
def test_dense_finds_what_one_index_does(
    parts: int, factory: str, executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(dense, "RemoteEmbedder", partial(RemoteEmbedder, transport=mock(EmbeddingsServer())))
    section = {"model": MODEL, "base_url": "http://fake/v1", "factory": factory}
    one = built("dense", tmp_path / "one", CORPUS, **section)
    several = replace(chosen("dense", parts=parts, **section), executor=executor)
    write(tmp_path / "several", CORPUS)
    build(several, tmp_path / "several")
    assert len(list((tmp_path / "several" / PART).glob("*/vectors.faiss"))) == parts
    assert ask(one, QUERIES) == ask(opened(several, tmp_path / "several"), QUERIES)


def test_parts_are_built_and_searched_in_workers(executor: Executor, tmp_path: Path) -> None:
    here, meter = chosen("bm25", parts=3), Counter()
    there = replace(here, executor=executor)
    for engine, name in ((here, "here"), (there, "there")):
        write(tmp_path / name, CORPUS)
        build(engine, tmp_path / name, meter)
    files = [
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name / PART).rglob("*.*")}
        for name in ("here", "there")
    ]
    assert files[0] == files[1]
    assert sum(meter.steps) == 2 * len(CORPUS)
    assert ask(opened(there, tmp_path / "there"), QUERIES) == ask(built("bm25", tmp_path / "one", CORPUS), QUERIES)


def test_a_corpus_without_a_word_has_no_parts(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="no word to index"):
        built("bm25", tmp_path, [Document("p", "!", "?"), Document("q", "", ".")], parts=2)


@pytest.mark.parametrize("damage", ["[]", "[300", '["300"]', "[150, 151]"])
def test_a_damaged_list_of_parts_is_said(damage: str, tmp_path: Path) -> None:
    built("bm25", tmp_path, CORPUS, parts=2)
    (tmp_path / PART / "parts.json").write_text(damage)
    with pytest.raises(SearchError, match=r"holds no BM25 index|was made of"):
        opened(chosen("bm25"), tmp_path)


@given(st.integers(1, 50), st.integers(1, 60))
def test_parts_are_ranges_of_the_passages_in_order(documents: int, parts: int) -> None:
    found = ranges(documents, parts)
    assert [number for start, end in found for number in range(start, end)] == list(range(documents))
    assert len(found) == min(parts, documents)
    assert max(end - start for start, end in found) - min(end - start for start, end in found) <= 1


@settings(deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([1.0, 2.0, 2.5]), max_size=6), min_size=1, max_size=4),
    st.integers(1, 8),
    st.integers(1, 3),
)
def test_merging_sorts_by_score_and_then_by_place(scores: list[list[float]], k: int, queries: int) -> None:
    """Each part finds its k best for the same scores, shifted by the query."""
    sizes = [max(1, len(of_part)) for of_part in scores]
    found = []
    for of_part in scores:
        pairs = sorted(enumerate(of_part), key=lambda pair: -pair[1])[:k]
        found.append(Hits.of([[(number, score + query) for number, score in pairs] for query in range(queries)]))
    starts = np.cumsum([0, *sizes])
    every = [(int(start) + n, score) for start, of in zip(starts, scores, strict=False) for n, score in enumerate(of)]
    best = sorted(every, key=lambda pair: (-pair[1], pair[0]))[:k]
    expected = [[(number, score + query) for number, score in best] for query in range(queries)]
    assert merged(found, sizes, k).pairs() == expected


def test_an_error_of_a_query_is_kept() -> None:
    found = [Hits.of([[(0, 1.0)], "no vector"]), Hits.of([[(0, 2.0)], "no vector"])]
    both = merged(found, [5, 5], 10)
    assert both.pairs() == [[(5, 2.0), (0, 1.0)], []]
    assert both.errors == {1: "no vector"}
