from __future__ import annotations

import json
from typing import Any

import pytest

from stepsearch_data.core.errors import RowRejected, SearchError
from stepsearch_data.search import Answer, Found
from stepsearch_data.search.http import read
from tests.fake import fault
from tests.search.engines import World
from tests.search_servers import SearchServer, pages


def one(*rows: Any) -> Answer:
    """The answer that a result of one list holds."""
    return read({"result": [list(rows)]})[0]


def wrapped(score: Any = 0.5, **document: Any) -> dict[str, Any]:
    return {"document": document, "score": score}


def test_a_request_is_what_search_r1_documents(world: World) -> None:
    server = SearchServer("http", pages)
    answers = world.ask("http", server, "who", "wo", k=4)
    assert answers[1].found[:2] == [Found(None, 0.9, "wo 1", "about wo"), Found(None, 0.45, "wo 2", "about wo")]
    asked = server.requests[0]
    assert (asked.method, asked.path) == ("POST", "/retrieve")
    assert asked.body == {"queries": ["who", "wo"], "topk": 4, "return_scores": True}
    assert asked.headers["content-type"] == "application/json"
    assert "authorization" not in asked.headers


@pytest.mark.parametrize("end", ["", "/", "/retrieve", "/retrieve/"])
def test_the_url_may_end_in_retrieve(world: World, end: str) -> None:
    server = SearchServer("http", pages)
    server.url = server.url.removesuffix("/retrieve") + end
    assert world.ask("http", server, "Rome")[0].found


def test_a_server_needs_a_url(world: World) -> None:
    with pytest.raises(SearchError, match="needs the URL") as stopped:
        world.ask("http", "", "Rome")
    assert "engines.http.url" in stopped.value.hint


def test_64_queries_go_in_a_request_and_only_new_ones(world: World) -> None:
    queries = [f"query {n}" for n in range(130)]
    server = SearchServer("http", pages)
    world.ask("http", server, *queries[::2])
    assert sorted(len(asked.queries) for asked in server.requests) == [1, 64]
    world.ask("http", server, *queries)
    assert sorted(server.queries) == sorted(queries)


@pytest.mark.parametrize(
    ("document", "title", "text"),
    [
        (
            {"id": "7", "contents": '"A \\"quoted\\" title"\nThe text.\nMore.'},
            'A \\"quoted\\" title',
            "The text.\nMore.",
        ),
        ({"contents": "Bare title\ntext"}, "Bare title", "text"),
        ({"contents": "no line break"}, "", "no line break"),
        ({"id": 3, "title": "T", "content": "C"}, "T", "C"),
        ({"title": "T", "text": "X"}, "T", "X"),
        ({"title": None, "text": "X"}, "", "X"),
        ({"title": "T", "text": None}, "T", ""),
        ({"contents": "", "title": "T", "text": "X"}, "T", "X"),
        ({"contents": '"T"\nX', "title": "T", "text": "X", "other": [1]}, "T", "X"),
    ],
)
def test_both_dialects_are_read(document: dict[str, Any], title: str, text: str) -> None:
    expected = [Found(None, 0.5, title, text)]
    assert one({"document": document, "score": 0.5}).found == expected
    assert one({**document, "score": 0.5}).found == expected


def test_without_scores_the_order_is_the_score() -> None:
    found = one({"document": {"text": "a"}}, {"document": {"text": "b"}}, {"text": "c"}).found
    assert [(document.text, document.score) for document in found] == [("a", 1.0), ("b", 0.5), ("c", 1 / 3)]
    found = one(wrapped(9, text="a"), wrapped(None, text="b"), wrapped("7", text="c")).found
    assert [document.score for document in found] == [1.0, 0.5, 1 / 3]


def test_scores_are_the_servers_own_even_below_zero() -> None:
    found = one(wrapped(0, text="a"), wrapped(-3.5, text="b")).found
    assert [document.score for document in found] == [0.0, -3.5]


def test_empty_entries_are_no_documents() -> None:
    found = one(None, {}, {"document": None, "score": 1}, wrapped(title="", text=""), wrapped(text="a")).found
    assert found == [Found(None, 0.5, "", "a")]
    assert one() == Answer([])


@pytest.mark.parametrize(
    "contents",
    [
        "Search failed, please search again\nSearch failed, please search again",
        "Search failed, please search again",
        '"Search failed"\nSearch failed: HTTP 403',
    ],
)
def test_a_made_up_document_of_a_bridge_is_an_error_of_that_query_alone(world: World, contents: str) -> None:
    made_up = [{"document": {"id": "42", "contents": contents}, "score": 0.77}]
    good = [{"document": {"contents": '"Search failed"\nA film of 1990.'}, "score": 0.5}]
    server = SearchServer("http", lambda _: fault(200, {"result": [made_up, good]}))
    bad, fine = world.ask("http", server, "one", "two")
    assert (bad.found, bad.error) == ((), "the server says that its own search failed")
    assert (len(fine.found), fine.error) == (1, "")
    assert world.records[0]["failed"] == 1
    world.ask("http", server, "one", "two")
    assert server.queries == ["one", "two", "one"]  # what failed is asked again


@pytest.mark.parametrize("lists", [0, 1, 3])
def test_another_number_of_lists_than_of_queries_is_an_error(world: World, lists: int) -> None:
    server = SearchServer("http", lambda _: fault(200, {"result": [[wrapped(text="a")]] * lists}))
    answers = world.ask("http", server, "one", "two")
    assert not any(answer.found for answer in answers if lists != 1)
    if lists == 1:  # right for a query alone
        assert [len(asked.queries) for asked in server.requests] == [2, 1, 1]
    else:
        assert f"the server sent {lists} results for" in answers[0].error


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"result": None},
        {"result": {}},
        {"result": "text"},
        {"result": [None]},
        {"result": [{"document": {"text": "a"}}]},
        {"result": [["text"]]},
        {"result": [[3]]},
        {"result": [[{"document": "text"}]]},
        {"result": [[{"document": [1]}]]},
    ],
)
def test_another_shape_is_refused(body: Any) -> None:
    with pytest.raises(RowRejected):
        read(json.loads(json.dumps(body)))


def test_more_documents_than_asked_for_are_cut(world: World) -> None:
    server = SearchServer("http", lambda _: fault(200, {"result": [[wrapped(text=str(n)) for n in range(9)]]}))
    assert [found.text for found in world.ask("http", server, "one", k=2)[0].found] == ["0", "1"]
