from __future__ import annotations

import time
from itertools import repeat
from typing import Any
from urllib.parse import urlsplit

import pytest

from stepsearch_data.core.errors import ConfigError, RowRejected, SearchError
from stepsearch_data.search import Found
from stepsearch_data.search.kinds import choose
from stepsearch_data.search.web import cleaned, read_brave, read_serpapi, read_serper, read_tavily, renewal
from tests.fake import Fault, fault
from tests.search.engines import World
from tests.search_servers import KEY, KEYS, Page, SearchServer, error, pages

READ = {"serper": read_serper, "brave": read_brave, "tavily": read_tavily, "serpapi": read_serpapi}

Q = "wer war's? ä&ö"
GERMAN, GOOGLE = {"country": "DE", "language": "de"}, {"gl": "de", "hl": "de"}
DOCUMENTED: dict[str, tuple[str, dict[str, str], dict[str, Any], dict[str, Any], dict[str, str]]] = {
    # URL, headers, parameters or body, settings, and what these add
    "serper": ("POST https://google.serper.dev/search", {"x-api-key": KEY}, {"q": Q, "num": 3}, GERMAN, GOOGLE),
    "brave": (
        "GET https://api.search.brave.com/res/v1/web/search",
        {"x-subscription-token": KEY, "accept": "application/json"},
        {"q": Q, "count": "3"},
        {"country": "de", "language": "de"},
        {"country": "DE", "search_lang": "de"},
    ),
    "tavily": (
        "POST https://api.tavily.com/search",
        {"authorization": f"Bearer {KEY}"},
        {"query": Q, "max_results": 3},
        {"country": "United Kingdom"},
        {"country": "united kingdom"},
    ),
    "serpapi": ("GET https://serpapi.com/search", {}, {"engine": "google", "q": Q, "api_key": KEY}, GERMAN, GOOGLE),
}


@pytest.mark.parametrize("kind", DOCUMENTED)
def test_each_api_is_asked_as_documented(world: World, kind: str) -> None:
    where, headers, sent, settings, added = DOCUMENTED[kind]
    server = SearchServer(kind, pages)
    world.ask(kind, server, Q)
    world.ask(kind, server, Q, **settings)
    url = urlsplit(choose([kind], {})[0].settings.url)
    for asked, expected in zip(server.requests, [sent, {**sent, **added}], strict=True):
        assert f"{asked.method} {url.scheme}://{url.netloc}{asked.path}" == where == f"{asked.method} {url.geturl()}"
        assert headers.items() <= asked.headers.items()
        assert (asked.body or {}, asked.params) == ((expected, {}) if asked.method == "POST" else ({}, expected))


@pytest.mark.parametrize("kind", KEYS)
def test_pages_become_documents(world: World, kind: str) -> None:
    found = world.ask(kind, SearchServer(kind, pages), "Rome", k=2)[0].found
    best = 0.9 if kind == "tavily" else 1.0
    assert found == [Found(None, best / n, f"Rome {n}", "about Rome", f"https://example.org/{n}") for n in (1, 2)]


@pytest.mark.parametrize(("kind", "most"), [("serper", 25), ("brave", 20), ("tavily", 20), ("serpapi", 10)])
def test_no_api_is_asked_for_more_than_it_gives(world: World, kind: str, most: int) -> None:
    server = SearchServer(kind, pages)
    answers = [world.ask(kind, server, "Rome", k=k)[0] for k in (100, 100)]
    assert [(len(answer.found), answer.error) for answer in answers] == [(most, "")] * 2
    asked = server.requests[0]
    assert {"serper": 100, "brave": "20", "tavily": 20, "serpapi": None}[kind] == (
        asked.params.get("count") or (asked.body or {}).get("num", (asked.body or {}).get("max_results"))
    )


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("serper", {"searchParameters": {"q": "x"}}),
        ("serper", {"searchParameters": {"q": "x"}, "organic": None}),
        ("brave", {"type": "search", "query": {"original": "x"}}),
        ("brave", {"type": "search", "web": {"results": None}}),
        ("tavily", {"query": "x", "results": []}),
        ("serpapi", {"search_metadata": {"status": "Success"}}),
        ("serpapi", {"error": "Google hasn\u2019t returned any results for this query."}),
    ],
)
def test_absent_and_null_lists_are_empty(kind: str, body: dict[str, Any]) -> None:
    assert [list(answer.found) for answer in READ[kind](body)] == [[]]


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("body", [{}, {"message": "hello"}, [], "text", 7, {"organic": 1, "web": 1, "results": 1}])
def test_what_is_no_answer_of_the_api_is_refused(kind: str, body: Any) -> None:
    with pytest.raises(RowRejected):
        READ[kind](body)


def test_rows_are_cleaned_and_null_fields_and_empty_rows_are_tolerated(world: World) -> None:
    def rows(_: str) -> list[Page]:
        return [
            Page(None, "<b>text</b>", None, None),
            Page("<b>T</b> &amp; U", None),
            Page(None, None),
            Page("", " "),
        ]

    for kind in KEYS:
        found = world.ask(kind, SearchServer(kind, rows), "one", k=9)[0].found
        assert [(document.title, document.text, document.score) for document in found] == [
            ("", "text", 1.0),
            ("T & U", "", 0.5),
        ]


@pytest.mark.parametrize(
    ("snippet", "text"),
    [
        ("The <strong>Barber</strong> of Seville", "The Barber of Seville"),
        ('<span class="x">Rossini&#x27;s</span> opera &amp; more&nbsp;…', "Rossini's opera & more …"),
        ("one<br>two<br/>three</p><p>four", "one two three four"),
        ("  a\n\tb  ", "a b"),
        ("Mar 3, 2021 ... The opera", "Mar 3, 2021 ... The opera"),
        ("if a < b and c > d then <T>", "if a < b and c > d then <T>"),
        ("write &lt;strong&gt; for bold", "write <strong> for bold"),
        ("<EM>H<sub>2</sub>O</EM>", "H2O"),
        ("", ""),
    ],
)
def test_snippets_become_plain_text(snippet: str, text: str) -> None:
    assert cleaned(snippet) == text


@pytest.mark.parametrize("kind", KEYS)
def test_a_wrong_key_stops_the_build_and_is_named(world: World, kind: str) -> None:
    with pytest.raises(SearchError) as stopped:
        world.ask(kind, SearchServer(kind, pages, key="another"), "one", "two")
    assert "refuses the key" in stopped.value.message
    assert stopped.value.hint == f"set {KEYS[kind]} to a valid key"
    assert KEY not in stopped.value.message


@pytest.mark.parametrize(
    "spent",
    [
        error("serper", 400, "Not enough credits"),
        error("tavily", 432, "This request exceeds your plan's set usage limit. Please upgrade your plan."),
        error("tavily", 433, "This request exceeds the pay-as-you-go limit."),
        error("serpapi", 429, "Your account has run out of searches."),
        error(
            "brave",
            429,
            "Request rate limit exceeded for plan",
            "RATE_LIMITED",
            X_RateLimit_Limit="1, 2000",
            X_RateLimit_Remaining="0, 0",
            X_RateLimit_Reset="1, 1419704",
        ),
    ],
    ids=["serper", "tavily plan", "tavily pay-as-you-go", "serpapi", "brave"],
)
def test_used_up_credit_stops_the_build_and_keeps_what_was_paid(
    world: World, request: pytest.FixtureRequest, spent: Fault
) -> None:
    kind = request.node.callspec.id.split()[0]
    server = SearchServer(kind, lambda query: pages(query) if query == "one" else spent)
    with pytest.raises(SearchError, match="nothing is left of the account's quota") as stopped:
        world.ask(kind, server, "one", "two", max_concurrency=1)
    assert "what was paid is kept" in stopped.value.hint
    assert world.ask(kind, server, "one")[0].found
    assert server.queries == ["one", "two"]
    assert ("394.4 hours" in stopped.value.message) == (kind == "brave")


def test_brave_is_asked_again_when_its_second_is_over(world: World) -> None:
    headers = {"X_RateLimit_Limit": "1, 2000", "X_RateLimit_Remaining": "0, 118", "X_RateLimit_Reset": "1, 183945"}
    refusal = repeat(error("brave", 429, "Request rate limit exceeded for plan", "RATE_LIMITED", **headers), 1)
    server = SearchServer("brave", lambda query: next(refusal, None) or pages(query))
    begun = time.monotonic()
    assert world.ask("brave", server, "one", max_attempts=1)[0].found  # such a wait costs no attempt
    assert 1.0 <= time.monotonic() - begun < 9


@pytest.mark.parametrize(
    ("limit", "remaining", "reset", "seconds"),
    [
        ("1, 15000", "0, 14523", "1, 1419704", 1),
        ("1, 15000", "1, 0", "1, 1419704", 1419704),
        ("50, 0", "0, 0", "1, 1419704", 1),  # plans without a monthly limit say 0 of 0
        ("1, 15000", "1, 14523", "1, 1419704", 1),
        ("50", "0", "1", 1),
    ],
)
def test_braves_limits_say_how_long_to_wait(limit: str, remaining: str, reset: str, seconds: float) -> None:
    headers = {"x-ratelimit-limit": limit, "x-ratelimit-remaining": remaining, "x-ratelimit-reset": reset}
    assert renewal(headers) == seconds


def test_without_braves_limits_retry_after_says_how_long() -> None:
    assert renewal({"retry-after": "7"}) == 7
    assert renewal({"x-ratelimit-limit": "x", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "1"}) is None


def test_what_brave_finds_wrong_with_a_query_is_an_error_of_that_query(world: World) -> None:
    good, long, wordy = world.ask("brave", SearchServer("brave", pages), "Rome", "x" * 401, "y " * 51)
    assert good.found
    for answer in (long, wordy):
        assert answer.error == (
            "the server refuses the request (422: Unable to validate request parameter(s) [VALIDATION])"
        )


def test_a_search_that_fails_at_serpapi_is_an_error_and_asked_again(world: World) -> None:
    said = "We couldn't get valid results for this search. Please try again later."
    server = SearchServer("serpapi", lambda _: fault(200, {"search_metadata": {"status": "Error"}, "error": said}))
    for _ in range(2):
        answer = world.ask("serpapi", server, "one")[0]
        assert (answer.found, answer.error) == ((), f"the server says: {said}")
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"country": "Germany"}, r"engines\.serper\.country"),
        ({"key": "c2VjcmV0"}, "unknown key"),
    ],
)
def test_what_is_not_a_setting_is_said_before_anything_is_asked(section: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose(["serper"], {"serper": section})
