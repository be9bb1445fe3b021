r"""Search-R1's `/retrieve`: what is asked, and how it is answered. SkyRL-Gym asks one `query` at a time.

    {"queries": ["…"], "topk": 3, "return_scores": true}
    {"query": "…", "topk": 3, "return_scores": true}
    {"result": [[{"document": {"id": "7", "contents": "\"Title\"\ntext"}, "score": 4.2}]]}

Without `topk` (or with null or 0) the server's default counts; without `return_scores` the documents stand alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple, TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, Field, ValidationError

from stepsearch_data.core.validation import in_words
from stepsearch_data.search.documents import Documents
from stepsearch_data.sources.passages import join_contents

LARGEST_BODY = 8 << 20  # bytes
_MOST_DOCUMENTS = 200_000  # per request, in all of its answers; about 200 MB of passages such as Wikipedia's

Body = TypeVar("Body", bound=BaseModel)
Query = Annotated[str, Field(max_length=100_000)]


class Question(NamedTuple):
    """What a request asks: at most `k` documents for each query, with or without their scores."""

    queries: list[str]
    k: int
    scores: bool


class RetrieveRequest(BaseModel, strict=True):
    """A request's body: `queries`, or one `query`. Fields of other names are ignored, as the original does."""

    queries: Annotated[list[Query], Field(max_length=10_000, fail_fast=True)] | None = None
    query: Query | None = None
    topk: Annotated[int, Field(ge=0, le=1_000)] | None = None
    return_scores: bool | None = None


def read_body(kind: type[Body], body: bytes) -> Body:
    """Read a request's body. Raises HTTPBadRequest, HTTPUnprocessableEntity."""
    try:
        return kind.model_validate(orjson.loads(body))
    except orjson.JSONDecodeError as error:
        raise web.HTTPBadRequest(text=f"the body is not valid JSON: {error}") from None
    except ValidationError as error:
        raise web.HTTPUnprocessableEntity(text=in_words(error)) from None


def read_question(body: bytes, default_k: int) -> Question:
    """Read the question in a request's body. Raises HTTPBadRequest, HTTPUnprocessableEntity."""
    asked = read_body(RetrieveRequest, body)
    if (asked.queries is None) == (asked.query is None):
        raise web.HTTPUnprocessableEntity(text='either "queries" (a list of texts) or "query" (one text) is needed')
    queries, k = [asked.query] if asked.query is not None else asked.queries or [], asked.topk or default_k
    if len(queries) * k > _MOST_DOCUMENTS:
        most = f"at most {_MOST_DOCUMENTS} documents are sent at once"
        raise web.HTTPUnprocessableEntity(text=f"{len(queries)} queries with {k} documents each; {most}")
    return Question(queries, k, bool(asked.return_scores))


def write_answer(documents: Documents, found: Sequence[tuple[int, float]], *, scores: bool) -> bytes:
    """Write the JSON of one query's documents, from their numbers and scores."""
    shown: list[Any] = []
    for number, score in found:
        identity, title, text = documents[number]
        document = {"id": identity, "contents": join_contents(title, text)}
        shown.append({"document": document, "score": score} if scores else document)
    return orjson.dumps(shown, option=orjson.OPT_SERIALIZE_NUMPY)


def write_answers(answers: Sequence[bytes]) -> bytes:
    """Write the JSON of a whole answer."""
    return b'{"result":[' + b",".join(answers) + b"]}"
