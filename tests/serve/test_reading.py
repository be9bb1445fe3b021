"""Documents of the index, opened in pages and with words found in them, over loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from stepsearch_data.search.reading import pages
from tests.serving import PASSAGES, Server, write_corpus

TEXT = "He was born in Pesaro. " + "He wrote operas. " * 500 + "He died in Passy."
LONG = {"id": "long", "title": "Rossini", "text": TEXT}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serves four hundred passages, whose ids are in no order, and a long one."""
    corpus = write_corpus(tmp_path_factory.mktemp("read") / "corpus.jsonl", [*PASSAGES, LONG])
    with Server("--corpus", corpus) as running:
        yield running


def ask(server: Server, path: str, **body: Any) -> list[dict[str, Any]]:
    reply = server.send(path, json.dumps(body).encode())
    assert reply.status_code == 200, reply.text
    found: list[dict[str, Any]] = reply.json()["result"]
    return found


def test_every_document_is_found_by_its_id(server: Server) -> None:
    found = ask(server, "/open", documents=[{"id": passage["id"]} for passage in PASSAGES])
    assert found == [
        {"id": each["id"], "title": each["title"], "page": 1, "pages": 1, "text": each["text"]} for each in PASSAGES
    ]


def test_ids_are_those_of_retrieve(server: Server) -> None:
    ((first, *_),) = server.ask(queries=["Rossini operas"])
    assert first["id"] == "long"
    assert ask(server, "/open", id=first["id"])[0]["title"] == "Rossini"


@pytest.mark.parametrize("length", [None, 100, 1_000])
def test_all_pages_are_the_text(server: Server, length: int | None) -> None:
    more = {"page_length": length} if length else {}
    wanted = pages(LONG["text"], length or 4_000)
    asked = [{"id": "long", "page": page} for page in range(1, len(wanted) + 1)]
    found = ask(server, "/open", documents=asked, **more)
    assert [page["text"] for page in found] == wanted
    assert [(page["page"], page["pages"]) for page in found] == [(n, len(wanted)) for n in range(1, len(wanted) + 1)]
    assert ask(server, "/open", id="long", page=2, **more) == found[1:2]


def test_words_are_found_with_their_pages(server: Server) -> None:
    (found,) = ask(server, "/find", id="long", words="died Passy")
    assert (found["title"], found["count"], found["pages"]) == ("Rossini", 1, 3)
    (place,) = found["places"]
    assert place["page"] == 3
    assert place["text"].endswith("He died in Passy.")
    both = ask(server, "/find", documents=[{"id": "long", "words": "Verdi"}, {"id": "long", "words": "opera"}])
    assert (both[0]["count"], both[0]["places"]) == (0, [])
    assert (both[1]["count"] > 5, len(both[1]["places"])) == (True, 5)


def test_what_is_not_there_is_said_beside_what_is(server: Server) -> None:
    asked = [{"id": "p1000"}, {"id": ""}, {"id": "long", "page": 4}, {"id": "long", "page": 3}]
    *wrong, last = ask(server, "/open", documents=asked)
    assert wrong == [
        {"id": "p1000", "error": "there is no document p1000"},
        {"id": "", "error": "there is no document "},
        {"id": "long", "error": "document long has no page 4, but 3"},
    ]
    assert last["text"].endswith("He died in Passy.")
    assert ask(server, "/find", id="p1000", words="x") == wrong[:1]
    assert ask(server, "/open", documents=[]) == []


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/open", "{", 400, "not valid JSON"),
        ("/open", "[]", 422, "valid dictionary"),
        ("/open", "{}", 422, 'either "documents" (a list) or "id"'),
        ("/open", '{"id": "1", "documents": []}', 422, 'either "documents" (a list) or "id"'),
        ("/open", '{"id": 7}', 422, "id"),
        ("/open", '{"id": "long", "page": 0}', 422, "page"),
        ("/open", '{"id": "long", "page": "2"}', 422, "page"),
        ("/open", '{"id": "long", "page_length": 99}', 422, "page_length"),
        ("/open", '{"id": "long", "page_length": 100001}', 422, "page_length"),
        ("/open", json.dumps({"documents": [{"id": "long"}] * 1_001}), 422, "documents"),
        ("/open", json.dumps({"id": "x" * 10_001}), 422, "id"),
        ("/find", '{"id": "long"}', 422, "words"),
        ("/find", '{"id": "long", "words": " . "}', 422, "words"),
        ("/find", '{"id": "long", "words": null}', 422, "words"),
    ],
    ids=range(14),
)
def test_what_is_malformed_is_refused_with_a_reason(
    server: Server, path: str, body: str, status: int, said: str
) -> None:
    reply = server.send(path, body.encode())
    assert (reply.status_code, list(reply.json())) == (status, ["detail"])
    assert said in reply.json()["detail"]


def test_many_clients_read_while_others_search(server: Server) -> None:
    def both(at: int) -> tuple[Any, Any]:
        passage = PASSAGES[at]
        return ask(server, "/open", id=passage["id"])[0]["text"], server.ask(queries=[passage["text"]])[0][0]["id"]

    with ThreadPoolExecutor(16) as clients:
        assert list(clients.map(both, range(64))) == [(PASSAGES[at]["text"], PASSAGES[at]["id"]) for at in range(64)]
    metrics = server.send("/metrics", None, "GET").text
    assert 'stepsearch_requests_total{path="/open",status="200"}' in metrics
