"""Web search APIs. Their documents are snippets: a title, a few sentences, and where they are from.

| API | documentation | key | documents at most |
|---|---|---|---|
| Serper | serper.dev/playground | SERPER_API_KEY | 100 |
| Brave | api-dashboard.search.brave.com/api-reference/web/search/get | BRAVE_API_KEY | 20 |
| Tavily | docs.tavily.com/documentation/api-reference/endpoint/search | TAVILY_API_KEY | 20 |
| SerpApi | serpapi.com/search-api, serpapi.com/search-errors | SERPAPI_API_KEY | 10 |

Only Tavily gives scores; the others' are 1 / rank.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, create_model

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.remote.http import retry_after
from stepsearch_data.search.api import Api, Exchange, RemoteConfig, RemoteSettings, Rps, ranked, rows, text_of
from stepsearch_data.search.engine import Answer
from stepsearch_data.search.kinds import Kind
from stepsearch_data.search.remote import opener

_MARKS = re.compile(r"</?(?:strong|b|em|i|mark|span|wbr|u|font|sup|sub)\b[^<>]*>", re.IGNORECASE)
_BREAKS = re.compile(r"</?(?:br|p|li|div)\b[^<>]*>", re.IGNORECASE)


class WebConfig(RemoteConfig):
    """What decides the answers of a web search."""

    country: str = Field(
        default="",
        pattern="^([A-Za-z]{2})?$",
        description="two-letter code of the country to search from; by default the API's own",
    )
    language: str = Field(default="", description="language of the searcher, such as en; by default the API's own")


class TavilyConfig(RemoteConfig):
    """What decides the answers of Tavily."""

    country: str = Field(default="", description="country whose pages come first (`united kingdom`); by default none")


def ask_serper(config: WebConfig, key: str, queries: Sequence[str], k: int) -> Exchange:
    """Make a request to Serper."""
    body = {"q": queries[0], "num": k, **_given(gl=config.country.lower(), hl=config.language)}
    return Exchange("POST", body, headers={"X-API-KEY": key})


def ask_brave(config: WebConfig, key: str, queries: Sequence[str], k: int) -> Exchange:
    """Make a request to Brave."""
    where = _given(country=config.country.upper(), search_lang=config.language)
    params = {"q": queries[0], "count": str(k), **where}
    return Exchange("GET", params=params, headers={"X-Subscription-Token": key, "Accept": "application/json"})


def ask_tavily(config: TavilyConfig, key: str, queries: Sequence[str], k: int) -> Exchange:
    """Make a request to Tavily."""
    body = {"query": queries[0], "max_results": k, **_given(country=config.country.lower())}
    return Exchange("POST", body, headers={"Authorization": f"Bearer {key}"})


def ask_serpapi(config: WebConfig, key: str, queries: Sequence[str], _k: int) -> Exchange:
    """Make a request to SerpApi, which takes the key as a parameter and always gives Google's first page."""
    params = {"engine": "google", "q": queries[0], **_given(gl=config.country.lower(), hl=config.language)}
    return Exchange("GET", params={**params, "api_key": key})


def read_serper(data: Any) -> list[Answer]:
    """Read what Serper found. Raises RowRejected."""
    return [_answer(rows(data, "organic"), "snippet", "link", known=_has(data, "organic", "searchParameters"))]


def read_brave(data: Any) -> list[Answer]:
    """Read what Brave found; `web` is null or absent where it found nothing. Raises RowRejected."""
    found = _has(data, "web") or (_has(data, "type") and data["type"] == "search")
    return [_answer(rows(data, "web", "results"), "description", "url", known=found)]


def read_tavily(data: Any) -> list[Answer]:
    """Read what Tavily found. Raises RowRejected."""
    return [_answer(rows(data, "results"), "content", "url", known=_has(data, "results"))]


def read_serpapi(data: Any) -> list[Answer]:
    """Read what SerpApi found; finding nothing is an `error` there, as failing is. Raises RowRejected."""
    error = text_of(data, "error") if isinstance(data, dict) else ""
    if error and "hasn't returned any results" not in error.replace("\u2019", "'"):
        return [Answer(error=f"the server says: {error[:300]}")]
    known = bool(error) or _has(data, "organic_results", "search_metadata")
    return [_answer(rows(data, "organic_results"), "snippet", "link", known=known)]


def cleaned(snippet: str) -> str:
    """Return a snippet as plain text: without the tags that mark words, entities decoded, white space collapsed."""
    return " ".join(html.unescape(_BREAKS.sub(" ", _MARKS.sub("", snippet))).split())


def renewal(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until Brave's used-up limits are renewed: one per second and, on old plans, one per month.

    `X-RateLimit-Limit: 1, 2000`, `-Remaining: 0, 118` and `-Reset: 1, 183945` say to wait for one second.
    """
    try:
        limits, left, resets = (
            [float(number) for number in headers[f"x-ratelimit-{name}"].split(",")]
            for name in ("limit", "remaining", "reset")
        )
    except (KeyError, ValueError):
        return retry_after(headers)
    used_up = [reset for limit, rest, reset in zip(limits, left, resets, strict=False) if limit > 0 >= rest]
    return max(used_up, default=min(resets, default=1.0))


def _answer(found: list[dict[str, Any]], text: str, url: str, *, known: bool) -> Answer:
    if not known:
        raise RowRejected("the server's JSON holds no search results")
    shown = [(cleaned(text_of(row, "title")), cleaned(text_of(row, text)), text_of(row, url)) for row in found]
    return Answer(ranked([(row.get("score"), *document) for row, document in zip(found, shown, strict=True)]))


def _has(data: Any, *names: str) -> bool:
    return isinstance(data, dict) and any(name in data for name in names)


def _given(**params: str) -> dict[str, str]:
    return {name: value for name, value in params.items() if value}


def _kind(name: str, doc: str, url: str, rps: float, api: Api[Answer], config: type[RemoteConfig] = WebConfig) -> Kind:
    """Declare an API by its address, and by the requests per second that a small plan allows."""
    settings = create_model(
        "WebSettings",
        __base__=RemoteSettings,
        url=(str, Field(default=url, description="where the API is")),
        rps=(Rps, Field(default=rps, description="requests per second at most; by default what a small plan allows")),
    )
    return Kind(name=name, doc=doc, config=config, settings=settings, open=opener(api), location="url")


SERPER = _kind(
    "serper",
    "Google by serper.dev",
    "https://google.serper.dev/search",
    5.0,
    Api(ask_serper, read_serper, key="SERPER_API_KEY", spent=r"^402:|not enough credits"),
)
BRAVE = _kind(
    "brave",
    "Brave's own index of the web",
    "https://api.search.brave.com/res/v1/web/search",
    1.0,
    # a wrong token is a 422, told from a wrong parameter by its code alone
    Api(
        ask_brave, read_brave, key="BRAVE_API_KEY", most=20, denied=r"^40[13]:|SUBSCRIPTION_TOKEN_INVALID", wait=renewal
    ),
)
TAVILY = _kind(
    "tavily",
    "Tavily, whose documents are summaries of pages",
    "https://api.tavily.com/search",
    1.6,
    Api(ask_tavily, read_tavily, key="TAVILY_API_KEY", most=20, spent=r"^(402|432|433):"),
    TavilyConfig,
)
SERPAPI = _kind(
    "serpapi",
    "Google by serpapi.com",
    "https://serpapi.com/search",
    1.0,
    Api(ask_serpapi, read_serpapi, key="SERPAPI_API_KEY", most=10, sized=False, spent=r"^402:|run out of searches"),
)
