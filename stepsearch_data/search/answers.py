"""What comes back from a search API, told from everything else that a server may send."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from stepsearch_data.search.engine import Found


class Refused(Exception):
    """The server does not answer this request, however often it is sent; it may answer parts of it."""


def parsed(body: bytes) -> Any:
    """Parse the JSON of a body. Raises ValueError or RecursionError."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        if rb"\ud" not in body.lower():
            raise
    # a snippet that was cut within an emoji: valid JSON with a lone surrogate, which orjson refuses
    return orjson.loads(json.dumps(json.loads(body), ensure_ascii=False).encode("utf-8", "replace"))


def rows(data: Any, *path: str) -> list[dict[str, Any]]:
    """Return the objects of a list within JSON, without empty ones; none where it is null or absent. Raises Refused."""
    for name in path:
        if not isinstance(data, dict):
            raise Refused(f"the server's JSON has no object around {'.'.join(path)!r}")
        data = data.get(name)
        if data is None:
            return []
    if not isinstance(data, list) or not all(isinstance(row, dict | None) for row in data):
        raise Refused(f"the server's JSON has no list of objects {'.'.join(path)!r}")
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
