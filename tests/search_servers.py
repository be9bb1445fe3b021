"""Search APIs as their documentation describes them, misbehaving on command.

    with SearchServer("brave", answer) as server: ... server.url ... server.requests

`answer` gets a query and returns pages or a `Fault`. What the servers imitate (looked up in November 2026):

- http: Search-R1's `retrieval_server.py`, and FastAPI's 422
- serper: serper.dev; errors are `{"message", "statusCode"}`, 403 for a wrong key, 400 when the credits are used up
- brave: api-dashboard.search.brave.com/api-reference/web/search/get and its guide to rate limiting; a wrong token is
  a 422 with the code SUBSCRIPTION_TOKEN_INVALID, the headers `X-RateLimit-*` hold a limit a second and one a month
- tavily: docs.tavily.com, help.tavily.com ("Errors Code"): `{"detail": {"error"}}`, 432 and 433 for used-up plans
- serpapi: serpapi.com/search-errors, serpapi.com/api-status-and-error-codes: `{"error"}`, with 200 for no results
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tests.fake import Asked, FakeServer, Fault, fault

KEY = "k3y0123456789+/abcdef=="  # with letters that a URL spells otherwise
KEYS = {
    "serper": "SERPER_API_KEY",
    "brave": "BRAVE_API_KEY",
    "tavily": "TAVILY_API_KEY",
    "serpapi": "SERPAPI_API_KEY",
}
PATHS = {
    "http": ("POST", "/retrieve"),
    "serper": ("POST", "/search"),
    "brave": ("GET", "/res/v1/web/search"),
    "tavily": ("POST", "/search"),
    "serpapi": ("GET", "/search"),
}


class Page(NamedTuple):
    """What an API shows of a page; None is what it sends as null."""

    title: str | None
    snippet: str | None
    url: str | None = "https://example.org/"
    score: float | None = 0.5


Answer = Callable[[str], "Sequence[Page] | Fault"]


def pages(query: str) -> list[Page]:
    """25 pages about a query, best first."""
    return [Page(f"{query} {n}", f"about {query}", f"https://example.org/{n}", 0.9 / n) for n in range(1, 26)]


def error(api: str, status: int, message: str, code: str = "", **headers: str) -> Fault:
    """An error as this API words it."""
    body: dict[str, Any] = {
        "http": {"detail": message},
        "serper": {"message": message, "statusCode": status},
        "brave": {
            "type": "ErrorResponse",
            "error": {"id": "5d832250", "status": status, "code": code, "detail": message, "meta": {}},
            "time": 1663072993,
        },
        "tavily": {"detail": {"error": message}},
        "serpapi": {"error": message},
    }
    return fault(status, body[api], **headers)


class Question(Asked):
    """A request for pages."""

    @property
    def queries(self) -> list[str]:
        """The queries that it holds."""
        body = self.body or self.params
        return list(body["queries"]) if "queries" in body else [str(body.get("q", body.get("query", "")))]


class SearchServer(FakeServer):
    """Serves one API. Calls without `key` are refused, where the API needs one."""

    requests: list[Question]

    def __init__(self, api: str, answer: Answer, key: str = KEY) -> None:
        super().__init__(self._find, PATHS[api][1])
        self.api, self.answer, self.key = api, answer, key

    @property
    def queries(self) -> list[str]:
        """All queries that were asked, in their order."""
        return [query for asked in self.requests for query in asked.queries]

    def record(self, asked: Asked) -> None:
        """Keep the request."""
        self.requests.append(Question(*asked))

    def _find(self, asked: Asked) -> Any:
        if (asked.method, asked.path) != PATHS[self.api]:
            return error(self.api, 404, "Not Found")
        found: list[Any] = [self.answer(query) for query in Question(*asked).queries]
        speak: Any = {"http": _retriever, "serper": _serper, "brave": _brave, "tavily": _tavily, "serpapi": _serpapi}
        bad = next((each for each in found if isinstance(each, Fault)), None)
        return bad or speak[self.api](asked, self.key, *found)


def _retriever(asked: Asked, _key: str, *results: Sequence[Page]) -> Fault:
    """Search-R1's own server: `contents`, and scores where they are asked for (it breaks where they are not)."""
    if not isinstance(asked.body.get("queries"), list):
        return fault(422, {"detail": [{"loc": ["body", "queries"], "msg": "Field required", "type": "missing"}]})
    if not asked.body.get("return_scores"):
        return Fault(500, b"Internal Server Error")
    shown = [enumerate(found[: asked.body.get("topk") or 10]) for found in results]
    result = [
        [{"document": {"id": str(n), "contents": f'"{p.title}"\n{p.snippet}'}, "score": p.score} for n, p in pages]
        for pages in shown
    ]
    return fault(200, {"result": result})


def _serper(asked: Asked, key: str, found: Sequence[Page]) -> Fault:
    if asked.headers.get("x-api-key") != key:
        return error("serper", 403, "Unauthorized.")
    shown = enumerate(found[: asked.body.get("num", 10)], start=1)
    organic = [{"title": p.title, "link": p.url, "snippet": p.snippet, "position": n} for n, p in shown]
    return fault(200, {"searchParameters": {"q": asked.body["q"], "type": "search"}, "organic": organic, "credits": 1})


def _brave(asked: Asked, key: str, found: Sequence[Page]) -> Fault:
    query, count = asked.params["q"], int(asked.params["count"])
    if asked.headers.get("x-subscription-token") != key:
        return error("brave", 422, "The provided subscription token is invalid.", "SUBSCRIPTION_TOKEN_INVALID")
    if count > 20 or len(query) > 400 or len(query.split()) > 50:
        return error("brave", 422, "Unable to validate request parameter(s)", "VALIDATION")
    results = [{"type": "search_result", "title": p.title, "url": p.url, "description": p.snippet} for p in found]
    pages = {"type": "search", "results": results[:count], "family_friendly": True} if found else None
    return fault(
        200,
        {"type": "search", "query": {"original": query}, "web": pages},
        X_RateLimit_Limit="1, 15000",
        X_RateLimit_Remaining="0, 14523",
        X_RateLimit_Reset="1, 1419704",
    )


def _tavily(asked: Asked, key: str, found: Sequence[Page]) -> Fault:
    if asked.headers.get("authorization") != f"Bearer {key}":
        return error("tavily", 401, "Unauthorized: missing or invalid API key.")
    shown = found[: asked.body.get("max_results", 5)]
    results = [{"title": p.title, "url": p.url, "content": p.snippet, "score": p.score} for p in shown]
    return fault(200, {"query": asked.body["query"], "answer": None, "images": [], "results": results})


def _serpapi(asked: Asked, key: str, found: Sequence[Page]) -> Fault:
    if asked.params.get("api_key") != key:
        return error("serpapi", 401, "Invalid API key. Your API key should be here: https://serpapi.com/manage-api-key")
    usual = {"search_metadata": {"id": "64c32cfe", "status": "Success"}, "search_parameters": {"q": asked.params["q"]}}
    if not found:
        state = {"organic_results_state": "Fully empty"}
        no_results = "Google hasn't returned any results for this query."
        return fault(200, {**usual, "search_information": state, "error": no_results})
    shown = enumerate(found[:10], start=1)
    organic = [{"position": n, "title": p.title, "link": p.url, "snippet": p.snippet} for n, p in shown]
    return fault(200, {**usual, "organic_results": organic})
