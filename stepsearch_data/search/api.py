"""The description of a search API: how it is asked, how its answers are read, and what its errors mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import orjson
from pydantic import Field

from stepsearch_data.core.errors import SearchError
from stepsearch_data.remote.http import THROTTLED, Http, TransientError, may_pass, retry_after
from stepsearch_data.remote.secrets import find_key, show_url
from stepsearch_data.search.answers import Refused, parsed
from stepsearch_data.search.engine import Answer
from stepsearch_data.search.kinds import EngineConfig, EngineSettings

if TYPE_CHECKING:
    import httpx2

MOST_RPS = 1_000_000
RPS = "requests per second at most; by default what a small plan allows"
_NOWHERE = {404, 405}
_QUOTA = 3600.0  # seconds; a server that asks to wait longer means a quota, not a rate


class RemoteConfig(EngineConfig):
    """What decides the answers of a remote engine."""

    revision: str = Field(
        default="", description="your name for what is searched as it is now; a new one asks every query anew"
    )


class RemoteSettings(EngineSettings):
    """How a remote engine is reached, and how fast. Nothing here changes an answer."""

    url: str = Field(default="", description="where the server is")
    timeout: float = Field(default=30.0, gt=0, le=86_400, description="seconds for one request")
    max_concurrency: int = Field(default=4, ge=1, le=10_000, description="requests in flight at most")
    rps: float | None = Field(
        default=None, gt=0, le=MOST_RPS, description="requests per second at most; unlimited by default"
    )
    max_attempts: int = Field(
        default=4, ge=1, le=1_000, description="times that a failing request is sent; waiting as told is free"
    )
    patience: float = Field(
        default=60.0,
        gt=0,
        le=1_000_000,
        description="seconds of nothing but failures after which the engine counts as down",
    )
    max_requests: int | None = Field(
        default=None,
        ge=0,
        le=10**12,
        description="requests sent for this store, repeated ones too, before the build stops (exit 4)",
    )


class Exchange(NamedTuple):
    """What is sent: a JSON body where there is one, parameters and headers beside the usual."""

    method: str
    body: Any = None
    params: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}


@dataclass(frozen=True)
class Api:
    """How an API is asked and its replies are read.

    `ask` gets the config, the key, queries and how many documents each may bring; `read` finds an answer for each
    query in the JSON that comes back, best document first, and raises Refused when it is something else.
    `url` completes the one that the user gave. `denied` and `spent` are how `STATUS: message` begins, or what it holds,
    when the key is wrong and when nothing is left to spend; `wait` finds in headers how many seconds to wait.
    """

    ask: Callable[[Any, str, Sequence[str], int], Exchange]
    read: Callable[[Any], list[Answer]]
    url: Callable[[str], str] = str
    key: str = ""  # the environment variable that holds the key
    batch: int = 1  # queries per request
    most: int = 100  # documents per query
    sized: bool = True  # whether a request says how many documents it wants
    denied: str = r"^40[13]:"
    spent: str = r"^402:"
    wait: Callable[[Mapping[str, str]], float | None] = retry_after

    def find_key(self, engine: str) -> str:
        """Return the key that the environment holds. Raises SearchError, ConfigError."""
        key = find_key(self.key) if self.key else ""
        if self.key and not key:
            raise SearchError(f"{self.key} holds no key for the engine {engine}", f"set {self.key} to one")
        return key

    def find_url(self, engine: str, given: str) -> str:
        """Return the URL that requests go to. Raises SearchError."""
        if not given:
            raise SearchError(
                f"the engine {engine} needs the URL of its server", f"--set engines.{engine}.url=http://localhost:8000"
            )
        return self.url(given.rstrip("/"))

    def answers(self, body: bytes, queries: int) -> list[Answer]:
        """Read the answers to so many queries from a good response. Raises TransientError or Refused."""
        try:
            data = parsed(body)
        except (ValueError, RecursionError):
            data = None
        if data is None:
            raise TransientError(f"the server sent {'a web page' if is_page(body) else 'no JSON'}")
        answers = self.read(data)
        if len(answers) != queries:
            raise Refused(f"the server sent {len(answers)} lists of documents for {queries} queries")
        return answers

    def fail(self, response: httpx2.Response, http: Http, engine: str, url: str, *, one_query: bool) -> NoReturn:
        """Raise what a bad status means: TransientError, Refused, or SearchError where no query can be answered.

        A page in place of JSON that comes after good answers is about `one_query`: a firewall refused its words.
        """
        body, status = http.body(response), response.status_code
        page = is_page(body)
        said = f"{status}: {'a web page' if page else http.message(_detail(body))}"
        wait = self.wait(response.headers)
        if re.search(self.spent, said, re.IGNORECASE) or (status == THROTTLED and (wait or 0.0) > _QUOTA):
            renewed = f"; the server asks to wait {wait / 3600:,.1f} hours" if wait else ""
            raise SearchError(
                f"{engine}: nothing is left of the account's quota ({said}{renewed})",
                "buy more or wait, then run the same command: what was paid is kept; or leave the engine out",
            )
        if re.search(self.denied, said) and not (page and one_query):
            advice = f"set {self.key} to a valid key" if self.key else "choose a server that needs no key"
            raise SearchError(f"{show_url(url)} does not let us in ({said})", advice)
        if status in _NOWHERE and not (page and one_query):
            raise SearchError(f"{show_url(url)} is not where the API is ({said})", f"check engines.{engine}.url")
        if may_pass(response):
            raise TransientError(said, wait, throttled=status == THROTTLED)
        raise Refused(f"the server refuses the request ({said})")


def is_page(body: bytes) -> bool:
    """Tell whether something sent HTML instead of JSON: a proxy, or a firewall before the server."""
    return body.lstrip()[:1] == b"<"


def _detail(body: bytes) -> bytes:
    """Return what an error body says, where it wraps that in an object `detail`."""
    with suppress(orjson.JSONDecodeError):
        data = orjson.loads(body)
        if isinstance(data, dict) and isinstance(data.get("detail"), dict):
            return orjson.dumps(data["detail"])
    return body
