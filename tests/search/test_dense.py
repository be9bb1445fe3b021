"""Dense finds by the vectors of a model, asks for none of them twice, and says what is wrong with a server."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from stepsearch_data.core.errors import ConfigError, SearchError
from stepsearch_data.remote import client
from stepsearch_data.search import Answer, LocalEngine, Service, dense, embeddings, embeddings_http
from stepsearch_data.search.documents import Document
from stepsearch_data.search.embeddings_http import RemoteEmbedder
from tests.embeddings_server import MODEL, EmbeddingsServer, reply, vector
from tests.fake import Fault, mock
from tests.llm_server import error
from tests.search.local import PART, Counter, answers, ask, build, built, chosen, ids, opened, write

RANDOM = random.Random(11)
WORDS = [f"word{n}" for n in range(150)]


def sentence(words: int) -> str:
    return " ".join(RANDOM.choices(WORDS, k=words))


CORPUS = [Document(f"p{n}", sentence(1), sentence(RANDOM.randint(3, 20))) for n in range(200)]
QUERIES = [sentence(RANDOM.randint(1, 5)) for _ in range(30)]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmbeddingsServer:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(embeddings_http, "_ATTEMPTS", 3)
    monkeypatch.setattr(client, "uniform", lambda *_: 0.0)
    served = EmbeddingsServer()
    monkeypatch.setattr(dense, "RemoteEmbedder", partial(RemoteEmbedder, transport=mock(served)))
    return served


def built_on(
    server: EmbeddingsServer, folder: Path, corpus: list[Document] | None = None, **section: Any
) -> LocalEngine:
    return built("dense", folder, CORPUS if corpus is None else corpus, model=MODEL, base_url=server.url, **section)


def cosines(query: str) -> Any:
    """Of a query and each document; shape (documents,)."""
    rows = np.array([vector(f"{document.title}\n{document.text}") for document in CORPUS])
    asked = np.array(vector(query))
    return rows @ asked / np.linalg.norm(rows, axis=1) / np.linalg.norm(asked)


def test_scores_are_cosines_best_first(server: EmbeddingsServer, tmp_path: Path) -> None:
    searched = built_on(server, tmp_path / "index")
    for query, found in zip(QUERIES, ask(searched, QUERIES), strict=True):
        exact = cosines(query)
        best = np.sort(exact)[::-1][:10]
        assert [hit.score for hit in found] == pytest.approx(best[best > 0], abs=1e-3)
        assert [exact[int(str(hit.passage_id)[1:])] for hit in found] == pytest.approx(
            [hit.score for hit in found], abs=1e-3
        )


def test_inner_products_are_left_as_they_are(server: EmbeddingsServer, tmp_path: Path) -> None:
    corpus = [Document("long", "", "opera " * 4), Document("short", "", "opera")]
    found = ask(built_on(server, tmp_path / "index", corpus, normalise=False), ["opera"])[0]
    assert [(hit.passage_id, hit.score) for hit in found] == [("long", 4.0), ("short", 1.0)]


def test_many_passages_are_searched_in_lists(
    server: EmbeddingsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense, "_FLAT", 100)
    exact = [np.sort(cosines(query))[::-1][0] for query in QUERIES]
    found = ask(built_on(server, tmp_path / "index", nprobe=56), QUERIES, k=1)
    assert [hits[0].score for hits in found] == pytest.approx(exact, abs=0.02)
    assert (tmp_path / "index" / PART / "vectors.faiss").read_bytes()[:4] == b"IwSq"


def test_prefixes_title_and_text_are_what_the_model_sees(server: EmbeddingsServer, tmp_path: Path) -> None:
    searched = built_on(
        server, tmp_path / "index", [Document("p", "Seville", "a city")], passage_prefix="P ", query_prefix="Q "
    )
    ask(searched, ["opera"])
    assert server.texts == ["P Seville\na city", "Q opera"]
    assert {request["model"] for request in server.requests} == {MODEL}


def test_requests_are_as_large_and_as_many_at_once_as_set(
    server: EmbeddingsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "_SHARD", 10**9)
    server.delay = 0.02
    built_on(server, tmp_path / "index", CORPUS, batch=10, max_concurrency=3)
    assert {len(request["input"]) for request in server.requests} == {10}
    assert server.most_in_flight == 3


def test_a_second_build_asks_for_nothing(server: EmbeddingsServer, tmp_path: Path) -> None:
    first = ask(built_on(server, tmp_path / "one"), QUERIES)
    asked = len(server.texts) - len(set(QUERIES))
    assert asked == len(CORPUS)
    assert ask(built_on(server, tmp_path / "two"), QUERIES) == first
    assert len(server.texts) == asked + 2 * len(set(QUERIES))


def test_an_interrupted_build_asks_only_for_what_is_missing(
    server: EmbeddingsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "_SHARD", 20)
    monkeypatch.setattr(embeddings, "_LARGEST_SHARD", 40)
    server.answer = lambda _: error(400, "no more") if len(server.texts) > 120 else None
    with pytest.raises(SearchError, match=r"a passage has no vector: .*no more"):
        built_on(server, tmp_path / "one")
    kept = sum(len(np.load(path)) for path in (tmp_path / "cache").rglob("*.npy"))
    assert kept >= 80
    server.answer = lambda _: None
    server.requests.clear()
    built_on(server, tmp_path / "two")
    assert len(server.texts) == len(CORPUS) - kept


def test_a_new_passage_leaves_most_vectors_as_they_are(
    server: EmbeddingsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "_SHARD", 20)
    built_on(server, tmp_path / "one")
    server.requests.clear()
    built_on(server, tmp_path / "two", [Document("new", "new", "passage"), *CORPUS])
    assert 0 < len(server.texts) < len(CORPUS) / 2


def test_a_query_is_asked_once_for_all_runs(server: EmbeddingsServer, tmp_path: Path) -> None:
    engine = chosen("dense", model=MODEL, base_url=server.url)
    first = ask(built_on(server, tmp_path / "index"), QUERIES)
    server.requests.clear()
    for _ in range(2):
        service = Service(replay=tmp_path / "replay.sqlite")
        assert ask(opened(engine, tmp_path / "index", service), [*QUERIES, *QUERIES]) == [*first, *first]
    assert sorted(server.texts) == sorted({f"query: {query}" for query in QUERIES})


def test_answers_do_not_depend_on_threads_or_batch(server: EmbeddingsServer, tmp_path: Path) -> None:
    engine = chosen("dense", model=MODEL, base_url=server.url)
    one = ask(built_on(server, tmp_path / "index"), QUERIES, 5)
    assert ask(opened(engine, tmp_path / "index", Service(workers=8)), QUERIES, 5) == one
    assert [ask(opened(engine, tmp_path / "index"), [query], 5)[0] for query in QUERIES[:5]] == one[:5]


def test_an_engine_that_is_given_up_while_it_waits_for_its_server_is_closed(
    server: EmbeddingsServer, tmp_path: Path
) -> None:
    engine = built_on(server, tmp_path / "index")
    server.faults = [Fault(delay=0.5)]

    async def go() -> None:
        try:
            async with asyncio.timeout(0.1):
                await engine.search(["word1"], 3)
        finally:
            await engine.close()

    with pytest.raises(TimeoutError):
        asyncio.run(go())


def test_ties_are_in_the_order_of_the_corpus(server: EmbeddingsServer, tmp_path: Path) -> None:
    corpus = [Document(str(n), "", "alike" if n % 2 else "other") for n in range(40)]
    assert ids(built_on(server, tmp_path / "index", corpus), "alike", 10) == [str(n) for n in range(1, 21, 2)]


def test_nothing_in_common_is_no_result_and_no_word_no_request(server: EmbeddingsServer, tmp_path: Path) -> None:
    searched = built_on(server, tmp_path / "index")
    server.requests.clear()
    assert ask(searched, ["", "?!", "a", " \n", "zyzzyva zy\ud800"], 5)[:4] == [[], [], [], []]
    assert server.texts == ["query: zyzzyva zy?"]


def test_k_may_exceed_the_corpus(server: EmbeddingsServer, tmp_path: Path) -> None:
    assert 0 < len(ask(built_on(server, tmp_path / "index"), ["word1"], k=10_000)[0]) <= len(CORPUS)


def test_a_query_whose_request_fails_has_an_error_for_an_answer(server: EmbeddingsServer, tmp_path: Path) -> None:
    records: list[dict[str, Any]] = []
    built_on(server, tmp_path / "index")
    engine = chosen("dense", model=MODEL, base_url=server.url, batch=1)
    searched = opened(engine, tmp_path / "index", Service(record=records.append, replay=tmp_path / "replay.sqlite"))
    server.answer = lambda request: error(500, "oops") if "word2" in request["input"][0].split() else None
    good, bad = answers(searched, ["word1", "word2"])
    assert good.found
    assert not good.error
    assert not bad.found
    assert bad.error == "500: oops"
    assert [(record["queries"], record["failed"], record["error"]) for record in records] == [(2, 1, "500: oops")]
    server.answer = lambda _: None
    again = opened(engine, tmp_path / "index", Service(replay=tmp_path / "replay.sqlite"))
    server.requests.clear()
    assert all(answer.found for answer in answers(again, ["word1", "word2"]))
    assert server.texts == ["query: word2"]


def test_a_text_that_the_server_refuses_fails_alone(server: EmbeddingsServer, tmp_path: Path) -> None:
    searched = built_on(server, tmp_path / "index")
    server.answer = lambda request: error(400, "too long") if "query: word7" in request["input"] else None
    found = answers(searched, [f"word{n}" for n in range(20)])
    assert [n for n, answer in enumerate(found) if answer.error] == [7]
    assert found[7].error == "the server refuses the request (400: too long)"


def test_the_key_comes_from_the_environment(
    server: EmbeddingsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "sk-right-key-1234567890"
    monkeypatch.setenv("OPENAI_API_KEY", server.key)
    assert ids(built_on(server, tmp_path / "index"), "word1")


def test_a_wrong_key_is_an_error_that_does_not_repeat_it(
    server: EmbeddingsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = built_on(server, tmp_path / "index")
    server.key = "right"
    monkeypatch.setenv("OPENAI_API_KEY", "wrong-and-secret")
    with pytest.raises(SearchError, match="refuses the key") as refused:
        answers(opened(chosen("dense", model=MODEL, base_url=server.url), tmp_path / "index"), ["word1"])
    assert "wrong-and-secret" not in str(refused.value)
    assert "OPENAI_API_KEY" in refused.value.hint
    assert answers(searched, ["?!"]) == [Answer([])]


def test_an_unknown_model_is_an_error(server: EmbeddingsServer, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="no such model"):
        built("dense", tmp_path / "index", CORPUS, model="nobody/knows", base_url=server.url)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(body=b"<!doctype html><title>Log in</title>"), "the server sent a web page"),
        (Fault(body=b'{"object": "error"}'), "holds no embeddings"),
        (Fault(body=b"[" * 10), "something else than JSON"),
        (reply([[1.0], [2.0]]), "2 results for 1 texts"),
        (reply([]), "0 results for 1 texts"),
        (reply([[]]), "several lengths, or none"),
        (Fault(body=json.dumps(reply([[1.0, None]])).encode()), "not finite"),  # type: ignore[list-item]
        (Fault(body=json.dumps(reply([[1.0, float("nan")]])).encode()), "something else than JSON"),
        (reply([["a", "b"]]), "several lengths, or none"),  # type: ignore[list-item]
        (reply([[1e6, 1.0]]), "too large for 16 bits"),
    ],
    ids=["html", "error", "no json", "too many", "none", "empty", "null", "nan", "words", "overflow"],
)
def test_what_is_no_vector_is_an_error(
    server: EmbeddingsServer, tmp_path: Path, fault: Fault | dict[str, Any], reason: str
) -> None:
    server.faults = [fault] * 3
    with pytest.raises(SearchError, match=reason):
        built_on(server, tmp_path / "index", [Document("p", "Seville", "a city")])
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_vectors_that_change_their_dimensions_are_an_error(server: EmbeddingsServer, tmp_path: Path) -> None:
    searched = built_on(server, tmp_path / "index")
    server.faults = [reply([[1.0, 2.0]] * 10)]
    with pytest.raises(SearchError, match=r"dimensions after some of"):
        built_on(server, tmp_path / "two", CORPUS[:20], batch=10, max_concurrency=1)
    server.dimensions = 8
    with pytest.raises(SearchError, match="vectors of 8 dimensions, and the index some of 256"):
        answers(searched, ["word1"])


def test_the_model_must_be_named() -> None:
    with pytest.raises(ConfigError, match=r"engines\.dense\.model"):
        chosen("dense")


def test_an_index_that_faiss_does_not_know_is_an_error(server: EmbeddingsServer, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="faiss knows no index 'Flut'"):
        built_on(server, tmp_path / "index", factory="Flut")


def test_a_corpus_without_a_word_is_an_error_before_anything_is_asked(server: EmbeddingsServer, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="no word"):
        built_on(server, tmp_path / "index", [Document("p1", "?", "! .")])
    assert not server.requests


def test_a_folder_that_is_no_index_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, CORPUS[:1])
    with pytest.raises(SearchError, match="no dense index"):
        opened(chosen("dense", model=MODEL), tmp_path)


class Words:
    """What sentence-transformers looks like from here."""

    def __init__(self, model: str) -> None:
        if model != MODEL:
            raise OSError(f"{model} is not a local folder and is not a valid model identifier")

    def encode(self, texts: list[str], **_options: Any) -> Any:
        """Vectors, shape (texts, dimensions)."""
        return np.array([vector(text) for text in texts], np.float32)


def test_a_model_of_this_process_finds_what_a_server_does(
    server: EmbeddingsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = ModuleType("sentence_transformers")
    monkeypatch.setattr(library, "SentenceTransformer", Words, raising=False)
    monkeypatch.setitem(sys.modules, "sentence_transformers", library)
    meter = Counter()
    engine = chosen("dense", model=MODEL)
    write(tmp_path / "local", CORPUS)
    build(engine, tmp_path / "local", meter)
    assert sum(meter.steps) == len(CORPUS)
    expected = ask(built_on(server, tmp_path / "remote"), QUERIES)
    assert ask(opened(engine, tmp_path / "local"), QUERIES) == expected
    with pytest.raises(SearchError, match="cannot load the model other: other is not a local folder"):
        built("dense", tmp_path / "other", CORPUS, model="other")


def test_a_missing_library_is_named_with_its_extra(
    server: EmbeddingsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(SearchError, match="needs the package sentence_transformers") as missing:
        built("dense", tmp_path / "index", CORPUS, model=MODEL)
    assert "stepsearch-data[dense-local]" in missing.value.hint
