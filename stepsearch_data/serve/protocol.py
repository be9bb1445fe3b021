r"""Search-R1's `/retrieve`: what is asked, and how it is answered.

    {"queries": ["…"], "topk": 3, "return_scores": true}
    {"result": [[{"document": {"id": "7", "contents": "\"Title\"\ntext"}, "score": 4.2}]]}

Without `topk` (or with null or 0) the server's default counts; without `return_scores` the documents stand alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from stepsearch_data.search.corpus import join_contents
from stepsearch_data.search.documents import Documents

LARGEST_BODY = 8 << 20  # bytes
_MOST_QUERIES = 10_000  # a request
_LONGEST_QUERY = 100_000  # characters
_MOST_RANKS = 1_000
_MOST_DOCUMENTS = 200_000  # a request, in all of its answers; some 200 MB of passages as Wikipedia's


class BadRequestError(Exception):
    """A request that cannot be answered: why, and the status that says so."""

    def __init__(self, detail: str, status: int = 422) -> None:
        super().__init__(detail)
        self.status = status


class Question(NamedTuple):
    """What a request asks: at most `k` documents for each query, with or without their scores."""

    queries: list[str]
    k: int
    scores: bool


def read_question(body: bytes, default_k: int) -> Question:
    """The question in a request's body. Raises BadRequestError."""
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequestError(f"the body is no JSON: {error}", 400) from None
    if not isinstance(asked, dict):
        raise BadRequestError('the body is no JSON object with "queries"')
    queries, k, scores = asked.get("queries"), asked.get("topk"), asked.get("return_scores", False)
    if not isinstance(queries, list) or not all(isinstance(query, str) for query in queries):
        raise BadRequestError('"queries" is no list of texts')
    if k is not None and (type(k) is not int or not 0 <= k <= _MOST_RANKS):
        raise BadRequestError(f'"topk" is no whole number from 0 to {_MOST_RANKS}')
    if scores is not None and not isinstance(scores, bool):
        raise BadRequestError('"return_scores" is neither true nor false')
    question = Question(queries, k or default_k, bool(scores))
    _limit(question)
    return question


def _limit(question: Question) -> None:
    if len(question.queries) > _MOST_QUERIES:
        raise BadRequestError(f"{len(question.queries)} queries in one request; at most {_MOST_QUERIES} are answered")
    if any(len(query) > _LONGEST_QUERY for query in question.queries):
        raise BadRequestError(f"a query is longer than {_LONGEST_QUERY} characters")
    if len(question.queries) * question.k > _MOST_DOCUMENTS:
        raise BadRequestError(
            f"{len(question.queries)} queries with {question.k} documents each; at most {_MOST_DOCUMENTS} documents"
            " are sent at once"
        )


def write_answer(documents: Documents, found: Sequence[tuple[int, float]], *, scores: bool) -> bytes:
    """The JSON of one query's documents, from their numbers and scores."""
    shown: list[Any] = []
    for number, score in found:
        identity, title, text = documents[number]
        document = {"id": identity, "contents": join_contents(title, text)}
        shown.append({"document": document, "score": score} if scores else document)
    return orjson.dumps(shown, option=orjson.OPT_SERIALIZE_NUMPY)


def write_answers(answers: Sequence[bytes]) -> bytes:
    """The JSON of a whole answer."""
    return b'{"result":[' + b",".join(answers) + b"]}"


def write_error(detail: str) -> bytes:
    """The JSON of an answer that says what is wrong."""
    return orjson.dumps({"detail": detail})
