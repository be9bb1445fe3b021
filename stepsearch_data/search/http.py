r"""Search-R1's retrieval server, which StepSearch and verl speak too: many queries per request.

    POST /retrieve {"queries": ["who …", …], "topk": 3, "return_scores": true}
    → {"result": [[{"document": {"id": "7", "contents": "\"Title\"\ntext"}, "score": 0.8}, …], …]}

Other servers send `title` with `content` or `text` for `contents`, the document alone, or no score. `return_scores`
is always true, as the original breaks without it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.search.api import Api, Exchange, RemoteConfig, RemoteSettings, ranked, rows, text_of
from stepsearch_data.search.engine import Answer
from stepsearch_data.search.kinds import Kind
from stepsearch_data.search.remote import opener
from stepsearch_data.sources.passages import split_contents

_PATH = "/retrieve"
_FAILED = re.compile(r'"?search failed\b', re.IGNORECASE)


class HttpSettings(RemoteSettings):
    """How a retrieval server is reached, and how fast. Nothing here changes an answer."""

    url: str = Field(default="", description="the server, such as http://localhost:8000, with or without /retrieve")
    timeout: float = Field(default=120.0, gt=0, le=86_400, description="seconds for one request of 64 queries")


def ask(_config: RemoteConfig, _key: str, queries: Sequence[str], k: int) -> Exchange:
    """Make a request for a batch of queries."""
    return Exchange("POST", {"queries": list(queries), "topk": k, "return_scores": True})


def read(data: Any) -> list[Answer]:
    """Read an answer per list of the result. Scores are the server's own, and may be 0 or less. Raises RowRejected."""
    result = data.get("result") if isinstance(data, dict) else None
    if not isinstance(result, list):
        raise RowRejected("the server's JSON has no list 'result'")
    return [_answer(rows(found)) for found in result]


def _answer(found: list[dict[str, Any]]) -> Answer:
    documents = [(row.get("score"), *_document(row)) for row in found]
    if len(documents) == 1 and _is_made_up(*documents[0][1:3]):
        return Answer(error="the server says that its own search failed")
    return Answer(ranked(documents))


def _document(row: dict[str, Any]) -> tuple[str, str, str]:
    """Read title, text and URL in one of the dialects. Raises RowRejected."""
    document = row.get("document", row)
    if not isinstance(document, dict | None):
        raise RowRejected("the server sent a document that is not an object")
    document = document or {}
    contents, url = text_of(document, "contents"), text_of(document, "url")
    if contents:
        return *split_contents(contents), url
    return text_of(document, "title"), text_of(document, "content") or text_of(document, "text"), url


def _is_made_up(title: str, text: str) -> bool:
    """Tell whether this is what StepSearch's adapter of Serper makes up when Serper fails."""
    lines = [line for line in (title, *text.splitlines()) if line.strip()]
    return bool(lines) and all(_FAILED.match(line.strip()) for line in lines)


def _with_path(url: str) -> str:
    return url if url.endswith(_PATH) else url + _PATH


HTTP = Kind(
    name="http",
    doc="a retrieval server that speaks Search-R1's /retrieve",
    config=RemoteConfig,
    settings=HttpSettings,
    open=opener(Api(ask, read, _with_path, batch=64, most=10_000)),
    location="url",
    by_server=True,
)
