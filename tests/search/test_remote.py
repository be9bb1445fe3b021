from __future__ import annotations

import asyncio
import logging
import time
import traceback
from contextlib import closing
from itertools import chain, repeat
from typing import Any
from urllib.parse import quote

import pytest

from stepsearch_data.core.errors import BudgetError, ConfigError, SearchError, StepSearchError
from stepsearch_data.remote import client
from stepsearch_data.remote.cache import Cache
from stepsearch_data.search import Answer, SearchEngine
from stepsearch_data.search.kinds import choose
from tests.fake import Fault, fault
from tests.search.engines import World
from tests.search_servers import KEY, KEYS, SearchServer, error, pages
from tests.search_servers import Answer as Pages

ALL = ["http", *KEYS]
TRANSIENT = {
    **{str(status): error("serpapi", status, "later") for status in (408, 429, 500, 502, 503, 504)},
    "429 with Retry-After": error("serpapi", 429, "later", Retry_After="0.01"),
    "503 with Retry-After": error("serpapi", 503, "later", Retry_After="0.01"),
    "502 as a page": Fault(502, b"<html><h1>Bad gateway</h1></html>"),
    "200 as a page": Fault(200, b"\n<!doctype html><p>Log in to the network</p>"),
    "garbage": Fault(200, b'{"result": ['),
    "not UTF-8": Fault(200, b'{"result": "\xff"}'),
    "nothing": Fault(200, b""),
    "cut": Fault(cut=True),
    "drip": Fault(drip=True),
    "slow": Fault(delay=2.0),
}
PERMANENT = {
    "400": error("serpapi", 400, "Unsupported value"),
    "422": error("serpapi", 422, "Unable to validate request parameter(s)"),
    "a number": Fault(200, b"7"),
    "a list": Fault(200, b"[]"),
    "another object": Fault(200, b'{"message": "hello"}'),
    "null": Fault(200, b'{"result": null, "organic": 3, "web": [], "results": "no", "organic_results": {}}'),
    "oversize": Fault(200, b" " * (9 << 20)),
}


@pytest.fixture(params=ALL)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def one_bad(bad: Fault, times: int = 10**9) -> Pages:
    """Answers all but the query `bad`, which fails so often."""
    left = repeat(bad, times)
    return lambda query: next(left, None) or pages(query) if query == "bad" else pages(query)


def shorter(name: str) -> dict[str, Any]:
    """Settings for a fault that takes as long as it is given."""
    return {"timeout": 0.2} if name in {"slow", "drip"} else {}


def titles(answer: Answer) -> list[str]:
    return [found.title for found in answer.found]


def stop(world: World, kind: str, server: SearchServer, *queries: str, **section: Any) -> SearchError:
    with pytest.raises(SearchError) as stopped:
        world.ask(kind, server, *queries or ["one"], **section)
    return stopped.value


def test_answers_are_in_the_order_of_the_queries(world: World, kind: str) -> None:
    queries = [f"query {n}" for n in range(70)]
    answers = world.ask(kind, SearchServer(kind, pages), *queries)
    assert [titles(answer) for answer in answers] == [[f"{query} {n}" for n in (1, 2, 3)] for query in queries]
    assert all(not answer.error and answer.latency is not None for answer in answers)


def test_what_was_answered_once_is_never_sent_again(world: World, kind: str) -> None:
    server = SearchServer(kind, lambda query: [] if query == "none" else pages(query))
    first = world.ask(kind, server, "one", "none")
    assert (list(first[1].found), first[1].error) == ([], "")
    sent = len(server.requests)
    assert world.ask(kind, server, "one", "none") == first  # the latency too: builds are the same bytes
    world.ask(kind, server, "two", "one", "none")
    assert len(server.requests) == sent + 1
    assert server.queries == ["one", "none", "two"]
    assert world.ask(kind, server.url, "none", "one") == first[::-1]  # without the server


def test_what_decides_an_answer_is_asked_again_when_it_changes_and_nothing_else_is(world: World) -> None:
    server, elsewhere = SearchServer("serper", pages), SearchServer("serper", pages)
    elsewhere.url = "http://elsewhere/search"
    world.ask("serper", server, "one", timeout=9, rps=99, max_concurrency=3, patience=9, max_attempts=9)
    for change in ({}, {"timeout": 8}, {"name": "again"}, {"max_requests": 5}):
        world.ask("serper", server, "one", **change)
    assert len(server.requests) == 1
    for change in ({"k": 4}, {"revision": "May"}, {"country": "de"}, {"language": "de"}):
        world.ask("serper", server, "one", **change)
    assert len(server.requests) == 5
    world.ask("serper", elsewhere, "one")
    assert len(elsewhere.requests) == 1


def test_a_digest_never_changes_or_paid_answers_would_be_paid_again(world: World) -> None:
    world.ask("serper", SearchServer("serper", pages), "who")
    with closing(Cache(world.folder / "replay.sqlite")) as kept:
        assert kept.load("3255f88ccc1db7143b3e7586d96b35ae81e6f3d29c7d149387b83f131a0cb242")


def test_every_request_and_every_replay_is_a_record(world: World) -> None:
    server = SearchServer("http", one_bad(error("http", 503, "later"), 1))
    world.ask("http", server, "bad", "two", name="mine")
    world.ask("http", server, "bad", "three", name="mine")
    assert [
        (record["engine"], record["queries"], record["failed"], record["attempts"], record["cached"])
        for record in world.records
    ] == [("mine", 2, 2, 1, False), ("mine", 2, 0, 1, False), ("mine", 1, 0, 0, True), ("mine", 1, 0, 1, False)]
    assert [record["error"] for record in world.records] == ["503: later", "", "", ""]


def test_a_query_without_a_word_finds_nothing_and_is_not_sent(world: World, kind: str) -> None:
    server = SearchServer(kind, pages)
    answers = world.ask(kind, server, "", " \t", "?!…", "東京", "Ω")
    assert [len(answer.found) for answer in answers] == [0, 0, 0, 3, 3]
    assert not any(answer.error for answer in answers)
    assert server.queries == ["東京", "Ω"]


def test_the_same_query_twice_in_a_call_is_sent_once(world: World) -> None:
    server = SearchServer("http", pages)
    answers = world.ask("http", server, "one", "two", "one")
    assert [titles(answer)[0] for answer in answers] == ["one 1", "two 1", "one 1"]
    assert server.queries == ["one", "two"]


def test_without_a_replay_cache_all_is_asked(world: World) -> None:
    async def twice(engine: SearchEngine) -> None:
        await engine.search(["one"], 3)
        await engine.search(["one"], 3)

    server = SearchServer("http", pages)
    world.run("http", server, twice, replay=False)
    assert len(server.requests) == 2


@pytest.mark.parametrize("name", TRANSIENT)
@pytest.mark.parametrize("asked", ["http", "serpapi"])
def test_what_may_pass_is_sent_again(world: World, asked: str, name: str) -> None:
    with SearchServer(asked, one_bad(TRANSIENT[name], 1)).serving(TRANSIENT[name]) as server:
        answer = world.ask(asked, server, "bad", **shorter(name))[0]
    assert (titles(answer)[:1], answer.error) == (["bad 1"], "")
    assert len(server.requests) == 2


@pytest.mark.parametrize("name", [name for name in TRANSIENT if name not in {"slow", "drip"}])
def test_a_failure_is_an_answer_of_its_query_alone_and_asked_again_by_the_next_run(world: World, name: str) -> None:
    with SearchServer("brave", one_bad(TRANSIENT[name], 2)).serving(TRANSIENT[name]) as server:
        good, bad = world.ask("brave", server, "good", "bad", patience=0.05, max_attempts=2)
        assert (len(good.found), good.error) == (3, "")
        if not bad.error:  # a wait that the server asks for costs no attempt
            assert "Retry-After" in name
            return
        assert (bad.found, bad.latency) == ((), None)
        assert len(world.ask("brave", server, "good", "bad")[1].found) == 3
    assert server.queries.count("good") == 1


@pytest.mark.parametrize("name", PERMANENT)
def test_what_will_not_pass_is_sent_once(world: World, kind: str, name: str) -> None:
    with SearchServer(kind, one_bad(PERMANENT[name])).serving(PERMANENT[name]) as server:
        good, bad = (world.ask(kind, server, query)[0] for query in ("good", "bad"))
        assert (len(good.found), good.error, bad.found) == (3, "", ())
        assert bad.error
        assert server.queries == ["good", "bad"]
        world.ask(kind, server, "bad")
        assert server.queries == ["good", "bad", "bad"]  # failures are not kept


def test_errors_say_what_happened(world: World) -> None:
    said = {
        "502 as a page": "502: a web page",
        "200 as a page": "the server sent a web page",
        "garbage": "the server sent something else than JSON",
        "500": "500: later",
        "slow": "the server did not answer in time",
        "422": "the server refuses the request (422: Unable to validate request parameter(s))",
        "oversize": "the server's reply is larger than 8 MiB",
    }
    for name, expected in said.items():
        bad = {**TRANSIENT, **PERMANENT}[name]
        with SearchServer("serpapi", one_bad(bad)).serving(bad) as server:
            assert world.ask("serpapi", server, "bad", **shorter(name))[0].error == expected


def test_half_a_character_in_a_snippet_costs_no_answer(world: World) -> None:
    body = (
        b'{"searchParameters": {}, "organic": [{"title": "Caf\xc3\xa9", "snippet": "a smile \\ud83d", "link": null}]}'
    )
    server = SearchServer("serper", lambda _: Fault(200, body))
    found = world.ask("serper", server, "one")[0].found[0]
    assert (found.title, found.text, found.url) == ("Café", "a smile ?", "")
    assert world.ask("serper", server, "one")[0].found == [found]


def test_a_server_that_nobody_runs_is_an_error_of_the_queries(world: World, kind: str) -> None:
    answers = world.ask(kind, "http://127.0.0.1:9", "one", "two")
    assert all("Connect" in answer.error and not answer.found for answer in answers)


def test_a_server_that_fails_for_too_long_is_down_and_nobody_waits_for_it(world: World, kind: str) -> None:
    async def one_by_one(engine: SearchEngine) -> list[str]:
        return [(await engine.search([f"query {n}"], 3))[0].error for n in range(3000)]

    server = SearchServer(kind, lambda _: error(kind, 503, "maintenance"))
    errors = world.run(kind, server, one_by_one, patience=0.3)
    assert errors[0] == "503: maintenance"
    assert set(errors[len(server.requests) :]) == {f"{server.url} is down: 503: maintenance"}
    assert 2 < len(server.requests) < 2000


def test_queries_that_wait_learn_at_once_that_a_server_is_down(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "uniform", lambda *_: 9.0)
    refusals = iter([error("http", 503, "later"), error("http", 503, "later", Retry_After="600")])
    server = SearchServer("http", lambda _: next(refusals))

    async def two(engine: SearchEngine) -> list[str]:
        first = asyncio.create_task(engine.search(["one"], 3))  # fails, and waits for its second attempt
        while not world.records:  # noqa: ASYNC110 - nothing tells of a record
            await asyncio.sleep(0.005)
        begun = time.monotonic()
        second = await engine.search(["two"], 3)
        errors = [(await first)[0].error, second[0].error]
        assert time.monotonic() - begun < 3
        return errors

    assert set(world.run("http", server, two)) == {f"{server.url} is down: 503: later; it asks to wait 600 s"}
    assert len(server.requests) == 2


def test_a_server_is_not_down_while_other_queries_work(world: World) -> None:
    server = SearchServer("serper", one_bad(error("serper", 500, "cannot")))
    queries = list(chain.from_iterable(("bad", f"query {n}") for n in range(30)))
    answers = world.ask("serper", server, *queries, patience=0.001, max_attempts=3, max_concurrency=1)
    assert [not answer.error for answer in answers[1::2]] == [True] * 30


def test_a_wait_of_hours_is_a_quota(world: World, kind: str) -> None:
    stopped = stop(world, kind, SearchServer(kind, lambda _: error(kind, 429, "later", Retry_After="7200")))
    assert "nothing is left of the account's quota (429: later" in stopped.message
    assert "wait 2.0 hours" in stopped.message


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "(401: no)"),
        (403, "(403: no)"),
        (402, "nothing is left of the account's quota (402: no)"),
        (404, "is not where the API is (404: no)"),
        (405, "is not where the API is (405: no)"),
    ],
)
def test_what_no_query_can_survive_stops_everything(world: World, kind: str, status: int, message: str) -> None:
    server = SearchServer(kind, lambda _: error(kind, status, "no"))
    stopped = stop(world, kind, server)
    assert message in stopped.message
    assert stopped.hint
    if status == 401 and kind in KEYS:
        assert KEYS[kind] in stopped.hint
    assert len(server.requests) == 1
    assert world.records[0]["failed"] == 1


def test_a_wall_that_takes_offence_at_one_query_stops_nothing(world: World) -> None:
    page = Fault(403, b"<html>Attention required!</html>")
    server = SearchServer("serper", one_bad(page))
    answers = world.ask("serper", server, "good", "bad", "fine", max_concurrency=1)
    assert [answer.error for answer in answers] == ["", "the server refuses the request (403: a web page)", ""]
    assert "refuses the key" in stop(world, "serper", server, "bad").message


@pytest.mark.parametrize("wanting", KEYS)
@pytest.mark.parametrize("key", ["", "  ", "two words", "ключ", "line\nbreak"])
def test_a_missing_key_is_named(world: World, monkeypatch: pytest.MonkeyPatch, wanting: str, key: str) -> None:
    monkeypatch.setenv(KEYS[wanting], key)
    with pytest.raises(StepSearchError, match=KEYS[wanting]) as stopped:
        world.ask(wanting, "http://localhost:1", "one")
    assert not key.strip() or key not in stopped.value.message + stopped.value.hint


@pytest.mark.parametrize("url", ["nonsense", "ftp://localhost", "http://", "http://[", "localhost:80"])
def test_what_is_no_url_is_said(world: World, kind: str, url: str) -> None:
    with pytest.raises(SearchError, match="is not a URL") as stopped:
        world.ask(kind, url, "one")
    assert f"engines.{kind}.url" in stopped.value.hint


@pytest.mark.parametrize("setting", ["http.url", "serper.url", "dense.base_url"])
@pytest.mark.parametrize("url", ["http://user:secret@localhost", "http://localhost/?api_key=secret"])
def test_a_url_that_holds_a_secret_is_refused_without_repeating_it(setting: str, url: str) -> None:
    name, key = setting.split(".")
    with pytest.raises(ConfigError, match=rf"engines\.{setting}") as stopped:
        choose([name], {name: {key: url, **({"model": "m"} if name == "dense" else {})}})
    assert "secret" not in stopped.value.message + stopped.value.hint


def test_a_budget_holds_over_many_builds_and_replays_are_free(world: World, kind: str) -> None:
    server = SearchServer(kind, pages)
    world.ask(kind, server, "one", max_requests=2)
    world.ask(kind, server, "one", "two", max_requests=2)
    assert len(server.requests) == 2
    world.ask(kind, server, "one", "two", max_requests=2)
    with pytest.raises(BudgetError) as stopped:
        world.ask(kind, server, "one", "three", max_requests=2)
    assert stopped.value.message == f"{kind}: 2 requests were sent, of 2 allowed; what they brought is kept"
    assert stopped.value.hint.startswith(f"--set engines.{kind}.max_requests=4")
    world.ask(kind, server, "three", max_requests=3)
    world.ask(kind, server, "four", max_requests=1, name="other")
    assert len(server.requests) == sum(record["attempts"] for record in world.records) == 4


@pytest.mark.parametrize("most", [0, 7])
def test_a_budget_is_never_passed_by_requests_in_flight_or_repeated(world: World, most: int) -> None:
    server = SearchServer("serper", lambda _: error("serper", 500, "cannot"))
    with pytest.raises(BudgetError):
        world.ask("serper", server, *map(str, range(20)), max_requests=most, max_concurrency=5)
    assert len(server.requests) == most


def test_a_rate_is_kept_from_the_first_request_on(world: World) -> None:
    begun = time.monotonic()
    world.ask("serper", SearchServer("serper", pages), *map(str, range(9)), rps=20, max_concurrency=9)
    assert time.monotonic() - begun >= 8 / 20


def test_what_was_sent_is_kept_even_when_the_build_stops(world: World, kind: str) -> None:
    async def cancelled(engine: SearchEngine) -> None:
        asking = asyncio.create_task(engine.search(["one"], 3))
        while not server.requests:  # noqa: ASYNC110 - nothing tells of a request
            await asyncio.sleep(0.005)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    server = SearchServer(kind, pages)
    server.delay = 0.1
    world.run(kind, server, cancelled)
    assert len(world.ask(kind, server, "one")[0].found) == 3
    assert len(server.requests) == 1
    assert [record["cached"] for record in world.records] == [False, True]


def test_one_query_that_chokes_a_server_takes_none_of_its_batch_along(world: World) -> None:
    for bad in (error("http", 500, "cannot"), error("http", 413, "too large"), PERMANENT["oversize"]):
        with SearchServer("http", one_bad(bad)).serving(bad) as server:
            answers = world.ask("http", server, *(f"query {n}" for n in range(40)), "bad", max_attempts=1)
            assert [bool(answer.error) for answer in answers] == [False] * 40 + [True]
            assert len(server.requests) < 15


def test_a_server_that_refuses_everything_stops_everything(world: World, kind: str) -> None:
    server = SearchServer(kind, lambda _: error(kind, 400, "Unsupported country"))
    stopped = stop(world, kind, server, *(f"query {n}" for n in range(200)))
    assert stopped.message == (
        f"{server.url} answers nothing: the server refuses the request (400: Unsupported country)"
    )
    assert len(server.requests) < 40


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("serpapi", name) for name in (*TRANSIENT, *PERMANENT, "402", "404", "echo", "found", "redirect", "port")),
        *((kind, name) for kind in KEYS for name in ("401", "echo", "cut")),
    ],
)
def test_a_key_is_nowhere(world: World, caplog: pytest.LogCaptureFixture, kind: str, name: str) -> None:
    caplog.set_level(logging.DEBUG)
    spellings = (KEY, quote(KEY, safe=""), quote(KEY))
    echoed = f"bad request GET /search?api_key={' '.join(spellings)}"
    faults = {
        **TRANSIENT,
        **PERMANENT,
        "401": error(kind, 401, echoed),
        "402": error(kind, 402, echoed),
        "404": error(kind, 404, echoed),
        "echo": error(kind, 500, echoed),
        "found": fault(200, {"error": echoed}),
        "redirect": Fault(302, headers={"Location": "/search?again=1"}),
        "port": Fault(302, headers={"Location": f"http://127.0.0.1:1/?api_key={quote(KEY, safe='')}"}),
    }
    said = []
    with SearchServer(kind, one_bad(faults[name])) as server:
        try:
            answers = world.ask(kind, server, "good", "bad", max_attempts=1, patience=0.001, **shorter(name))
            said += [answer.error for answer in answers]
        except StepSearchError as stopped:
            said += traceback.format_exception(stopped)
    assert any(said)
    files = [path.read_bytes() for path in world.folder.rglob("*") if path.is_file()]
    seen = [*files, *(str(text).encode() for text in (*said, *world.records, *caplog.messages))]
    assert not any(secret.encode() in text for secret in spellings for text in seen)
