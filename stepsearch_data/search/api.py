"""The description of an API: how it is asked over HTTP, how its replies are read, and what its errors mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

from pydantic import Field

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.remote.http import retry_after
from stepsearch_data.search.engine import Found
from stepsearch_data.search.kinds import EngineConfig, EngineSettings

Rps = Annotated[float | None, Field(gt=0, le=1_000_000)]

T = TypeVar("T")


class RemoteConfig(EngineConfig):
    """What decides the answers of a remote engine."""

    revision: str = Field(
        default="", description="your name for what is searched, as it is now; a new name sends every query again"
    )


class RemoteSettings(EngineSettings):
    """How a remote engine is reached, and how fast. Nothing here changes an answer."""

    url: str = Field(default="", description="where the server is")
    timeout: float = Field(default=30.0, gt=0, le=86_400, description="seconds for one request")
    max_concurrency: int = Field(default=4, ge=1, le=10_000, description="requests in flight at most")
    rps: Rps = Field(default=None, description="requests per second at most; unlimited by default")
    max_attempts: int = Field(
        default=4,
        ge=1,
        le=1_000,
        description="times that a failing request is sent; a wait that the server asks for is not counted",
    )
    patience: float = Field(
        default=60.0,
        gt=0,
        le=1_000_000,
        description="seconds in which every request fails, after which the engine counts as down",
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
class Api(Generic[T]):
    """How an API is asked and its replies are read.

    `ask` gets the config, the key, texts and how many documents each may bring. `read` finds a result for each text in
    the JSON that comes back, and raises RowRejected when it is something else. `url` completes the one that the user
    gave in the setting `address`. `denied` and `spent` are patterns of `STATUS: message`, for a wrong key and for an
    account with nothing left to spend; `nowhere` says what a 404 means, and `wait` finds in headers how many seconds
    to wait.
    """

    ask: Callable[[Any, str, Sequence[str], int], Exchange]
    read: Callable[[Any], list[T]]
    url: Callable[[str], str] = str
    address: str = "url"
    key: str = ""  # the environment variable that holds the key
    batch: int = 1  # texts per request
    most: int = 100  # documents per query
    sized: bool = True  # whether a request says how many documents it wants
    denied: str = r"^40[13]:"
    spent: str = r"^402:"
    nowhere: str = "is not where the API is"
    wait: Callable[[Mapping[str, str]], float | None] = retry_after


def rows(data: Any, *path: str) -> list[dict[str, Any]]:
    """Return the objects of a list within JSON, without empty ones; none where it is null or absent.

    Raises RowRejected where it is something else.
    """
    for name in path:
        if not isinstance(data, dict):
            raise RowRejected(f"the server's JSON has no object around {'.'.join(path)!r}")
        data = data.get(name)
        if data is None:
            return []
    if not isinstance(data, list) or not all(isinstance(row, dict | None) for row in data):
        raise RowRejected(f"the server's JSON has no list of objects {'.'.join(path)!r}")
    return [row for row in data if row]


def ranked(documents: Sequence[tuple[Any, str, str, str]]) -> list[Found]:
    """Return documents, given best first as score, title, text and URL, without empty ones.

    Where one of them has no score, the score of each is 1 / rank.
    """
    shown = [document for document in documents if document[1] or document[2]]
    scored = all(isinstance(score, float | int) for score, *_ in shown)
    return [
        Found(None, float(score) if scored else 1 / rank, title, text, url)
        for rank, (score, title, text, url) in enumerate(shown, start=1)
    ]


def text_of(row: Mapping[str, Any], name: str) -> str:
    """Return a text of an object; an empty one where it is null or absent."""
    value = row.get(name)
    return value if isinstance(value, str) else ""
